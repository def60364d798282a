"""The verb ``segment``: a word for every pixel."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from closeup.cli.choices import Upsample
from closeup.cli.fields import Flag, Maybe, Photos
from closeup.cli.files import Tell, each_in_parts, find_photos, report
from closeup.cli.method import MethodOptions
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.save import Format, Saver
from closeup.cli.words import MaybeWordOptions
from closeup.errors import InputError
from closeup.predict import SegmentationResult
from closeup.predict.banks import bank_for
from closeup.predict.segment import segment_by


@dataclass(frozen=True)
class Options:
    """Colour every pixel of photos in your words.

    Every pixel gets the word that its place in the photo is most like. Nothing is trained for it, unless --method names
    a way with a trained part: masks that a proposer outlines and a CLIP names (OVSeg), CAT-Seg, or a DenseCLIP, which
    knows the words that it learned and no others.

        closeup segment photo.jpg --words "dog, grass, red frisbee"
        closeup segment photo.jpg --words words.txt --method ovseg --masks my-masks --model my-mask-clip
        closeup segment photo.jpg --words words.txt --method ovseg --masks hf:facebook/sam-vit-base
        closeup segment photos/ --words ade20k-150 --method catseg --head my-catseg --windows
        closeup segment photos/ --words words.txt --out out/ --format png coco
        closeup segment photos/ --method denseclip --head my-streets --scales 0.5 1 1.5 --mirrored
        closeup segment "photos/*.jpg" --words words.txt --window 224 --size 672 --background 0.3
    """

    photos: Photos
    """Photos: files, folders, globs."""

    text: Annotated[MaybeWordOptions, arg(name="")] = field(default_factory=MaybeWordOptions)

    out: Path = Path("out")
    """A folder to write into, or the picture of a single photo."""

    format: tuple[Format, ...] = ("png",)
    """What to write: pictures with a legend, arrays, one COCO file of all photos."""

    background: Maybe[str] = None
    """A probability from 0 to 1 below which a pixel is background, or a word that stands for it."""

    upsample: Upsample = "bilinear"
    """How scores go from the cells of the dense map to pixels."""

    json: Flag = False
    """Print one json document instead of tables."""

    how: Annotated[MethodOptions, arg(name="")] = field(default_factory=MethodOptions)

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)


def run(options: Options) -> int:
    """Segment every photo."""
    options.how.check(options.clip)
    if options.text.words is None and not options.how.closed:
        raise InputError(
            '--words is missing: name what there may be, as in --words "dog, grass", or give a file of names. Of all '
            "methods denseclip alone has words of its own. More: closeup segment --help."
        )
    background = read_background(options.background)
    photos, failures = find_photos(options.photos)
    saver = Saver(options.out, options.format, photos)
    vocabulary, templates = options.text.vocabulary(), options.text.template_set()
    scorer = options.how.load(options.clip)
    bank = bank_for(scorer, vocabulary, templates, background=background)

    def work(photo: Path, tell: Tell) -> dict[str, Any]:
        result = segment_by(scorer, photo, bank, background=background, upsample=options.upsample, on_progress=tell)
        saver.save(photo, result)
        return _describe(photo, result)

    done, bad = each_in_parts(photos, work, "segmenting", "masks" if options.how.method == "ovseg" else "parts")
    failures += bad
    saver.finish()
    told = [told for _, told in done]
    if options.json:
        failed = [{"photo": failure.name, "reason": failure.reason} for failure in failures]
        show_json(
            {"model": scorer.clip.name, "words": bank.names, "photos": told, "failed": failed, "written": saver.written}
        )
    else:
        for photo in told:
            rows = [(row["word"], f"{row['share']:.1%}", row["score"]) for row in photo["words"]]
            show(str(photo["photo"]), table(["word", "share", "mean score"], rows), "")
        show(*(f"Written: {path}" for path in saver.written))
    return report(failures, len(done))


def read_background(text: str | None) -> float | str | None:
    """Return a threshold where the text is a number, else the word; InputError for a number outside 0 to 1."""
    if text is None:
        return None
    try:
        threshold = float(text)
    except ValueError:
        return text
    if not 0 <= threshold <= 1:
        raise InputError(f"--background {text}: give a probability from 0 to 1, or a word.")
    return threshold


def _describe(photo: Path, result: SegmentationResult) -> dict[str, Any]:
    words = []
    for name in result.present:
        mask = result.mask(name)
        share, score = float(mask.float().mean()), float(result.scores[mask].mean())
        words.append({"word": name, "share": share, "score": score})
    return {"photo": photo, "size": result.size, "words": sorted(words, key=lambda row: -row["share"])}
