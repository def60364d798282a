"""What a distillation sees of a picture: the student's view, its regions, and what the teacher is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor

from closeup.data.record import Reader
from closeup.errors import DataError
from closeup.models.clip import Clip
from closeup.models.encode_regions import CROP_POLICIES
from closeup.recipes.distill_regions import Candidates, RegionSource
from closeup.recipes.order import visited
from closeup.recipes.teacher_cache import Addresses, TeacherStore, addresses, picture_key
from closeup.regions import crop_regions, masks_to_cells

CellMasks = Float[Tensor, "regions rows cols"]
Views = Float[Tensor, "views 3 _ _"]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """Teacher embeddings that a sample needs: those at hand, and pictures of the others.

    ``missing`` are the rows of ``targets`` that are not at hand, ``views`` what the teacher must look at for them,
    and ``places`` where they are to be kept.
    """

    targets: Float[Tensor, "wanted dim"]
    missing: Int[Tensor, " views"]
    views: Views
    places: Addresses


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One visit to a picture.

    ``image`` is what the student sees. ``boxes`` are xyxy in fractions of it; ``masks``, if not None, are weights of
    its cells. ``whole`` is the teacher's knowledge of the whole picture. ``natives`` are the student's views at the
    native size, of the whole picture and of the first regions cut out, where they are wanted. ``extent`` is the part of
    the canvas that shows the picture, xyxy in fractions of it, and ``captions`` are the record's.
    """

    image: Float[Tensor, "3 height width"]
    boxes: Float[Tensor, "regions 4"]
    masks: CellMasks | None
    regions: Wanted | None
    whole: Wanted | None
    natives: Views | None
    extent: Float[Tensor, 4]
    captions: tuple[str, ...]


class DistillSamples:
    """Makes sample number ``position`` from a reader: a function of the settings and the number alone.

    Every epoch has an order of its own. Each visit takes its regions from one of ``sources``, if there are any, each as
    likely as the others. ``size`` is the side of the student's square canvas, on which a picture lies in the top left
    corner, aspect ratio kept, black beyond it. The teacher's crops keep their aspect ratio too and are centred on
    black, at its native size. ``teacher`` is the model that sees them, where it is not ``clip`` as it was; without
    ``cut`` it is asked nothing about regions.

    Source: ``wusize/CLIPSelf`` ``open_clip/transform.py`` (ResizeLongest, ResizeMaxSize), ``training/data.py``. Boxes
    are placed by the picture's own size in whole pixels; the official code scales them by ``size / longest side``, at
    most half a pixel away.

    Raises:
        DataError: the reader is empty, or a record lacks the regions that the source needs.
    """

    def __init__(
        self,
        clip: Clip,
        reader: Reader,
        sources: Sequence[RegionSource],
        *,
        size: int,
        seed: int,
        whole: bool = False,
        native: int | None = None,
        store: TeacherStore | None = None,
        teacher: Clip | None = None,
        cut: bool = True,
    ) -> None:
        if len(reader) == 0:
            raise DataError("The data set is empty. Give pictures to distil from.")
        self.reader = reader
        self.store = store
        self._clip, self._teacher, self._sources = clip, teacher or clip, tuple(sources)
        self._cut = cut
        self._size, self._seed = size, seed
        self._whole, self._native = whole, native

    def __getitem__(self, position: int) -> Sample:
        record = self.reader[visited(position, len(self.reader), self._seed)]
        picture = record.load()
        image, placement = self._clip.preprocess(picture, policy="longest-pad-corner", size=self._size)
        boxes, masks, regions, cuts = torch.zeros(0, 4), None, None, _stack(self._clip, [])
        if self._sources:
            rng = np.random.default_rng([self._seed, 2, position])
            opened = replace(record, image=picture)  # for sources that look at the picture too
            source = self._sources[0 if len(self._sources) == 1 else int(rng.integers(len(self._sources)))]
            candidates, drawn = source.regions(opened, picture.height, picture.width, rng)
            boxes = placement.boxes_to_canvas(candidates.boxes[drawn]) / self._size
            if candidates.masks is not None:
                masks = masks_to_cells(candidates.masks[drawn], placement, self._clip.patch)
            regions = self._wanted(picture, candidates, drawn) if self._cut else None
            if self._native:
                rows = drawn[_first(self._native, len(drawn))]
                cuts = self._crops(self._clip, picture, candidates, rows)
        seen = None if self._native is None else torch.cat([self._clip.preprocess(picture)[0][None], cuts])
        whole = self._wanted_whole(picture) if self._whole else None
        extent = torch.tensor(placement.content) / self._size
        return Sample(image, boxes, masks, regions, whole, seen, extent, record.captions)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Put samples together; regions lie flat, with the number of their picture in ``owners``.

        ``targets`` has the regions' rows first and then those of whole pictures; the rows ``missing`` are to be
        filled with the teacher's embeddings of ``views``.
        """
        batch = {"images": torch.stack([sample.image for sample in samples])}
        masks = [sample.masks for sample in samples if sample.masks is not None]
        if self._sources:
            counts = torch.tensor([len(sample.boxes) for sample in samples])
            batch["owners"] = torch.arange(len(samples)).repeat_interleave(counts)
            batch |= {"masks": torch.cat(masks)} if masks else {"boxes": torch.cat([each.boxes for each in samples])}
        natives = [sample.natives for sample in samples if sample.natives is not None]
        if natives:
            batch["natives"] = torch.cat(natives)
            batch["kept"] = _rows_of_natives([len(sample.boxes) for sample in samples], [len(one) for one in natives])
        of_regions = [sample.regions for sample in samples if sample.regions is not None]
        return batch | pack(of_regions + [sample.whole for sample in samples if sample.whole is not None])

    def unknown(self, index: int, chunk: int) -> Iterator[Wanted]:
        """Yield everything about record ``index`` that the store lacks, ``chunk`` views at a time."""
        record = self.reader[index]
        picture = record.load()
        opened = replace(record, image=picture)
        for source in self._sources:
            candidates = source.candidates(opened, picture.height, picture.width)
            rows, key = torch.arange(len(candidates)), picture_key(picture, candidates)
            if self.store is not None:
                rows = rows[~self.store.read(key, rows)[1]]
            for part in torch.split(rows, chunk):
                yield self._wanted(picture, candidates, part, key)
        if self._whole:
            wanted = self._wanted_whole(picture)
            if len(wanted.missing):
                yield wanted

    def _wanted(
        self, picture: PIL.Image.Image, candidates: Candidates, rows: Int[Tensor, " rows"], key: bytes | None = None
    ) -> Wanted:
        key = key or (picture_key(picture, candidates) if self.store else b"")
        targets, missing = self._known(key, rows)
        lacking = rows[missing]
        views = self._crops(self._teacher, picture, candidates, lacking)
        return Wanted(targets, missing, views, self._places(key, lacking))

    def _wanted_whole(self, picture: PIL.Image.Image) -> Wanted:
        key = picture_key(picture) if self.store else b""
        targets, missing = self._known(key, torch.zeros(1, dtype=torch.long))
        views = [self._teacher.preprocess(picture)[0]] * len(missing)
        return Wanted(targets, missing, _stack(self._teacher, views), self._places(key, missing))

    def _known(
        self, key: bytes, rows: Int[Tensor, " rows"]
    ) -> tuple[Float[Tensor, "rows dim"], Int[Tensor, " missing"]]:
        if self.store is None:
            return torch.zeros(len(rows), self._teacher.dim), torch.arange(len(rows))
        targets, there = self.store.read(key, rows)
        return targets, (~there).nonzero()[:, 0]

    def _places(self, key: bytes, rows: Int[Tensor, " rows"]) -> Addresses:
        return addresses(key, rows) if self.store else torch.zeros(len(rows), 3, dtype=torch.long)

    def _crops(self, clip: Clip, picture: PIL.Image.Image, candidates: Candidates, rows: Int[Tensor, " rows"]) -> Views:
        """Return candidates cut out as a model wants to see them."""
        if not len(rows):
            return _stack(clip, [])
        crop = candidates.crop
        masks = None if candidates.masks is None else candidates.masks[rows]
        cuts = crop_regions(picture, candidates.boxes[rows], masks, crop, mean=clip.mean)
        return _stack(clip, [clip.preprocess(cut, policy=CROP_POLICIES[crop.shape])[0] for cut in cuts])


def _rows_of_natives(regions: Sequence[int], natives: Sequence[int]) -> Int[Tensor, " views"]:
    """Return the rows of the targets that views at the native size are held to: a whole picture, then its cut-outs."""
    starts = np.cumsum([0, *regions]).tolist()
    rows = []
    for number, (count, views) in enumerate(zip(regions, natives, strict=True)):
        rows += [torch.tensor([starts[-1] + number]), starts[number] + _first(views - 1, count)]
    return torch.cat(rows)


def _first(wanted: int, count: int) -> Int[Tensor, " wanted"]:
    """Return the first ``wanted`` of ``count``, over again where there are fewer: all pictures weigh the same."""
    return torch.arange(wanted) % max(count, 1)


def _stack(clip: Clip, views: list[Tensor]) -> Views:
    return torch.stack(views) if views else torch.zeros(0, 3, *clip.image_size)


def pack(wanted: Sequence[Wanted]) -> dict[str, Tensor]:
    """Put what is wanted for several samples into one table, in their order; nothing where nothing is."""
    if not wanted:
        return {}
    starts = np.cumsum([0, *(len(each.targets) for each in wanted)]).tolist()
    return {
        "targets": torch.cat([each.targets for each in wanted]),
        "missing": torch.cat([each.missing + start for each, start in zip(wanted, starts, strict=False)]),
        "views": torch.cat([each.views for each in wanted]),
        "places": torch.cat([each.places for each in wanted]),
    }
