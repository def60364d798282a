"""A few small labelled pictures for the tests of distillation."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from closeup.data.record import Record
from tiny_clips import picture

SIZES = ((40, 64), (64, 64), (90, 33))


@dataclass(frozen=True)
class Pictures:
    """A reader of smooth noise of three shapes, with three boxes and masks each if ``labelled``."""

    count: int = 4
    labelled: bool = True
    names: tuple[str, ...] = ()
    things: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self.count:
            raise IndexError(index)
        height, width = SIZES[index % 3]
        image = picture(height, width, index).numpy()
        if not self.labelled:
            return Record(f"{index}", image, None)
        boxes = torch.tensor([[0, 0, 20, 30], [5, 12, 30, 40], [8, 8, 31, 21]]).float()
        rows, cols = torch.arange(height)[:, None], torch.arange(width)
        masks = [(rows + cols) % 7 < 3, (rows - 20) ** 2 + (cols - 15) ** 2 < 90, (rows > 9) & (cols < 12)]
        return Record(f"{index}", image, (height, width), boxes=boxes, masks=torch.stack(masks))
