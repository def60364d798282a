from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from closeup._types import IGNORE
from closeup.data.map_regions import present_labels, with_map_regions
from closeup.data.record import Record
from closeup.data.world import World
from closeup.errors import DataError, InputError, ModelError
from closeup.heads.mask_proposer import load_mask_proposer, new_mask_proposer
from closeup.heads.trained import save_head
from closeup.models import load
from closeup.recipes.detection import Detection
from closeup.recipes.run_detection import DetectorTraining, Maker, detector_words, train_detector
from closeup.recipes.segmentation_config import MASKS_PRESETS

MASKS = Maker(new_mask_proposer, save_head, MASKS_PRESETS, grounds=True)
SMALL = {"queries": 6, "channels": 32, "hidden": 16, "heads": 2, "layers": 2, "feed_forward": 32, "words_hidden": 24}


def wanted(**changes: object) -> DetectorTraining:
    training = {"steps": 2, "batch_size": 4, "precision": "fp32", "workers": 0, "save_every": 1}
    settings = {"images": "world?count=8&size=64", "preset": "tiny", "config": {"size": 64}, "head": SMALL}
    return DetectorTraining(**(settings | {"training": training} | changes))  # type: ignore[arg-type]


def test_it_learns_things_and_grounds_but_no_novel_shape() -> None:
    world = World("train", count=2)
    words, novel = detector_words(world, grounds=True)
    assert words == world.names
    assert {word for word, new in zip(words, novel, strict=True) if new} == set(world.novel)
    grounds = [name for name, thing in zip(world.names, world.things, strict=True) if not thing]
    _, novel = detector_words(world, grounds[:1], grounds=True)
    assert sum(novel) == 1
    with pytest.raises(InputError, match="is no thing of the data set"):
        detector_words(world, grounds[:1])
    with pytest.raises(InputError, match="'gras' is no word of the data set"):
        detector_words(world, ("gras",), grounds=True)


def test_a_proposer_is_trained_saved_and_loaded_as_it_was(tmp_path: Path) -> None:
    made = train_detector(wanted(), tmp_path / "one", MASKS)
    again = train_detector(wanted(), tmp_path / "two", MASKS)
    one, two = (load_mask_proposer(folder, device="cpu", precision="fp32") for folder in (made.folder, again.folder))
    assert one.fingerprint == two.fingerprint
    assert one.words == World.names
    assert one.marks(["Star", "circle", "zebra"]) == [True, False, True]
    assert not one.head.training
    assert {"classes", "masks", "dice", "loss"} <= set(made.figures)
    save_head(one, tmp_path / "three", dtype="fp16")
    picture = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        load_mask_proposer(tmp_path / "three", device="cpu", precision="fp32").head.find(picture).masks,
        one.head.find(picture).masks,
        atol=0.1,
        rtol=0.05,
    )
    with pytest.raises(ModelError, match="but those here are"):
        load_mask_proposer(made.folder, clip=load("tiny-clipself", device="cpu"))


@dataclass(frozen=True)
class Mapped:
    """The world as label maps alone, the first row of each unlabelled."""

    world: World
    names: tuple[str, ...] = World.names
    things: tuple[bool, ...] = World.things

    def __len__(self) -> int:
        return len(self.world)

    def __getitem__(self, index: int) -> Record:
        record = self.world[index]
        assert record.label_map is not None
        label_map = record.label_map.clone()
        label_map[0] = IGNORE
        return Record(record.id, record.image, record.size, label_map=label_map)


def test_every_word_of_a_label_map_is_a_region() -> None:
    record = Mapped(World("train", count=1))[0]
    given = with_map_regions(record)
    assert record.label_map is not None
    assert given.masks is not None
    assert given.labels is not None
    assert given.labels.tolist() == present_labels(record.label_map)
    assert IGNORE not in given.labels.tolist()
    assert torch.equal(given.masks.sum(dim=0), (record.label_map != IGNORE).long())
    for label, mask in zip(given.labels, given.masks, strict=True):
        assert torch.equal(mask, record.label_map == label)
    with pytest.raises(DataError, match="no label map"):
        with_map_regions(Record("a", "a.png", None))


def test_label_maps_are_learned_from() -> None:
    clip = load("tiny", device="cpu")
    reader = Mapped(World("train", count=4, size=(64, 64)))
    words, novel = detector_words(reader, ("star",), grounds=True)
    head = new_mask_proposer(clip, words, novel, templates="simple", size=64, config=SMALL).head
    places = [None if name == "star" else label for label, name in enumerate(words)]
    recipe = Detection(clip, head, reader, places, size=64, flip=False, masks=True)
    batch = recipe.collate([recipe.sample(0), recipe.sample(1)])
    assert len(batch["masks"]) == len(batch["labels"]) > 0
    assert not batch["masks"][:, 0].any()
    assert bool(head(batch)["loss"].isfinite())
