"""Pictures beside the tables of fine-grained matching: detail against retrieval, and twins told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import PIL.Image
import torch

from closeup.data.record import Record
from closeup.data.world.lexicon import GROUNDS, SHAPES
from closeup.data.world.twins import Twins
from closeup.match.matcher import Matcher
from closeup.models.load import load
from closeup.predict.results import SegmentationResult
from closeup.predict.segment import segment
from closeup.reproduce.finegrained_paper import COSINE_ROW
from closeup.reproduce.finegrained_tables import ADAPTED, HARD_RANK, KEPT, MATCHER_ROW
from closeup.reproduce.result import Row
from closeup.viz import draw_curves
from closeup.viz.sheet import draw_sheet

SIDE = 192
SHOWN = 4


def kept_curve(
    rows: Sequence[Row], mixed: Sequence[str], kept: Sequence[str], shares: Sequence[str], keeps: Sequence[str]
) -> PIL.Image.Image:
    """Return mean rank on Hard against R@1: mixtures by the share of the MLP, kept matchers by the weight."""
    means = {(row.name, row.metric): row.mean for row in rows}
    curves = {
        "mixtures of cosine and MLP, by the MLP's share": mixed,
        "from the cosine on, by the weight of its rankings": kept,
    }
    points = {told: [(means[name, KEPT], means[name, HARD_RANK]) for name in names] for told, names in curves.items()}
    labels = [f"{share} | {keep}" for share, keep in zip(shares, keeps, strict=True)]
    return draw_curves(points, labels, x="whole scenes: R@1, %", y="mean rank on Hard")


@dataclass(frozen=True, slots=True)
class Segmented:
    """Pairs of twins that were segmented, each by the cosine and by a matcher, and a sheet of a few of them."""

    pairs: int
    told: Mapping[str, int]
    """Pairs that were told apart."""
    grounds: Mapping[str, float]
    """The share of pixels of grounds that are called by their own name, 0 to 1."""
    sheet: PIL.Image.Image

    def findings(self) -> list[str]:
        """Return what follows, in sentences."""
        apart = ", ".join(f"{name} {count}" for name, count in self.told.items())
        grounds = ", ".join(f"{name} {share:.0%}" for name, share in self.grounds.items())
        return [
            f"Of {self.pairs} pairs that differ in pattern, segmented on the dense map of {ADAPTED} in their words and "
            f"those of all grounds, most pixels of each have its own word and not its twin's: {apart}.",
            f"Pixels of grounds, which the matcher learned nothing of, called by their own name: {grounds}.",
        ]


def segment_twins(matcher: Matcher, pairs: int) -> Segmented:
    """Segment twins by the cosine and by a matcher; the sheet shows the first that the cosine does not tell apart."""
    clip, reader = load(ADAPTED), Twins("pattern", count=pairs, side=SIDE)
    told, right = dict.fromkeys((COSINE_ROW, MATCHER_ROW), 0), dict.fromkeys((COSINE_ROW, MATCHER_ROW), 0.0)
    pictures: list[PIL.Image.Image] = []
    titles: list[str] = []
    for index in range(pairs):
        record = reader[index]
        words = [*(each.right for each in record.descriptions), *GROUNDS]
        seen = {
            name: segment(clip, record.image, words, size=SIDE, matcher=each)
            for name, each in ((COSINE_ROW, None), (MATCHER_ROW, matcher))
        }
        apart = {name: told_apart(record, result) for name, result in seen.items()}
        for name, result in seen.items():
            told[name] += apart[name]
            right[name] += _right_grounds(record, result) / pairs
        if not apart[COSINE_ROW] and len(pictures) < 3 * SHOWN:
            pictures += [record.load(), *(result.picture() for result in seen.values())]
            titles += [" and ".join(words[:2]), *seen]
    if not pictures:
        pictures, titles = [reader[0].load()], ["all were told apart"]
    return Segmented(pairs, told, right, draw_sheet(pictures, titles, columns=3))


def told_apart(record: Record, result: SegmentationResult) -> bool:
    """Return whether most pixels of each thing, of those that are called by either name, have its own."""
    if record.masks is None:
        return False
    counts = torch.stack(
        [torch.stack([(result.label_map[mask] == word).sum() for word in range(2)]) for mask in record.masks]
    )
    return bool(counts[0, 0] > counts[0, 1]) and bool(counts[1, 1] > counts[1, 0])


def _right_grounds(record: Record, result: SegmentationResult) -> float:
    if record.label_map is None or record.masks is None:
        return 0.0
    ground = ~record.masks.any(dim=0)
    # Twins' words come first, then the grounds in the order in which they follow the shapes in the world's names.
    called = result.label_map - 2 + len(SHAPES)
    return float((called == record.label_map)[ground].float().mean())
