from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from closeup.data.record import Record
from closeup.errors import DataError
from closeup.geometry import areas
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.distill_regions import (
    FoundRegions,
    ImagePatches,
    MaskRegions,
    Proposals,
    RandomBoxes,
    RegionSource,
    region_sources,
)
from closeup.regions import grid_boxes
from closeup.regions.propose import CoarseMasks, propose
from tiny_clips import picture
from tiny_pictures import Pictures


def record(**parts: object) -> Record:
    return Record("one", np.zeros((40, 60, 3), np.uint8), None, **parts)  # type: ignore[arg-type]


def drawn(source: RegionSource, record: Record, seed: int = 0) -> torch.Tensor:
    candidates, rows = source.regions(record, 40, 60, np.random.default_rng(seed))
    return candidates.boxes[rows]


def test_patches_are_up_to_twenty_cells_of_one_grid_each_grid_as_likely() -> None:
    source = ImagePatches()
    assert len(source.candidates(record(), 40, 60)) == 361
    seen: dict[tuple[int, int], int] = {}
    for seed in range(1200):
        cells = drawn(source, record(), seed)
        cols, rows = (60 / (cells[0, 2] - cells[0, 0])).round().int(), (40 / (cells[0, 3] - cells[0, 1])).round().int()
        grid = (int(rows), int(cols))
        seen[grid] = seen.get(grid, 0) + 1
        assert len(cells) == min(20, grid[0] * grid[1])
        whole = {tuple(cell) for cell in grid_boxes(*grid, 40, 60).tolist()}
        assert {tuple(cell) for cell in cells.tolist()} <= whole
        assert len(cells.unique(dim=0)) == len(cells)
    assert len(seen) == 24
    assert 25 < min(seen.values()) <= max(seen.values()) < 85


def test_cells_are_shuffled() -> None:
    firsts = {tuple(drawn(ImagePatches(), record(), seed)[0].tolist()) for seed in range(40)}
    assert len(firsts) > 20


def test_random_boxes_are_parts_of_every_picture_alike() -> None:
    source = RandomBoxes(max_regions=7)
    every = source.candidates(record(), 40, 60).boxes
    assert 100 < len(every) <= 500
    assert (every >= 0).all()
    assert (every <= torch.tensor([60.0, 40, 60, 40])).all()
    assert (areas(every) >= 64).all()
    assert torch.equal(every, source.candidates(record(), 40, 60).boxes)
    assert len(drawn(source, record())) == 7
    assert not torch.equal(drawn(source, record(), 1), drawn(source, record(), 2))
    assert source.candidates(record(), 4, 5).boxes.tolist() == [[0, 0, 5, 4]]
    large = source.candidates(record(), 3000, 4000).boxes
    assert len(large) == 500
    assert areas(large).max() > 0.9 * 3000 * 4000


def test_proposals_are_boxes_of_a_usable_size() -> None:
    boxes = torch.tensor([[0, 0, 7.9, 8], [0, 0, 8, 8], [30, 10, 200, 30], [90, 90, 120, 120], [5, 5, 5, 30]])
    found = Proposals().candidates(record(boxes=boxes), 40, 60).boxes
    assert found.tolist() == [[0, 0, 8, 8], [30, 10, 60, 30]]
    many = torch.tensor([[0.0, 0.0, 20.0, 20.0]]).repeat(30, 1)
    assert len(drawn(Proposals(), record(boxes=many))) == 20
    huge = torch.tensor([[0.0, 0.0, 1024.0, 1025.0]])
    assert not torch.equal(Proposals().candidates(record(boxes=huge), 2000, 2000).boxes, huge)


@pytest.mark.parametrize("source", [Proposals(), MaskRegions()])
def test_a_quarter_of_the_picture_stands_in_for_no_region(source: RegionSource) -> None:
    empty = record(boxes=torch.zeros(0, 4), masks=torch.zeros(0, 40, 60, dtype=torch.bool))
    candidates = source.candidates(empty, 40, 60)
    assert candidates.boxes.tolist() == [[0, 0, 30, 20]]
    assert float(areas(candidates.boxes)) == 40 * 60 / 4
    assert candidates.masks is None or candidates.masks[:].sum() == 40 * 60 / 4


def test_masks_bring_their_boxes() -> None:
    example = Pictures()[0]
    candidates = MaskRegions().candidates(example, 40, 64)
    assert candidates.masks is not None
    assert candidates.boxes[2].tolist() == [0, 10, 12, 40]
    assert candidates.masks[:][2, 10:40, 0:12].all()


@pytest.mark.parametrize("regions", ["proposals", "masks"])
def test_missing_regions_are_named(regions: str) -> None:
    (source,) = region_sources(ClipSelfConfig.from_dict({"regions": regions, "regions_from": "data"}))
    with pytest.raises(DataError, match=r"'one' has no .*regions='patches', which needs none"):
        source.candidates(record(), 40, 60)


def test_the_teacher_sees_more_than_a_proposal_and_no_more_than_a_patch() -> None:
    contexts = {
        name: [source.crop.enlarge for source in region_sources(ClipSelfConfig.from_dict({"regions": name}))]
        for name in ("patches", "proposals", "masks", "patches-and-proposals", "random")
    }
    assert contexts == {
        "patches": [1.0],
        "proposals": [1.5],
        "masks": [1.0],
        "patches-and-proposals": [1.0, 1.5],
        "random": [1.0],
    }
    enlarged = region_sources(ClipSelfConfig(regions="patches-and-proposals", context=2.0))
    assert [source.crop.enlarge for source in enlarged] == [2.0, 2.0]
    assert source_of("masks", "auto").crop.masked


def source_of(regions: str, regions_from: str, cache: Path | None = None) -> RegionSource:
    (source,) = region_sources(ClipSelfConfig.from_dict({"regions": regions, "regions_from": regions_from}), cache)
    return source


@pytest.mark.parametrize("regions", ["proposals", "masks"])
def test_what_a_data_set_lacks_is_found_in_the_picture(regions: str) -> None:
    labelled, plain = Pictures()[0], Pictures(labelled=False)[0]
    found = propose(plain.load())
    own = source_of(regions, "data").candidates(labelled, 40, 64)
    for record, source, expected in (
        (labelled, source_of(regions, "auto"), own),
        (plain, source_of(regions, "auto"), found),
        (labelled, source_of(regions, "found"), found),
    ):
        candidates = source.candidates(record, 40, 64)
        assert torch.equal(candidates.boxes, expected.boxes)
        assert (candidates.masks is not None) == (regions == "masks")
        if candidates.masks is not None and expected.masks is not None:
            assert torch.equal(candidates.masks[:], expected.masks[:])


def test_regions_found_are_drawn_and_cut_out_as_those_of_data() -> None:
    for regions in ("proposals", "masks"):
        given, found = source_of(regions, "data"), source_of(regions, "found")
        assert isinstance(found, FoundRegions)
        assert found.crop == given.crop
        first, second = (source.draw(50, np.random.default_rng(1)).tolist() for source in (given, found))
        assert first == second
    assert isinstance(source_of("patches", "found"), ImagePatches)


def test_an_annotated_picture_without_a_region_is_not_searched(tmp_path: Path) -> None:
    empty = record(boxes=torch.zeros(0, 4))
    assert source_of("proposals", "auto", tmp_path).candidates(empty, 40, 60).boxes.tolist() == [[0, 0, 30, 20]]
    assert not list(tmp_path.iterdir())


def test_a_picture_of_one_colour_has_a_region_too(tmp_path: Path) -> None:
    for regions in ("proposals", "masks"):
        assert source_of(regions, "auto", tmp_path).candidates(record(), 40, 60).boxes.tolist() == [[0, 0, 30, 20]]


def test_masks_of_a_large_photograph_stay_small_until_they_are_drawn(tmp_path: Path) -> None:
    image = picture(300, 700, 1).numpy()
    candidates = source_of("masks", "auto", tmp_path).candidates(Record("large", image, None), 300, 700)
    assert isinstance(candidates.masks, CoarseMasks)
    assert candidates.masks.planes.shape[2] < 700
    assert candidates.masks[torch.tensor([0])].shape == (1, 300, 700)
