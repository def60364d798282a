"""A matcher in the place of the cosine: whether it fits a CLIP, how it is fed, and what a result tells of it."""

from __future__ import annotations

from closeup.errors import InputError
from closeup.match import Matcher
from closeup.match.matcher import SEEING
from closeup.models.clip import Clip
from closeup.models.levels import with_levels
from closeup.regions import FG_CLIP, CropPolicy


def check_matcher(matcher: Matcher | None, clip: Clip) -> None:
    """Raise InputError where a matcher compares embeddings of another width, or learned from another text tower.

    The image tower may be another one, as CLIPSelf adapts it, but for a matcher that looks inside. What official
    matchers learned from is not known.
    """
    # A view with details will do for a matcher that looks inside, which chooses its own.
    width = clip.dim if matcher is None or matcher.seen is None else clip.joint_dim
    if matcher is not None and matcher.dim not in (None, width):
        raise InputError(
            f"The matcher {matcher.name!r} compares embeddings of {matcher.dim} dimensions, and those of "
            f"{clip.name!r} have {width}. Give the CLIP that it was trained on."
        )
    if matcher is not None and matcher.texts not in (None, clip.text_fingerprint):
        raise InputError(
            f"The matcher {matcher.name!r} learned from the text tower {matcher.texts[:12]}, and that of {clip.name!r} "
            f"is {clip.text_fingerprint[:12]}. Give the CLIP that it was trained on, or one adapted from it."
        )
    if matcher is not None and matcher.seen is not None and matcher.seen.images not in (None, clip.fingerprint):
        raise InputError(
            f"The matcher {matcher.name!r} looks into the model {str(matcher.seen.images)[:12]}, and {clip.name!r} is "
            f"{clip.fingerprint[:12]}, which is another one inside. Give the CLIP that it was trained on."
        )


def seen_by(matcher: Matcher | None, clip: Clip, how: str) -> Clip:
    """Return the CLIP as a matcher sees regions: with details of its levels, if that is what the matcher learned from.

    Raises:
        InputError: the matcher learned what regions of another encoder are like inside.
    """
    if matcher is not None and matcher.seen is not None and how != matcher.seen.how:
        other = f"train a matcher with --how {how}" if how in SEEING else "take a matcher without --levels"
        raise InputError(
            f"The matcher {matcher.name!r} learned what regions are like inside by the encoder {matcher.seen.how!r}, "
            f"and here they come by {how!r}. Use it with --how {matcher.seen.how}, where there is one, or {other}."
        )
    return whole_seen_by(matcher, clip)


def looked_at(matcher: Matcher | None) -> tuple[int, ...]:
    """Return the levels that a matcher looks at besides embeddings; none, mostly."""
    return () if matcher is None or matcher.seen is None else matcher.seen.levels


def whole_seen_by(matcher: Matcher | None, clip: Clip) -> Clip:
    """Return the CLIP as a matcher sees whole pictures, whatever encoder its regions come by."""
    return with_levels(clip, looked_at(matcher))


def crop_of(matcher: Matcher | None, how: str, given: CropPolicy | None) -> CropPolicy | None:
    """Return how regions are cut out: as is said, else for a matcher as FG-CLIP does, else as is usual (None).

    So matchers learn them, though some enlarged (``FineGrainedConfig.enlarge``), which must be said.
    """
    return FG_CLIP if given is None and matcher is not None and how == "crop" else given


def wants_unit(matcher: Matcher | None) -> bool:
    """Return whether embeddings are to be L2-normalised: for the cosine, and for all but matchers of raw ones."""
    return matcher is None or matcher.inputs == "unit"


def scale_of(matcher: Matcher | None, clip: Clip) -> float:
    """Return what raw scores are multiplied by before the softmax: the matcher's own scale, else CLIP's for cosines.

    A sigmoid rises a quarter as fast as the cosine below it, and is multiplied by four times as much.
    """
    if matcher is None:
        return clip.logit_scale
    return clip.logit_scale / matcher.slope if matcher.scale is None else matcher.scale


def told_of(matcher: Matcher | None) -> dict[str, str]:
    """Return the settings by which a result tells its matcher; none for the cosine."""
    return {} if matcher is None else {"matcher": matcher.name, "matcher_fingerprint": matcher.fingerprint}
