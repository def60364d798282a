"""The verb ``blend``: a point on the line from a model to what it was adapted to, or a look along all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import PIL.Image
from tyro.conf import Positional, arg

from closeup.cli.evaluate_forgetting import MeasureOptions
from closeup.cli.fields import Flag, Maybe
from closeup.cli.files import check_folder, save_picture
from closeup.cli.output import show, show_json, table
from closeup.data.atomic import write_json
from closeup.errors import InputError
from closeup.models import save_local_dir
from closeup.models.blend import blend, blend_card, check_alpha
from closeup.predict.forgetting_report import ForgettingReport
from closeup.recipes.runs import check_output, read_card, surroundings
from closeup.viz import draw_curves, draw_sheet

CURVE = "curve.png"
SWEEP = "sweep.json"


@dataclass(frozen=True)
class Options:
    """Mix the weights of a model with those of what it was adapted to (alpha of CLIPSelf, WiSE-FT).

    The weights are alpha times the adapted model's plus 1 - alpha times the base's: 0 is the base, 1 the adapted
    model. A sweep measures each alpha and draws what is gained on regions against what is forgotten of whole images.

        closeup blend tiny my-clip --alpha 0.7 --out my-blend
        closeup blend tiny my-clip --sweep 0,0.25,0.5,0.75,1 --limit 100 --out sweep
        closeup blend ViT-B-16/openai my-clip --sweep 0,0.5,1 --data coco-panoptic:/data/coco --out sweep --json
    """

    base: Positional[str]
    """The model that was adapted: a name, or a folder of a model."""

    adapted: Positional[str]
    """The adapted model."""

    out: Path
    """The folder of the blended model, or of the sweep's picture and json file."""

    alpha: Maybe[float] = None
    """The share of the adapted model, 0 to 1."""

    sweep: Maybe[str] = None
    """Shares to measure, separated by commas, instead of saving a model."""

    json: Flag = False
    """Print one json document."""

    measuring: Annotated[MeasureOptions, arg(name="")] = field(default_factory=MeasureOptions)


def run(options: Options) -> int:
    """Blend and save, or measure along the line."""
    if (options.alpha is None) == (options.sweep is None):
        raise InputError("Give either --alpha, to save one blend, or --sweep, to measure several.")
    check_folder(options.out.parent)
    return _save(options, options.alpha) if options.alpha is not None else _sweep(options, _alphas(options.sweep or ""))


def _save(options: Options, alpha: float) -> int:
    check_alpha(alpha)
    check_output(options.out)
    base, adapted = options.measuring.load(options.base), options.measuring.load(options.adapted)
    mixed = blend(base, adapted, alpha)
    history = read_card(Path(options.adapted))
    card = {"name": options.out.name, "blend": blend_card(base, adapted, alpha), **surroundings()}
    save_local_dir(mixed, options.out, {**card, "adapted": history} if history else card)
    if options.json:
        show_json({"model": options.out, "fingerprint": mixed.fingerprint, **card["blend"]})
    else:
        again = f"closeup evaluate forgetting --before {options.base} --after {options.out}"
        show(f"Written: {options.out}. Measure it: {again}")
    return 0


def _sweep(options: Options, alphas: list[float]) -> int:
    check_folder(options.out)
    reader = options.measuring.reader()
    base, adapted = options.measuring.load(options.base), options.measuring.load(options.adapted)
    start = options.measuring.measure(base, reader, "measuring the base")
    reports = []
    for alpha in alphas:
        mixed = blend(base, adapted, alpha)
        found = start if alpha == 0 else options.measuring.measure(mixed, reader, f"measuring alpha {alpha:g}")
        reports.append(ForgettingReport(start, found))
    document = {
        "base": {"name": base.name, "fingerprint": base.fingerprint},
        "adapted": {"name": adapted.name, "fingerprint": adapted.fingerprint},
        "data": options.measuring.data,
        "points": [{"alpha": alpha, **report.to_dict()} for alpha, report in zip(alphas, reports, strict=True)],
        **surroundings(),
    }
    picture = draw_sweep(alphas, reports)
    written = [options.out / SWEEP]
    write_json(options.out / SWEEP, document)
    if picture is not None:
        written.append(save_picture(picture, options.out / CURVE))
    if options.json:
        show_json({**document, "written": written})
        return 0
    summaries = [report.summary() for report in reports]
    names = [f"{word}: {name}" for word, found in summaries[0].items() for name in found]
    rows = [[f"{value:+.1f}" for found in summary.values() for value in found.values()] for summary in summaries]
    show(
        table(["alpha", *names], [[f"{alpha:g}", *row] for alpha, row in zip(alphas, rows, strict=True)]),
        f"Percentage points against {base.name}, on {options.measuring.data}.",
        *(f"Written: {path}" for path in written),
    )
    return 0


def draw_sweep(alphas: list[float], reports: list[ForgettingReport]) -> PIL.Image.Image | None:
    """Return gained against forgotten, a plot for each whole-image task and a curve for each kind of region.

    None where the data has regions alone, or none.
    """
    summaries = [report.summary() for report in reports]
    tasks, kinds = list(summaries[0]["forgotten"]), list(summaries[0]["gained"])
    if not tasks or not kinds:
        return None
    plots = [
        draw_curves(
            {kind: [(found["forgotten"][task], found["gained"][kind]) for found in summaries] for kind in kinds},
            [f"{alpha:g}" for alpha in alphas],
            x=f"forgotten: {task}, points",
            y="gained: dense top-1, points",
        )
        for task in tasks
    ]
    return draw_sheet(plots, [f"gained against forgotten, by alpha: {task}" for task in tasks], columns=len(plots))


def _alphas(text: str) -> list[float]:
    try:
        alphas = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--sweep {text!r}: write shares with commas between them, as in 0,0.25,0.5,0.75,1.") from None
    for alpha in alphas:
        check_alpha(alpha)
    return sorted(set(alphas))
