"""The embedded world as a reader: endless seeded scenes with exact truth."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import PIL.Image
import torch

from closeup._types import IGNORE
from closeup.data.record import Record
from closeup.data.world.captions import scene_caption
from closeup.data.world.lexicon import NAMES, NOVEL, SHAPES, THINGS
from closeup.data.world.render import Rendering, render
from closeup.data.world.scene import Scene, Thing, sample_scene
from closeup.errors import InputError, suggest
from closeup.geometry import masks_to_boxes

Marked: TypeAlias = Literal["all", "base"]
"""Which shapes an annotator has marked."""

SPLITS = {"train": 0, "val": 1, "test": 2}
"""Every split draws from its own seeds, so that no picture is in two of them."""

_LEAST_VISIBLE = 24
"""A thing of fewer visible pixels is left out of the truth, as no annotator would have marked it."""


_CAPTIONS = 5


class World:
    """Reads scene number ``i`` of a split as a record: image, boxes, masks, labels, label map, captions, attributes.

    Regions are the visible things from back to front and then the grounds, each once; labels index
    ``names``. ``size`` is (height, width) in pixels. Scene ``i`` depends on the split, the seed, the
    size and ``i`` alone. With ``shapes="base"`` nobody has marked the novel shapes: they are seen and spoken of, but
    are no regions, and the label map ignores them.
    """

    names = NAMES
    things = THINGS
    novel = NOVEL

    def __init__(
        self,
        split: str = "val",
        *,
        count: int = 500,
        size: tuple[int, int] = (256, 256),
        seed: int = 0,
        shapes: Marked = "all",
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"Unknown split {split!r} of the world. {suggest(split, SPLITS)}")
        if count < 1:
            raise InputError(f"`count` must be at least 1 scene, but got {count}.")
        if min(size) < 32:
            raise InputError(f"`size` must be at least 32 by 32 pixels, but got {size[0]} by {size[1]}.")
        if seed < 0:
            raise InputError(f"`seed` must be 0 or more, but got {seed}.")
        self.split = split
        self.size = size
        self.seed = seed
        self._count = count
        self._marked = frozenset(SHAPES) if shapes == "all" else frozenset(SHAPES) - frozenset(NOVEL)

    def __len__(self) -> int:
        return self._count

    def scene(self, index: int) -> Scene:
        """Return what scene number ``index`` shows."""
        return sample_scene(self.rng(index), size=self.size)

    def __getitem__(self, index: int) -> Record:
        return self.with_things(index)[0]

    def with_things(self, index: int) -> tuple[Record, tuple[Thing, ...]]:
        """Return a record and the things that its first regions show."""
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of a world of {self._count}")
        scene = self.scene(index)
        drawn = render(scene, self.size)
        visible = [i for i, mask in enumerate(drawn.masks) if mask.sum() >= _LEAST_VISIBLE]
        marked = [i for i in visible if scene.things[i].shape in self._marked]
        name = f"{self.split}-{self.seed}-{index:06d}"
        record = _record(name, scene, drawn, visible, marked, self.rng(index, 1))
        return record, tuple(scene.things[i] for i in marked)

    def rng(self, index: int, stream: int = 0) -> np.random.Generator:
        """Return one of the random streams of a scene: 0 draws it, 1 writes its captions, others are free."""
        return np.random.default_rng([self.seed, SPLITS[self.split], index, stream])


def _record(
    name: str, scene: Scene, drawn: Rendering, visible: list[int], marked: list[int], rng: np.random.Generator
) -> Record:
    ground_labels = np.unique(drawn.grounds).tolist()
    covered = drawn.masks[visible].any(axis=0)
    ground_masks = [(drawn.grounds == label) & ~covered for label in ground_labels]
    kept = [(label, mask) for label, mask in zip(ground_labels, ground_masks, strict=True) if mask.any()]
    planes = [*drawn.masks[marked], *(mask for _, mask in kept)]
    masks = torch.from_numpy(np.stack(planes)) if planes else torch.zeros(0, *drawn.grounds.shape, dtype=torch.bool)
    labels = [NAMES.index(scene.things[i].shape) for i in marked] + [label for label, _ in kept]
    label_map = torch.from_numpy(np.where(covered, IGNORE, drawn.grounds))
    for plane, label in zip(masks, labels, strict=True):
        label_map[plane] = label
    return Record(
        id=name,
        image=PIL.Image.fromarray(drawn.image),
        size=(drawn.grounds.shape[0], drawn.grounds.shape[1]),
        boxes=masks_to_boxes(masks),
        masks=masks,
        labels=torch.tensor(labels, dtype=torch.long),
        label_map=label_map,
        captions=tuple(scene_caption(scene, rng) for _ in range(_CAPTIONS)),
        attributes=tuple(scene.things[i].attributes for i in marked) + ({},) * len(kept),
    )
