"""CLIPSelf's evaluation of region recognition (its Tables 1 and 2), over any reader."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from closeup._types import Embeddings, Labels
from closeup.data.prefetch import prefetched
from closeup.data.record import Reader
from closeup.errors import InputError, suggest
from closeup.evaluate import CLIPSELF, RegionProtocol, RegionRecognition
from closeup.match import score
from closeup.models.clip import Clip
from closeup.models.encode_regions import ENCODERS, MASKED
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.models.windows import Window
from closeup.predict.prepare_regions import PREPROCESSING, Crops, DenseInput, Plan, Prepared, TokenInput, prepare
from closeup.predict.provenance import as_size, describe
from closeup.predict.region_report import RegionReport
from closeup.predict.words import Words, as_bank
from closeup.regions import pool_boxes, pool_masks
from closeup.text import Templates, TextBank

CELLS = 64
"""Cells along the longest side of the map in CLIPSelf's evaluation: 1024 px with patch 16, 896 px with patch 14."""

Progress = Callable[[int, int], object]


def evaluate_regions(
    clip: Clip,
    reader: Reader,
    *,
    how: Sequence[str] = ("dense", "crop"),
    words: Words | None = None,
    templates: str | Templates | None = None,
    route: str | Route = "value",
    window: Window | None = None,
    size: int | Size | None = None,
    canvas: str = "official",
    mask_policy: str | None = None,
    protocol: RegionProtocol = CLIPSELF,
    limit: int | None = None,
    batch: int = 1,
    crop_batch: int = 64,
    workers: int = 2,
    on_progress: Progress | None = None,
) -> RegionReport:
    """Return how often a region's true word scores best, by region encoder, boxes or masks, things or stuff.

    Every region competes among all words of the reader. One dense pass per image serves boxes and masks:
    boxes by RoIAlign of the boxes as they are, masks by mask pooling. ``crop`` encodes the box cut out, that
    of a thing enlarged (``protocol``); ``masked-crop`` the mask's cut-out with its surroundings filled (OVSeg's),
    ``mask-prompt`` the same with the model's mask prompts, and ``mask-token`` gives each mask a class token of its own.

    Args:
        clip: The model.
        reader: Records with labels and with boxes, masks or both; nothing is kept of one that is done.
        how: The region encoders.
        words: What the regions are compared with, one word per name of the reader in its order (None: its names).
        templates: Name of a template set or the set itself (None: "vild-63", or those of a given bank).
        route: How the last block is replaced in the dense map.
        window: Cells along a side of windows that attention stays inside in the dense map, as in
            ``Clip.encode_dense`` (None: attention over the whole map).
        size: Side that images are brought to for the dense map, in pixels (None: 64 cells, as in the paper).
        canvas: How images and masks are brought there.
        mask_policy: Another policy of ``regions.masks_to_cells`` than the canvas's own.
        protocol: Which regions count, and how far crops are enlarged.
        limit: Only the first so many records.
        batch: Images that are encoded at a time, if their canvas is the same.
        crop_batch: Crops that are encoded at a time.
        workers: Threads that read and prepare records ahead; 0 for a reader that bears only one thread.
        on_progress: Called after every record with the records done and the records in all.

    Raises:
        InputError: for an unknown region encoder or canvas, no names, words that do not fit them, or a window where
            the tower has no attention between cells.
        ModelError: for ``mask-token`` where the image embedding is not that of a class token.
        DataError: where a record has regions without labels.

    Source: CLIPSelf (arXiv 2310.01403), ``training/zero_shot.py`` and ``COCOPanopticDataset``. We differ in what
    ``evaluate.recognition`` and ``evaluate.CLIPSELF`` say: no rounding to fp16, and the box of stuff is not a
    pixel short. The mask policy "official" is that of the torchvision of its time; from torchvision 0.17 on the
    same code does "official-antialias", with lower figures for masks.
    """
    _check(reader, how, canvas)
    clip.tower.check_window(window)
    if templates is None and not isinstance(words, TextBank):
        templates = "vild-63"
    bank = as_bank(clip, reader.names if words is None else words, templates)
    if len(bank) != len(reader.names):
        raise InputError(f"{len(bank)} words for {len(reader.names)} names of the reader: give one word per name.")
    policy, own_mask_policy = PREPROCESSING[canvas]
    plan = Plan(
        how=frozenset(how),
        protocol=protocol,
        things=torch.tensor(reader.things, dtype=torch.bool),
        size=CELLS * clip.patch if size is None else size,
        policy=policy,
        mask_policy=mask_policy or own_mask_policy,
    )
    run = _Run(clip, bank, route, window, batch, crop_batch)
    count = len(reader) if limit is None else min(limit, len(reader))
    start = time.perf_counter()
    for done, item in enumerate(prefetched(lambda index: prepare(clip, reader[index], plan), count, workers), start=1):
        run.add(item)
        if on_progress is not None:
            on_progress(done, count)
    run.finish()
    run.seconds["total"] = time.perf_counter() - start
    return RegionReport(
        found={key: metric.compute() for key, metric in run.metrics.items()},
        things=tuple(reader.things),
        images=count,
        left_out=run.left_out,
        seconds={name: spent / max(count, 1) for name, spent in run.seconds.items()},
        provenance=describe(
            clip,
            bank,
            region_encoder="+".join(how),
            route=route,
            window=window,
            image_size=as_size(clip, plan.size),
            canvas=canvas,
            mask_policy=plan.mask_policy,
            # JSON has no infinity: None is no limit.
            **{name: None if value == math.inf else value for name, value in asdict(protocol).items()},
        ),
    )


Waiting: TypeAlias = tuple[Crops, Bool[Tensor, "count _ _"], Labels]
"""Crops of one record, what of them is masked in, and their labels."""
NOTHING = torch.zeros(1, 0, 0, dtype=torch.bool)


class _Run:
    """What waits for a full batch, and what has been counted."""

    def __init__(
        self,
        clip: Clip,
        bank: TextBank,
        route: str | Route,
        window: Window | None,
        batch: int,
        crop_batch: int,
    ) -> None:
        self.clip = clip
        self.bank = bank.to(clip.device)
        self.route, self.window = route, window
        self.batch = batch
        self.crop_batch = crop_batch
        self.metrics: dict[tuple[str, str], RegionRecognition] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.left_out = 0
        self._images: list[DenseInput] = []
        self._tokens: list[TokenInput] = []
        self._crops: defaultdict[str, list[Waiting]] = defaultdict(list)

    def add(self, item: Prepared) -> None:
        self.left_out += item.left_out
        if item.dense is not None:
            if self._images and self._images[0].image.shape != item.dense.image.shape:
                self._encode_images()
            self._images.append(item.dense)
            if len(self._images) >= self.batch:
                self._encode_images()
        if item.tokens is not None:
            self._tokens.append(item.tokens)
            if len(self._tokens) >= self.batch:
                self._encode_tokens()
        for how, crops in item.crops.items():
            # Only prompts look at the masks; of other crops there is nothing to carry.
            shown = item.shown if how == "mask-prompt" and item.shown is not None else NOTHING.expand(len(crops), 0, 0)
            self._crops[how].append((crops, shown, item.labels))
            if sum(len(waiting) for waiting, _, _ in self._crops[how]) >= self.crop_batch:
                self._encode_crops(how)

    def finish(self) -> None:
        self._encode_images()
        self._encode_tokens()
        for how in self._crops:
            self._encode_crops(how)

    @torch.no_grad()
    def _encode_images(self) -> None:
        items, self._images = self._images, []
        if not items:
            return
        with self._timed("dense"):
            images = torch.stack([item.image for item in items])
            maps = self.clip.encode_dense(images, route=self.route, window=self.window)
            for item, features in zip(items, maps, strict=True):
                self._count("dense", "boxes", pool_boxes(features[None], [item.boxes])[0], item.labels)
                if item.masks is not None:
                    self._count("dense", "masks", pool_masks(features[None], [item.masks])[0], item.labels)

    @torch.no_grad()
    def _encode_tokens(self) -> None:
        items, self._tokens = self._tokens, []
        if not items:
            return
        with self._timed("mask-token"):
            images = torch.stack([item.image for item in items])
            found = self.clip.encode_mask_tokens(images, [item.cells for item in items])
            for item, embedded in zip(items, found, strict=True):
                self._count("mask-token", "masks", embedded, item.labels)

    @torch.no_grad()
    def _encode_crops(self, how: str) -> None:
        waiting, self._crops[how] = self._crops[how], []
        if not waiting:
            return
        crops, shown, labels = (torch.cat(column) for column in zip(*waiting, strict=True))
        with self._timed(how):
            chunks = [
                self.clip.encode_masked(some, masks) if how == "mask-prompt" else self.clip.encode_image(some)
                for some, masks in zip(crops.split(self.crop_batch), shown.split(self.crop_batch), strict=True)
            ]
            self._count(how, "masks" if how in MASKED else "boxes", torch.cat(chunks), labels)

    def _count(self, how: str, shape: str, regions: Embeddings, labels: Labels) -> None:
        if (how, shape) not in self.metrics:
            self.metrics[how, shape] = RegionRecognition(self.bank.names)
        self.metrics[how, shape].update(score(regions, self.bank).cpu(), labels)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def _check(reader: Reader, how: Sequence[str], canvas: str) -> None:
    if not how:
        raise InputError(f"how is empty: name one region encoder or more, of {', '.join(ENCODERS)}.")
    for name in how:
        if name not in ENCODERS:
            raise InputError(f"Unknown region encoder {name!r}. {suggest(str(name), ENCODERS)}")
    if canvas not in PREPROCESSING:
        raise InputError(f"Unknown canvas {canvas!r}. {suggest(str(canvas), PREPROCESSING)}")
    if not reader.names:
        raise InputError("The reader has no names, so its regions have no words to be recognised by.")
