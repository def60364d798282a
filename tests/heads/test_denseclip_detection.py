"""DenseCLIP's detectors: the official loss of boxes on scores, torchvision's own detectors, and what learns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from open_clip import CLIP
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TorchRetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.ops import box_iou

from closeup.errors import ConfigError, InputError, ModelError
from closeup.heads.box_scores import box_score_loss, box_targets
from closeup.heads.dense_detector import DenseDetector, load_dense_detector, new_dense_detector
from closeup.heads.dense_predictor import load_dense_predictor, save_dense_predictor
from closeup.heads.denseclip import read_with_scores, score_map
from closeup.heads.denseclip_detection import DenseClipDetector
from closeup.heads.denseclip_detection_config import DenseClipDetectorConfig
from closeup.heads.mask_rcnn import MaskRcnn
from closeup.heads.proposals import listed
from closeup.heads.retinanet import SCALES, RetinaNet
from closeup.heads.saved import load_detector
from closeup.match.detections import Suppression
from closeup.models.clip import Clip
from closeup.predict.words import detector_bank
from closeup.text import Vocabulary
from goldens import Golden, assert_close, cases
from tiny_clips import TEXT, as_clip, vit_clip
from tiny_towers import randomise

SIDE = 64
WORDS = ("cat", "dog", "Traffic_Light")
SMALL = {"channels": 16, "hidden": 16, "layers": 32, "contexts": 2, "decoder_width": 16, "decoder_layers": 1}
FEW = {"candidates": 60, "proposals": 30, "regions": 32, "decoder_dropout": 0.0}
Head = Literal["retinanet", "mask-rcnn"]
HEADS: tuple[Head, ...] = ("retinanet", "mask-rcnn")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOSEUP_CACHE", str(tmp_path_factory.getbasetemp() / "closeup-cache"))


def resnet_clip() -> Clip:
    config = {"embed_dim": 24, "vision_cfg": {"layers": [1, 2, 1, 1], "width": 8, "image_size": SIDE}, "text_cfg": TEXT}
    return as_clip(randomise(CLIP(**config)), config)


def made(head: Head, tower: str = "vit", **changes: object) -> DenseDetector:
    clip = vit_clip(layers=4) if tower == "vit" else resnet_clip()
    config = {**SMALL, **FEW, "head": head, **changes}
    torch.manual_seed(0)
    detector = new_dense_detector(clip, WORDS, [False] * 3, templates="simple", size=SIDE, config=config)
    detector.head.eval()
    return detector


def sure(detector: DenseDetector) -> DenseDetector:
    """Give a head scores that differ from place to place: none are equal."""
    network = detector.head.detector
    if isinstance(network, RetinaNet):
        randomise(network.network.head, 1)
    else:
        randomise(network.named, 1)
        randomise(network.mask_head, 2)
    return detector


def batch(order: tuple[int, ...] = (0, 1)) -> dict[str, Tensor]:
    """Return two canvases, the second shows a picture of 40 x 64; the boxes of the first come first."""
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([[SIDE, SIDE], [40, SIDE]])
    boxes = [torch.tensor([[4.0, 6, 40, 50], [20, 10, 60, 62]]), torch.tensor([[2.0, 3, 30, 36]])]
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    masks = [torch.zeros(len(each), SIDE, SIDE, dtype=torch.bool) for each in boxes]
    for planes, each in zip(masks, boxes, strict=True):
        for plane, (left, top, right, bottom) in zip(planes, each.int().tolist(), strict=True):
            plane[top:bottom, left : (left + right) // 2] = True
    return {
        "images": images[list(order)],
        "sizes": sizes[list(order)],
        "boxes": torch.cat([boxes[each] for each in order]),
        "labels": torch.cat([labels[each] for each in order]),
        "owners": torch.tensor([place for place, each in enumerate(order) for _ in boxes[each]]),
        "masks": torch.cat([masks[each] for each in order]),
    }


@pytest.mark.parametrize("golden", cases("denseclip_detection_aux"))
def test_the_loss_of_boxes_on_scores_and_its_gradients_are_the_official(golden: Golden) -> None:
    dense, words = golden["in/z_map"].requires_grad_(), golden["in/text_features"].requires_grad_()
    scores = score_map(dense, words) / golden.config["tau"]
    assert_close(scores.detach(), golden["out/score_map3"])
    grown = nn.functional.interpolate(scores, golden["out/score_map0"].shape[2:], mode="bilinear")
    assert_close(grown.detach(), golden["out/score_map0"])
    rows = golden["in/boxes"]
    owners, labels = rows[:, 0].long(), rows[:, 5].long()
    told = {"batch": golden.config["batch"], "words": golden.config["K"]}
    height, width = golden.config["image"]
    targets = box_targets(rows[:, 1:5], labels, owners, size=(height // 4, width // 4), **told)
    assert_close(targets, golden["out/target"])
    assert_close(targets.any(dim=1, keepdim=True), golden["out/mask"])
    assert not targets[:, :, -1].any()
    assert not targets[..., -1].any()
    loss = box_score_loss(scores, targets)
    assert_close(loss.detach(), golden["out/loss"])
    loss.backward()
    assert dense.grad is not None
    assert words.grad is not None
    assert_close(dense.grad, golden["out/grad_z_map"])
    assert_close(words.grad, golden["out/grad_text_features"])
    assert golden["out/loss_when_every_box_is_empty"].isnan()
    empty = box_targets(torch.zeros(1, 4), labels[:1], owners[:1], size=(height // 4, width // 4), **told)
    assert float(box_score_loss(scores.detach(), empty)) == 0.0


def test_the_loss_of_the_whole_is_of_scores_at_cells_of_four_pixels() -> None:
    """Written out cell by cell, from scores that were divided before they joined the features."""
    detector, given = made("retinanet"), batch()
    head = detector.head
    with torch.no_grad():
        losses = head(given)
        levels, scores = read_with_scores(given["images"], head.backbone, head.prompting, head.config)
    assert scores is not None
    joined = levels[head.backbone.score_level][:, -3:]
    torch.testing.assert_close(joined, scores / 0.07)
    grown = nn.functional.interpolate(joined, (16, 16), mode="bilinear", align_corners=False)
    terms = []
    for picture in range(2):
        mine = (given["owners"] == picture).nonzero()[:, 0].tolist()
        cells = {(row, col): set() for row in range(16) for col in range(16)}  # type: dict[tuple[int, int], set[int]]
        for index in mine:
            left, top, right, bottom = (min(int(side / 4), 15) for side in given["boxes"][index].tolist())
            for place in ((row, col) for row in range(top, bottom) for col in range(left, right)):
                cells[place].add(int(given["labels"][index]))
        for (row, col), present in cells.items():
            for word in range(3) if present else ():
                logit = grown[picture, word, row, col]
                terms.append(-nn.functional.logsigmoid(logit if word in present else -logit))
    torch.testing.assert_close(losses["scores"], torch.stack(terms).mean())
    torch.testing.assert_close(losses["loss"], losses["classes"] + losses["boxes"] + losses["scores"])


class Given(nn.Module):
    """A backbone that has read the pictures already."""

    out_channels = 16

    def __init__(self, levels: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, images: Tensor) -> Mapping[str, Tensor]:
        return self.levels


def whole_retinanet(detector: RetinaNet, levels: Mapping[str, Tensor], strides: list[float]) -> TorchRetinaNet:
    """Return torchvision's RetinaNet as a user would build it, with the same weights."""
    sizes = tuple(tuple(scale * stride for scale in SCALES) for stride in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    head = RetinaNetHead(16, 9, len(WORDS))
    head.load_state_dict(detector.network.head.state_dict())
    return TorchRetinaNet(
        Given(levels), len(WORDS), min_size=SIDE, max_size=SIDE, image_mean=[0.0] * 3, image_std=[1.0] * 3,
        anchor_generator=anchors, head=head, score_thresh=0.0, detections_per_img=50,
    )  # fmt: skip


@torch.no_grad()
def test_retinanet_is_torchvisions() -> None:
    detector, given = sure(made("retinanet", candidates=100_000)).head, batch()
    network = detector.detector
    assert isinstance(network, RetinaNet)
    maps, _ = read_with_scores(given["images"], detector.backbone, detector.prompting, detector.config)
    levels = network.network.backbone(OrderedDict(zip("345", maps[1:], strict=True)))
    assert [level.shape[2] for level in levels.values()] == [16, 8, 4, 2, 1]
    official = whole_retinanet(network, levels, [4.0, 8.0, 16.0, 32.0, 64.0])
    pictures, counts = list(given["images"]), [2, 1]
    parts = zip(given["boxes"].split(counts), given["labels"].split(counts), strict=True)
    losses = official.train()(pictures, [{"boxes": box, "labels": label} for box, label in parts])
    ours = detector(given)
    torch.testing.assert_close(ours["classes"], losses["classification"])
    torch.testing.assert_close(ours["boxes"], losses["bbox_regression"])
    official.topk_candidates, official.detections_per_img = 100_000, 100_000
    expected = [without_empty(each, 50) for each in official.eval()(pictures)]
    whole = torch.tensor([[SIDE, SIDE]] * 2)
    found = detector.detect(given["images"], whole, threshold=0.0, limit=50)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.scores, other["scores"])
        torch.testing.assert_close(one.boxes, other["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(one.labels, other["labels"])


class Pooled(nn.Module):
    """Our pooling behind torchvision's call."""

    def __init__(self, pooling: nn.Module) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, levels: Mapping[str, Tensor], boxes: list[Tensor], shapes: list[tuple[int, int]]) -> Tensor:
        pooled: Tensor = self.pooling(levels, boxes)
        return pooled


class BackgroundFirst(nn.Module):
    """Our classes in torchvision's order."""

    def __init__(self, named: nn.Module) -> None:
        super().__init__()
        self.named = named

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        logits, moves = self.named(regions)
        return logits.roll(1, dims=1), moves.unflatten(1, (-1, 4)).roll(1, dims=1).flatten(1)


class OutlineAfterBackground(nn.Module):
    """Our outlines, with one more for torchvision's background."""

    def __init__(self, outline: nn.Module) -> None:
        super().__init__()
        self.outline = outline

    def forward(self, regions: Tensor) -> Tensor:
        return nn.functional.pad(self.outline(regions), (0, 0, 0, 0, 1, 0))


def whole_heads(network: MaskRcnn) -> RoIHeads:
    """Return torchvision's second step of Mask R-CNN with the same weights."""
    head = network.mask_head
    return RoIHeads(
        Pooled(network.pooling), network.shared, BackgroundFirst(network.named), 0.5, 0.5, FEW["regions"], 0.25,
        (10.0, 10.0, 5.0, 5.0), 0.0, 0.5, 50, Pooled(network.mask_pooling), head.shared,
        OutlineAfterBackground(head.outline),
    )  # fmt: skip


@torch.no_grad()
def test_mask_rcnn_is_torchvisions() -> None:
    """Beside the box loss, which is L1 here, and the mask loss, whose masks are cut half a pixel elsewhere here."""
    detector, given = sure(made("mask-rcnn")).head, batch()
    network = detector.detector
    assert isinstance(network, MaskRcnn)
    maps, _ = read_with_scores(given["images"], detector.backbone, detector.prompting, detector.config)
    images = listed(given["images"], given["sizes"])
    levels = network._levels(maps)
    proposed, _ = network.proposals(images, levels)
    official = whole_heads(network)
    expected, _ = official.eval()(levels, proposed, images.image_sizes)
    found = detector.detect(given["images"], given["sizes"], threshold=0.0, limit=50)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.scores, other["scores"])
        torch.testing.assert_close(one.boxes, other["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(one.labels + 1, other["labels"])
        assert one.outlines is not None
        torch.testing.assert_close(one.outlines, other["masks"][:, 0], rtol=1e-4, atol=1e-4)
    network.train()
    torch.manual_seed(3)
    ours = network.losses(maps, images, given)
    torch.manual_seed(3)
    targets = [
        {"boxes": box, "labels": label + 1, "masks": mask.byte()}
        for box, label, mask in zip(*(given[name].split([2, 1]) for name in ("boxes", "labels", "masks")), strict=True)
    ]
    proposed, given_losses = network.proposals(images, levels, targets)
    _, losses = official.train()(levels, proposed, images.image_sizes, targets)
    torch.testing.assert_close(ours["objectness"], given_losses["loss_objectness"])
    torch.testing.assert_close(ours["classes"], losses["loss_classifier"])
    assert float(ours["masks"]) == pytest.approx(float(losses["loss_mask"]), rel=0.1)
    assert float(ours["boxes"]) >= float(losses["loss_box_reg"]) - 1e-4, "smooth L1 lies below L1"


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("tower", ["vit", "resnet"])
@torch.no_grad()
def test_what_is_found_lies_in_the_picture_and_belongs_to_it(head: Head, tower: str) -> None:
    model, given = sure(made(head, tower)).head, batch()
    asked: dict[str, Any] = {"threshold": 0.0, "limit": 20}
    found = model.detect(given["images"], given["sizes"], **asked)
    for each, (height, width) in zip(found, given["sizes"].tolist(), strict=True):
        assert len(each) > 0
        assert bool((each.boxes >= 0).all())
        assert bool((each.boxes <= torch.tensor([width, height, width, height])).all())
        assert bool((each.scores.diff() <= 0).all())
        if head == "mask-rcnn":
            assert each.outlines is not None
            assert each.outlines.shape == (len(each), 28, 28)
        else:
            assert each.outlines is None
    turned = model.detect(given["images"].flip(0), given["sizes"].flip(0), **asked)
    for one, other in zip(found, turned[::-1], strict=True):
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(one.boxes, other.boxes, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_some_words_are_found_where_they_are_among_all(head: Head) -> None:
    model, given = sure(made(head, candidates=10_000)).head, batch()
    asked: dict[str, Any] = {"threshold": 0.0, "limit": 10_000, "suppression": Suppression(0.7)}
    every = model.detect(given["images"], given["sizes"], **asked)
    some = model.detect(given["images"], given["sizes"], torch.tensor([2, 0]), **asked)
    for one, other in zip(some, every, strict=True):
        for mine, theirs in ((0, 2), (1, 0)):
            torch.testing.assert_close(one.scores[one.labels == mine], other.scores[other.labels == theirs])
            torch.testing.assert_close(one.boxes[one.labels == mine], other.boxes[other.labels == theirs])


def test_a_permuted_batch_has_the_same_losses() -> None:
    model = made("retinanet").head.train()
    with torch.no_grad():
        one, other = model(batch()), model(batch((1, 0)))
    for name, loss in one.items():
        torch.testing.assert_close(loss, other[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize(("tower", "changes"), [("vit", {}), ("resnet", {}), ("vit", {"language": False})])
def test_what_learns_moves_and_nothing_else(head: Head, tower: str, changes: dict[str, object]) -> None:
    detector, given = made(head, tower, **changes), batch()
    model = detector.head.train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    below = {name: value.clone() for name, value in detector.clip.model.state_dict().items()}
    learned = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=2e-3, weight_decay=0.0)
    losses = []
    for _ in range(12):
        torch.manual_seed(0)
        loss = model(given)["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0], losses
    assert all(value.grad is not None for value in learned)
    still = {name for name, value in model.named_parameters() if torch.equal(value, before[name])}
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert frozen <= still
    assert {name for name in still - frozen if not name.endswith("k_proj.bias")} == set()
    assert all(torch.equal(value, below[name]) for name, value in detector.clip.model.state_dict().items())
    assert any(name.startswith("backbone.visual.") for name in before.keys() - frozen)
    assert detector.paces == {"backbone.": 0.1}
    if changes:
        assert model.prompting is None
        assert "scores" not in model(given)
        assert not any(name.startswith("prompting.") for name in before)


@pytest.mark.parametrize("head", HEADS)
def test_pictures_without_boxes_teach_without_nan(head: Head) -> None:
    model, given = made(head).head.train(), batch()
    empty = {name: value if name in ("images", "sizes") else value[:0] for name, value in given.items()}
    losses = model(empty)
    assert all(bool(loss.isfinite()) for loss in losses.values())
    assert float(losses["scores"].detach()) == 0.0
    losses["loss"].backward()
    assert all(value.grad is None or bool(value.grad.isfinite().all()) for value in model.parameters())


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prompts", ["post", "learned"])
def test_a_saved_detector_is_the_same_without_a_text_tower(
    head: Head, prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, given = sure(made(head, prompts=prompts)), batch()
    save_dense_predictor(detector, tmp_path / "mine", {"recipe": "detection"})
    detector.head.eval()
    monkeypatch.setattr("closeup.heads.folder.load", lambda *_, **__: pytest.fail("a CLIP was loaded"))
    how: dict[str, Any] = {"device": "cpu", "precision": "fp32"}
    for loaded in (load_dense_detector(tmp_path / "mine", **how), load_detector(tmp_path / "mine", **how)):
        assert isinstance(loaded, DenseDetector)
        assert not hasattr(loaded.clip.model, "transformer")
        assert not any(name.startswith("prompting.contexts") for name in loaded.head.state_dict())
        assert (loaded.words, loaded.size, loaded.outlines) == (WORDS, SIDE, head == "mask-rcnn")
        for one, other in zip(
            loaded.head.detect(given["images"], given["sizes"], threshold=0.0),
            detector.head.detect(given["images"], given["sizes"], threshold=0.0),
            strict=True,
        ):
            assert torch.equal(one.scores, other.scores)
            assert torch.equal(one.boxes, other.boxes)
    with pytest.raises(ModelError, match="is a head of the kind 'denseclip-detector'"):
        load_dense_predictor(tmp_path / "mine")


def test_prompts_that_see_the_picture_keep_their_text_tower(tmp_path: Path) -> None:
    detector, given = sure(made("retinanet", prompts="instance")), batch()
    save_dense_predictor(detector, tmp_path / "mine")
    loaded = load_dense_detector(tmp_path / "mine", device="cpu", precision="fp32", clip=detector.clip)
    one, other = (
        each.head.eval().detect(given["images"], given["sizes"], threshold=0.0) for each in (detector, loaded)
    )
    assert torch.equal(one[0].scores, other[0].scores)


def test_a_canvas_is_made_of_whole_patches_and_crops_positions_as_the_official_code() -> None:
    """The grid of positions is that of the canvas, of which a picture in the corner takes the corner."""
    clip = resnet_clip()
    detector = new_dense_detector(clip, WORDS, [False] * 3, templates="simple", size=90, config={**SMALL, **FEW})
    assert detector.head.backbone.clip.image_size == (96, 96)
    assert detector.size == 90


def without_empty(found: Mapping[str, Tensor], limit: int) -> dict[str, Tensor]:
    """Return the best of torchvision's detections whose boxes are not beyond the picture, where it leaves them."""
    boxes = found["boxes"]
    kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1).nonzero()[:limit, 0]
    return {name: each[kept] for name, each in found.items()}


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_boxes_of_two_words_that_are_one_are_thinned_out_together(head: Head) -> None:
    detector, given = sure(made(head)), batch()
    detector.head.eval()
    bank = detector_bank(detector, Vocabulary(["animal", "traffic light"], synonyms={"animal": ["cat", "dog"]}))
    found = detector.find(given["images"], given["sizes"], bank, threshold=0.0, limit=20)
    alone = detector.find(
        given["images"], given["sizes"], detector_bank(detector, ("cat", "dog")), threshold=0.0, limit=1000
    )
    for each, apart in zip(found, alone, strict=True):
        assert len(each) <= 20
        boxes, scores = each.boxes[each.labels == 0], each.scores[each.labels == 0]
        overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
        assert overlaps.max() <= detector.head.config.overlap + 1e-5
        assert scores[0] == apart.scores[0], "the best of both words stays"


@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_nothing_is_found_beside_the_picture(head: Head) -> None:
    detector, given = sure(made(head)), batch()
    sizes = torch.tensor([[SIDE, SIDE // 4]] * len(given["sizes"]))
    for each in detector.head.eval().detect(given["images"], sizes, threshold=0.0, limit=500):
        assert bool((each.boxes[:, 2:] > each.boxes[:, :2]).all())
        assert bool((each.boxes[:, 2] <= SIDE // 4).all())


def test_words_of_a_closed_list_are_read_in_any_form_and_others_are_refused() -> None:
    detector = made("retinanet")
    bank = detector_bank(detector, ("traffic light", "CAT"))
    assert torch.equal(bank.embeddings, detector_bank(detector).embeddings[[2, 0]])
    with pytest.raises(InputError, match=r"'dot' is not among the 3 that .* learned.* 'dog'"):
        detector_bank(detector, ("cat", "dot"))
    assert detector_bank(detector).names == WORDS
    assert detector.marks(("dog", "zebra")) == [False, True]
    plain = made("retinanet", language=False)
    assert not detector_bank(plain).embeddings.any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head": "yolo"}, "head"),
        ({"overlap": 1.5}, "`overlap` must lie"),
        ({"layers": 0}, "`layers` must be at least 1"),
        ({"temperature": 0.0}, "`temperature` must be positive"),
    ],
)
def test_settings_outside_their_range_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DenseClipDetectorConfig().replace(**changes)


def test_defaults_are_the_papers() -> None:
    config = DenseClipDetectorConfig()
    assert (config.scores, config.auxiliary, config.temperature) == ("divided", 1.0, 0.07)
    assert (config.candidates, config.proposals, config.regions, config.layers) == (1000, 1000, 512, 1024)
    assert DenseClipDetector.kind == "denseclip-detector"
