"""The option ``--matcher``: what compares regions with words in the place of the cosine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from closeup.cli.fields import Maybe
from closeup.match import Matcher, load_matcher
from closeup.models import Clip
from closeup.predict.matching import check_matcher, seen_by


@dataclass(frozen=True)
class MatcherOptions:
    """What compares regions with words."""

    matcher: Maybe[Path] = None
    """A trained matcher in the place of the cosine, on the CLIP that it was trained on: its folder, or an official
    checkpoint of FG-CLIP (.pt, for ViT-B-16/openai)."""

    def load(self, clip: Clip, how: str = "dense") -> Matcher | None:
        """Return the matcher, if one is named; as ``open_matcher``."""
        return open_matcher(self.matcher, clip, how)


def open_matcher(path: Path | None, clip: Clip, how: str = "dense") -> Matcher | None:
    """Load a matcher, if one is named, to where a CLIP is, for regions of an encoder.

    Raises:
        ModelError: there is none.
        InputError: it is not as wide as the CLIP, looks into another one, or learned from another region encoder.
    """
    if path is None:
        return None
    matcher = load_matcher(path, device=clip.device)
    check_matcher(matcher, clip)
    seen_by(matcher, clip, how)
    return matcher
