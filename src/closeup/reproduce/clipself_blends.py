"""What mixing weights does: from the raw model to an adapted one, gained on regions against forgotten of wholes."""

from __future__ import annotations

from collections.abc import Mapping

from closeup.reproduce.clipself_paper import BOXES
from closeup.reproduce.clipself_tables import KEPT_ROW, PROPOSALS_ROW, RAW_ROW, RETRIEVED, WHOLE, whole_rows
from closeup.reproduce.measure import Measurements, between, top
from closeup.reproduce.result import Row
from closeup.reproduce.run import Pictures
from closeup.viz import draw_curves

ADAPTED = (PROPOSALS_ROW, KEPT_ROW)


def blends(measured: Measurements, models: Mapping[str, str]) -> tuple[list[Row], list[str]]:
    """Return regions and whole images at each share of two adapted models: with and without whole images kept.

    The line between two models is WiSE-FT's (arXiv 2109.01903), which CLIPSelf's released weights lie on.
    """
    scale, rows = measured.scale, []
    for name in ADAPTED:
        for alpha in scale.alphas:
            model = between(models[RAW_ROW], models[name], alpha)
            report = measured.dense(model, scale.size, scale.trend_scenes)
            whole = measured.whole(model, scale.curve_close_ups)
            label = f"{name}, alpha {alpha:g}"
            rows += [Row(label, BOXES, (top(report, "dense", "boxes", "things"),)), *whole_rows(label, whole)]
    return rows, [_finding(name, rows) for name in ADAPTED]


def blends_curve(measured: Measurements, _: Mapping[str, str], rows: list[Row]) -> Pictures:
    """Draw accuracy on boxes against that on whole images, a curve per adapted model and a point per alpha."""
    points = {name: list(zip(_column(name, WHOLE, rows), _column(name, BOXES, rows), strict=True)) for name in ADAPTED}
    plot = draw_curves(
        points,
        [f"{alpha:g}" for alpha in measured.scale.alphas],
        x="whole images: zero-shot accuracy, %",
        y="regions: boxes top-1, %",
    )
    return {"blends": (plot, "Regions against whole images, by the share of the adapted model in the weights.")}


def _column(name: str, metric: str, rows: list[Row]) -> list[float]:
    return [row.mean for row in rows if row.name.startswith(f"{name}, alpha ") and row.metric == metric]


def _finding(name: str, rows: list[Row]) -> str:
    """Say what the best blend that keeps whole images to a point gains on boxes, against the adapted model itself."""
    boxes, whole, retrieved = (_column(name, metric, rows) for metric in (BOXES, WHOLE, RETRIEVED))
    labels = [row.name.rpartition(" ")[2] for row in rows if row.name.startswith(f"{name}, ") and row.metric == BOXES]
    keeps = [
        place for place in range(len(boxes)) if min(whole[place] - whole[0], retrieved[place] - retrieved[0]) >= -1
    ]
    best = max(keeps, key=lambda place: boxes[place])
    return (
        f"{name}: of the blends that lose at most a point of whole images, alpha {labels[best]} is best on boxes, "
        f"{boxes[best] - boxes[0]:+.1f} points against {boxes[-1] - boxes[0]:+.1f} of the adapted model."
    )
