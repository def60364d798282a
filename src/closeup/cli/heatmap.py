"""The verb ``heatmap``: where in a photo a phrase is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from closeup.cli.choices import Contrast
from closeup.cli.fields import Flag, Maybe, Photos
from closeup.cli.files import each, find_photos, report
from closeup.cli.matcher import MatcherOptions
from closeup.cli.model import ModelOptions
from closeup.cli.output import show, show_json, table
from closeup.cli.save import Saver
from closeup.cli.words import read_templates, read_words
from closeup.errors import InputError
from closeup.predict import HeatmapResult, clusters, heatmap
from closeup.predict.words import as_bank


@dataclass(frozen=True)
class Options:
    """Show where in a photo a phrase is.

    Every place of the photo is compared with the phrase; several phrases, separated by commas, share one scale.

        closeup heatmap "a red star" photo.jpg --out heat.png
        closeup heatmap "a dog, grass" photos/ --contrast others --out out/
        closeup heatmap "a dog" photo.jpg --kmeans 8
    """

    phrase: Positional[str]
    """What to look for: a phrase, several separated by commas, or a file of them."""

    photos: Photos
    """Photos: files, folders, globs."""

    out: Path = Path("out")
    """A folder to write into, or the picture of a single photo."""

    format: tuple[Literal["png", "npz"], ...] = ("png",)
    """What to write: pictures, arrays."""

    contrast: Contrast = "none"
    """What is taken off the scores, which lie close together: nothing, the other phrases' mean, an empty prompt's."""

    templates: str = "name"
    """The sentences around a phrase: "name" is the phrase alone; a set such as "simple", or a file of sentences."""

    kmeans: Maybe[int] = None
    """Also draw this many clusters of the dense map, which shows what the model holds to be alike."""

    json: Flag = False
    """Print one json document instead of tables."""

    by: Annotated[MatcherOptions, arg(name="")] = field(default_factory=MatcherOptions)

    clip: Annotated[ModelOptions, arg(name="")] = field(default_factory=ModelOptions)


def run(options: Options) -> int:
    """Draw the heat map of every photo."""
    options.clip.check()
    if options.kmeans is not None and options.kmeans < 1:
        raise InputError(f"--kmeans {options.kmeans}: give at least one cluster.")
    vocabulary, templates = read_words(options.phrase), read_templates(options.templates)
    photos, failures = find_photos(options.photos)
    saver = Saver(options.out, options.format, photos)
    clip = options.clip.load()
    matcher = options.by.load(clip)
    bank = as_bank(clip, vocabulary, templates, matcher)

    def work(photo: Path) -> dict[str, Any]:
        result = heatmap(
            clip,
            photo,
            bank,
            contrast=options.contrast,
            route=options.clip.route,
            size=options.clip.size,
            matcher=matcher,
        )
        saver.save(photo, result)
        if options.kmeans is not None:
            titles = {f"dense map, route {options.clip.route}": clip}
            sheet = clusters(titles, photo, options.kmeans, size=options.clip.size, route=options.clip.route)
            saver.save_beside(photo, sheet, "kmeans")
        return _describe(photo, result)

    done, bad = each(photos, work, "looking")
    failures += bad
    told = [told for _, told in done]
    if options.json:
        failed = [{"photo": failure.name, "reason": failure.reason} for failure in failures]
        show_json({"model": clip.name, "photos": told, "failed": failed, "written": saver.written})
    else:
        rows = [(photo["photo"], *row.values()) for photo in told for row in photo["phrases"]]
        columns = ["photo", "phrase", "highest", "at x, y", "mean"]
        show(table(columns, rows), *(f"Written: {path}" for path in saver.written))
    return report(failures, len(done))


def _describe(photo: Path, result: HeatmapResult) -> dict[str, Any]:
    height, width = result.size
    _, rows, cols = result.cells.shape
    phrases = []
    for name, plane in zip(result.names, result.cells, strict=True):
        row, col = divmod(int(plane.argmax()), cols)
        # The middle of the best cell, in pixels of the original.
        place = [round((col + 0.5) * width / cols), round((row + 0.5) * height / rows)]
        phrases.append({"phrase": name, "highest": float(plane.max()), "at": place, "mean": float(plane.mean())})
    return {"photo": photo, "size": result.size, "phrases": phrases}
