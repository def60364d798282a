"""The mask of each noun: what a loop over masks and nouns chooses, and the right one far more often than by chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from closeup.data.record import Reader, Record
from closeup.data.world import World
from closeup.data.world.lexicon import GROUNDS, SHAPES
from closeup.errors import InputError
from closeup.models.clip import Clip
from closeup.models.load import load
from closeup.models.mask_prompt import give_prompts
from closeup.predict.mask_files import FoundMasks
from closeup.predict.mask_sources import TruthMasks
from closeup.predict.pairs import Mined, NounTexts, PairPolicy, assign, labelled_pairs, mine_pairs
from closeup.regions.masked_crops import masked_crops
from closeup.text.concepts import ConceptMiner

SINGULAR = {"pebble": "gravel", "plank": "planks", "floorboard": "planks", "tile": "tiles"}
CLASS: Mapping[str, str] = {noun: name for name, nouns in {**SHAPES, **GROUNDS}.items() for noun in nouns} | SINGULAR
"""The class of every noun that captions of the world use."""


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load("tiny", device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def miner() -> ConceptMiner:
    return ConceptMiner(form="nouns")


def sizes(mined: Iterator[Mined]) -> list[int]:
    return [len(each.pairs) for each in mined]


@pytest.mark.parametrize(("captions", "batch"), [(1, 8), (5, 1)])
def test_pairs_are_those_of_a_loop(clip: Clip, miner: ConceptMiner, captions: int, batch: int) -> None:
    world = World("train", count=6, size=(96, 128))
    policy = PairPolicy(captions=captions, batch=batch)
    mined = list(mine_pairs(world, TruthMasks(), clip, miner, policy))
    assert len(mined) == 6
    for index, found in enumerate(mined):
        record = world[index]
        assert record.masks is not None
        picture, _ = clip.preprocess(record.load(), policy="native")
        nouns: list[str] = []
        for caption in record.captions[:captions]:
            nouns += [noun for noun in miner.nouns([caption]) if noun not in nouns]
        assert [pair.noun for pair in found.pairs] == nouns
        for pair in found.pairs:
            text = F.normalize(clip.encode_text([f"a photo of a {pair.noun}."])[0], dim=0)
            with torch.no_grad():
                seen = [
                    clip.encode_image(masked_crops(picture, mask[None], clip.image_size)[0], normalize=True)[0]
                    for mask in record.masks
                ]
            scores = torch.stack([text @ embedding for embedding in seen])
            assert pair.score == pytest.approx(float(scores.max()), abs=1e-4)
            mask = record.masks[int(scores.argmax())]
            top, left = mask.nonzero().amin(dim=0).tolist()
            bottom, right = (mask.nonzero().amax(dim=0) + 1).tolist()
            assert pair.box == (left, top, right, bottom)
            assert torch.equal(pair.mask, mask[top:bottom, left:right])
            assert np.array_equal(np.asarray(pair.crop), np.asarray(record.load())[top:bottom, left:right])
            assert pair.source == record.id


def is_right(record: Record, box: tuple[int, int, int, int], mask: torch.Tensor, name: str) -> bool:
    assert record.masks is not None
    assert record.labels is not None
    left, top, right, bottom = box
    return any(
        World.names[label] == name
        and int(plane.sum()) == int(mask.sum())
        and torch.equal(plane[top:bottom, left:right], mask)
        for plane, label in zip(record.masks, record.labels.tolist(), strict=True)
    )


def test_nouns_get_the_right_masks_of_the_world(clip: Clip, miner: ConceptMiner) -> None:
    world = World("train", count=60)
    right, chance = [], []
    for index, found in enumerate(mine_pairs(world, TruthMasks(), clip, miner)):
        record = world[index]
        assert record.labels is not None
        names = [world.names[label] for label in record.labels.tolist()]
        for pair in found.pairs:
            # Of materials a tagger may take some for nouns.
            name = CLASS.get(pair.noun, "none")
            if name in names:
                right.append(is_right(record, pair.box, pair.mask, name))
                chance.append(names.count(name) / len(names))
    assert len(right) > 150
    assert np.mean(right) > 0.8
    assert np.mean(chance) < 0.2


def test_a_start_gives_the_rest(clip: Clip, miner: ConceptMiner) -> None:
    world = World("train", count=5, size=(64, 64))
    whole = list(mine_pairs(world, TruthMasks(), clip, miner))
    parts = [
        *mine_pairs(world, TruthMasks(), clip, miner, stop=2),
        *mine_pairs(world, TruthMasks(), clip, miner, start=2, stop=99),
    ]
    assert [[(p.noun, p.score, p.box) for p in m.pairs] for m in whole] == [
        [(p.noun, p.score, p.box) for p in m.pairs] for m in parts
    ]
    assert list(mine_pairs(world, TruthMasks(), clip, miner, start=7)) == []


def test_weak_pairs_and_unlisted_nouns_are_dropped(clip: Clip, miner: ConceptMiner) -> None:
    world = World("train", count=8, size=(96, 96))
    scores = [pair.score for found in mine_pairs(world, TruthMasks(), clip, miner) for pair in found.pairs]
    middle = float(np.median([score for score in scores if score is not None]))
    kept = [p for m in mine_pairs(world, TruthMasks(), clip, miner, PairPolicy(least=middle)) for p in m.pairs]
    assert len(kept) == sum(score is not None and score >= middle for score in scores)
    only = PairPolicy(only=frozenset({"sky", "star"}), captions=5)
    nouns = {pair.noun for found in mine_pairs(world, TruthMasks(), clip, miner, only) for pair in found.pairs}
    assert nouns <= {"sky", "star"}


class NoMasks:
    """A source that finds nothing, and counts how often it was asked."""

    name, fingerprint, asked = "nothing", "", 0

    def __call__(self, record: Record, picture: object) -> FoundMasks:
        self.asked += 1
        assert record.size is not None
        return FoundMasks(torch.zeros(0, *record.size, dtype=torch.bool))


class Told:
    """The world with other captions."""

    names, things = World.names, World.things

    def __init__(self, *captions: tuple[str, ...]) -> None:
        self._world, self._captions = World("train", count=len(captions), size=(64, 64)), captions

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> Record:
        return replace(self._world[index], captions=self._captions[index])


def test_no_caption_no_noun_and_no_mask_give_no_pair(clip: Clip, miner: ConceptMiner) -> None:
    reader = Told((), ("running very quickly", "a star"), ("a star", "a key"), ("two stars", "stars and a star"))
    assert isinstance(reader, Reader)
    assert sizes(mine_pairs(reader, TruthMasks(), clip, miner)) == [0, 0, 1, 1]
    assert sizes(mine_pairs(reader, TruthMasks(), clip, miner, PairPolicy(captions=5))) == [0, 1, 2, 1]
    source = NoMasks()
    assert sizes(mine_pairs(reader, source, clip, miner)) == [0, 0, 0, 0]
    assert source.asked == 2


class Broken(Told):
    """A reader whose second picture is gone, and whose third has no masks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(*[("a star",)] * 4)
        self._folder = folder

    def __getitem__(self, index: int) -> Record:
        record = super().__getitem__(index)
        if index == 1:
            return replace(record, image=self._folder / "gone.png")
        if index == 2:
            return Record(record.id, record.image, record.size, captions=record.captions)
        return record


def test_a_broken_picture_is_left_out_with_a_warning(clip: Clip, miner: ConceptMiner, tmp_path: Path) -> None:
    broken = Broken(tmp_path)
    runs = (mine_pairs(broken, TruthMasks(), clip, miner), labelled_pairs(broken))
    for run in runs:
        with pytest.warns(UserWarning, match="left out") as told:
            found = list(run)
        assert [each.left_out for each in found] == [False, True, True, False]
        assert all(bool(each.pairs) != each.left_out for each in found)
        assert ["gone.png" in str(each.message) for each in told] == [True, False]
        assert "neither masks nor a label map" in str(told[1].message)


@pytest.mark.parametrize("maps", [False, True])
def test_labelled_masks_are_pairs_with_their_names(maps: bool) -> None:
    world = World("val", count=4, size=(64, 96))

    class Shown(Told):
        def __getitem__(self, index: int) -> Record:
            record = world[index]
            return replace(record, masks=None, boxes=None, labels=None, attributes=()) if maps else record

    reader = Shown(*[()] * 4)
    for index, found in enumerate(labelled_pairs(reader)):
        record = world[index]
        assert record.labels is not None
        assert record.label_map is not None
        labels = record.labels.tolist()
        expected = sorted(set(record.label_map.flatten().tolist()) - {-1}) if maps else labels
        assert [pair.noun for pair in found.pairs] == [World.names[label] for label in expected]
        assert {pair.score for pair in found.pairs} == {None}
        if not maps:
            assert all(is_right(record, pair.box, pair.mask, pair.noun) for pair in found.pairs)


def test_each_noun_is_embedded_once(clip: Clip) -> None:
    texts = NounTexts(clip)
    first = texts(["star", "grass"])
    assert torch.equal(texts(["grass", "key", "star"])[[2, 0]], first)
    assert len(texts) == 3
    expected = clip.encode_text(["a photo of a key."])[0]
    torch.testing.assert_close(texts(["key"])[0], F.normalize(expected, dim=0), atol=1e-5, rtol=1e-4)


def test_a_clip_with_prompts_looks_through_them() -> None:
    clip = load("tiny", device="cpu", precision="fp32")
    record = World("train", count=1, size=(64, 64))[0]
    assert record.masks is not None
    nouns = NounTexts(clip)(["star", "sky"])
    plain = assign(clip, record.load(), record.masks, nouns)[1]
    with pytest.raises(InputError, match="no mask prompts"):
        assign(clip, record.load(), record.masks, nouns, how="mask-prompt")
    give_prompts(clip.tower, depth=2).tokens.data.normal_()
    assert not torch.equal(assign(clip, record.load(), record.masks, nouns, how="mask-prompt")[1], plain)


def test_wrong_settings_are_told() -> None:
    for wrong in ({"captions": 0}, {"batch": 0}, {"least": 1.5}, {"how": "dense"}):
        with pytest.raises(InputError):
            PairPolicy(**wrong)
