"""The world's fine-grained items: what they speak of, what they depend on, and that the export says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from closeup.data.fgovd import BENCHMARKS, FgOvd
from closeup.data.record import Reader, iterate
from closeup.data.registry import open_reader
from closeup.data.world.captions import full_caption
from closeup.data.world.export import export_world
from closeup.data.world.fine_grained import LEAST_PIXELS, FineGrainedWorld, describe
from closeup.data.world.lexicon import SHAPES, WORLD
from closeup.data.world.scene import sample_scene
from closeup.data.world.world import World
from closeup.errors import InputError

SIZE = (128, 128)
COUNT = 4


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_records_are_the_large_things_of_the_scene(benchmark: str) -> None:
    world = World("val", count=COUNT, size=SIZE)
    reader = FineGrainedWorld(world, benchmark)
    assert isinstance(reader, Reader)
    assert (len(reader), reader.names, reader.things) == (COUNT, world.names, world.things)
    for index in range(COUNT):
        record, (scene, shown) = reader[index], world.with_things(index)
        assert scene.masks is not None
        assert record.masks is not None
        assert record.boxes is not None
        assert record.labels is not None
        large = [row for row in range(len(shown)) if scene.masks[row].sum() >= LEAST_PIXELS]
        assert torch.equal(record.masks, scene.masks[large])
        assert torch.equal(record.boxes, scene.boxes[large])  # type: ignore[index]
        assert [reader.names[label] for label in record.labels.tolist()] == [shown[row].shape for row in large]
        assert [one.right for one in record.descriptions] == [full_caption(shown[row]) for row in large]
        assert record.attributes == tuple(shown[row].attributes for row in large)
        assert np.array_equal(np.asarray(record.load()), np.asarray(scene.load()))


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_wrong_captions_are_wrong_as_the_benchmark_says(benchmark: str) -> None:
    rng = np.random.default_rng(0)
    for seed in range(12):
        things = sample_scene(np.random.default_rng(seed)).things
        for thing, one in zip(things, describe(things, benchmark, rng), strict=True):
            assert one.right == full_caption(thing)
            assert one.right not in one.wrong
            assert len(set(one.wrong)) == len(one.wrong) >= min(BENCHMARKS[benchmark].negatives, 4)
            for wrong in one.wrong:
                said = {mention.family: mention.value for mention in WORLD.find(wrong)}
                assert len(said) == 4
                assert wrong.split()[-1] in SHAPES
                if benchmark == "shuffle_negatives":
                    continue
                assert wrong.split()[-1] == thing.shape
                assert wrong.startswith("an " if wrong.split()[1][0] in "aeiou" else "a ")
                new = [family for family, value in thing.attributes.items() if said[family] != value]
                changes = BENCHMARKS[benchmark].changes
                assert new == [changes] if isinstance(changes, str) else len(new) == changes
                for family in new:
                    assert said[family] in WORLD.alternatives(family, thing.attributes[family])


def test_an_item_depends_on_the_world_the_benchmark_and_its_number_alone() -> None:
    def said(benchmark: str, count: int, seed: int = 0, split: str = "train") -> object:
        return FineGrainedWorld(World(split, count=count, size=SIZE, seed=seed), benchmark)[3].descriptions

    first = said("1_attributes", 9)
    assert first == said("1_attributes", 4)
    reader = FineGrainedWorld(World("train", count=4, size=SIZE), "1_attributes")
    assert [reader[index].descriptions for index in (3, 1, 3)][::2] == [first, first]
    assert first != said("2_attributes", 4)
    assert first != said("1_attributes", 4, seed=1)
    assert first != said("1_attributes", 4, split="val")


def test_the_least_size_of_a_thing_can_be_chosen() -> None:
    world = World("val", count=COUNT, size=SIZE)
    counts = [
        sum(record.count for record in iterate(FineGrainedWorld(world, "color", least))) for least in (1, 400, 10**6)
    ]
    assert counts[0] > counts[1] > counts[2] == 0
    with pytest.raises(InputError, match="at least 1"):
        FineGrainedWorld(world, "color", 0)


def test_the_line_of_the_world_opens_it() -> None:
    reader = open_reader("world?negatives=color&count=3&size=128", "test")
    assert isinstance(reader, FineGrainedWorld)
    expected = FineGrainedWorld(World("test", count=3, size=SIZE), "color")
    assert [record.descriptions for record in iterate(reader)] == [record.descriptions for record in iterate(expected)]
    for line in ("world?negatives=colour", "world?negatives=hard"):
        with pytest.raises(InputError, match="negatives="):
            open_reader(line)
    with pytest.raises(InputError, match="Did you mean 'color'"):
        FineGrainedWorld(World(count=1), "colour")


def test_exported_files_say_the_same(tmp_path: Path) -> None:
    world = World("val", count=COUNT, size=SIZE)
    export_world(tmp_path, count=COUNT, size=SIZE, form="fgovd")
    for benchmark in BENCHMARKS:
        read = open_reader(f"fgovd:{tmp_path}?split={benchmark}")
        assert isinstance(read, FgOvd)
        drawn = [record for record in iterate(FineGrainedWorld(world, benchmark)) if record.count]
        assert len(read) == len(drawn)
        for ours, theirs in zip(drawn, iterate(read), strict=True):
            assert (ours.id, ours.size, ours.descriptions) == (theirs.id, theirs.size, theirs.descriptions)
            assert ours.attributes == theirs.attributes
            for name in ("boxes", "masks"):
                assert torch.equal(getattr(ours, name), getattr(theirs, name))
            assert np.array_equal(np.asarray(ours.load()), np.asarray(theirs.load()))
