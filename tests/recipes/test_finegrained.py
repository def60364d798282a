"""Fine-grained matching: its losses and ranks against loops, and trainings of both stages from end to end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from closeup.errors import CloseupError, ConfigError, InputError
from closeup.match.losses import own_negatives_loss, triplet_loss
from closeup.match.matcher import Matcher
from closeup.match.matcher_file import load_matcher
from closeup.match.matchers import new_matcher
from closeup.recipes import run_finegrained
from closeup.recipes.config import TrainConfig
from closeup.recipes.features import Features, open_features
from closeup.recipes.finegrained import BEST, FineTune, WarmUp, best_rank, mean_rank, ranking_moved
from closeup.recipes.finegrained_config import PRESETS, FineGrainedConfig
from closeup.recipes.run_finegrained import MatcherTraining, best_scale, train_matcher
from closeup.recipes.train import train
from commands import files_below
from full_disk import room_for
from tiny_towers import randomise

DIM, WRONG = 16, 4
SETTINGS = TrainConfig(
    steps=6, batch_size=8, rate=1e-2, precision="fp32", workers=0, log_every=1, evaluate_every=1, save_every=2
)


def features(items: int = 40, captions: int = 1 + WRONG, seed: int = 0) -> Features:
    """Return random embeddings in which right captions are a little nearer to their pictures than wrong ones."""
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((items, DIM)), rng.standard_normal((items * captions, DIM))
    rows = np.arange(items * captions).reshape(items, captions)
    texts[rows[:, 0]] += 0.4 * images
    table = np.concatenate([np.arange(items)[:, None], rows], axis=1).astype(np.int32)
    return Features(images.astype(np.float16), texts.astype(np.float16), table)


def drawn(kind: str = "linear", seed: int = 0) -> Matcher:
    made = new_matcher(kind, DIM)
    randomise(made, seed)
    return made


def batch_of(recipe: WarmUp | FineTune, count: int = 8) -> dict[str, Tensor]:
    samples: list[Any] = [recipe.sample(position) for position in range(count)]
    return dict(recipe.collate(samples))


@pytest.mark.parametrize("hardest", [False, True])
def test_the_warm_up_is_the_triplet_loss_of_the_batch(hardest: bool) -> None:
    config = FineGrainedConfig(hardest=hardest, pair_margin=0.3)
    matcher, learned = drawn(), features(captions=1)
    recipe = WarmUp(matcher, learned, features(seed=1), config)
    rows = [recipe.sample(position) for position in range(8)]
    scores = torch.stack(
        [
            torch.cat([matcher(learned.take([i])["images"], learned.take([j])["captions"][0])[0] for j in rows])
            for i in rows
        ]
    )
    expected = triplet_loss(scores, margin=0.3, hardest=hardest) / 8
    torch.testing.assert_close(recipe.module(recipe.collate(rows))["loss"], expected)


@pytest.mark.parametrize("normalisation", ["features", "captions"])
@pytest.mark.parametrize("hardest", [False, True])
def test_fine_tuning_is_the_loss_of_own_wrong_captions(hardest: bool, normalisation: Any) -> None:  # noqa: ANN401
    config = FineGrainedConfig(hardest=hardest, margin=0.2, normalisation=normalisation)
    matcher = drawn()
    recipe = FineTune(matcher, features(), features(seed=1), config)
    batch = batch_of(recipe)
    scores = matcher.of_own(batch["images"], batch["captions"], normalisation)
    expected = own_negatives_loss(scores, margin=0.2, hardest=hardest) / 8
    given = recipe.module(batch)
    torch.testing.assert_close(given["loss"], expected)
    assert set(given) == {"loss"}
    other = FineTune(matcher, features(), features(seed=1), FineGrainedConfig(hardest=hardest, margin=0.2))
    assert torch.equal(other.module(batch)["loss"], given["loss"]) == (normalisation == "features")


def test_the_softmax_learns_from_every_wrong_caption() -> None:
    matcher = drawn()
    recipe = FineTune(matcher, features(), features(seed=1), FineGrainedConfig(objective="softmax", sharpness=7.0))
    batch = batch_of(recipe)
    scores = matcher.of_own(batch["images"], batch["captions"]).tolist()
    sharp = 4 * 7  # a sigmoid rises a quarter as fast as the cosine below it
    costs = [log(sum(exp(sharp * score) for score in row)) - sharp * row[0] for row in scores]
    assert float(recipe.module(batch)["loss"].detach()) == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_keeping_adds_what_moved_and_visits_other_pairs() -> None:
    config = FineGrainedConfig(keep=0.7, sharpness=5.0)
    matcher, pairs = drawn(), features(captions=1, seed=2)
    recipe = FineTune(matcher, features(), features(seed=1), config, pairs=pairs)
    samples = [recipe.sample(position) for position in range(8)]
    given = recipe.module(recipe.collate(samples))
    kept = pairs.take([pair for _, pair in samples])
    whole, said = kept["images"], kept["captions"][:, 0]
    moved = ranking_moved(4 * matcher(whole, said), F.normalize(whole, dim=1) @ F.normalize(said, dim=1).T, 5.0)
    torch.testing.assert_close(given["moved"], moved)
    torch.testing.assert_close(given["loss"], given["details"] + 0.7 * moved)
    assert [item for item, _ in samples] != [pair for _, pair in samples]
    assert not recipe.divisible
    assert FineTune(matcher, features(), features(seed=1), FineGrainedConfig()).divisible
    assert not WarmUp(matcher, pairs, features(seed=1), config).divisible


def moved_by_hand(scores: Tensor, before: Tensor, sharpness: float) -> float:
    total = 0.0
    for now, then in ((scores, before), (scores.T, before.T)):
        for row, past in zip(now.tolist(), then.tolist(), strict=True):
            ours, theirs = ([exp(sharpness * value) for value in values] for values in (row, past))
            parts = [(one / sum(ours), other / sum(theirs)) for one, other in zip(ours, theirs, strict=True)]
            total += sum(other * log(other / one) for one, other in parts) / len(now)
    return total


@pytest.mark.parametrize("shape", [(5, 5), (3, 6)])
def test_what_moved_is_the_divergence_of_softmaxes(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    scores, before = (torch.randn(shape, generator=generator) for _ in range(2))
    assert float(ranking_moved(scores, before, 1.5)) == pytest.approx(moved_by_hand(scores, before, 1.5), rel=1e-4)
    assert float(ranking_moved(before + 3.25, before, 20.0)) == pytest.approx(0, abs=1e-5)
    assert float(ranking_moved(scores, before, 1.5)) > 0.1


def test_the_mean_rank_counts_ties_against(monkeypatch: pytest.MonkeyPatch) -> None:
    held, matcher = features(), drawn()
    held.texts[held.items[3, 2]] = held.texts[held.items[3, 1]]
    ranks = []
    with torch.no_grad():
        for row in range(len(held)):
            item = held.take([row])
            scores = matcher(item["images"], item["captions"][0])[0].tolist()
            ranks.append(1 + sum(score >= scores[0] - 1e-7 for score in scores[1:]))
    assert mean_rank(matcher, held) == pytest.approx(sum(ranks) / len(ranks))
    monkeypatch.setattr("closeup.recipes.finegrained.EVALUATED", 7)
    assert mean_rank(matcher, held) == pytest.approx(sum(ranks) / len(ranks))


def ranks_logged(folder: Path) -> list[float]:
    return [json.loads(line)["rank"] for line in (folder / "log.jsonl").read_text().splitlines()]


class Turning(FineTune):
    """A matcher that gets worse after its third step, and keeps its weights of every step."""

    seen: dict[float, dict[str, Tensor]]

    def evaluate(self) -> dict[str, float]:
        given = super().evaluate()
        self.seen = getattr(self, "seen", {})
        self.seen.setdefault(given["rank"], {name: value.clone() for name, value in self.matcher.state_dict().items()})
        if len(self.seen) >= 3:
            with torch.no_grad():
                for parameter in self.matcher.parameters():
                    parameter.neg_().add_(0.3)
        return given


def turning(folder: Path) -> Turning:
    folder.mkdir(exist_ok=True)
    return Turning(drawn("linear-image"), features(), features(seed=1), FineGrainedConfig(), best=folder)


def test_the_weights_of_the_best_rank_are_kept(tmp_path: Path) -> None:
    recipe = turning(tmp_path)
    assert best_rank(tmp_path) == float("inf")
    train(recipe, SETTINGS, tmp_path)
    ranks = ranks_logged(tmp_path)
    assert ranks.index(min(ranks)) < len(ranks) - 1, "the last is not the best"
    assert best_rank(tmp_path) == min(ranks)
    kept = load_file(tmp_path / BEST)
    assert all(torch.equal(value, recipe.seen[min(ranks)][name]) for name, value in kept.items())
    again = new_matcher("linear-image", DIM)
    again.load_state_dict(kept)
    assert mean_rank(again, features(seed=1)) == min(ranks)


def tuned(folder: Path) -> FineTune:
    folder.mkdir(exist_ok=True)
    return FineTune(drawn(), features(), features(seed=1), FineGrainedConfig(margin=0.5), best=folder)


@pytest.mark.parametrize("until", [2, 4, 6])
def test_a_resumed_training_keeps_the_same_best(tmp_path: Path, until: int) -> None:
    steps = replace(SETTINGS, rate=0.2)
    train(tuned(tmp_path / "whole"), steps, tmp_path / "whole")
    train(tuned(tmp_path / "parts"), steps, tmp_path / "parts", until=until)
    train(tuned(tmp_path / "parts"), steps, tmp_path / "parts", resume=True)
    ranks = ranks_logged(tmp_path / "whole")
    assert ranks == ranks_logged(tmp_path / "parts")
    assert (tmp_path / "whole" / BEST).read_bytes() == (tmp_path / "parts" / BEST).read_bytes()
    assert best_rank(tmp_path / "parts") == min(ranks)


def test_no_room_for_the_best_weights_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tuned(tmp_path)
    with room_for(200), pytest.raises(CloseupError, match=r"Cannot write the best weights to .*: File too large"):
        recipe.evaluate()
    assert not files_below(tmp_path)
    rank = recipe.evaluate()["rank"]
    before = (tmp_path / BEST).read_bytes()
    monkeypatch.setattr("closeup.recipes.finegrained.mean_rank", lambda *_: rank - 0.1)
    with room_for(200), pytest.raises(CloseupError, match="Those before them are untouched"):
        recipe.evaluate()
    assert (files_below(tmp_path), (tmp_path / BEST).read_bytes()) == ([BEST], before)


@pytest.mark.parametrize("kind", ["residual", "residual-mlp"])
def test_keeping_holds_the_rankings_of_whole_pictures(kind: str, tmp_path: Path) -> None:
    pairs, cosine = features(32, captions=1, seed=2), new_matcher("cosine", DIM)
    batch = pairs.take(range(len(pairs)))
    whole, said = batch["images"], batch["captions"][:, 0]
    before = cosine(whole, said)

    def after(keep: float) -> tuple[float, float, float]:
        torch.manual_seed(0)
        recipe = FineTune(
            new_matcher(kind, DIM),
            features(),
            features(),
            FineGrainedConfig(objective="softmax", keep=keep),
            pairs=pairs,
        )
        train(recipe, replace(SETTINGS, steps=60, rate=2e-3, evaluate_every=60, save_every=60), tmp_path / str(keep))
        with torch.no_grad():
            now = recipe.matcher(whole, said)
        swapped = (now.argsort(dim=1) != before.argsort(dim=1)).float().mean()
        return mean_rank(recipe.matcher, features()), float(ranking_moved(now, before, 20.0)), float(swapped)

    (free, far, many), (kept, near, few) = after(0.0), after(100.0)
    assert free <= kept <= mean_rank(cosine, features())
    assert near < 0.05 * far
    assert few < 0.5 * many


def test_the_preset_that_keeps_begins_as_the_cosine() -> None:
    config, pairs, _ = PRESETS["keep"](32, 40)
    assert pairs is None
    matcher, cosine, held = new_matcher(config.kind, DIM, hidden=config.hidden), new_matcher("cosine", DIM), features()
    items = held.take(range(len(held)))
    regions, captions = items["images"], items["captions"]
    torch.testing.assert_close(matcher(regions, captions[:, 0]), cosine(regions, captions[:, 0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(matcher.of_own(regions, captions), cosine.of_own(regions, captions), atol=1e-6, rtol=0)
    assert mean_rank(matcher, held) == mean_rank(cosine, held)
    recipe = FineTune(matcher, held, held, config, pairs=features(captions=1, seed=2))
    assert float(recipe.module(batch_of(recipe))["moved"].detach()) == pytest.approx(0, abs=1e-5)


def test_the_factor_on_scores_is_the_best_one() -> None:
    held, matcher = features(200), drawn("residual")
    best, least = 0.0, float("inf")
    with torch.no_grad():
        items = held.take(range(200))
        scores = matcher.of_own(items["images"], items["captions"])
    for step in range(301):
        scale = 10 ** (step / 100)
        cost = float((torch.logsumexp(scale * scores, dim=1) - scale * scores[:, 0]).mean())
        if cost < least:
            best, least = scale, cost
    assert 1 < best < 1000
    assert best_scale(matcher, held) == pytest.approx(best, rel=0.025)


def test_the_papers_numbers_are_the_defaults() -> None:
    config, pairs, regions = PRESETS["paper"](100_000, 27_000)
    assert pairs is not None
    assert (config.kind, config.pair_margin, config.margin, config.wrong, config.hardest) == (
        "linear",
        0.2,
        0.05,
        10,
        False,
    )
    assert (pairs.rate, regions.rate, pairs.batch_size, regions.batch_size) == (5e-5, 1e-5, 256, 256)
    assert (pairs.steps, regions.steps) == (10 * 391, 10 * 106)
    assert (config.inputs, config.normalisation, pairs.weight_decay, config.keep) == ("raw", "features", 0, 0)


@pytest.mark.parametrize(
    "changes", [{"wrong": 0}, {"sharpness": 0.0}, {"enlarge": -1.0}, {"keep": -0.1}, {"margin": -1.0}]
)
def test_settings_outside_their_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(changes))}` must"):
        FineGrainedConfig(**changes)


REGIONS = "world?negatives=1_attributes&count=12&size=128"
PAIRS = "world?count=5&size=96"
SHORT = {"steps": 6, "batch_size": 4, "evaluate_every": 2, "save_every": 2, "log_every": 1, "rate": 1e-2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("embeddings")


@pytest.fixture
def wanted(store: Path, small_clip_folder: Path) -> MatcherTraining:
    return MatcherTraining(
        REGIONS,
        PAIRS,
        model=str(small_clip_folder),
        preset="tiny",
        training=SHORT,
        warmup=SHORT,
        features=store,
        workers=0,
    )


class Killed(Exception):
    """A process's end."""


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, stage: str, until: int) -> Iterator[None]:
    """End a training at a step of one of its stages, as a kill would."""

    def stopped(recipe: WarmUp | FineTune, config: TrainConfig, folder: Path) -> None:
        resume = (folder / "state.json").exists()
        if recipe.name == stage:
            if until:
                train(recipe, config, folder, resume=resume, until=until)
            raise Killed
        train(recipe, config, folder, resume=resume)

    with monkeypatch.context() as patch:
        patch.setattr(run_finegrained, "_stage", stopped)
        with pytest.raises(Killed):
            yield


@pytest.fixture(scope="module")
def whole(store: Path, small_clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    training = MatcherTraining(
        REGIONS,
        PAIRS,
        model=str(small_clip_folder),
        preset="tiny",
        training=SHORT,
        warmup=SHORT,
        features=store,
        workers=0,
    )
    return train_matcher(training, tmp_path_factory.mktemp("whole") / "mine").folder


def test_a_training_from_end_to_end(whole: Path, wanted: MatcherTraining, store: Path) -> None:
    card = json.loads((whole / "card.json").read_text())
    assert (card["matcher"], card["dim"], card["inputs"], card["name"]) == ("linear", 24, "raw", "mine")
    trained = card["trained"]
    assert trained["recipe"] == "finegrained"
    assert trained["base"]["name"] == wanted.model
    assert trained["data"] == {"regions": REGIONS, "held": f"{REGIONS}&split=val", "pairs": PAIRS}
    assert trained["config"] == FineGrainedConfig().to_dict()
    assert (card["pairs"]["steps"], card["regions"]["steps"], card["regions"]["rate"]) == (6, 6, 1e-2)
    assert {"trained_on", "versions"} <= set(card)
    assert sorted(path.name.split("-")[0] for path in store.glob("[!.]*")) == ["held", "pairs", "regions"]
    matcher = load_matcher(whole)
    held = open_features(next(store.glob("held-*")))
    assert len(held) > 5
    figures = card["figures"]
    assert mean_rank(matcher, held) == figures["rank"] == best_rank(whole.with_name("mine-run") / "regions")
    assert figures["cosine"] == mean_rank(new_matcher("cosine"), held)
    assert matcher.scale == best_scale(matcher, held) == card["scale"]
    torch.manual_seed(0)
    assert figures["untrained"] == mean_rank(new_matcher("linear", 24, inputs="raw"), held)
    folder = whole.with_name("mine-run")
    assert figures["warmed_up"] == pytest.approx(_last(folder / "pairs")["rank"], abs=1e-5)


def _last(folder: Path) -> dict[str, float]:
    line: dict[str, float] = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    return line


def same_matchers(one: Path, other: Path) -> bool:
    first, second = load_matcher(one), load_matcher(other)
    return first.fingerprint == second.fingerprint


def test_the_same_seed_learns_the_same_and_another_does_not(
    whole: Path, wanted: MatcherTraining, tmp_path: Path
) -> None:
    train_matcher(wanted, tmp_path / "again")
    assert same_matchers(whole, tmp_path / "again")
    train_matcher(replace(wanted, training=SHORT | {"seed": 1}), tmp_path / "other")
    assert not same_matchers(whole, tmp_path / "other")


@pytest.mark.parametrize(("stage", "until"), [("finegrained-pairs", 4), ("finegrained", 0), ("finegrained", 2)])
def test_killed_and_resumed_is_uninterrupted(
    stage: str, until: int, whole: Path, wanted: MatcherTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed(monkeypatch, stage, until):
        train_matcher(wanted, tmp_path / "mine")
    with pytest.raises(InputError, match="holds a training already"):
        train_matcher(wanted, tmp_path / "mine")
    train_matcher(wanted, tmp_path / "mine", resume=True)
    assert same_matchers(whole, tmp_path / "mine")
    cards = [json.loads((folder / "card.json").read_text()) for folder in (whole, tmp_path / "mine")]
    assert cards[0] == cards[1]
    train_matcher(wanted, tmp_path / "mine", resume=True)
    assert same_matchers(whole, tmp_path / "mine"), "a finished one is saved again"


def test_killed_while_embedding(whole: Path, wanted: MatcherTraining, tmp_path: Path) -> None:
    @contextmanager
    def watch(what: str) -> Iterator[Callable[[int, int], object]]:
        def tell(done: int, every: int) -> None:
            if what == "embedding held":
                raise Killed

        yield tell

    alone = replace(wanted, features=None)
    with pytest.raises(Killed):
        train_matcher(alone, tmp_path / "mine", watch=watch)
    train_matcher(alone, tmp_path / "mine", resume=True)
    assert same_matchers(whole, tmp_path / "mine")
    assert len(list((tmp_path / "mine-run" / "features").glob("[!.]*"))) == 3


def test_weights_of_a_training_that_saved_no_state_are_not_the_best(
    whole: Path, wanted: MatcherTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed(monkeypatch, "finegrained", 0):
        train_matcher(wanted, tmp_path / "mine")
    recipe = FineTune(drawn(), features(), features(), FineGrainedConfig(), best=tmp_path / "mine-run" / "regions")
    monkeypatch.setattr("closeup.recipes.finegrained.mean_rank", lambda *_: 0.5)
    recipe.evaluate()
    monkeypatch.undo()
    train_matcher(wanted, tmp_path / "mine", resume=True)
    assert same_matchers(whole, tmp_path / "mine")


def test_other_settings_do_not_resume(wanted: MatcherTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed(monkeypatch, "finegrained", 2):
        train_matcher(wanted, tmp_path / "mine")
    with pytest.raises(ConfigError, match="begun with the config"):
        train_matcher(replace(wanted, config={"margin": 0.3}), tmp_path / "mine", resume=True)
    with pytest.raises(ConfigError, match=r"begun with rate 0\.01 and not 0\.02"):
        train_matcher(replace(wanted, training=SHORT | {"rate": 2e-2}), tmp_path / "mine", resume=True)


def test_the_preset_that_keeps_from_end_to_end(wanted: MatcherTraining, tmp_path: Path) -> None:
    keeping = replace(wanted, preset="keep", warmup={}, config={"hidden": 8}, held=f"{REGIONS}&split=test")
    made = train_matcher(keeping, tmp_path / "mine")
    card = json.loads((made.folder / "card.json").read_text())
    assert (card["matcher"], card["hidden"], card["pairs"]) == ("residual-mlp", 8, None)
    assert card["trained"]["data"]["held"] == f"{REGIONS}&split=test"
    assert made.figures["untrained"] == made.figures["cosine"] == made.figures["warmed_up"]
    assert {"details", "moved"} <= set(_last(tmp_path / "mine-run" / "regions"))
    assert not (tmp_path / "mine-run" / "pairs").exists()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"preset": "papre"}, InputError, "Did you mean 'paper'"),
        ({"config": {"kind": "linaer"}}, ConfigError, "Did you mean 'linear'"),
        ({"config": {"kind": "cosine"}}, ConfigError, "'cosine' has nothing to learn"),
        ({"config": {"keep": 1.0}}, ConfigError, "leave one of the two out"),
        ({"pairs": None}, InputError, "warms up on captions of whole pictures"),
        ({"pairs": None, "preset": "keep", "warmup": {}}, InputError, "keeps rankings on captions of whole pictures"),
        ({"config": {"margni": 1.0}}, ConfigError, "margin"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_embedded(
    changes: dict[str, Any], error: type[CloseupError], said: str, wanted: MatcherTraining, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        train_matcher(replace(wanted, features=tmp_path / "store", **changes), tmp_path / "mine")
    assert not files_below(tmp_path)
