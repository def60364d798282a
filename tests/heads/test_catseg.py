from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from closeup.data.world import World
from closeup.errors import ConfigError, ModelError
from closeup.heads.catseg import CatSeg
from closeup.heads.catseg_config import CatSegConfig
from closeup.heads.segmenter import load_segmenter, new_segmenter
from closeup.heads.trained import save_head
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.recipes.config import TrainConfig
from closeup.recipes.detection import Detection
from closeup.recipes.run_detection import DetectorTraining, Maker, train_detector
from closeup.recipes.segmentation_config import CATSEG_PRESETS
from closeup.recipes.train import train
from tiny_clips import as_clip, eva_clip, vit_clip
from tiny_towers import images, resnet_clip

SMALL = {
    "hidden": 16,
    "heads": 2,
    "window": 3,
    "appearance": 8,
    "meaning": 8,
    "decoder": (16, 16),
    "guidance": (8, 8),
    "guides": (6, 4),
    "padding": 5,
}
CONFIG = CatSegConfig().replace(**SMALL, tune="nothing", route="value")
SENTENCES = [(f"a photo of a {word}.",) for word in ("star", "cup", "grass")]


def test_a_picture_of_any_shape_and_any_words_have_a_probability_at_every_place() -> None:
    clip = vit_clip()
    head = CatSeg(clip, SENTENCES, (False,) * 3, CONFIG).eval()
    pictures = images(24, 40)
    for count in (1, 3, 5, 9):
        words = F.normalize(torch.randn(count, clip.dim, generator=torch.Generator().manual_seed(count)), dim=1)
        found = head.score(pictures, words)
        assert found.shape == (len(pictures), count, 4 * 24 // clip.patch, 4 * 40 // clip.patch)
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        dropped = (found == 0).flatten(2).all(dim=2).sum(dim=1)
        assert dropped.tolist() == [max(0, count - 5)] * len(pictures)


def test_the_loss_is_yes_or_no_for_each_word_at_each_pixel_of_the_picture() -> None:
    clip = vit_clip()
    head = CatSeg(clip, SENTENCES, (False, True, False), CONFIG)
    pictures = images(32, 32)[:2]
    masks = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.6
    batch = {
        "images": pictures,
        "sizes": torch.tensor([[32, 32], [24, 16]]),
        "labels": torch.tensor([0, 2, 1, 2]),
        "owners": torch.tensor([0, 0, 0, 1]),
        "masks": masks,
    }
    learned = head(batch)["loss"]
    words = clip.encode_text([SENTENCES[0][0], SENTENCES[2][0]])
    planes = head.aggregator(*_inputs(head, pictures, words), pool=head.config.pool)
    logits = F.interpolate(planes, (32, 32), mode="bilinear").detach()
    total, count = 0.0, 0
    truth = torch.zeros(2, 2, 32, 32)
    truth[0, 0], truth[0, 1], truth[1, 1] = masks[0].float(), masks[1].float(), masks[3].float()
    for picture, (height, width) in enumerate(((32, 32), (24, 16))):
        part = (picture, slice(None), slice(height), slice(width))
        total += float(F.binary_cross_entropy_with_logits(logits[part], truth[part], reduction="sum"))
        count += 2 * height * width
    assert float(learned.detach()) == pytest.approx(total / count, rel=1e-5)


def _inputs(head: CatSeg, pictures: Tensor, words: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    levels, maps = head.clip.features_and_dense(pictures, head.blocks, route="value", normalize=False)
    guidance = [maps, *head.guides(levels, (maps.shape[2], maps.shape[3]))]
    return maps, words.expand(len(pictures), 1, -1, -1).transpose(1, 2), guidance


@pytest.mark.parametrize("tune", ["both", "image", "nothing"])
@pytest.mark.parametrize("make", [vit_clip, eva_clip], ids=["vit", "eva"])
def test_queries_and_values_learn_and_keys_do_not(
    tune: Literal["both", "image", "nothing"], make: Callable[[], Clip], tmp_path: Path
) -> None:
    clip = make() if make is eva_clip else load("random:tiny", device="cpu", precision="fp32")
    world = World("train", count=4, size=(32, 32))
    segmenter = new_segmenter(
        clip,
        world.names,
        [name in world.novel for name in world.names],
        templates="simple",
        size=32,
        config={**SMALL, "tune": tune, "route": "attention"},
    )
    head = segmenter.head
    words = [None if name in world.novel else label for label, name in enumerate(world.names)]
    before = {name: value.clone() for name, value in head.clip.model.state_dict().items()}
    untouched = {name: value.clone() for name, value in clip.model.state_dict().items()}
    recipe = Detection(clip, head, world, words, size=32, masks=True, paces=segmenter.paces)
    settings = TrainConfig(steps=2, batch_size=2, rate=1e-2, precision="fp32", workers=0, weight_decay=0.1)
    train(recipe, settings, tmp_path)
    moved = {name for name, value in head.clip.model.state_dict().items() if not torch.equal(value, before[name])}
    assert all(torch.equal(value, untouched[name]) for name, value in clip.model.state_dict().items())
    assert moved == {name.removeprefix("clip_weights.").replace("/", ".") for name in head.state_dict() if "/" in name}
    assert bool(moved) == (tune != "nothing")
    assert any(not name.startswith("visual.") for name in moved) == (tune == "both")
    for name in moved:
        assert name.endswith(("q_proj.weight", "v_proj.weight", "in_proj_weight"))
        if name.endswith("in_proj_weight"):
            now, was = (state[name].chunk(3) for state in (head.clip.model.state_dict(), before))
            assert [torch.equal(one, two) for one, two in zip(now, was, strict=True)] == [False, True, False]
    if tune != "nothing":
        # A hundredth of the rate: AdamW moves a weight by no more than the rate in a step.
        farthest = max(float((head.clip.model.state_dict()[name] - before[name]).abs().max()) for name in moved)
        assert 0 < farthest < 2.1 * 1e-4


def test_a_segmenter_is_trained_saved_and_loaded_as_it_was(tmp_path: Path) -> None:
    training = {"steps": 2, "batch_size": 2, "precision": "fp32", "workers": 0, "save_every": 1}
    wanted = DetectorTraining(
        images="world?count=4&size=64",
        preset="tiny",
        config={"size": 64},
        training=training,
        head={**SMALL, "tune": "both"},
    )
    maker = Maker(new_segmenter, save_head, CATSEG_PRESETS, grounds=True)
    made = train_detector(wanted, tmp_path / "one", maker)
    one = load_segmenter(made.folder, device="cpu", precision="fp32")
    assert one.head.clip.text_fingerprint != one.clip.text_fingerprint
    assert one.marks(["star", "circle", "zebra"]) == [True, False, True]
    again = load_segmenter(train_detector(wanted, tmp_path / "two", maker).folder, device="cpu", precision="fp32")
    assert one.fingerprint == again.fingerprint
    assert one.head.clip.fingerprint == again.head.clip.fingerprint
    words = one.head.clip.encode_text(["a star", "grass"])
    pictures = torch.rand(1, 3, 64, 64)
    assert torch.equal(one.head.score(pictures, words), again.head.score(pictures, words))
    with pytest.raises(ModelError, match="is a head of the kind 'rpn'"):
        load_segmenter("tiny-rpn")


def test_towers_of_stages_guide_by_their_own_maps() -> None:
    clip = as_clip(resnet_clip())
    head = CatSeg(clip, SENTENCES, (False,) * 3, CONFIG).eval()
    side = 2 * clip.patch
    found = head.score(torch.rand(1, 3, side, side), F.normalize(torch.randn(3, clip.dim), dim=1))
    assert found.shape == (1, 3, 8, 8)
    with pytest.raises(ModelError, match="no attention whose queries"):
        CatSeg(clip, SENTENCES, (False,) * 3, CONFIG.replace(tune="image"))


def test_wrong_settings_are_said() -> None:
    wrong: list[dict[str, object]] = [{"blocks": (1,)}, {"clip_pace": 0.0}, {"prompts": 2}, {"guides": (0, 4)}]
    for changes in wrong:
        with pytest.raises(ConfigError):
            CONFIG.replace(**changes)
