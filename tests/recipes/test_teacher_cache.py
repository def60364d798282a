from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.errors import CloseupError, InputError
from closeup.models.clip import Clip
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.teacher_cache import TeacherStore, addresses
from closeup.recipes.train import train
from tiny_clips import vit_clip
from tiny_pictures import Pictures

CONFIG = ClipSelfConfig(size=48, max_split=3)
KEY, OTHER = b"0123456789abcdef", b"fedcba9876543210"


def unit_rows(count: int, dim: int = 8) -> Tensor:
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(0)), dim=1)


def filled(folder: Path) -> TeacherStore:
    store = TeacherStore(folder, {"teacher": "a"}, 8)
    rows = torch.tensor([3, 0])
    store.write(torch.cat([addresses(KEY, rows), addresses(OTHER, rows[:1])]), unit_rows(3))
    return store


def test_what_is_written_is_read_by_anyone_and_the_rest_is_missing(tmp_path: Path) -> None:
    filled(tmp_path)
    store = TeacherStore(tmp_path, {"teacher": "a"}, 8)
    found, there = store.read(KEY, torch.tensor([0, 1, 3, 7]))
    assert there.tolist() == [True, False, True, False]
    torch.testing.assert_close(found[there], unit_rows(3)[[1, 0]], atol=1e-3, rtol=0)
    assert not found[~there].any()
    assert store.read(OTHER, torch.tensor([0, 3]))[1].tolist() == [False, True]
    assert store.read(b"x" * 16, torch.tensor([0]))[1].tolist() == [False]
    assert store.read(KEY, torch.zeros(0, dtype=torch.long))[0].shape == (0, 8)


def test_another_teacher_has_another_folder(tmp_path: Path) -> None:
    filled(tmp_path)
    assert not TeacherStore(tmp_path, {"teacher": "b"}, 8).read(KEY, torch.tensor([0]))[1].any()


def test_a_torn_row_is_missing(tmp_path: Path) -> None:
    store = filled(tmp_path)
    (path,) = store.folder.glob(f"*/{KEY.hex()}.f16")
    whole = path.read_bytes()
    path.write_bytes(whole[:-6])
    assert store.read(KEY, torch.tensor([0, 3]))[1].tolist() == [True, False]
    path.write_bytes(whole[:-6] + bytes(6))
    assert store.read(KEY, torch.tensor([0, 3]))[1].tolist() == [True, False]


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CloseupError, match="Cannot write teacher embeddings"):
        TeacherStore(tmp_path / "file", {}, 8)
    store = filled(tmp_path)
    (store.folder / b"x".hex()).write_text("")
    with pytest.raises(CloseupError, match="Cannot write teacher embeddings"):
        store.write(addresses(b"x" * 16, torch.tensor([0])), unit_rows(1))


def recipe(cache: Path | None, clip: Clip | None = None, **changes: object) -> ClipSelf:
    return ClipSelf(clip or vit_clip(), Pictures(), CONFIG.replace(**changes), cache=cache)


def step(made: ClipSelf, position: int = 0) -> tuple[float, dict[str, Tensor], int]:
    """Return the loss of a batch, the gradients, and how many regions the teacher had to look at."""
    for parameter in made.trainable().values():
        parameter.data += 0.02
    batch = made.collate([made.sample(position), made.sample(position + 1)])
    loss = made.module(batch)["loss"]
    loss.backward()
    gradients = {name: p.grad for name, p in made.trainable().items() if p.grad is not None}
    return float(loss.detach()), gradients, len(batch["missing"])


CHANGES: list[dict[str, Any]] = [
    {},
    {"keep_global": 0.5},
    {"image_only": True},
    *({"regions": regions} for regions in ("proposals", "masks", "patches-and-proposals")),
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_cached_step_is_an_uncached_one_to_half_precision(tmp_path: Path, changes: dict[str, Any]) -> None:
    plain, gradients, asked = step(recipe(None, **changes))
    first, _, written = step(recipe(tmp_path, **changes))
    cached, again, left = step(recipe(tmp_path, **changes))
    assert (asked, written, left) == (asked, asked, 0)
    assert cached == first
    assert cached == pytest.approx(plain, abs=5e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, atol=2e-3 * float(gradient.abs().max()) + 1e-7, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_precomputing_leaves_nothing_to_ask_and_goes_on_where_it_was(tmp_path: Path, workers: int) -> None:
    made = recipe(tmp_path, keep_global=1.0)
    assert next(made.precompute()) == 0
    asked: list[int] = []
    teacher = made.teacher

    def counted(views: Tensor) -> Tensor:
        asked.append(len(views))
        return teacher(views)

    made.teacher = counted  # type: ignore[assignment]
    assert sorted(made.precompute(workers=workers)) == [0, 1, 2, 3]
    cells = sum(rows * cols for rows in range(1, 4) for cols in range(1, 4) if rows <= 2 * cols and cols <= 2 * rows)
    assert sum(asked) == 3 * (cells + 1)
    assert all(step(made, position)[2] == 0 for position in range(6))
    assert sorted(made.precompute()) == [0, 1, 2, 3]
    assert sum(asked) == 3 * (cells + 1)


def test_precomputing_knows_every_set_that_a_visit_may_draw_from(tmp_path: Path) -> None:
    made = recipe(tmp_path, regions="patches-and-proposals")
    assert sorted(made.precompute()) == [0, 1, 2, 3]
    assert all(step(made, position)[2] == 0 for position in range(10))


def test_cut_outs_with_more_context_are_other_cut_outs(tmp_path: Path) -> None:
    written = step(recipe(tmp_path, regions="proposals"))[2]
    assert step(recipe(tmp_path, regions="proposals"))[2] == 0
    assert step(recipe(tmp_path, regions="proposals", context=1.2))[2] == written > 0


def test_precomputing_is_shared_between_processes(tmp_path: Path) -> None:
    assert list(recipe(tmp_path).precompute(rank=1, world=2)) == [1, 3]
    assert list(recipe(tmp_path).precompute(rank=0, world=2)) == [0, 2]
    assert step(recipe(tmp_path))[2] == 0


def test_precomputing_without_a_cache_is_an_error() -> None:
    with pytest.raises(InputError, match="Give the recipe a folder"):
        list(recipe(None).precompute())


def test_another_model_does_not_read_this_ones_embeddings(tmp_path: Path) -> None:
    step(recipe(tmp_path))
    assert step(recipe(tmp_path, vit_clip(seed=1)))[2] > 0


def test_a_cached_training_is_an_uncached_one(tmp_path: Path) -> None:
    settings = TrainConfig(steps=3, batch_size=2, rate=1e-3, precision="fp32", workers=0)
    ends: list[dict[str, Tensor]] = []
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        made = recipe(cache)
        train(made, settings, tmp_path / f"run{len(ends)}")
        ends.append({name: value.detach().clone() for name, value in made.trainable().items()})
    for name, value in ends[0].items():
        assert torch.equal(ends[1][name], ends[2][name])
        # Adam's first steps have nearly the length of the rate whatever the gradient, so tiny gradients may differ.
        torch.testing.assert_close(ends[1][name], value, atol=5e-4, rtol=0)
