from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from closeup.errors import CloseupError
from closeup.models.clip import Clip
from closeup.recipes import found_regions
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.found_regions import Found, RegionFinder
from closeup.recipes.train import train
from closeup.regions.propose import ProposalPolicy, Proposed, propose
from tiny_clips import picture, vit_clip
from tiny_pictures import Pictures

CONFIG = ClipSelfConfig(size=48)


def photo(seed: int = 0) -> PIL.Image.Image:
    return PIL.Image.fromarray(picture(50, 70, seed).numpy())


def assert_same(one: Found, other: Found) -> None:
    assert torch.equal(one[0], other[0])
    assert (one[1] is None) == (other[1] is None)
    if one[1] is not None and other[1] is not None:
        assert torch.equal(one[1].planes, other[1].planes)
        assert one[1].size == other[1].size


def fresh(seed: int = 0, masks: bool = True) -> Found:
    found = propose(photo(seed))
    return found.boxes, found.masks if masks else None


def kept(finder: RegionFinder) -> list[Path]:
    return sorted(path for path in finder.folder.rglob("*") if path.is_file())


def test_regions_are_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for masks in (True, False):
        assert_same(RegionFinder(tmp_path, masks=masks)(photo()), fresh(masks=masks))
    expected = fresh()

    def searched(*_: object) -> Proposed:
        raise AssertionError("searched again")

    monkeypatch.setattr(found_regions, "propose", searched)
    assert_same(RegionFinder(tmp_path, masks=True)(photo()), expected)
    assert_same(RegionFinder(tmp_path)(photo()), (expected[0], None))
    with pytest.raises(AssertionError, match="searched again"):
        RegionFinder(tmp_path)(photo(1))
    with pytest.raises(AssertionError, match="searched again"):
        RegionFinder(tmp_path, ProposalPolicy(limit=3))(photo())


def test_what_is_broken_is_found_anew(tmp_path: Path) -> None:
    finder = RegionFinder(tmp_path, masks=True)
    finder(photo())
    (path,) = kept(finder)
    whole = path.read_bytes()
    for broken in (b"", whole[: len(whole) // 2], b"no archive", whole[:200] + b"\0\0\0\0" + whole[204:]):
        path.write_bytes(broken)
        assert_same(finder(photo()), fresh())
        assert path.read_bytes() == whole


def test_nothing_is_made_before_it_is_needed(tmp_path: Path, closeup_cache: Path) -> None:
    assert RegionFinder().folder.is_relative_to(closeup_cache)
    RegionFinder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloseupError, match=r"Cannot keep the regions .* CLOSEUP_CACHE"):
        RegionFinder(tmp_path / "file")(photo())


class Shared(Dataset[Found]):
    """Finds the regions of a photo, in whatever process."""

    def __init__(self, folder: Path) -> None:
        self._find = RegionFinder(folder, masks=True)

    def __getitem__(self, index: int) -> Found:
        return self._find(photo(index % 2))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_processes_may_share_a_folder(tmp_path: Path) -> None:
    loader = DataLoader(Shared(tmp_path), batch_size=None, sampler=[0, 2, 1, 4, 3, 0], num_workers=3)
    for found, number in zip(loader, (0, 0, 1, 0, 1, 0), strict=True):
        assert_same(found, fresh(number))
    assert len(kept(RegionFinder(tmp_path, masks=True))) == 2


def recipe(cache: Path | None, clip: Clip | None = None, **changes: object) -> ClipSelf:
    return ClipSelf(clip or vit_clip(), Pictures(labelled=False), CONFIG.replace(**changes), cache=cache)


@pytest.mark.parametrize("regions", ["proposals", "masks"])
def test_teacher_embeddings_of_found_regions_are_kept(tmp_path: Path, regions: str) -> None:
    made = recipe(tmp_path, regions=regions, keep_global=1.0)
    batch = made.collate([made.sample(0), made.sample(1)])
    assert len(batch["missing"]) == len(batch["targets"])
    first = float(made.module(batch)["loss"].detach())
    again = made.collate([made.sample(0), made.sample(1)])
    assert len(again["missing"]) == 0
    assert float(made.module(again)["loss"].detach()) == pytest.approx(first, abs=1e-3)
    assert sorted(made.precompute()) == [0, 1, 2, 3]
    assert all(len(made.collate([made.sample(position)])["missing"]) == 0 for position in range(8))


@pytest.mark.parametrize("regions", ["proposals", "masks"])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_photographs_without_labels_are_learned_from(tmp_path: Path, regions: str) -> None:
    made = recipe(tmp_path / "cache", regions=regions)
    settings = TrainConfig(steps=12, batch_size=2, rate=3e-3, precision="fp32", workers=2, log_every=1)
    before = float(made.module(made.collate([made.sample(0), made.sample(1)]))["loss"].detach())
    train(made, settings, tmp_path / "run")
    after = float(made.module(made.collate([made.sample(0), made.sample(1)]))["loss"].detach())
    assert after < before
