"""The verb ``panoptic``: the things and the stuff of photos, each thing by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from closeup.cli.choices import Apart, MaskEncoder
from closeup.cli.fields import Flag, Maybe, Photos
from closeup.cli.files import Tell, each_in_parts, find_photos, report
from closeup.cli.heads import OWN, looking_clip, open_mask_proposer
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.save import Format, Saver
from closeup.cli.words import WordOptions, read_words
from closeup.errors import InputError
from closeup.predict.panoptic import NOVEL_WEIGHT, THRESHOLD, WEIGHT, panoptic, thing_marks
from closeup.predict.panoptic_result import PanopticResult
from closeup.predict.words import as_bank


@dataclass(frozen=True)
class PanopticOptions:
    """What outlines, how CLIP looks at outlines, and how much each of the two is trusted."""

    head: Path
    """The folder of a trained mask proposer, as closeup train masks makes one."""

    how: MaskEncoder = "dense"
    """How CLIP looks at an outline: off the dense map, by a class token of its own, or cut out."""

    weight: float = WEIGHT
    """CLIP's share in the score of a word that the proposer learned, 0 to 1."""

    novel_weight: float = NOVEL_WEIGHT
    """CLIP's share in the score of any other word, 0 to 1."""

    threshold: float = THRESHOLD
    """The score that a segment must exceed."""

    apart: Apart = "components"
    """Whether parts of an outline that do not hang together are things of their own, or "whole" outlines are."""

    no_gaps: Flag = False
    """Leave alone what the proposer does not outline; else CLIP names it."""

    def settings(self, clip: ModelOptions) -> dict[str, Any]:
        """Return them as ``panoptic`` takes them."""
        mine = {name: getattr(self, name) for name in ("how", "weight", "novel_weight", "threshold", "apart")}
        return {**mine, "gaps": not self.no_gaps, "route": clip.route, "size": clip.size}


@dataclass(frozen=True)
class Options:
    """Cut photos into segments, one for each thing and one for each ground, and name them in your words.

    A trained proposer outlines, and says what it learned; a CLIP, the proposer's own unless --model is given, looks at
    each outline, and counts for more where a word is new to the proposer.

        closeup panoptic photo.jpg --words "dog, frisbee, grass, sky" --things "dog, frisbee" --head my-masks
        closeup panoptic photos/ --words words.txt --things things.txt --head my-masks --format png coco --json
    """

    photos: Photos
    """Photos: files, folders, globs."""

    text: Annotated[WordOptions, arg(name="")]

    outlines: Annotated[PanopticOptions, arg(name="")]

    things: Maybe[str] = None
    """Those of the words that are things, to be told apart: names separated by commas, or a file of names. All others
    are stuff; all are things unless given."""

    out: Path = Path("out")
    """A folder to write into, or the picture of a single photo."""

    format: tuple[Format, ...] = ("png",)
    """What to write: pictures, arrays, one COCO file of all photos."""

    json: Flag = False
    """Print one json document instead of tables."""

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=lambda: ModelOptions(model=OWN))


def run(options: Options) -> int:
    """Segment every photo."""
    options.clip.check()
    photos, failures = find_photos(options.photos)
    saver = Saver(options.out, options.format, photos)
    vocabulary, templates = options.text.vocabulary(), options.text.template_set()
    things = None if options.things is None else _things(options.things)
    thing_marks(vocabulary, things)  # before anything is loaded
    proposer = open_mask_proposer(options.outlines.head, options.clip)
    clip = looking_clip(proposer, options.clip)
    bank = as_bank(clip, vocabulary, templates)

    settings = options.outlines.settings(options.clip)

    def work(photo: Path, tell: Tell) -> dict[str, Any]:
        result = panoptic(clip, proposer, photo, bank, things=things, on_progress=tell, **settings)
        saver.save(photo, result)
        return _describe(photo, result)

    done, bad = each_in_parts(photos, work, "segmenting", "parts")
    failures += bad
    saver.finish()
    told = [told for _, told in done]
    if options.json:
        failed = [{"photo": failure.name, "reason": failure.reason} for failure in failures]
        show_json({"model": clip.name, "words": bank.names, "photos": told, "failed": failed, "written": saver.written})
    else:
        for photo in told:
            rows = [(row["word"], row["kind"], f"{row['share']:.1%}", row["score"]) for row in photo["segments"]]
            show(str(photo["photo"]), table(["word", "kind", "share", "score"], rows), "")
        show(*(f"Written: {path}" for path in saver.written))
    return report(failures, len(done))


def _describe(photo: Path, result: PanopticResult) -> dict[str, Any]:
    rows = zip(result.words, result.labels.tolist(), result.scores.tolist(), result.masks, strict=True)
    segments: list[dict[str, Any]] = [
        {
            "word": word,
            "kind": "thing" if result.things[label] else "stuff",
            "share": float(mask.float().mean()),
            "score": score,
        }
        for word, label, score, mask in rows
    ]
    return {"photo": photo, "size": result.size, "segments": sorted(segments, key=lambda row: -row["share"])}


def _things(text: str) -> tuple[str, ...]:
    """Return the words that ``--things`` names or lists; InputError where there are none."""
    try:
        return read_words(text).names
    except InputError as error:
        raise InputError(str(error).replace("--words", "--things")) from error
