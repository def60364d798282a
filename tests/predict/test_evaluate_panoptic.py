"""Panoptic segmentation measured: the truth of records, a proposer that is always right, and figures as by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from closeup._types import IGNORE
from closeup.data.coco_panoptic import CocoPanoptic, read_segments
from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import DataError, InputError
from closeup.evaluate.panoptic import PanopticQuality, Segments
from closeup.heads.mask_proposer import MaskProposer, new_mask_proposer
from closeup.heads.maskformer import MaskFormer, MaskQueries
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.predict import PanopticReport, evaluate_panoptic, panoptic
from closeup.predict.panoptic_truth import segments_of
from closeup.predict.words import as_bank
from goldens import SHARED
from tiny_towers import randomise

WORLD = World("val", count=4, size=(64, 64))
SMALL = {"queries": 6, "channels": 32, "hidden": 16, "heads": 2, "layers": 2, "feed_forward": 32, "words_hidden": 24}
SAMPLE = SHARED / "data" / "coco_panoptic_sample" / "sample_data"


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load("tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def proposer(clip: Clip) -> MaskProposer:
    made = new_mask_proposer(
        clip, WORLD.names, [name in WORLD.novel for name in WORLD.names], templates="simple", size=64, config=SMALL
    )
    randomise(made.head, 0)
    return made


class Right(MaskFormer):
    """A head that knows the truth of the pictures in their order."""

    def know(self, reader: World, embeddings: Tensor) -> None:
        self.reader, self.embedded, self.next = reader, embeddings, 0

    def find(self, images: Tensor) -> MaskQueries:
        record, self.next = self.reader[self.next], self.next + 1
        assert record.masks is not None
        assert record.labels is not None
        embeddings = self.embedded[record.labels]
        dense = embeddings.new_zeros(1, embeddings.shape[1], 1, 1)
        return MaskQueries(embeddings[None], (record.masks[None].float() - 0.5) * 40, dense)


def right(clip: Clip, proposer: MaskProposer, reader: World) -> MaskProposer:
    embeddings = as_bank(clip, reader.names).embeddings
    head = Right(clip, embeddings, proposer.novel, proposer.head.config).eval()
    head.know(reader, embeddings)
    return replace(proposer, head=head)


def test_a_proposer_that_is_always_right_scores_one(clip: Clip, proposer: MaskProposer) -> None:
    told: list[tuple[int, int]] = []
    report = evaluate_panoptic(
        clip,
        right(clip, proposer, WORLD),
        WORLD,
        weight=0.0,
        novel_weight=0.0,
        apart="whole",
        smallest=0.0,
        workers=0,
        on_progress=lambda done, of: told.append((done, of)),
    )
    summary = report.summary()
    assert [summary[group][name] for group in ("all", "base", "novel") for name in ("pq", "sq", "rq")] == [1] * 9
    assert (summary["all"]["things pq"], summary["all"]["stuff pq"]) == (1, 1)
    assert summary["novel"]["stuff pq"] is None
    assert told == [(done, 4) for done in range(1, 5)]
    assert {row["PQ"] for row in report.table()} == {1}
    assert {row["class"] for row in report.table() if row["group"] == "novel"} <= set(WORLD.novel)


def test_figures_are_those_of_record_by_record(clip: Clip, proposer: MaskProposer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"threshold": 0.01, "overlap": 0.1, "how": "mask-token"}
    report = evaluate_panoptic(clip, proposer, WORLD, limit=3, **settings)
    metric = PanopticQuality(WORLD.names, WORLD.things)
    things = [name for name, thing in zip(WORLD.names, WORLD.things, strict=True) if thing]
    for index in range(3):
        record = WORLD[index]
        assert record.masks is not None
        assert record.labels is not None
        found = panoptic(clip, proposer, record.load(), WORLD.names, things=things, **settings)
        places = torch.where(record.masks.any(dim=0), record.masks.int().argmax(dim=0), IGNORE)
        metric.update(Segments(found.places, found.labels), Segments(places, record.labels))
    assert report.summary()["all"] == metric.compute().summary()
    assert report.novel == tuple(name in WORLD.novel for name in WORLD.names)
    assert report.images == 3
    stored = json.loads(report.save(tmp_path / "report.json").read_text())
    assert stored["provenance"]["region_encoder"] == "mask-token"
    assert isinstance(report, PanopticReport)


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the COCO panoptic sample is not there")
def test_the_truth_of_coco_is_its_file() -> None:
    file, folder = SAMPLE / "panoptic_examples.json", SAMPLE / "panoptic_examples"
    document = json.loads(file.read_text())
    reader = CocoPanoptic(file, folder)
    place = {row["id"]: index for index, row in enumerate(sorted(document["categories"], key=lambda row: row["id"]))}
    assert len(reader) == len(document["annotations"]) > 0
    for index, row in enumerate(document["annotations"]):
        truth, ids = segments_of(reader[index], reader.things), read_segments(folder / row["file_name"])
        crowds = [segment for segment in row["segments_info"] if segment["iscrowd"]]
        assert truth.crowd is not None
        assert int(truth.crowd.sum()) == len({segment["category_id"] for segment in crowds})
        assert np.array_equal(truth.places.numpy() == IGNORE, ids == 0)
        for segment in row["segments_info"]:
            (number,) = np.unique(truth.places.numpy()[ids == segment["id"]]).tolist()
            assert int(truth.labels[number]) == place[segment["category_id"]]
            assert bool(truth.crowd[number]) == bool(segment["iscrowd"])
            if not segment["iscrowd"]:
                assert int((truth.places == number).sum()) == int((ids == segment["id"]).sum())


def test_what_only_the_label_map_names_is_a_stuff_or_a_crowd() -> None:
    label_map = torch.tensor([[0, 0, 0, 1], [0, 2, 2, IGNORE]])
    masks = torch.tensor([[[1, 0, 0, 0], [0, 0, 0, 0]], [[0, 0, 0, 0], [0, 1, 0, 0]]]).bool()
    record = Record("a", "none.png", (2, 4), masks=masks, labels=torch.tensor([0, IGNORE]), label_map=label_map)
    truth = segments_of(record, [True, False, False])
    assert truth.crowd is not None
    assert truth.labels.tolist() == [0, 0, 1, 2]
    assert truth.crowd.tolist() == [False, True, False, False]
    assert truth.places.tolist() == [[0, 1, 1, 2], [1, IGNORE, 3, IGNORE]]
    only = segments_of(Record("b", "none.png", (2, 4), label_map=label_map), [True, False, False])
    assert only.places.tolist() == [[0, 0, 0, 1], [0, 2, 2, IGNORE]]


@dataclass(frozen=True)
class Odd:
    record: Record
    names: tuple[str, ...] = ("cat", "grass")
    things: tuple[bool, ...] = (True, False)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int, /) -> Record:
        return self.record


def test_what_cannot_be_measured_is_said(clip: Clip, proposer: MaskProposer) -> None:
    settings: list[tuple[dict[str, Any], str]] = [
        ({"words": ["cat"]}, "1 words for"),
        ({"limit": 0}, "no records"),
        ({"how": "crop"}, "'crop'"),
    ]
    for changes, message in settings:
        with pytest.raises(InputError, match=message):
            evaluate_panoptic(clip, proposer, WORLD, workers=0, **changes)
    record, planes = WORLD[0], torch.ones(2, 64, 64, dtype=torch.bool)
    bare = Record("bare", record.image, (64, 64))
    wrong = {
        "neither masks nor a label map": bare,
        "its masks overlap": replace(bare, masks=planes, labels=torch.tensor([0, 1])),
        "without labels": replace(bare, masks=planes),
        "has the label 7": replace(bare, masks=planes[:1], labels=torch.tensor([7])),
    }
    for message, odd in wrong.items():
        with pytest.raises(DataError, match=message):
            evaluate_panoptic(clip, proposer, Odd(odd), workers=0)
    with pytest.raises(InputError, match="no names"):
        evaluate_panoptic(clip, proposer, Odd(bare, (), ()), workers=0)
