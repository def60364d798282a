"""F-ViT: its parts against the official code, what it learns from, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from open_clip import CustomTextCLIP
from timm.models.eva import Eva
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou, roi_align

from closeup.errors import ConfigError, InputError, ModelError
from closeup.heads.backbone import ClipPyramid, tapped
from closeup.heads.box_head import BoxHead
from closeup.heads.fvit import FVit
from closeup.heads.fvit_config import FVitConfig
from closeup.heads.mask_head import mask_loss
from closeup.heads.proposals import Anchors
from closeup.heads.pyramid import VitPyramid
from closeup.heads.region_pooling import PyramidPooling
from closeup.match.detections import Suppression
from closeup.models.clip import Clip
from closeup.models.official_keys import official_eva_to_timm
from goldens import Golden, assert_close, cases
from tiny_clips import EVA02, as_clip, eva_config, eva_model, vit_clip
from tiny_towers import fastvit_clip, randomise, resnet_clip

SIDE = 64


def families() -> dict[str, Callable[[], Clip]]:
    described = {"embed_dim": 24}
    return {
        "vit": lambda: vit_clip(layers=4),
        "resnet": lambda: as_clip(resnet_clip(), described),
        "fastvit": lambda: as_clip(fastvit_clip(), described),
    }


def renamed(weights: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return weights under our names, those of the names given alone."""
    return {
        ours + key.removeprefix(theirs): value
        for key, value in weights.items()
        for theirs, ours in names.items()
        if key.startswith(theirs)
    }


def fvit_eva(golden: Golden) -> CustomTextCLIP:
    """Return a CLIP around timm's Eva with the weights of the golden's backbone."""
    config, model = golden.config, eva_model()
    model.visual.trunk = Eva(
        **EVA02
        | {"img_size": config["img"], "patch_size": config["patch"], "embed_dim": config["width"]}
        | {"depth": config["depth"], "num_heads": config["heads"], "mlp_ratio": config["mlp_ratio"]}
        | {"num_classes": config["D"], "global_pool": "token"}
    )
    state = official_eva_to_timm(renamed(golden.weights(), {"backbone.visual.": "visual."}), prefix="trunk.")
    model.visual.load_state_dict(state)
    return model.eval()


def as_maps(tokens: Tensor) -> Tensor:
    patches = tokens[:, 1:].transpose(1, 2)
    side = int(patches.shape[2] ** 0.5)
    return torch.as_tensor(patches.unflatten(2, (side, side)))


@pytest.mark.parametrize("golden", cases("fvit_fusion"))
@pytest.mark.parametrize("size", ["native", "large"])
@torch.no_grad()
def test_the_pyramid_is_the_official_one(golden: Golden, size: str) -> None:
    pyramid = VitPyramid(golden.config["width"]).eval()
    names = {"backbone.interpolate1.": "fourfold.", "backbone.interpolate2.0.": "twofold."}
    state = renamed(golden.weights(), names)
    pyramid.load_state_dict(state)
    maps = [as_maps(golden[f"out/{size}/tokens_{index}"]) for index in (1, 2, 3, 4)]
    for index, level in enumerate(pyramid(maps), start=1):
        assert_close(level, golden[f"out/{size}/level{index}"])
    assert_close(pyramid.train()(maps)[0], golden[f"out/{size}/level1_train"])


@pytest.mark.parametrize("golden", cases("fvit_fusion"))
@pytest.mark.parametrize("size", ["native", "large"])
@torch.no_grad()
def test_blocks_and_map_are_the_official_ones_from_one_pass(golden: Golden, size: str) -> None:
    config = golden.config
    clip = as_clip(fvit_eva(golden), eva_config(config["D"]))
    levels, dense = clip.features_and_dense(golden[f"in/image_{size}"], config["out_indices"])
    for index, level in enumerate(levels, start=1):
        assert_close(level, as_maps(golden[f"out/{size}/tokens_{index}"]))
    assert_close(dense, golden[f"out/{size}/vlm_feat"])


@pytest.mark.parametrize("golden", cases("fvit_fusion"))
@torch.no_grad()
def test_the_box_head_is_the_official_one(golden: Golden) -> None:
    config = golden.config
    head = BoxHead(config["roi_c"], dim=config["D"], bins=config["roi"], hidden=config["conv_out"]).eval()
    parts = {"conv": 0, "bn": 1}
    names = {f"head.shared_convs.{i}.{part}.": f"shared.{i}.{parts[part]}." for i in range(4) for part in parts}
    names |= {"head.shared_fcs.0.": "shared.5.", "head.shared_fcs.1.": "shared.7.", "head.cls_fcs.": "named."}
    names |= {"head.reg_fcs.": "moved.", "head.fc_reg.": "deltas.", "head.detect_temperature": "scale"}
    head.load_state_dict(renamed(golden.weights(), names))
    embeddings, deltas = head(golden["in/roi_feats"])
    assert_close(deltas, golden["out/bbox_pred"])
    assert_close(head.logits(embeddings, golden["in/class_embed"]), golden["out/det_logits"])


def detector(novel: tuple[bool, ...] = (False, True, False), **changes: object) -> FVit:
    """Return a small F-ViT with three words and the background."""
    clip = vit_clip(layers=4)
    torch.manual_seed(0)
    words = torch.randn(len(novel) + 1, clip.dim)
    config = FVitConfig(channels=16, hidden=16, bins=3, convolutions=1, proposals=40, candidates=100, regions=32)
    model = FVit(clip, words, novel, config.replace(**changes))
    randomise(model, 0)
    return model.eval()


def batch(labels: tuple[int, ...] = (0, 2, 0)) -> dict[str, Tensor]:
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 50], [0, 0, 64, 30]])
    generator = torch.Generator().manual_seed(1)
    return {
        "images": torch.randn(2, 3, SIDE, SIDE, generator=generator),
        "sizes": torch.tensor([[SIDE, SIDE], [SIDE, 40]]),
        "boxes": boxes[: len(labels)],
        "labels": torch.tensor(labels, dtype=torch.long),
        "owners": torch.tensor([0, 0, 1])[: len(labels)],
    }


def test_losses_reach_every_parameter_and_not_the_tower() -> None:
    model = detector().train()
    clip = model.clip
    given = model(batch())
    assert set(given) == {"loss", "objectness", "proposal_boxes", "classes", "boxes"}
    given["loss"].backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == set()
    assert all(parameter.grad is None for parameter in clip.model.parameters())
    assert not any(name.startswith("clip") for name in model.state_dict())


def test_a_picture_without_objects_has_a_finite_loss() -> None:
    given = detector().train()(batch(()))
    assert all(bool(value.isfinite()) for value in given.values())


def test_novel_words_have_no_part_in_training() -> None:
    """The same losses and gradients whatever the novel word's embedding: it is not there."""
    found = []
    for shift in (0.0, 5.0):
        model = detector().train()
        model.words[1] += shift
        torch.manual_seed(3)
        given = model(batch())
        given["loss"].backward()
        found.append([given["loss"].detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_detections_lie_in_the_picture_and_follow_the_words() -> None:
    model, given = detector(), batch()
    novel = [False, True, False]
    found = model.detect(given["images"], given["sizes"], model.words, novel, threshold=0.0, limit=20)
    assert len(found) == 2
    for detections, (height, width) in zip(found, given["sizes"].tolist(), strict=True):
        assert 0 < len(detections) <= 20
        assert detections.boxes.min() >= 0
        assert detections.boxes[:, 2].max() <= width
        assert detections.boxes[:, 3].max() <= height
        assert bool((detections.scores.diff() <= 0).all())
    order = [2, 0, 1]
    turned = model.detect(
        given["images"], given["sizes"], model.words[[*order, 3]], [novel[i] for i in order], threshold=0.0, limit=20
    )
    for one, other in zip(found, turned, strict=True):
        torch.testing.assert_close(one.scores, other.scores)
        assert sorted(one.labels.tolist()) == sorted(order[label] for label in other.labels.tolist())


@torch.no_grad()
def test_where_nothing_is_proposed_nothing_is_found() -> None:
    model, given = detector(), batch()
    model.proposals.score_thresh = 2.0
    found = model.detect(given["images"], given["sizes"], model.words, [False] * 3, threshold=0.0)
    assert [len(each) for each in found] == [0, 0]


@torch.no_grad()
def test_each_picture_of_a_batch_is_seen_alone() -> None:
    model, given = detector(), batch()
    together = model.detect(given["images"], given["sizes"], model.words, [False] * 3, threshold=0.0)
    for index in range(2):
        part = slice(index, index + 1)
        (alone,) = model.detect(given["images"][part], given["sizes"][part], model.words, [False] * 3, threshold=0.0)
        torch.testing.assert_close(alone.boxes, together[index].boxes, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(alone.scores, together[index].scores, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_what_was_seen_before_changes_nothing() -> None:
    """torchvision would take the scale of its regions from the first picture that it sees, and keep it."""
    given, novel = batch(), [False] * 3
    wide = torch.tensor([[30, SIDE]])
    fresh, used = detector(), detector()
    used.detect(given["images"][:1], torch.tensor([[SIDE, SIDE]]), used.words, novel, threshold=0.0)
    (one,) = fresh.detect(given["images"][1:], wide, fresh.words, novel, threshold=0.0)
    (other,) = used.detect(given["images"][1:], wide, used.words, novel, threshold=0.0)
    assert torch.equal(one.scores, other.scores)


@torch.no_grad()
def test_regions_are_read_where_they_lie() -> None:
    """A level that holds its own coordinates gives each region's own, at strides that are no power of two as well."""
    strides = (3.5, 7.0, 14.0, 28.0)
    levels = {}
    for name, stride in zip("0123", strides, strict=True):
        ticks = (torch.arange(int(448 / stride)) + 0.5) * stride
        levels[name] = torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"))[None].repeat(2, 1, 1, 1)
    boxes = torch.tensor([[28.0, 56, 84, 98], [100, 40, 400, 300], [0, 0, 440, 440]])
    found = PyramidPooling(strides, 3)(levels, [boxes[:1], boxes[1:]])
    middle = torch.stack([boxes[:, 1] + boxes[:, 3], boxes[:, 0] + boxes[:, 2]], dim=1) / 2
    torch.testing.assert_close(found[:, :, 1, 1], middle, atol=1e-2, rtol=0)


@torch.no_grad()
def test_a_region_is_read_off_the_level_that_fits_its_size() -> None:
    strides = (4.0, 8.0, 16.0, 32.0)
    levels = {str(i): torch.full((1, 1, *[int(2048 / stride)] * 2), float(i)) for i, stride in enumerate(strides)}
    sides = torch.tensor([10.0, 111, 113, 223, 225, 447, 449, 2000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], dim=1)
    found = PyramidPooling(strides, 1)(levels, [boxes])
    assert found.flatten().tolist() == pytest.approx([0, 0, 1, 1, 2, 2, 3, 3])


def test_anchors_stand_at_exact_strides() -> None:
    levels = [torch.zeros(1, 4, side, side) for side in (256, 128, 64, 32, 16)]
    images = ImageList(torch.zeros(1, 3, 890, 890), [(890, 890)])
    (anchors,) = Anchors([3.5 * 2**level for level in range(5)])(images, levels)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert len(anchors) == 3 * sum(side**2 for side in (256, 128, 64, 32, 16))
    torch.testing.assert_close(centres[: 3 * 256 * 256].max(), torch.tensor(3.5 * 255))
    torch.testing.assert_close(centres[-1], torch.full((2,), 56.0 * 15))


@torch.no_grad()
def test_without_its_own_share_the_head_says_nothing_of_classes() -> None:
    """At alpha and beta 1 scores are CLIP's alone; at 0 they are the head's alone."""
    given = batch()
    for share, changed in ((1.0, "head"), (0.0, "clip")):
        scores = []
        for moved in (0.0, 1.0):
            model = detector(alpha=share, beta=share)
            if changed == "head":
                model.head.scale.add_(10 * moved)
            else:
                model.config = model.config.replace(clip_scale=75.0 - 50 * moved)
            kept = model.detect(
                given["images"], given["sizes"], model.words, [False] * 3, threshold=0.0, suppression=Suppression(1.0)
            )
            scores.append(kept[0].scores)
        torch.testing.assert_close(scores[0], scores[1])


@pytest.mark.parametrize("make", families().values(), ids=families())
@torch.no_grad()
def test_every_tower_has_a_pyramid_and_its_dense_map_from_one_pass(make: Callable[[], Clip]) -> None:
    clip = make()
    side = 2 * clip.image_size[0]
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    pyramid = ClipPyramid(clip, 8).eval()
    levels, dense = pyramid(images)
    torch.testing.assert_close(dense, clip.encode_dense(images), atol=1e-5, rtol=1e-4)
    for stride, level in zip(pyramid.strides, levels.values(), strict=False):
        assert level.shape[2:] == (-(-side // stride), -(-side // stride))
    plain = clip.features(images, pyramid.blocks[:3])
    mixed, _ = clip.features_and_dense(images, pyramid.blocks[:3])
    for one, other in zip(plain, mixed, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_blocks_are_the_official_ones() -> None:
    assert tapped(12) == (3, 5, 7, 11)
    assert tapped(24) == (6, 10, 14, 23)
    assert tapped(4) == (1, 1, 2, 3)


def test_what_cannot_be_built_is_said() -> None:
    with pytest.raises(ConfigError, match="4 blocks"):
        FVitConfig(blocks=(1, 2))
    with pytest.raises(InputError, match="maps of 4 blocks"):
        VitPyramid(4)([torch.zeros(1, 4, 2, 2)])
    with pytest.raises(ModelError, match="3 blocks"):
        FVit(vit_clip(), torch.zeros(2, 24), [False])


def masked_batch(count: int) -> dict[str, Tensor]:
    """Return two canvases; the first has ``count`` boxes with a mask each, the second none."""
    boxes = torch.tensor([[4.0, 6, 40, 50], [20, 10, 60, 62], [2, 30, 30, 60]])[:count]
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for plane, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        plane[top:bottom, left : (left + right) // 2] = True
    return {
        "images": torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),
        "sizes": torch.tensor([[SIDE, SIDE]] * 2),
        "boxes": boxes,
        "labels": torch.tensor([0, 2, 0])[:count],
        "owners": torch.zeros(count, dtype=torch.long),
        "masks": masks,
    }


@pytest.mark.parametrize("count", [0, 3])
def test_a_head_of_masks_learns_from_objects_alone_and_from_none_without_nan(count: int) -> None:
    model = detector(masks=True).train()
    losses = model(masked_batch(count))
    assert all(loss.isfinite() for loss in losses.values())
    assert (losses["masks"] > 0) == (count > 0)
    losses["loss"].backward()
    learned = [p.grad for p in model.mask_head.parameters()]
    assert all(grad is not None and grad.isfinite().all() for grad in learned)
    assert any(grad.any() for grad in learned if grad is not None) == (count > 0)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_the_mask_loss_is_that_of_the_drawn_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector(masks=True).train()
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def kept(logits: Tensor, boxes: list[Tensor], masks: list[Tensor], matched: list[Tensor]) -> Tensor:
        seen.append(
            (logits, torch.cat(boxes), torch.cat([each[rows] for each, rows in zip(masks, matched, strict=True)]))
        )
        return mask_loss(logits, boxes, masks, matched)

    monkeypatch.setattr("closeup.heads.fvit.mask_loss", kept)
    batch = masked_batch(3)
    loss = model(batch)["masks"]
    ((logits, boxes, masks),) = seen
    overlaps = box_iou(boxes, batch["boxes"])
    assert (overlaps.amax(dim=1) >= 0.5).all()
    assert torch.equal(masks, batch["masks"][overlaps.argmax(dim=1)])
    cut = torch.cat(
        [
            roi_align(mask[None, None].float(), [box[None]], 28, aligned=True)[0]
            for mask, box in zip(masks, boxes, strict=True)
        ]
    )
    torch.testing.assert_close(loss, binary_cross_entropy_with_logits(logits, cut))


@torch.no_grad()
def test_objects_come_with_outlines_and_the_same_boxes_as_without() -> None:
    model = detector(masks=True)
    batch = masked_batch(0)
    words = torch.randn(4, model.clip.dim, generator=torch.Generator().manual_seed(1))
    asked = (batch["images"], batch["sizes"], words, [False, True, False])
    found = model.detect(*asked, threshold=0.0, limit=7)
    levels, _ = model.pyramid(batch["images"])
    for picture, each in enumerate(found):
        assert each.outlines is not None
        alone = {name: level[picture : picture + 1] for name, level in levels.items()}
        for box, outline in zip(each.boxes, each.outlines, strict=True):
            expected = model.mask_head(model.mask_pooling(alone, [box[None]]))[0].sigmoid()
            torch.testing.assert_close(outline, expected, rtol=1e-4, atol=1e-5)
    model.config = model.config.replace(masks=False)
    for one, other in zip(found, model.detect(*asked, threshold=0.0, limit=7), strict=True):
        assert other.outlines is None
        assert torch.equal(one.boxes, other.boxes)
    none = detector(masks=True).detect(*asked, threshold=1.0)
    assert [each.outlines.shape for each in none if each.outlines is not None] == [(0, 28, 28)] * 2
