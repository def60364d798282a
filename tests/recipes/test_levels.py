"""Matchers that look inside the tower: their stores, what they learn, and trainings from end to end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from closeup.data.record import Description, Record
from closeup.data.registry import open_reader
from closeup.errors import CloseupError, ConfigError, InputError
from closeup.match import load_matcher, new_matcher
from closeup.match.matcher import LEAST_SPREAD, Matcher, Seen
from closeup.models.clip import Clip
from closeup.models.levels import with_levels
from closeup.predict import evaluate_fine_grained
from closeup.recipes import features as tables
from closeup.recipes import run_finegrained
from closeup.recipes.embed_features import Dense, embed_features, regions_with_wrong, whole_pictures
from closeup.recipes.features import CARD, Features, open_features
from closeup.recipes.finegrained import FineTune, best_rank, cosine_like, mean_rank
from closeup.recipes.finegrained_config import FineGrainedConfig
from closeup.recipes.run_finegrained import MatcherTraining, train_matcher
from closeup.recipes.train import train
from closeup.regions import FG_CLIP
from closeup.text.cache import content_key
from commands import files_below
from tiny_clips import picture, vit_clip
from tiny_towers import randomise

LEVELS = (0, 2)
WIDE = 24 + 2 * 2 * 32
"""Of an embedding of the tiny ViT with mean and deviation of two levels, 32 channels each."""
HOW = pytest.mark.parametrize("how", ["crop", "dense"])
RECORDS = 3
TOLD = {"records": "three"}


class Described:
    """Three pictures with two described regions and one caption each."""

    names = ("thing",)
    things = (True,)

    def __len__(self) -> int:
        return RECORDS

    def __getitem__(self, index: int) -> Record:
        boxes = torch.tensor([[2.0, 3, 30 + index, 28], [10.5, 8.25, 40, 47]])
        told = tuple(Description(f"right {index} {row}", (f"wrong {row}", "wrong too")) for row in range(2))
        image = picture(48, 44 + index, index).numpy()
        return Record(str(index), image, None, boxes=boxes, descriptions=told, captions=(f"caption {index}",))


@pytest.fixture(scope="module")
def clip() -> Clip:
    return vit_clip()


def embedded(clip: Clip, folder: Path, **changes: Any) -> Features:  # noqa: ANN401
    settings: dict[str, Any] = {"told": TOLD, "captions": 3, "batch": 2, "workers": 0, "take": regions_with_wrong(2)}
    return embed_features(clip, Described(), folder=folder, **(settings | changes))


@HOW
def test_rows_are_regions_embedded_one_by_one(clip: Clip, tmp_path: Path, how: str) -> None:
    view = with_levels(clip, LEVELS)
    dense = None if how == "crop" else Dense(size=64)
    features = embedded(view, tmp_path / "store", dense=dense)
    expected = []
    for index in range(RECORDS):
        record = Described()[index]
        assert record.boxes is not None
        seen: dict[str, Any] = {"crop": FG_CLIP} if how == "crop" else {"size": 64}
        for box in record.boxes:
            (row,) = view.encode_regions(record.load(), boxes=box[None], how=how, normalize=False, **seen)
            expected.append(row[0])
    assert (features.dim, features.details) == (24, WIDE - 24)
    given = features.take(range(len(features)))
    assert given["images"].shape == (2 * RECORDS, WIDE)
    torch.testing.assert_close(given["images"], torch.stack(expected), atol=1e-4, rtol=2e-3)
    plain = embedded(clip, tmp_path / "plain", dense=dense).take(range(len(features)))
    torch.testing.assert_close(given["images"][:, :24], plain["images"], atol=1e-4, rtol=2e-3)
    assert torch.equal(given["captions"], plain["captions"])
    card = json.loads((tmp_path / "store" / CARD).read_text())
    assert (card["dim"], card["details"], card["told"]["levels"]) == (24, WIDE - 24, list(LEVELS))
    assert card["told"].get("dense") == (None if how == "crop" else {"size": 64, "unit": False})


def test_rows_are_whole_pictures_embedded_one_by_one(clip: Clip, tmp_path: Path) -> None:
    view = with_levels(clip, LEVELS)
    features = embedded(view, tmp_path, take=whole_pictures, captions=1)
    expected = [view.encode_image(clip.preprocess(Described()[index].load())[0][None])[0] for index in range(RECORDS)]
    torch.testing.assert_close(
        features.take(range(RECORDS))["images"], torch.stack(expected).detach(), atol=1e-4, rtol=2e-3
    )


def test_a_store_without_levels_is_what_it_always_was(clip: Clip, tmp_path: Path) -> None:
    card = embedded(clip, tmp_path).card
    assert list(card) == ["dim", "pictures", "texts", "items", "captions", "records", "left_out", "told"]
    assert card["told"] == {**TOLD, "clip": clip.fingerprint, "enlarge": 1.0, "captions": 3}
    assert (tmp_path / "images.f16").stat().st_size == 2 * RECORDS * 24 * 2
    assert open_features(tmp_path).details == 0


def test_embeddings_seen_otherwise_are_refused(clip: Clip, tmp_path: Path) -> None:
    makers: dict[str, tuple[Clip, Dense | None]] = {
        "plain": (clip, None),
        "dense": (clip, Dense()),
        "larger": (clip, Dense(size=64)),
        "unit": (clip, Dense(unit=True)),
        "levels": (with_levels(clip, LEVELS), None),
        "other": (with_levels(clip, (0, 1)), None),
        "both": (with_levels(clip, LEVELS), Dense()),
    }
    for there, (view, dense) in makers.items():
        made = embedded(view, tmp_path / there, dense=dense)
        assert embedded(view, tmp_path / there, dense=dense).card == made.card
    pairs = [("plain", "dense", "dense"), ("dense", "plain", "dense"), ("plain", "levels", "levels")]
    pairs += [("levels", "plain", "levels"), ("levels", "other", "levels"), ("levels", "both", "dense")]
    pairs += [("both", "plain", "dense, levels"), ("dense", "unit", "dense"), ("larger", "dense", "dense")]
    for there, now, what in pairs:
        view, dense = makers[now]
        with pytest.raises(InputError, match=f"made with another {what}[.]"):
            embedded(view, tmp_path / there, dense=dense)


def test_dense_regions_of_length_one_are_means_of_cells_of_length_one(clip: Clip, tmp_path: Path) -> None:
    given = embedded(clip, tmp_path / "unit", dense=Dense(unit=True)).take(range(2))["images"]
    record = Described()[0]
    (expected,) = clip.encode_regions(record.load(), boxes=record.boxes)
    torch.testing.assert_close(given, expected, atol=1e-3, rtol=0)
    raw = F.normalize(embedded(clip, tmp_path / "raw", dense=Dense()).take(range(2))["images"], dim=1)
    assert float((raw - expected).abs().max()) > 2e-3


@pytest.mark.parametrize("block", [1, 3, 4096])
def test_what_is_usual_is_the_mean_and_deviation_over_pictures(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BLOCK", block)
    rng = np.random.default_rng(0)
    images = (rng.standard_normal((10, 4 + 6)) * rng.uniform(0.01, 30, 10) + rng.uniform(-50, 50, 10)).astype(
        np.float16
    )
    images[:, 9] = 7.5
    # Items show the second picture twice; it counts once.
    items = np.stack([np.array([0, 1, 1, 2]), np.zeros(4), np.ones(4)], axis=1).astype(np.int32)
    mean, deviation = Features(images, np.zeros((2, 4), dtype=np.float16), items).usual()
    details = images[:, 4:].astype(np.float64)
    torch.testing.assert_close(mean, torch.from_numpy(details.mean(axis=0)).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(deviation, torch.from_numpy(details.std(axis=0)).float(), rtol=1e-5, atol=1e-6)
    assert deviation[5] == 0
    seen = Seen((0,), 6)
    seen.learn(mean, deviation)
    assert float(seen.spread[5]) == pytest.approx(LEAST_SPREAD * 7.5)
    footed = seen(torch.from_numpy(images.astype(np.float32)))
    expected = (details - details.mean(axis=0)) / np.maximum(details.std(axis=0), LEAST_SPREAD)
    torch.testing.assert_close(footed[:, 4:], torch.from_numpy(expected).float(), rtol=0, atol=1e-3)


def test_a_table_of_plain_embeddings_has_nothing_usual() -> None:
    plain = Features(np.ones((3, 4)), np.ones((3, 4)), np.zeros((3, 2), dtype=np.int32))
    assert [len(part) for part in plain.usual()] == [0, 0]


def random_features(items: int = 40, captions: int = 5, details: int = 6, seed: int = 0) -> Features:
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((items, 16 + details)), rng.standard_normal((items * captions, 16))
    rows = np.arange(items * captions).reshape(items, captions)
    texts[rows[:, 0]] += 0.4 * images[:, :16]
    table = np.concatenate([np.arange(items)[:, None], rows], axis=1).astype(np.int32)
    return Features(images.astype(np.float16), texts.astype(np.float16), table)


def looking(kind: str, details: int = 6) -> Matcher:
    made = new_matcher(kind, 16, seen=Seen((0,), details))
    assert made.seen is not None
    made.seen.learn(*random_features().usual())
    return made


@pytest.mark.parametrize("kind", ["residual", "residual-mlp"])
def test_keeping_with_levels_begins_as_the_cosine_of_embeddings_alone(kind: str) -> None:
    matcher, held, pairs = looking(kind), random_features(), random_features(captions=1, seed=2)
    batch = held.take(range(len(held)))
    own, said = F.normalize(batch["images"][:, :16], dim=1), F.normalize(batch["captions"], dim=2)
    expected = torch.einsum("rd,rcd->rc", own, said)
    for each in (matcher, cosine_like(matcher)):
        torch.testing.assert_close(each.of_own(batch["images"], batch["captions"]), expected, atol=1e-6, rtol=0)
    plain = Features(held.images[:, :16], held.texts, held.items)
    assert mean_rank(matcher, held) == mean_rank(cosine_like(matcher), held) == mean_rank(new_matcher("cosine"), plain)
    recipe = FineTune(matcher, held, held, FineGrainedConfig(kind=kind, keep=1.0), pairs=pairs)
    samples = [recipe.sample(position) for position in range(8)]
    assert float(recipe.module(recipe.collate(samples))["moved"].detach()) == pytest.approx(0, abs=1e-5)
    randomise(matcher, 1)
    assert float(recipe.module(recipe.collate(samples))["moved"].detach()) > 0.01
    assert all("seen" not in name for name in recipe.trainable()), "what is usual is not learned by steps"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"levels": (0,), "kind": "attention"}, "`levels` are for linear, .* and the matcher is 'attention'"),
        ({"levels": (0,), "kind": "linear-text"}, "`levels` are for .* and the matcher is 'linear-text'"),
        ({"how": "dense", "enlarge": 1.5}, r"`enlarge` is 1.5, and 'dense' cuts nothing out"),
        ({"how": "masked-crop"}, "how cannot be 'masked-crop'"),
        ({"levels": 0}, "levels"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], message: str) -> None:
    for make in (FineGrainedConfig.from_dict, FineGrainedConfig().changed):
        with pytest.raises(ConfigError, match=message):
            make(changes)


def test_settings_come_back_from_their_file() -> None:
    config = FineGrainedConfig(levels=(0, 2), how="dense")
    assert FineGrainedConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


REGIONS = "world?negatives=1_attributes&count=8&size=96"
FEW = "world?negatives=1_attributes&count=3&size=96"
PAIRS = "world?count=4&size=96"
SHORT = {"steps": 6, "batch_size": 4, "evaluate_every": 2, "save_every": 2, "log_every": 1, "rate": 1e-2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture(scope="module")
def wanted(store: Path, small_clip_folder: Path) -> MatcherTraining:
    """Return a training of each part: a warm-up, and a matcher that looks at two levels."""
    return MatcherTraining(
        REGIONS,
        PAIRS,
        model=str(small_clip_folder),
        preset="tiny",
        config={"levels": LEVELS, "kind": "mlp"},
        training=SHORT,
        warmup=SHORT,
        features=store,
        workers=0,
    )


@pytest.fixture(scope="module")
def keeping(wanted: MatcherTraining) -> MatcherTraining:
    """Return a training that keeps rankings, on regions pooled from the dense map."""
    config = {"levels": list(LEVELS), "how": "dense", "hidden": 8}
    return replace(wanted, preset="keep", warmup={}, config=config)


@pytest.fixture(scope="module")
def trained(
    wanted: MatcherTraining, keeping: MatcherTraining, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return {name: train_matcher(each, folder / name).folder for name, each in (("crop", wanted), ("dense", keeping))}


def stores(folder: Path, levels: Sequence[int] | None, how: str) -> list[Path]:
    told = {path: open_features(path).card["told"] for path in folder.glob("[!.]*")}
    return [path for path, said in told.items() if (said.get("levels"), "dense" in said) == (levels, how == "dense")]


@HOW
def test_a_training_from_end_to_end(trained: dict[str, Path], small_clip: Clip, store: Path, how: str) -> None:
    matcher, card = load_matcher(trained[how]), json.loads((trained[how] / "card.json").read_text())
    assert matcher.seen is not None
    view = with_levels(small_clip, LEVELS)
    assert (matcher.seen.levels, matcher.seen.details, matcher.seen.how) == (LEVELS, WIDE - 24, how)
    assert matcher.seen.images == small_clip.fingerprint == view.fingerprint
    assert matcher.dim == 24
    (held,) = (path for path in stores(store, list(LEVELS), how) if "held" in path.name)
    (regions,) = (path for path in stores(store, list(LEVELS), how) if "reg" in path.name)
    mean, deviation = open_features(regions).usual()
    assert torch.equal(matcher.seen.usual, mean)
    assert torch.equal(matcher.seen.spread, deviation.maximum(LEAST_SPREAD * mean.abs().clamp(min=1)))
    figures, features = card["figures"], open_features(held)
    assert mean_rank(matcher, features) == figures["rank"] == best_rank(Path(f"{trained[how]}-run") / "regions")
    plain = Features(features.images[:, :24], features.texts, features.items)
    assert figures["cosine"] == mean_rank(new_matcher("cosine"), plain)
    assert (figures["untrained"] == figures["cosine"]) == (how == "dense"), "what keeps begins as the cosine"
    reader = open_reader(f"{REGIONS}&split=val")
    found = evaluate_fine_grained(small_clip, reader, negatives=10, matcher=matcher, how=how)
    assert found.ranks().mean == pytest.approx(figures["rank"], abs=0.05)
    assert len(found.ranks().ranks) == len(features)
    items = features.take(range(len(features)))
    with torch.no_grad():
        expected = matcher.of_own(items["images"], items["captions"])
    scores = torch.stack([each.scores for each in found.items if len(each.scores) == 11])
    torch.testing.assert_close(scores, expected, atol=5e-3, rtol=0)


def test_a_dense_matcher_without_levels_ranks_as_its_card_says(
    wanted: MatcherTraining, small_clip: Clip, tmp_path: Path
) -> None:
    config = {"how": "dense", "inputs": "unit", "kind": "residual"}
    made = train_matcher(replace(wanted, config=config, warmup=None, features=None), tmp_path / "mine")
    held = open_features(next((tmp_path / "mine-run" / "features").glob("held-*")))
    reader, matcher = open_reader(f"{REGIONS}&split=val"), load_matcher(made.folder)
    assert matcher.seen is None
    found = evaluate_fine_grained(small_clip, reader, negatives=10, matcher=matcher, how="dense")
    items = held.take(range(len(held)))
    with torch.no_grad():
        expected = matcher.of_own(items["images"], items["captions"])
    scores = torch.stack([each.scores for each in found.items if len(each.scores) == 11])
    torch.testing.assert_close(scores, expected, atol=2e-3, rtol=0)


def same_matchers(one: Path, other: Path) -> bool:
    return load_matcher(one).fingerprint == load_matcher(other).fingerprint


@HOW
def test_the_same_seed_learns_the_same_and_another_does_not(
    how: str, trained: dict[str, Path], wanted: MatcherTraining, keeping: MatcherTraining, tmp_path: Path
) -> None:
    training = wanted if how == "crop" else keeping
    train_matcher(training, tmp_path / "again")
    assert same_matchers(trained[how], tmp_path / "again")
    train_matcher(replace(training, training=SHORT | {"seed": 1}), tmp_path / "other")
    assert not same_matchers(trained[how], tmp_path / "other")


class Killed(Exception):
    """A process's end."""


@pytest.mark.parametrize(("how", "until"), [("crop", 0), ("crop", 4), ("dense", 2)])
def test_killed_and_resumed_is_uninterrupted(
    how: str,
    until: int,
    trained: dict[str, Path],
    wanted: MatcherTraining,
    keeping: MatcherTraining,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(recipe: Any, config: Any, folder: Path) -> None:  # noqa: ANN401
        if recipe.name == "finegrained":
            if until:
                train(recipe, config, folder, until=until)
            raise Killed
        train(recipe, config, folder)

    training = wanted if how == "crop" else keeping
    with monkeypatch.context() as patch:
        patch.setattr(run_finegrained, "_stage", stopped)
        with pytest.raises(Killed):
            train_matcher(training, tmp_path / "mine")
    with pytest.raises(ConfigError, match="begun with the config"):
        train_matcher(replace(training, config={**training.config, "levels": (1,)}), tmp_path / "mine", resume=True)
    train_matcher(training, tmp_path / "mine", resume=True)
    assert same_matchers(trained[how], tmp_path / "mine")
    assert (trained[how] / "card.json").read_text() == (tmp_path / "mine" / "card.json").read_text().replace(
        '"name": "mine"', f'"name": "{how}"'
    )


def test_levels_that_count_from_the_end_are_the_same_ones(
    trained: dict[str, Path], wanted: MatcherTraining, store: Path, tmp_path: Path
) -> None:
    before = sorted(path.name for path in store.iterdir())
    made = train_matcher(replace(wanted, config={"levels": (0, -1), "kind": "mlp"}), tmp_path / "mine")
    assert same_matchers(trained["crop"], made.folder)
    matcher = load_matcher(made.folder)
    assert matcher.seen is not None
    assert matcher.seen.levels == LEVELS
    assert sorted(path.name for path in store.iterdir()) == before, "embeddings are found again"


def test_each_way_to_see_has_a_folder_of_its_own(wanted: MatcherTraining, tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = [{}, {"levels": (0,)}, {"levels": (1,)}, {"how": "dense"}]
    configs += [{"how": "dense", "inputs": "unit"}, {"how": "dense", "levels": (0,)}, {"how": "dense", "size": 64}]
    few = {"steps": 1, "batch_size": 2}
    for number, config in enumerate(configs):
        training = replace(wanted, regions=FEW, held=FEW, config=config, warmup=None, training=few)
        train_matcher(replace(training, features=tmp_path / "store"), tmp_path / str(number))
    assert len(list((tmp_path / "store").glob("regions-*"))) == len(configs)
    told = [open_features(path).card["told"] for path in (tmp_path / "store").glob("regions-*")]
    assert sum(set(each) == {"records", "split", "count", "clip", "enlarge", "captions"} for each in told) == 1


def test_the_name_of_a_plain_store_is_what_it_always_was(
    wanted: MatcherTraining, small_clip: Clip, tmp_path: Path
) -> None:
    few = {"steps": 1, "batch_size": 2}
    training = replace(wanted, config={}, warmup=None, training=few, features=tmp_path / "store")
    train_matcher(training, tmp_path / "mine")
    told = {"records": REGIONS, "split": "train", "count": 8}
    key = content_key(told, small_clip.fingerprint, 1.0, 11)[:16]
    assert (tmp_path / "store" / f"regions-{key}").is_dir()


@pytest.mark.parametrize(
    ("config", "error", "said"),
    [
        ({"levels": (3,)}, InputError, "Block 3 does not exist: the tower has 3 blocks"),
        ({"levels": (0, 0)}, InputError, "each once"),
        ({"levels": (2, -1)}, InputError, "each once"),
        ({"levels": (0,), "kind": "attention"}, ConfigError, "`levels` are for"),
        ({"levels": ("0",)}, ConfigError, "levels"),
        ({"how": "mask-token"}, ConfigError, "how"),
        ({"how": "dense", "enlarge": 2.0}, ConfigError, "cuts nothing out"),
        ({"size": 64}, ConfigError, "for the dense map alone"),
        ({"how": "dense", "size": 0}, ConfigError, "`size` is 0"),
    ],
)
def test_what_cannot_be_seen_is_said_before_anything_is_embedded(
    config: dict[str, Any], error: type[CloseupError], said: str, wanted: MatcherTraining, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        train_matcher(replace(wanted, config=config, features=tmp_path / "store"), tmp_path / "mine")
    assert not files_below(tmp_path)
