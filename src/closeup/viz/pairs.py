"""A contact sheet of mask-noun pairs."""

from __future__ import annotations

import numpy as np
import PIL.Image

from closeup.data.pairs import PairFolder
from closeup.data.record import Record
from closeup.viz.sheet import draw_sheet

CELL = 160
"""Longest side of a pair on the sheet, in pixels."""


def pair_sheet(pairs: PairFolder, cells: int = 36) -> PIL.Image.Image:
    """Return a picture of some pairs, drawn at random but always the same: what a mask leaves out is pale."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(pairs))[:cells]).tolist()
    records = [pairs[index] for index in chosen]
    nouns = [pairs.names[label] for record in records if record.labels is not None for label in record.labels.tolist()]
    return draw_sheet([_faded(record) for record in records], nouns)


def _faded(record: Record) -> PIL.Image.Image:
    picture = record.load()
    if record.masks is not None:
        pale = PIL.Image.blend(picture, PIL.Image.new("RGB", picture.size, "white"), 0.8)
        picture = PIL.Image.composite(picture, pale, PIL.Image.fromarray(record.masks[0].numpy()))
    factor = CELL / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
