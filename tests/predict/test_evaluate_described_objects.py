"""Detectors asked for captions: FG-OVD's protocol against plain loops, caption by caption and box by box."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import PIL.Image
import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou, clip_boxes_to_image, nms, roi_align

from closeup.data.record import Description, Record
from closeup.data.world import World
from closeup.data.world.fine_grained import FineGrainedWorld
from closeup.errors import DataError, InputError
from closeup.evaluate import Answer
from closeup.heads.c4 import C4
from closeup.heads.dense_detector import new_dense_detector
from closeup.heads.fvit import FVit
from closeup.heads.proposals import listed
from closeup.heads.rpn import new_proposer
from closeup.heads.saved import Detector, new_c4, new_detector
from closeup.models.clip import Clip
from closeup.predict import (
    CaptionDetector,
    Provenance,
    evaluate_described_objects,
    evaluate_fine_grained,
    open_caption_detector,
)
from closeup.predict.detect import shown_size
from tiny_clips import vit_clip
from tiny_towers import randomise

WORLD = World("val", count=3, size=(64, 96))
SIDE = 96
RIGHT = ("A red star.", "A blue striped cup.", "cat")
WRONG = ("A green star.", "A red cup.", "A white bottle.", "A dark ring.")


def small(kind: str) -> Detector:
    pyramid = {"channels": 16, "proposals": 40, "candidates": 100}
    clip, known = vit_clip(layers=4), (["cat", "dog"], [False, True])
    torch.manual_seed(0)
    if kind == "fvit":
        config: dict[str, Any] = {**pyramid, "hidden": 16, "bins": 3, "convolutions": 1}
        made = new_detector(clip, *known, templates="simple", size=SIDE, config=config)
        randomise(made.head, 0)
    else:
        proposer = new_proposer(clip, (), (), templates="simple", size=64, config=pyramid)
        randomise(proposer.head, 0)
        config = {"temperature": 0.1, "objectness": "logit"}
        made = new_c4(clip, *known, proposer=proposer, templates="simple", size=SIDE, config=config)
    made.head.eval()
    return made


@pytest.fixture(scope="module", params=["fvit", "c4"])
def detector(request: pytest.FixtureRequest) -> Detector:
    return small(request.param)


def decoded(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Return moved boxes, one at a time."""
    rows = []
    for (x0, y0, x1, y1), (dx, dy, dw, dh) in zip(boxes.tolist(), deltas.tolist(), strict=True):
        width, height = x1 - x0, y1 - y0
        x, y = (x0 + x1) / 2 + dx / 10 * width, (y0 + y1) / 2 + dy / 10 * height
        width, height = width * float(torch.tensor(dw / 5).exp()), height * float(torch.tensor(dh / 5).exp())
        rows.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return torch.tensor(rows)


def by_hand(detector: Detector, picture: PIL.Image.Image, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return every box on the picture and its scores, from the heads' formulas, each caption for itself."""
    head, clip = detector.head, detector.clip
    canvas, placement = clip.preprocess(picture, policy="longest-pad-corner", size=SIDE)
    images, sizes = canvas[None], shown_size(placement)
    texts = [clip.encode_text([caption], normalize=False)[0] for caption in captions]
    if isinstance(head, FVit):
        levels, maps = head.pyramid(images)
        proposed, _ = head.proposals(listed(images, sizes), levels)
        embeddings, deltas = head.head(head.pooling(levels, proposed))
        seen = roi_align(maps, proposed, 1, 1 / clip.patch, aligned=True)[:, :, 0, 0]
        nothing = clip.encode_text(["a photo of a background."])[0]
        columns = [
            (
                head.head.scale * torch.cosine_similarity(embeddings, text[None]),
                torch.cosine_similarity(seen, text[None]),
            )
            for text in (*texts, nothing)
        ]
        learned = torch.stack([one for one, _ in columns], dim=1).softmax(dim=1)[:, :-1]
        frozen = (75 * torch.stack([other for _, other in columns], dim=1)).softmax(dim=1)[:, :-1]
        share = torch.tensor([head.config.alpha if caption == "cat" else head.config.beta for caption in captions])
        boxes, scores = decoded(proposed[0], deltas), learned ** (1 - share) * frozen**share
    else:
        assert isinstance(head, C4)
        (found,) = head.propose(images, sizes)
        regions = head.read(images, [found.boxes])
        columns_of = [torch.cosine_similarity(regions, text[None]) / 0.1 for text in texts]
        shares = torch.stack([*columns_of, torch.zeros(len(regions))], dim=1).softmax(dim=1)[:, :-1]
        scores = (shares * found.logits[:, None]).sqrt()
        boxes = decoded(found.boxes, head.deltas(regions))
    boxes = clip_boxes_to_image(boxes, tuple(sizes[0].tolist()))
    kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & scores.isfinite().all(dim=1)
    return placement.boxes_to_original(boxes[kept]), scores[kept]


def answered(
    detector: Detector, picture: PIL.Image.Image, captions: Sequence[str], limit: int
) -> tuple[Tensor, Tensor]:
    """Return the boxes of an answer, thinned out, best first."""
    boxes, scores = by_hand(detector, picture, captions)
    kept = nms(boxes, scores.amax(dim=1), 0.5)[:limit]
    return boxes[kept], scores[kept]


@dataclass
class Listed:
    """Records in memory."""

    records: list[Record]
    names: tuple[str, ...] = ("thing",)
    things: tuple[bool, ...] = (True,)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int, /) -> Record:
        return self.records[index]


@torch.no_grad()
def planted(detector: Detector) -> Listed:
    """Return records whose objects lie near boxes that the detector has, and some that lie nowhere near.

    Two objects have one caption; one has too few wrong captions; the last record describes nothing.
    """
    records = []
    for index in range(2):
        picture = WORLD[index].load()
        found, _ = answered(detector, picture, (RIGHT[0], *WRONG[:3]), 2)
        boxes, _ = answered(detector, picture, (*RIGHT, *WRONG), 100)
        best = torch.cat([found, boxes[-2:]])
        moved = best + 0.1 * (best[:, 2:] - best[:, :2]).repeat(1, 2)
        chosen = torch.cat([moved, torch.tensor([[95.0, 63.0, 95.5, 63.5]])])
        said = [RIGHT[0], RIGHT[1], RIGHT[0], RIGHT[2], RIGHT[1]]
        wrong = [WRONG, WRONG[1:], WRONG, WRONG[2:], WRONG[1:]]
        descriptions = tuple(map(Description, said, wrong))
        records.append(Record(f"p{index}", picture, (64, 96), boxes=chosen, descriptions=descriptions))
    return Listed([*records, replace(WORLD[2], descriptions=())])


@torch.no_grad()
@pytest.mark.parametrize("limit", [100, 3])
def test_ranks_are_those_of_a_plain_loop(detector: Detector, limit: int) -> None:
    """One vocabulary at a time, one caption at a time."""
    reader, told = planted(detector), list[tuple[int, int]]()
    report = evaluate_described_objects(
        detector, reader, negatives=3, limit_found=limit, on_progress=lambda *done: told.append(done)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    scores, found = [], []
    for record in reader.records[:2]:
        assert record.boxes is not None
        for box, said in zip(record.boxes, record.descriptions, strict=True):
            if len(said.wrong) < 3:
                continue
            boxes, table = answered(detector, record.load(), (said.right, *said.wrong[:3]), limit)
            near = box_iou(boxes, box[None])[:, 0] > 0.5
            found.append(bool(near.any()))
            best = table[near][table[near].amax(dim=1).argmax()] if found[-1] else torch.zeros(4)
            scores.append(best)
    here = report.found()
    torch.testing.assert_close(here.scores, torch.stack(scores), atol=1e-4, rtol=1e-3)
    assert here.found.tolist() == found
    assert 0 < sum(found) < len(found)
    ranks = [int((row >= row[0]).sum()) for row in scores]
    assert report.ranks().ranks.tolist() == ranks
    assert report.ranks(found=True).ranks.tolist() == [rank for rank, one in zip(ranks, found, strict=True) if one]
    assert (report.ranks().left_out, report.skipped, here.unasked) == (2, 0, 0)
    summary = report.summary()
    assert summary["found"] == pytest.approx(sum(found) / len(found))
    assert summary["mean_rank"] == pytest.approx(sum(ranks) / len(ranks))


def test_the_tower_looks_at_a_picture_once(detector: Detector) -> None:
    seen: list[int] = []
    part = detector.head.pyramid if isinstance(detector.head, FVit) else detector.head.proposer.head.pyramid
    hook = part.register_forward_hook(lambda *_: seen.append(1))
    try:
        report = evaluate_described_objects(detector, FineGrainedWorld(WORLD, "2_attributes", 40), negatives=10)
    finally:
        hook.remove()
    pictures = sum(len(each.right) > 0 for each in report.objects)
    distinct = sum(len(set(each.right)) for each in report.objects)
    assert len(seen) == pictures
    assert len(report.answers) == distinct > pictures


@torch.no_grad()
def test_another_caption_changes_no_comparison(detector: Detector) -> None:
    """All captions lose by it alike: their odds against each other stay, and so do the boxes."""
    canvas, placement = detector.clip.preprocess(WORLD[0].load(), policy="longest-pad-corner", size=SIDE)
    found = detector.head.look(canvas[None], shown_size(placement))
    texts, nothing = detector.clip.encode_text([*RIGHT[:2], *WRONG]), detector.head.words[-1:]
    (few,) = found.scores(torch.cat([texts[:3], nothing]), [True] * 3)
    (many,) = found.scores(torch.cat([texts, nothing]), [True] * 6)
    usable = few.isfinite().all(dim=1)
    assert bool(usable.any())
    odds = [(scores[usable, :1] / scores[usable, 1:3]).log() for scores in (few, many)]
    torch.testing.assert_close(odds[0], odds[1], atol=1e-3, rtol=1e-3)
    assert bool((many[usable, :3] < few[usable]).all())


@dataclass
class Oracle:
    """Knows the truth, and may not be able to read some caption."""

    reader: FineGrainedWorld
    unreadable: str = ""
    name: str = "oracle"
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def ask(self, image: str, picture: PIL.Image.Image, asked: Sequence[tuple[str, ...]]) -> list[Answer | None]:
        record = next(each for each in map(self.reader.__getitem__, range(len(self.reader))) if each.id == image)
        assert record.boxes is not None
        assert (picture.height, picture.width) == record.size
        self.asked += asked
        answers: list[Answer | None] = []
        for captions in asked:
            rows = [row for row, said in enumerate(record.descriptions) if said.right == captions[0]]
            scores = torch.tensor([[1.0] + [0.5] * (len(captions) - 1)] * len(rows))
            readable = self.unreadable not in captions
            answers.append(Answer(image, captions, record.boxes[rows].float(), scores) if readable else None)
        return answers

    def provenance(self, **settings: str | int | float | bool | None) -> Provenance:
        return Provenance(self.name, "", "oracle", "", "", 0, "name", "", (64, 96), settings)


def test_a_detector_that_is_always_right() -> None:
    reader = FineGrainedWorld(WORLD, "1_attributes", 40)
    said = [each for index in range(3) for each in reader[index].descriptions]
    oracle = Oracle(reader)
    assert isinstance(oracle, CaptionDetector)
    report = evaluate_described_objects(oracle, reader, negatives=10, workers=0)
    summary = report.summary()
    assert (summary["mean_rank"], summary["found"], summary["top1"]) == (1.0, 1.0, 1.0)
    assert summary["ap"] == pytest.approx(1.0)
    assert summary["items"] == len(said)
    asked = {caption[0] for caption in oracle.asked}
    assert asked == {each.right for each in said}
    assert all(len(captions) == 11 for captions in oracle.asked)
    told = json.loads(report.to_json())
    assert told["summary"] == summary
    assert told["precision"]["ap50"] == summary["ap50"]
    assert len(told["objects"]) == len(said)
    assert told["provenance"]["settings"] == {"negatives": 10, "limit": 100}


def test_what_cannot_be_read_is_counted() -> None:
    reader = FineGrainedWorld(WORLD, "1_attributes", 40)
    said = [each for index in range(3) for each in reader[index].descriptions]
    hidden = said[0].right
    report = evaluate_described_objects(Oracle(reader, hidden), reader, negatives=10, workers=0)
    lost = sum(each.right == hidden for each in said)
    assert report.skipped == 1
    assert report.summary()["unasked"] == lost
    assert report.ranks().ranks.tolist() == [11 if each.right == hidden else 1 for each in said]
    assert report.ranks(unasked="skip").mean == 1
    assert report.ranks(found=True).mean == 1
    assert report.precision(unasked="skip").figures["ap"] == pytest.approx(1.0)
    assert report.precision().figures["ap"] < 1


def test_objects_are_those_of_a_clip_on_true_boxes(clip: Clip) -> None:
    """So the two evaluations may stand beside each other."""
    reader = FineGrainedWorld(WORLD, "1_attributes", 40)
    report = evaluate_described_objects(Oracle(reader), reader, negatives=10, workers=0)
    items = evaluate_fine_grained(clip, reader, negatives=10, how="dense").items
    places = report.found().places
    assert [(report.objects[place].image, row) for place, row in places] == [
        (each.record, each.region) for each in items
    ]


def test_masks_alone_have_boxes(detector: Detector) -> None:
    record = FineGrainedWorld(WORLD, "1_attributes", 40)[0]
    report = evaluate_described_objects(detector, Listed([replace(record, boxes=None)]), negatives=10)
    assert len(report.objects[0].boxes) == record.count > 0


def test_what_does_not_fit_is_said(detector: Detector) -> None:
    reader = FineGrainedWorld(WORLD, "transparency", 40)
    ask: dict[str, Any] = {"negatives": 2, "workers": 0}
    with pytest.raises(InputError, match="negatives is 0"):
        evaluate_described_objects(detector, reader, negatives=0)
    with pytest.raises(InputError, match="limit_found 0"):
        evaluate_described_objects(detector, reader, **ask, limit_found=0)
    with pytest.raises(DataError, match="None of 3 records describes a region with 2 wrong captions"):
        evaluate_described_objects(detector, WORLD, **ask)
    with pytest.raises(DataError, match="None of 3 records describes a region with 50 wrong captions"):
        evaluate_described_objects(detector, reader, negatives=50)
    bare = Record("bare", WORLD[0].load(), (64, 96), descriptions=(Description("a", ("b", "c")),))
    with pytest.raises(DataError, match="'bare' has neither boxes nor masks"):
        evaluate_described_objects(detector, Listed([bare]), **ask)


def test_a_closed_list_of_words_is_refused() -> None:
    config = {"channels": 16, "hidden": 8, "head": "retinanet"}
    closed = new_dense_detector(
        vit_clip(layers=4), ["star", "cup"], [False] * 2, templates="simple", size=64, config=config
    )
    with pytest.raises(InputError, match=r"knows 2 words of its own, and no captions. Give .*hf:NAME"):
        evaluate_described_objects(closed, WORLD, negatives=2)


def test_detectors_are_opened_by_a_line(clip: Clip) -> None:
    assert open_caption_detector("tiny-fvit", device="cpu").name == "tiny-fvit"
    with pytest.raises(InputError, match="brings its own towers"):
        open_caption_detector("hf:google/owlvit-base-patch16", clip=clip)
