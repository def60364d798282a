"""Pictures beside the tables of fine-grained matching: detail against retrieval, and twins told apart."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
import torch

from closeup.data.record import Record
from closeup.data.world.lexicon import GROUNDS
from closeup.data.world.twins import Twins
from closeup.match.matcher import Matcher
from closeup.models.load import load
from closeup.predict.results import SegmentationResult
from closeup.predict.segment import segment
from closeup.reproduce.finegrained_tables import ADAPTED, HARD_RANK, KEPT
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


def told_apart_sheet(matcher: Matcher, *, looked: int = 40) -> PIL.Image.Image:
    """Return the first twins that the cosine calls by one name, and what the matcher calls them: a row a pair.

    Segmented on the dense map of an adapted model in the words of both and of all grounds.
    """
    clip, reader = load(ADAPTED), Twins("pattern", count=looked, side=SIDE)
    pictures: list[PIL.Image.Image] = []
    titles: list[str] = []
    for index in range(looked):
        record = reader[index]
        words = [*(each.right for each in record.descriptions), *GROUNDS]
        before = segment(clip, record.image, words, size=SIDE)
        if told_apart(record, before):
            continue
        after = segment(clip, record.image, words, size=SIDE, matcher=matcher)
        pictures += [record.load(), before.picture(), after.picture()]
        titles += [" and ".join(words[:2]), "cosine", "matcher"]
        if len(pictures) == 3 * SHOWN:
            break
    return draw_sheet(pictures or [record.load()], titles or ["all were told apart"], columns=3)


def told_apart(record: Record, result: SegmentationResult) -> bool:
    """Return whether most pixels of each thing, of those that are called by either name, have its own."""
    if record.masks is None:
        return False
    counts = torch.stack(
        [torch.stack([(result.label_map[mask] == word).sum() for word in range(2)]) for mask in record.masks]
    )
    return bool(counts[0, 0] > counts[0, 1]) and bool(counts[1, 1] > counts[1, 0])
