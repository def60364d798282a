"""Recipe regionclip: its loss by hand, who labels and who learns, and captions of every kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from open_clip import CLIP
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torchvision.ops import roi_align

from closeup.data.record import Record
from closeup.errors import ConfigError, DataError
from closeup.models.clip import Clip
from closeup.recipes.config import TrainConfig
from closeup.recipes.distill_regions import region_sources
from closeup.recipes.regionclip import RegionClip
from closeup.recipes.regionclip_config import RegionClipConfig
from closeup.recipes.train import train
from closeup.regions import crop_regions
from tiny_clips import TEXT, as_clip, vit_clip
from tiny_pictures import Pictures
from tiny_towers import randomise

WORDS = ("cat", "dog", "stop sign", "tree", "red car", "snow")
SIZE = 64


@dataclass(frozen=True)
class Captioned(Pictures):
    """The same pictures; some have captions."""

    captions: tuple[tuple[str, ...], ...] = (("A cat.",), ("A dog.", "Two dogs."), ("A cat.",), ())

    def __getitem__(self, index: int) -> Record:
        return replace(super().__getitem__(index), captions=self.captions[index])


def resnet() -> Clip:
    vision = {"layers": [1, 2, 1, 1], "width": 8, "image_size": 64}
    return as_clip(randomise(CLIP(24, vision, TEXT)), {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT})


@pytest.fixture
def concepts(tmp_path: Path) -> str:
    path = tmp_path / "concepts.txt"
    path.write_text("\n".join(WORDS))
    return str(path)


@pytest.fixture
def made(concepts: str) -> Callable[..., RegionClip]:
    def make(clip: Clip | None = None, pictures: Pictures | None = None, **changes: object) -> RegionClip:
        config = RegionClipConfig(concepts=concepts, size=SIZE, templates="simple", temperature=0.05)
        return RegionClip(clip or vit_clip(), pictures or Captioned(), config.replace(**changes))

    return make


def batch_of(recipe: RegionClip, count: int = 4) -> dict[str, Tensor]:
    return recipe.collate([recipe.sample(position) for position in range(count)])


def stirred(recipe: RegionClip) -> RegionClip:
    """Move the student off the teacher."""
    generator = torch.Generator().manual_seed(1)
    for parameter in recipe.trainable().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return recipe


def by_hand(recipe: RegionClip, count: int = 4) -> dict[str, Tensor]:
    """Compute the losses picture by picture, region by region, with torchvision's RoIAlign and open_clip's towers."""
    clip, temperature, threshold = recipe.clip, recipe.config.temperature, recipe.config.threshold
    text = normalize(clip.encode_text([f"a photo of a {word}." for word in WORDS]), dim=1)
    (source,) = region_sources(recipe.config)
    seen, regions, wholes, captions = [], [], [], []
    for position in range(count):
        sample, tokens = recipe.sample(position)
        batch = recipe.samples.collate([sample])
        seen += list(recipe.teacher(batch["views"]))
        maps = clip.encode_dense(sample.image[None])
        boxes = torch.cat([sample.boxes, sample.extent[None]]) * SIZE / clip.patch
        pooled = roi_align(maps, [boxes], 1, aligned=True)[..., 0, 0]
        regions += list(pooled[:-1])
        if tokens is not None:
            wholes.append(normalize(pooled[-1], dim=0))
            captions.append(tokens)
    assert source.crop.enlarge == 1.5
    labels: list[int] = []
    contrast: list[Tensor] = []
    kept, distill = [], []
    for row, embedding in enumerate(seen):
        shares = (text @ normalize(embedding, dim=0) / temperature).softmax(0)
        if float(shares.max()) > threshold:
            labels.append(int(shares.argmax()))
            kept.append((row, shares))
    for row, shares in kept:
        logits = text @ normalize(regions[row], dim=0) / temperature
        against = torch.stack([logits[label] for label in labels]).softmax(0)
        own = labels[len(contrast)]
        contrast.append(-torch.stack([p for p, label in zip(against, labels, strict=True) if label == own]).sum().log())
        distill.append(sum(p * (p.log() - q) for p, q in zip(shares, logits.log_softmax(0), strict=True)))
    read = torch.stack([clip.encode_tokens(tokens[None], normalize=True)[0] for tokens in captions])
    logits = torch.stack(wholes) @ read.T / temperature
    for i in range(len(captions)):
        for j in range(len(captions)):
            if i != j and torch.equal(captions[i], captions[j]):
                logits[i, j] = -math.inf
    target = torch.arange(len(captions))
    return {
        "contrast": torch.stack(contrast).mean(),
        "distill": torch.stack(distill).mean(),
        "image_text": (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2,
        "kept": torch.tensor(len(kept) / len(seen)),
    }


@torch.no_grad()
def test_the_losses_are_those_of_regions_one_by_one(made: Callable[..., RegionClip]) -> None:
    recipe = stirred(made(threshold=0.2, contrast=0.5, distill=2.0, image_text=0.25))
    found, expected = recipe.module(batch_of(recipe)), by_hand(recipe)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)
    total = 0.5 * expected["contrast"] + 2 * expected["distill"] + 0.25 * expected["image_text"]
    torch.testing.assert_close(found["loss"], total, atol=1e-5, rtol=1e-4)
    assert 0 < float(found["kept"]) <= 1


@torch.no_grad()
def test_the_teacher_sees_cut_outs_as_they_are(made: Callable[..., RegionClip]) -> None:
    recipe = made()
    sample, _ = recipe.sample(0)
    assert sample.regions is not None
    clip = recipe.clip
    records = [Captioned()[index] for index in range(4)]
    shown = [clip.preprocess(each.load(), policy="longest-pad-corner", size=SIZE)[0] for each in records]
    record = records[[torch.equal(each, sample.image) for each in shown].index(True)]
    assert record.boxes is not None
    cuts = crop_regions(record.load(), record.boxes, None, region_sources(recipe.config)[0].crop, mean=clip.mean)
    views = {tuple(clip.preprocess(cut, policy="longest-pad-centre")[0].flatten().tolist()) for cut in cuts}
    assert {tuple(view.flatten().tolist()) for view in sample.regions.views} <= views


@torch.no_grad()
def test_a_resnet_teaches_what_it_reads_off_the_picture(made: Callable[..., RegionClip]) -> None:
    """The official form: at the start student and teacher are one, so there is nothing to distil."""
    recipe = made(resnet())
    batch = batch_of(recipe)
    assert "views" not in batch
    assert float(recipe.module(batch)["distill"]) == pytest.approx(0, abs=1e-6)
    clip = recipe.clip
    counts = torch.bincount(batch["owners"], minlength=4).tolist()
    cells = torch.split(batch["boxes"] * SIZE / 16, counts)
    expected = torch.cat(clip.tower.region_embeddings(clip.tower.c4(batch["images"]), cells))  # type: ignore[attr-defined]
    torch.testing.assert_close(recipe.module.pooled(batch["images"], batch), expected, atol=1e-5, rtol=1e-4)
    assert float(stirred(recipe).module(batch)["distill"]) > 1e-4


def test_a_resnet_learns_three_stages_and_the_pool_alone(made: Callable[..., RegionClip], tmp_path: Path) -> None:
    clip = resnet()
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    recipe = made(clip)
    train(recipe, TrainConfig(steps=2, batch_size=2, rate=1e-2, precision="fp32", workers=0, optimizer="sgd"), tmp_path)
    moved = {name for name, value in clip.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == set(recipe.trainable())
    assert {name.split(".")[1] for name in moved} == {"layer2", "layer3", "layer4", "attnpool"}
    assert not [name for name in moved if ".bn" in name or "downsample.1" in name], "norms are frozen"


@torch.no_grad()
def test_a_cut_out_teacher_can_be_had_for_a_resnet_and_a_map_for_a_vit(made: Callable[..., RegionClip]) -> None:
    assert "views" in batch_of(made(resnet(), teacher="crops"))
    recipe = made(teacher="map")
    batch = batch_of(recipe)
    assert "views" not in batch
    assert float(recipe.module(batch)["distill"]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "captions",
    [
        ((), (), (), ()),
        (("",), ("🐈‍⬛ 🐕",), ("一只猫",), ("word " * 10_000,)),
        (("A cat.",),) * 4,
    ],
    ids=["none", "odd", "equal"],
)
def test_captions_of_every_kind_leave_the_loss_finite(
    made: Callable[..., RegionClip], captions: tuple[tuple[str, ...], ...]
) -> None:
    recipe = stirred(made(pictures=Captioned(captions=captions)))
    found = recipe.module(batch_of(recipe))
    assert math.isfinite(float(found["loss"].detach()))
    if captions[0] in ((), ("A cat.",)):
        assert float(found["image_text"].detach()) == 0, "nothing to tell apart"
    found["loss"].backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in recipe.trainable().values())


def test_without_captions_in_the_loss_none_is_read(made: Callable[..., RegionClip]) -> None:
    recipe = made(image_text=0.0)
    batch = batch_of(recipe)
    assert "tokens" not in batch
    assert "image_text" not in recipe.module(batch)


@torch.no_grad()
def test_nouns_are_yes_or_no_questions_about_the_teachers_label(made: Callable[..., RegionClip]) -> None:
    recipe = stirred(made(objective="nouns"))
    batch = batch_of(recipe)
    text = normalize(recipe.clip.encode_text([f"a photo of a {word}." for word in WORDS]), dim=1)
    labels = (normalize(recipe.teacher(batch["views"]), dim=1) @ text.T).argmax(1)
    logits = recipe.clip.logit_scale * normalize(recipe.module.pooled(batch["images"], batch), dim=1) @ text.T
    expected = 0.0
    for row, label in zip(logits, labels.tolist(), strict=True):
        for column, logit in enumerate(row):
            expected -= float((logit if column == label else -logit).sigmoid().log())
    assert float(recipe.module(batch)["loss"]) == pytest.approx(expected / len(labels), rel=1e-4)


@torch.no_grad()
def test_another_model_may_be_the_teacher(made: Callable[..., RegionClip]) -> None:
    """Its views, its embeddings of regions and its embeddings of concepts are its own."""
    recipe = made(teacher_model="tiny")
    batch = batch_of(recipe)
    assert batch["views"].shape[2:] == recipe.teacher.clip.image_size != recipe.clip.image_size
    assert recipe.module.teacher_concepts.shape[1] == recipe.teacher.clip.dim != recipe.clip.dim
    assert math.isfinite(float(recipe.module(batch)["loss"]))


def test_a_cached_teacher_gives_the_same_loss(made: Callable[..., RegionClip], concepts: str, tmp_path: Path) -> None:
    plain = made()
    cached = RegionClip(vit_clip(), Captioned(), plain.config, cache=tmp_path / "cache")
    assert len(list(cached.precompute())) == 4
    batch = batch_of(cached)
    assert len(batch["missing"]) == 0
    torch.testing.assert_close(
        cached.module(batch)["loss"], plain.module(batch_of(plain))["loss"], atol=2e-3, rtol=1e-2
    )
    with pytest.raises(ConfigError, match="nothing is cached"):
        list(made(teacher="map").precompute())


def test_what_cannot_be_learned_from_is_said(made: Callable[..., RegionClip], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="closeup concepts"):
        made(concepts="")
    with pytest.raises(DataError, match="nowhere"):
        made(concepts=str(tmp_path / "nowhere.txt"))
    with pytest.raises(ConfigError, match="not masks"):
        made(resnet(), regions="masks")
    with pytest.raises(ConfigError, match="not masks"):
        made(regions="masks", teacher="map", teacher_model="random:RN50")
    with pytest.raises(ConfigError, match="All losses"):
        made(contrast=0.0, distill=0.0, image_text=0.0)
    with pytest.raises(ConfigError, match="`threshold` from 0 to below 1"):
        made(threshold=1.0)


@torch.no_grad()
def test_labels_are_those_of_full_precision_whatever_the_loops(made: Callable[..., RegionClip]) -> None:
    """Cosines over a temperature of 0.01 have no room in half precision."""
    for teacher in ("crops", "map"):
        recipe = made(teacher=teacher, temperature=0.01, distill=1.0)
        batch = batch_of(recipe)
        plain = recipe.module(batch)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = recipe.module(batch)
        assert float(mixed["kept"]) == float(plain["kept"])
        assert mixed["loss"].dtype == torch.float32
