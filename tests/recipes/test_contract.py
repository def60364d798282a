"""What every recipe must do, held for all of them at once. A new recipe is one more line in RECIPES."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from closeup.data.world import World
from closeup.data.world.stream import WorldStream
from closeup.errors import CloseupError, ConfigError, DataError, InputError
from closeup.heads.c4 import C4
from closeup.heads.c4_config import C4Config
from closeup.heads.dense_predictor import new_dense_predictor
from closeup.heads.fvit import FVit
from closeup.heads.fvit_config import FVitConfig
from closeup.heads.maskformer import MaskFormer
from closeup.heads.maskformer_config import MaskFormerConfig
from closeup.heads.rpn import new_proposer
from closeup.heads.segmenter import new_segmenter
from closeup.match.matcher import Seen
from closeup.match.matchers import new_matcher
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import ClipSelfConfig
from closeup.recipes.config import TrainConfig
from closeup.recipes.detection import Detection
from closeup.recipes.features import Features
from closeup.recipes.finegrained import FineTune, WarmUp
from closeup.recipes.finegrained_config import FineGrainedConfig
from closeup.recipes.label_maps import LabelMapRecipe
from closeup.recipes.label_maps_config import LabelMapConfig
from closeup.recipes.maskadapt import MaskAdapt
from closeup.recipes.maskadapt_config import MaskAdaptConfig
from closeup.recipes.pretrain import Pretrain
from closeup.recipes.recipe import Batch, Recipe
from closeup.recipes.regionclip import RegionClip
from closeup.recipes.regionclip_config import RegionClipConfig
from closeup.recipes.train import train


def pretrain() -> Recipe:
    clip = load("random:tiny", device="cpu", precision="fp32")
    return Pretrain(clip, WorldStream(batch=8), probes=6)


def clipself() -> Recipe:
    clip = load("random:tiny", device="cpu", precision="fp32")
    return ClipSelf(clip, World("train", count=16, size=(64, 96)), ClipSelfConfig(max_split=2, size=64))


CONCEPTS = Path(__file__).with_name("concepts.txt")


def regionclip() -> Recipe:
    clip = load("random:tiny", device="cpu", precision="fp32")
    config = RegionClipConfig(size=64, concepts=str(CONCEPTS), templates="simple", temperature=0.1)
    return RegionClip(clip, World("train", count=16, size=(64, 96)), config)


SMALL = {"channels": 16, "proposals": 40, "candidates": 100}


def detection(make: Callable[[Clip, Tensor, Sequence[bool]], nn.Module]) -> Recipe:
    clip, world = load("random:tiny", device="cpu", precision="fp32"), World("train", count=16, size=(64, 96))
    novel = [name in world.novel for name, thing in zip(world.names, world.things, strict=True) if thing]
    words = [None if name in world.novel or not world.things[i] else i for i, name in enumerate(world.names)]
    torch.manual_seed(0)
    embeddings = torch.randn(len(novel) + 1, clip.dim)
    return Detection(clip, make(clip, embeddings, novel), world, words, size=64)


def fvit() -> Recipe:
    config = FVitConfig(hidden=16, bins=3, convolutions=1, regions=32).replace(**SMALL)
    return detection(lambda clip, words, novel: FVit(clip, words, novel, config))


def c4() -> Recipe:
    def made(clip: Clip, words: Tensor, novel: Sequence[bool]) -> C4:
        proposer = new_proposer(clip, (), (), templates="simple", size=64, config=SMALL)
        words[-1] = 0
        return C4(clip, proposer, words, novel, C4Config(regions=32, temperature=0.05))

    return detection(made)


def masks() -> Recipe:
    clip, world = load("random:tiny", device="cpu", precision="fp32"), World("train", count=16, size=(64, 96))
    novel = [name in world.novel for name in world.names]
    words = [None if new else label for label, new in enumerate(novel)]
    torch.manual_seed(0)
    parts = {"queries": 6, "channels": 32, "hidden": 16, "heads": 2, "layers": 2, "feed_forward": 32, "dropout": 0.0}
    config = MaskFormerConfig().replace(**parts, words_hidden=24, temperature=0.1)
    head = MaskFormer(clip, torch.randn(len(novel), clip.dim), novel, config)
    return Detection(clip, head, world, words, size=64, masks=True)


def catseg() -> Recipe:
    clip, world = load("random:tiny", device="cpu", precision="fp32"), World("train", count=16, size=(64, 96))
    novel = [name in world.novel for name in world.names]
    words = [None if new else label for label, new in enumerate(novel)]
    torch.manual_seed(0)
    widths = {"hidden": 16, "heads": 2, "window": 4, "appearance": 8, "meaning": 8, "guides": (8, 8), "padding": 30}
    parts = {**widths, "decoder": (16, 16), "guidance": (8, 8), "tune": "image", "route": "value"}
    made = new_segmenter(clip, world.names, novel, templates="simple", size=32, config=parts)
    return Detection(clip, made.head, world, words, size=32, masks=True, paces=made.paces)


def maskadapt() -> Recipe:
    clip = load("random:tiny", device="cpu", precision="fp32")
    return MaskAdapt(clip, World("train", count=16, size=(64, 96)), MaskAdaptConfig(masks_per_picture=2))


def mask_prompts() -> Recipe:
    clip = load("random:tiny", device="cpu", precision="fp32")
    return MaskAdapt(clip, World("train", count=16, size=(64, 96)), MaskAdaptConfig(tune="prompts", depth=2))


def denseclip() -> Recipe:
    clip, world = load("random:tiny", device="cpu", precision="fp32"), World("train", count=16, size=(64, 96))
    torch.manual_seed(0)
    widths = {"contexts": 2, "decoder_width": 16, "decoder_heads": 2, "decoder_layers": 1, "channels": 8, "hidden": 8}
    names = world.names
    made = new_dense_predictor(clip, names, [False] * len(names), templates="simple", size=32, config=widths)
    return LabelMapRecipe(clip, made.head, world, range(len(names)), config=LabelMapConfig(size=32), paces=made.paces)


def embeddings(items: int, captions: int, details: int = 0) -> Features:
    rng = np.random.default_rng(captions)
    rows = np.arange(items * captions).reshape(items, captions)
    table = np.concatenate([np.arange(items)[:, None], rows], axis=1).astype(np.int32)
    return Features(rng.standard_normal((items, 16 + details)), rng.standard_normal((items * captions, 16)), table)


def warm_up() -> Recipe:
    torch.manual_seed(0)
    return WarmUp(new_matcher("linear", 16), embeddings(20, 1), embeddings(12, 5), FineGrainedConfig(pair_margin=0.5))


def fine_tuning() -> Recipe:
    torch.manual_seed(0)
    config = FineGrainedConfig(margin=0.5)
    return FineTune(new_matcher("residual", 16), embeddings(20, 5), embeddings(12, 5), config)


def keeping() -> Recipe:
    torch.manual_seed(0)
    config = FineGrainedConfig(objective="softmax", sharpness=10.0, keep=0.1)
    matcher = new_matcher("residual-mlp", 16)
    return FineTune(matcher, embeddings(20, 5), embeddings(12, 5), config, pairs=embeddings(20, 1))


def looking_inside() -> Recipe:
    torch.manual_seed(0)
    config, learned = FineGrainedConfig(objective="softmax", sharpness=10.0, keep=0.1), embeddings(20, 5, details=6)
    seen = Seen((0,), 6)
    seen.learn(*learned.usual())
    matcher = new_matcher("residual-mlp", 16, seen=seen)
    return FineTune(matcher, learned, embeddings(12, 5, details=6), config, pairs=embeddings(20, 1, details=6))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "maskadapt": maskadapt,
    "mask-prompts": mask_prompts,
    "masks": masks,
    "catseg": catseg,
    "denseclip": denseclip,
    "fvit": fvit,
    "c4": c4,
    "pretrain": pretrain,
    "clipself": clipself,
    "regionclip": regionclip,
    "finegrained-pairs": warm_up,
    "finegrained": fine_tuning,
    "finegrained-keep": keeping,
    "finegrained-levels": looking_inside,
}

every_recipe = pytest.mark.parametrize("make", RECIPES.values(), ids=RECIPES)


def config(steps: int, **changes: object) -> TrainConfig:
    settings = {"batch_size": 8, "rate": 3e-4, "precision": "fp32", "workers": 0, "log_every": 1, "evaluate_every": 99}
    return TrainConfig(steps=steps, **(settings | changes))  # type: ignore[arg-type]


def weights(recipe: Recipe) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in recipe.module.named_parameters()}


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def trained(make: Callable[[], Recipe], settings: TrainConfig, folder: Path) -> dict[str, Tensor]:
    recipe = make()
    train(recipe, settings, folder)
    return weights(recipe)


class OneBatch(Recipe):
    """A recipe that sees its first batch again and again, so that its loss must fall."""

    name = "one batch"

    def __init__(self, inner: Recipe, size: int) -> None:
        self.module = inner.module
        self._inner, self._size = inner, size

    def trainable(self) -> Mapping[str, torch.nn.Parameter]:
        return self._inner.trainable()

    def collate(self, samples: Sequence[Any]) -> Batch:
        return self._inner.collate(samples)

    def sample(self, position: int) -> object:
        return self._inner.sample(position % self._size)


@every_recipe
def test_the_loss_falls(make: Callable[[], Recipe], tmp_path: Path) -> None:
    train(OneBatch(make(), 8), config(12, rate=1e-3), tmp_path)
    losses = [line["loss"] for line in logged(tmp_path)]
    assert min(losses[-3:]) < losses[0] - 0.1


@every_recipe
def test_only_declared_parameters_move(make: Callable[[], Recipe], tmp_path: Path) -> None:
    recipe = make()
    before, declared = weights(recipe), set(recipe.trainable())
    train(recipe, config(3), tmp_path)
    moved = {name for name, value in weights(recipe).items() if not torch.equal(value, before[name])}
    assert moved
    assert moved <= declared


@every_recipe
def test_same_seed_same_result(make: Callable[[], Recipe], tmp_path: Path) -> None:
    first = trained(make, config(3), tmp_path / "a")
    second = trained(make, config(3), tmp_path / "b")
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@every_recipe
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_workers_do_not_change_the_result(make: Callable[[], Recipe], tmp_path: Path) -> None:
    alone = trained(make, config(2), tmp_path / "a")
    helped = trained(make, config(2, workers=2), tmp_path / "b")
    assert all(torch.equal(value, helped[name]) for name, value in alone.items())


@every_recipe
def test_a_batch_in_parts_is_the_batch(make: Callable[[], Recipe], tmp_path: Path) -> None:
    settings = config(3, accumulate=4)
    if not make().divisible:
        with pytest.raises(ConfigError, match=r"`accumulate` is 4: .* Set it to 1"):
            train(make(), settings, tmp_path)
        return
    whole, parts = trained(make, config(3), tmp_path / "whole"), trained(make, settings, tmp_path / "parts")
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=0, msg=name)
    figures = [logged(tmp_path / name)[-1] for name in ("whole", "parts")]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], abs=2e-6)


@every_recipe
def test_resumed_equals_uninterrupted(make: Callable[[], Recipe], tmp_path: Path) -> None:
    whole = trained(make, config(4), tmp_path / "whole")
    train(make(), config(4), tmp_path / "parts", until=2)
    recipe = make()
    train(recipe, config(4), tmp_path / "parts", resume=True)
    assert all(torch.equal(value, whole[name]) for name, value in weights(recipe).items())


@every_recipe
def test_what_is_saved_is_what_was_trained(make: Callable[[], Recipe], tmp_path: Path) -> None:
    recipe, again = make(), make()
    train(recipe, config(2), tmp_path)
    train(again, config(2), tmp_path, resume=True)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(recipe).items())


@every_recipe
def test_half_precision_trains_too(make: Callable[[], Recipe], tmp_path: Path) -> None:
    recipe = make()
    finished = train(recipe, config(2, precision="bf16"), tmp_path)
    assert finished.step == 2
    assert all(value.isfinite().all() for value in weights(recipe).values())


@every_recipe
def test_evaluation_gives_finite_figures(make: Callable[[], Recipe]) -> None:
    figures = make().evaluate()
    assert all(torch.tensor(value).isfinite() for value in figures.values())


def test_resuming_nothing_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to resume"):
        train(pretrain(), config(2), tmp_path, resume=True)


@pytest.mark.parametrize("file", ["module.safetensors", "optimizers.pt"])
def test_a_broken_state_is_a_clear_error(file: str, tmp_path: Path) -> None:
    train(pretrain(), config(1), tmp_path)
    (tmp_path / "state-00000001" / file).write_bytes(b"torn")
    with pytest.raises(DataError, match="cannot be read"):
        train(pretrain(), config(1), tmp_path, resume=True)


def test_an_unwritable_folder_stops_with_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(CloseupError, match="Cannot write"):
        train(pretrain(), config(1), tmp_path / "run")


def test_a_training_is_not_overwritten_and_resumes_only_as_it_was(tmp_path: Path) -> None:
    train(pretrain(), config(2), tmp_path, until=1)
    with pytest.raises(InputError, match="holds a training already"):
        train(pretrain(), config(2), tmp_path)
    with pytest.raises(ConfigError, match="begun with steps 2 and not 3"):
        train(pretrain(), config(3), tmp_path, resume=True)


def test_a_training_begun_before_a_setting_existed_goes_on(tmp_path: Path) -> None:
    train(pretrain(), config(2), tmp_path, until=1)
    path = tmp_path / "state.json"
    saved = json.loads(path.read_text())
    del saved["config"]["decay"]
    path.write_text(json.dumps(saved))
    with pytest.raises(ConfigError, match="begun with decay cosine and not polynomial"):
        train(pretrain(), config(2, decay="polynomial"), tmp_path, resume=True)
    assert train(pretrain(), config(2), tmp_path, resume=True).step == 2


def test_the_rate_falls_as_the_settings_say(tmp_path: Path) -> None:
    train(pretrain(), config(4, rate=1e-3, decay="polynomial", final_rate=0.1), tmp_path)
    expected = [(1e-3 - 1e-4) * (1 - step / 4) ** 0.9 + 1e-4 for step in range(4)]
    assert [line["rate"] for line in logged(tmp_path)] == pytest.approx(expected, rel=0.01)


def test_a_resumed_log_has_every_step_once(tmp_path: Path) -> None:
    train(pretrain(), config(4, save_every=2), tmp_path, until=2)
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 3, "loss": 0.0}) + "\n")
    train(pretrain(), config(4), tmp_path, resume=True)
    assert [line["step"] for line in logged(tmp_path)] == [1, 2, 3, 4]


class Explodes(OneBatch):
    """A recipe whose loss is not a number after its second step."""

    def after_step(self) -> None:
        next(iter(self.trainable().values())).data.fill_(float("nan"))


def test_a_loss_that_is_not_finite_stops_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CloseupError, match="loss of recipe 'one batch' is nan"):
        train(Explodes(pretrain(), 8), config(3, save_every=1), tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 1


class Interrupted(OneBatch):
    """A recipe during whose first step Ctrl-C is pressed."""

    def after_step(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_finishes_the_step_and_saves(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(Interrupted(pretrain(), 8), config(3), tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["step"] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"rate": 0.0}, "`rate` must be positive"),
        ({"batch_size": 6, "accumulate": 4}, "must divide `batch_size`"),
        ({"warmup": -1}, "`warmup` must not be negative"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"decay": "cosin"}, "Unknown decay 'cosin'. Did you mean 'cosine'"),
        ({"trackers": ("tensorbord",)}, "Unknown tracker 'tensorbord'. Did you mean 'tensorboard'"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainConfig(**({"steps": 1, "batch_size": 8, "rate": 1e-3} | changes))  # type: ignore[arg-type]
