"""RegionCLIP's detector: against the official code, what it learns from, what it leaves alone, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from open_clip import CLIP
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, normalize, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, roi_align

from closeup.errors import ConfigError, InputError, ModelError
from closeup.heads.c4 import C4
from closeup.heads.c4_config import C4Config
from closeup.heads.fvit import FVit
from closeup.heads.regions import picked
from closeup.heads.rpn import Proposals, Proposer, Rpn, RpnConfig, load_proposer
from closeup.heads.saved import Detector, load_detector, new_c4, save_detector
from closeup.heads.trained import save_head
from closeup.match import probabilities
from closeup.match.detections import Suppression, with_objectness
from closeup.models import load, save_local_dir
from closeup.models.clip import Clip
from closeup.models.region_features import StageFeatures
from goldens import Golden, assert_close, cases
from tiny_clips import TEXT, as_clip, vit_clip, vit_config, vit_model
from tiny_towers import randomise

SIDE = 64
SMALL = RpnConfig(channels=16, proposals=30, candidates=100)
NO_NMS = Suppression(overlap=1.0)


def resnet() -> Clip:
    vision = {"layers": [1, 2, 1, 1], "width": 8, "image_size": 64}
    return as_clip(randomise(CLIP(24, vision, TEXT)), {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT})


FAMILIES: dict[str, Callable[[], Clip]] = {"vit": lambda: vit_clip(layers=4), "resnet": resnet}
every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


def proposer(clip: Clip | None = None, seed: int = 0) -> Proposer:
    clip = clip or vit_clip(layers=4)
    head = Rpn(clip, SMALL)
    randomise(head, seed)
    return Proposer(head, clip, SIDE, "untrained")


def words(count: int = 3, dim: int = 24, seed: int = 0) -> Tensor:
    """Return the embeddings of words, and the background's zeros."""
    rows = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.cat([rows, torch.zeros(1, dim)])


def detector(
    make: Callable[[], Clip] = FAMILIES["vit"], novel: tuple[bool, ...] = (False, True, False), **changes: object
) -> C4:
    config = C4Config(regions=32, temperature=0.1).replace(**changes)
    made = C4(make(), proposer(), words(len(novel)), novel, config)
    torch.nn.init.normal_(made.deltas.weight, std=0.1, generator=torch.Generator().manual_seed(5))
    return made


def batch(labels: tuple[int, ...] = (0, 2, 0)) -> dict[str, Tensor]:
    boxes = torch.tensor([[4.0, 4, 30, 40], [20, 10, 60, 50], [0, 0, 36, 30]])
    return {
        "images": torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)),
        "sizes": torch.tensor([[SIDE, SIDE], [SIDE, 40]]),
        "boxes": boxes[: len(labels)],
        "labels": torch.tensor(labels, dtype=torch.long),
        "owners": torch.tensor([0, 0, 1])[: len(labels)],
    }


def golden_head(golden: Golden, **changes: object) -> C4:
    """Return a head with the golden's box layer, the temperature and the words that it learns."""
    dim = golden.config["dim"]
    clip = as_clip(vit_model(dim=dim, layers=4), vit_config(dim, layers=4))
    rows = torch.cat([golden["w/cls_score.weight"], golden["w/cls_bg_score.weight"]])
    config = C4Config(temperature=golden.config["temp"]).replace(**changes)
    made = C4(clip, proposer(), rows, [False] * golden.config["num_classes"], config).eval()
    made.deltas.load_state_dict({"weight": golden["w/bbox_pred.weight"], "bias": golden["w/bbox_pred.bias"]})
    return made


@pytest.mark.parametrize("golden", cases("regionclip_transfer"))
@torch.no_grad()
def test_scores_are_the_official_ones_and_the_backgrounds_logit_is_zero(golden: Golden) -> None:
    made, regions = golden_head(golden), golden["in/region_feats"]
    assert_close(made.logits(regions, made.words), golden["out/train_logits"])
    rows = torch.cat([golden["w/test_cls_score.weight"], golden["w/cls_bg_score.weight"]])
    logits = made.logits(regions, rows)
    assert_close(logits, golden["out/test_logits"])
    assert not logits[:, -1].any()
    shares = probabilities(logits, 1.0)
    assert_close(shares, golden["out/test_probs"])
    assert_close(with_objectness(shares, golden["in/objectness_logits"], "logit"), golden["out/test_scores"])
    assert_close(made.deltas(regions), golden["out/box_deltas"])


@pytest.mark.parametrize("golden", cases("regionclip_transfer"))
@torch.no_grad()
def test_boxes_are_moved_as_in_the_official_code(golden: Golden) -> None:
    coder, boxes = golden_head(golden).sampler.box_coder, golden["in/proposal_boxes"][:, 1:]
    assert_close(coder.decode_single(golden["in/decode_deltas"], boxes), golden["out/decode_boxes"])
    assert_close(coder.decode_single(golden["out/box_deltas"], boxes), golden["out/pred_boxes_unclipped"])


@pytest.mark.parametrize("golden", cases("regionclip_transfer"))
@pytest.mark.parametrize(
    ("prefix", "objectness"), [("out/", "logit"), ("out/no_multiply/", "none"), ("out/no_box_delta/", "logit")]
)
@torch.no_grad()
def test_detections_are_the_official_ones(golden: Golden, prefix: str, objectness: str) -> None:
    """From what was read off regions to the boxes, classes and scores that are left of each picture."""
    made, config = golden_head(golden, objectness=objectness), golden.config
    if prefix == "out/no_box_delta/":
        made.deltas.weight.zero_()
        made.deltas.bias.zero_()
    counts, images = config["images"], golden[f"{prefix}det_image"]
    boxes, logits = golden["in/proposal_boxes"][:, 1:].split(counts), golden["in/objectness_logits"].split(counts)
    read = made.moved([Proposals(*each) for each in zip(boxes, logits, strict=True)], golden["in/region_feats"])
    rows_of_words = torch.cat([golden["w/test_cls_score.weight"], golden["w/cls_bg_score.weight"]])
    found = picked(
        read.boxes,
        read.scores(rows_of_words, [True] * config["test_classes"]),
        torch.tensor([config["image_size"]] * len(counts)),
        threshold=config["score_thresh"],
        limit=config["topk"],
        suppression=Suppression(overlap=config["nms"]),
    )
    for index, detections in enumerate(found):
        rows = images == index
        assert_close(detections.labels, golden[f"{prefix}det_classes"][rows])
        assert_close(detections.scores, golden[f"{prefix}det_scores"][rows])
        assert_close(detections.boxes, golden[f"{prefix}det_boxes"][rows])


@every_family
@torch.no_grad()
def test_regions_are_read_as_torchvision_reads_them(make: Callable[[], Clip]) -> None:
    """Each box alone: through the last stage and the whole attention pool, or as a mean of the dense map."""
    made, images, clip = detector(make), batch()["images"], make()
    boxes = [torch.tensor([[4.0, 4, 30, 40], [0, 0, 64, 64]]), torch.tensor([[7.5, 3.25, 40, 20]])]
    found = made.read(images, boxes)
    visual = clip.model.visual
    for row, (box, index) in enumerate([(boxes[0][0], 0), (boxes[0][1], 0), (boxes[1][0], 1)]):
        image = images[index : index + 1]
        if isinstance(made.reads, StageFeatures):
            cut = roi_align(visual.layer3(visual.layer2(visual.layer1(visual.stem(image)))), [box[None]], 4, 1 / 16,
                            sampling_ratio=-1, aligned=True)  # fmt: skip
            expected = visual.attnpool(visual.layer4(cut))[0]
        else:
            expected = roi_align(clip.encode_dense(image), [box[None]], 1, 1 / clip.patch, aligned=True)[0, :, 0, 0]
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-4)


@every_family
@pytest.mark.parametrize("loss", ["focal", "weighted"])
def test_losses_are_those_of_regions_one_by_one(make: Callable[[], Clip], loss: str) -> None:
    """Everything is drawn (there is room for all regions), so that matching and losses can be done by hand."""
    made, given = detector(make, regions=2000, loss=loss), batch()
    found = made(given)
    proposed = made.propose(given["images"], given["sizes"])
    logits, classes, moves, wanted = [], [], [], []
    for index in range(2):
        boxes = given["boxes"][given["owners"] == index]
        labels = made.places[given["labels"][given["owners"] == index]]
        candidates = torch.cat([proposed[index].boxes, boxes])
        regions = made.read(given["images"][index : index + 1], [candidates])
        for box, region, overlaps in zip(candidates, regions, box_iou(candidates, boxes), strict=True):
            best = int(overlaps.argmax())
            logits.append(torch.stack([normalize(region, dim=0) @ normalize(word, dim=0) for word in made.words]) / 0.1)
            classes.append(int(labels[best]) if overlaps[best] >= 0.5 else 2)
            moves.append(made.deltas(region))
            wanted.append(BoxCoder((10, 10, 5, 5)).encode_single(boxes[best][None], box[None])[0])
    objects = [row for row, label in enumerate(classes) if label < 2]
    assert 3 <= len(objects) < len(classes)
    weights = [{"focal": 0.2, "weighted": 0.8}[loss] if label == 2 else 1.0 for label in classes]
    parts = [cross_entropy(row[None], torch.tensor([label])) for row, label in zip(logits, classes, strict=True)]
    if loss == "focal":
        parts = [part * (1 - (-part).exp()) ** 0.5 for part in parts]
    total = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    named = total / (len(classes) if loss == "focal" else sum(weights))
    moved = sum(smooth_l1_loss(moves[row], wanted[row], reduction="sum", beta=0.0) for row in objects) / len(classes)
    torch.testing.assert_close(found["classes"], named, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["boxes"], moved, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["loss"], found["classes"] + found["boxes"])


@every_family
def test_losses_reach_what_is_declared_and_move_nothing_else(make: Callable[[], Clip]) -> None:
    clip, boxes = make(), proposer()
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    made = C4(clip, boxes, words(), (False, True, False), C4Config(regions=32, temperature=0.1)).train()
    frozen = {id(parameter) for parameter in made.parameters()}
    kept = {name: p.clone() for name, p in made.clip.model.state_dict(keep_vars=True).items() if id(p) not in frozen}
    offered = {name: value.clone() for name, value in boxes.head.state_dict().items()}
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    made(batch())["loss"].backward()
    assert all(parameter.grad is not None for parameter in made.parameters())
    optimizer.step()
    after = made.clip.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in kept.items()), "what is frozen, running means too"
    assert all(torch.equal(value, clip.model.state_dict()[name]) for name, value in before.items()), "the caller's CLIP"
    assert all(torch.equal(value, boxes.head.state_dict()[name]) for name, value in offered.items()), "the proposer"
    assert all(parameter.grad is None for parameter in [*clip.model.parameters(), *boxes.head.parameters()])
    moved = {name.replace("/", ".") for name in made.tower}
    assert moved
    assert {name for name in moved if not torch.equal(after[name], before[name])} == moved


def test_a_resnet_learns_three_stages_and_the_pool_without_norms() -> None:
    names = set(detector(resnet).tower)
    assert {name.split("/")[1] for name in names} == {"layer2", "layer3", "layer4", "attnpool"}
    assert not [name for name in names if "/bn" in name or "downsample/1" in name]
    assert set(detector(blocks=1).tower) < set(detector().tower)


def test_the_proposer_and_norms_do_as_they_always_do_while_it_trains() -> None:
    made, given = detector(resnet), batch()
    resting = made.eval().propose(given["images"], given["sizes"])
    training = made.train().propose(given["images"], given["sizes"])
    for one, other in zip(resting, training, strict=True):
        assert torch.equal(one.boxes, other.boxes)
        assert not other.boxes.requires_grad
    assert not any(module.training for module in made.clip.tower.visual.modules())


def test_no_novel_word_or_label_reaches_any_loss() -> None:
    """Losses and gradients are those of a batch without the novel word's boxes, whatever its embedding is."""
    found = []
    for labels, shift in (((0, 2, 1), 0.0), ((0, 2, 1), 5.0), ((0, 2), 0.0)):
        rows = words()
        rows[1] += shift
        made = C4(vit_clip(layers=4), proposer(), rows, (False, True, False), C4Config(regions=32)).train()
        torch.nn.init.zeros_(made.deltas.weight)
        torch.manual_seed(3)
        given = made(batch(labels))
        given["loss"].backward()
        found.append([given["classes"].detach(), given["boxes"].detach(), *(p.grad for p in made.parameters())])
        assert len(made.words) == 3
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert one is not None
            assert torch.equal(one, same)


@every_family
@pytest.mark.parametrize("loss", ["focal", "weighted"])
def test_pictures_without_objects_and_without_proposals_have_finite_losses(make: Callable[[], Clip], loss: str) -> None:
    made = detector(make, loss=loss).train()
    for labels in ((), (1, 1, 1)):
        made.zero_grad()
        given = made(batch(labels))
        given["loss"].backward()
        assert all(bool(value.isfinite()) for value in given.values())
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in made.parameters())
    made.proposer.head.network.score_thresh = 2.0  # nothing is sure enough to be proposed
    given = made(batch(()))
    given["loss"].backward()
    assert float(given["loss"].detach()) == 0
    with torch.no_grad():
        assert made.detect(batch()["images"], batch()["sizes"], words(), [False] * 3)[0].boxes.shape == (0, 4)


@every_family
@torch.no_grad()
def test_detections_lie_in_the_picture_and_follow_the_words(make: Callable[[], Clip]) -> None:
    made, given, rows = detector(make).eval(), batch(), words()
    found = made.detect(given["images"], given["sizes"], rows, [False] * 3, threshold=0.0, limit=20)
    order = [2, 0, 1]
    turned = made.detect(given["images"], given["sizes"], rows[[*order, 3]], [True] * 3, threshold=0.0, limit=20)
    for detections, other, (height, width) in zip(found, turned, given["sizes"].tolist(), strict=True):
        assert 0 < len(detections) <= 20
        assert detections.boxes.min() >= 0
        assert detections.boxes[:, 2].max() <= width
        assert detections.boxes[:, 3].max() <= height
        assert bool((detections.scores.diff() <= 0).all())
        torch.testing.assert_close(detections.scores, other.scores)
        assert sorted(detections.labels.tolist()) == sorted(order[label] for label in other.labels.tolist())


@torch.no_grad()
def test_adding_a_word_leaves_the_others_logits() -> None:
    made, given = detector(), batch()
    regions = made.read(given["images"], [each.boxes for each in made.propose(given["images"], given["sizes"])])
    more = words(5)
    few = more[[0, 1, 2, 5]]
    torch.testing.assert_close(made.logits(regions, more)[:, :3], made.logits(regions, few)[:, :3])
    assert not made.logits(regions, more)[:, -1].any()


@torch.no_grad()
def test_the_best_synonym_speaks_for_a_word() -> None:
    made, given = detector().eval(), batch()
    rows = words(3)
    doubled = torch.cat([rows[:1], rows])
    owner = torch.tensor([0, 0, 1, 2, 3])
    plain = made.detect(given["images"], given["sizes"], rows, [False] * 3, threshold=0.0)
    same = made.detect(given["images"], given["sizes"], doubled, [False] * 3, owner=owner, threshold=0.0)
    for one, other in zip(plain, same, strict=True):
        torch.testing.assert_close(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)


@every_family
@torch.no_grad()
def test_each_picture_of_a_batch_is_seen_alone(make: Callable[[], Clip]) -> None:
    made, given = detector(make, objectness="sigmoid").eval(), batch()
    together = made.detect(given["images"], given["sizes"], words(), [False] * 3, threshold=0.0)
    for index in range(2):
        part = slice(index, index + 1)
        (alone,) = made.detect(given["images"][part], given["sizes"][part], words(), [False] * 3, threshold=0.0)
        torch.testing.assert_close(alone.boxes, together[index].boxes, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(alone.scores, together[index].scores, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_objectness_takes_part_as_it_is_told() -> None:
    given, scores = batch(), {}
    for how in ("none", "sigmoid"):
        made = detector(objectness=how, novel=(False,)).eval()
        (first, _) = made.detect(given["images"], given["sizes"], words(1), [False], threshold=0.0, suppression=NO_NMS)
        scores[how] = first.scores
    (proposed, _) = made.propose(given["images"], given["sizes"])
    regions = made.read(given["images"], [proposed.boxes, torch.zeros(0, 4)])
    shares = made.logits(regions, words(1)).softmax(dim=1)[:, 0]
    expected = (shares * proposed.logits.sigmoid()).sqrt().sort(descending=True).values
    torch.testing.assert_close(scores["none"], shares.sort(descending=True).values)
    torch.testing.assert_close(scores["sigmoid"], expected)


@torch.no_grad()
def test_a_proposer_sees_pictures_normalised_as_it_wants_them() -> None:
    """A proposer on another CLIP proposes what it proposes alone, from the same pixels."""
    clip, other = vit_clip(layers=4), vit_clip(1, layers=4)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.5)
    other = Clip(other.model, {**other.config, "preprocess_cfg": {"mean": mean, "std": std}}, precision="fp32")
    made = C4(clip, proposer(other), words(), [False] * 3, C4Config(regions=32))
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))

    def shown(like: Clip) -> Tensor:
        return (pixels - torch.tensor(like.mean).view(3, 1, 1)) / torch.tensor(like.std).view(3, 1, 1)

    sizes = batch()["sizes"]
    expected = made.proposer.head.propose(shown(other), sizes)
    for one, theirs in zip(made.propose(shown(clip), sizes), expected, strict=True):
        torch.testing.assert_close(one.boxes, theirs.boxes, atol=1e-2, rtol=1e-3)


@torch.no_grad()
def test_a_proposer_sees_pictures_at_its_own_size() -> None:
    made = detector()
    images, sizes = batch()["images"], torch.tensor([[SIDE, SIDE], [SIDE, 40]])
    made.proposer = replace(made.proposer, size=SIDE // 2)
    found = made.propose(images, sizes)
    small = interpolate(images, (SIDE // 2, SIDE // 2), mode="bicubic", antialias=True)
    expected = made.proposer.head.propose(small, sizes // 2)
    for each, other in zip(found, expected, strict=True):
        torch.testing.assert_close(each.boxes, other.boxes * 2)
        torch.testing.assert_close(each.logits, other.logits)
    assert (found[1].boxes[:, 2] <= 40).all()


def test_a_proposer_with_other_settings_is_another_one() -> None:
    one = proposer()
    assert replace(one, size=2 * SIDE).fingerprint != one.fingerprint
    other = Proposer(Rpn(one.clip, SMALL.replace(proposals=3)), one.clip, SIDE, "untrained")
    other.head.load_state_dict(one.head.state_dict())
    assert other.fingerprint != one.fingerprint


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Callable[[], Clip]], Detector]:
    """Save a CLIP, a proposer and a detector whose tower has moved, and return the detector."""

    def made(make: Callable[[], Clip]) -> Detector:
        clip = load(save_local_dir(make(), tmp_path / "clip"), device="cpu", precision="fp32")
        save_head(proposer(clip), tmp_path / "rpn")
        head = {"regions": 32, "temperature": 0.1, "objectness": "sigmoid"}
        detector = new_c4(
            clip, ["cat", "dog"], [False, True], proposer=tmp_path / "rpn", templates="simple", size=SIDE, config=head
        )
        generator = torch.Generator().manual_seed(7)
        for parameter in detector.head.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        save_detector(detector, tmp_path / "detector")
        return detector

    return made


@every_family
@torch.no_grad()
def test_what_is_saved_finds_the_same(
    make: Callable[[], Clip], saved: Callable[[Callable[[], Clip]], Detector], tmp_path: Path
) -> None:
    detector, given = saved(make), batch()
    loaded = load_detector(tmp_path / "detector", device="cpu", precision="fp32")
    assert isinstance(loaded.head, C4)
    assert loaded.head.config == detector.head.config
    assert not loaded.head.training
    assert loaded.head.proposer.clip is loaded.clip, "one CLIP for both"
    assert loaded.clip.fingerprint == detector.clip.fingerprint
    assert loaded.needs == detector.needs
    fresh = new_c4(
        detector.clip, ["cat", "dog"], [False, True], proposer=tmp_path / "rpn", templates="simple", size=SIDE,
        config=detector.head.config.to_dict(),
    )  # fmt: skip
    found, again, before = (
        each.head.eval().detect(given["images"], given["sizes"], words(), [False] * 3, threshold=0.0)
        for each in (detector, loaded, fresh)
    )
    for one, other, untrained in zip(found, again, before, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes)
        torch.testing.assert_close(one.scores, other.scores)
        assert torch.equal(one.labels, other.labels)
        assert one.scores.shape != untrained.scores.shape or not torch.allclose(one.scores, untrained.scores)
    stored = sum(value.numel() for value in detector.head.state_dict().values())
    assert stored < sum(value.numel() for value in detector.head.clip.model.state_dict().values())


def test_the_same_clip_and_proposer_are_wanted(saved: Callable[[Callable[[], Clip]], Detector], tmp_path: Path) -> None:
    detector = saved(FAMILIES["vit"])
    clip, folder = detector.clip, tmp_path / "detector"
    with pytest.raises(ModelError, match="but those here are"):
        load_detector(folder, clip=vit_clip(1, layers=4))
    own = load_proposer(tmp_path / "rpn", clip=clip)
    with pytest.raises(
        ModelError, match=r"trained with the proposer '.*rpn' with the weights .* Give the same proposer"
    ):
        load_detector(folder, clip=clip, proposer=proposer(clip, seed=1))
    unsaved = new_c4(clip, ["cat"], [False], proposer=proposer(clip), templates="simple", size=SIDE, config={})
    with pytest.raises(InputError, match="proposer 'untrained' is in no folder"):
        save_detector(unsaved, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    (tmp_path / "rpn").rename(tmp_path / "moved")
    with pytest.raises(ModelError, match=r"'.*rpn', which is not there, nor beside it\. Put it back"):
        load_detector(folder, clip=clip)
    assert load_detector(folder, clip=clip, proposer=own).needs == detector.needs
    with pytest.raises(ModelError, match="no trained head"):
        new_c4(clip, ["cat"], [False], proposer=tmp_path / "rpn", templates="simple", size=SIDE, config={})


def test_detector_and_proposer_may_move_together(
    saved: Callable[[Callable[[], Clip]], Detector], tmp_path: Path
) -> None:
    detector = saved(FAMILIES["vit"])
    for name in ("rpn", "detector"):
        (tmp_path / "elsewhere").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert load_detector(tmp_path / "elsewhere" / "detector", clip=detector.clip).needs == detector.needs


def test_a_head_says_what_it_is(saved: Callable[[Callable[[], Clip]], Detector], tmp_path: Path) -> None:
    assert saved(FAMILIES["resnet"]).head.route == "attention", "the whole pool"
    assert detector().route == "value"
    assert (FVit.kind, C4.kind) == ("fvit", "c4")
    with pytest.raises(ModelError, match="is a head of the kind 'c4', and 'rpn' is wanted"):
        load_proposer(tmp_path / "detector")


def test_settings_out_of_range_are_said() -> None:
    with pytest.raises(ConfigError, match="`blocks` must be at least 1"):
        C4Config(blocks=0)
    with pytest.raises(ConfigError, match="`blocks` is 9"):
        detector(blocks=9)
    with pytest.raises(ConfigError, match="`regions`"):
        C4Config(regions=0)
    with pytest.raises(ConfigError, match=r"`temperature` \(0\.0\)"):
        C4Config(temperature=0.0)
    with pytest.raises(ConfigError, match=r"Did you mean 'focal'"):
        C4Config().replace(loss="focl")
