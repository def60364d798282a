from __future__ import annotations

import numpy as np
import pytest
import torch

from closeup.data.negatives import hard_negatives
from closeup.data.record import Reader
from closeup.data.registry import open_reader
from closeup.data.world.captions import full_caption
from closeup.data.world.lexicon import ATTRIBUTES, COLOURS, GROUNDS, NAMES, NOVEL, SHAPES, THINGS, WORLD
from closeup.data.world.probe import attribute_probe
from closeup.data.world.render import render
from closeup.data.world.scene import Scene, Thing, sample_scene
from closeup.data.world.stream import WorldStream
from closeup.data.world.world import World
from closeup.errors import InputError
from closeup.geometry import masks_to_boxes


def a_thing(**changes: object) -> Thing:
    plain = {
        "shape": "circle",
        "colour": "red",
        "pattern": "plain",
        "material": "leather",
        "transparency": "opaque",
        "x": 40.0,
        "y": 30.0,
        "radius": 20.0,
        "angle": 0.0,
        "stretch": 1.0,
    }
    return Thing(**(plain | changes))  # type: ignore[arg-type]


def test_the_lexicon_is_as_rich_as_promised() -> None:
    assert len(SHAPES) >= 20
    assert len(GROUNDS) >= 8
    assert len(COLOURS) == 29
    assert set(ATTRIBUTES) == {"colour", "pattern", "material", "transparency"}
    assert set(NOVEL) < set(SHAPES)
    assert len(THINGS) == len(NAMES) == len(set(NAMES))


def test_the_world_is_a_reader_whose_truth_agrees_with_itself() -> None:
    world = World("val", count=6, size=(96, 128))
    assert isinstance(world, Reader)
    for index in range(len(world)):
        record = world[index]
        assert record.masks is not None
        assert record.boxes is not None
        assert record.labels is not None
        assert record.label_map is not None
        # Regions tile the picture: every pixel belongs to exactly one of them, and the label map says which.
        assert torch.equal(record.masks.sum(dim=0), torch.ones(96, 128, dtype=torch.int64))
        assert torch.equal(record.boxes, masks_to_boxes(record.masks))
        for mask, label in zip(record.masks, record.labels, strict=True):
            assert (record.label_map[mask] == label).all()
        assert len(record.attributes) == record.count
        assert record.load().size == (128, 96)
        assert len(record.captions) == 5


def test_novel_shapes_may_be_left_unmarked() -> None:
    every, base = World("train", count=30, size=(96, 128)), World("train", count=30, size=(96, 128), shapes="base")
    novel, left = torch.tensor([NAMES.index(name) for name in NOVEL]), 0
    for index in range(30):
        whole, part = every[index], base[index]
        assert np.array_equal(np.asarray(whole.load()), np.asarray(part.load()))
        assert whole.captions == part.captions
        assert whole.labels is not None
        assert part.label_map is not None
        known = ~torch.isin(whole.labels, novel)
        for name in ("labels", "boxes", "masks"):
            assert torch.equal(getattr(whole, name)[known], getattr(part, name))
        assert part.attributes == tuple(a for a, kept in zip(whole.attributes, known.tolist(), strict=True) if kept)
        assert part.masks is not None
        assert torch.equal(part.label_map == -1, ~part.masks.any(dim=0))
        left += int((~known).sum())
    assert left > 10
    opened = open_reader("world?shapes=base&count=30&size=96", "train")
    assert not {int(label) for index in range(30) for label in opened[index].labels} & set(novel.tolist())  # type: ignore[union-attr]
    with pytest.raises(InputError, match="shapes='novel'"):
        open_reader("world?shapes=novel")


def test_a_scene_depends_on_split_seed_and_number_alone() -> None:
    def pixels(world: World, index: int) -> np.ndarray:
        return np.asarray(world[index].load())

    first = pixels(World("train", count=9), 3)
    assert np.array_equal(first, pixels(World("train", count=4), 3))
    assert not np.array_equal(first, pixels(World("val", count=4), 3))
    assert not np.array_equal(first, pixels(World("train", count=4, seed=1), 3))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_drawn_where_it_should_be(shape: str) -> None:
    scene = Scene(60.0, 80.0, ("snow",), (), (a_thing(shape=shape),), seed=0)
    mask = render(scene, (120, 160)).masks[0]
    ys, xs = np.nonzero(mask)
    assert 0.12 < mask.sum() / (80 * 80) < 0.9
    assert abs((xs.min() + xs.max()) / 2 - 80) < 8
    assert abs((ys.min() + ys.max()) / 2 - 60) < 9
    assert max(np.ptp(xs), np.ptp(ys)) == pytest.approx(80, abs=14)


def test_a_circle_has_the_area_of_a_circle_at_any_density() -> None:
    scene = Scene(60.0, 80.0, ("snow",), (), (a_thing(),), seed=0)
    for density in (1, 2, 5):
        mask = render(scene, (60 * density, 80 * density)).masks[0]
        assert mask.sum() / density**2 == pytest.approx(np.pi * 20**2, rel=0.03)


def test_later_things_hide_earlier_ones() -> None:
    below, above = a_thing(), a_thing(x=50.0, colour="blue")
    drawn = render(Scene(60.0, 80.0, ("snow",), (), (below, above), seed=0), (60, 80))
    assert not (drawn.masks[0] & drawn.masks[1]).any()
    assert drawn.masks[1].sum() > drawn.masks[0].sum()


def test_colours_are_what_their_names_say() -> None:
    for colour, rgb in COLOURS.items():
        scene = Scene(60.0, 80.0, ("tiles",), (), (a_thing(colour=colour),), seed=0)
        drawn = render(scene, (60, 80))
        mean = drawn.image[drawn.masks[0]].mean(axis=0)
        nearest = min(COLOURS, key=lambda name: float(np.abs(np.array(COLOURS[name]) - mean).sum()))
        assert np.abs(mean - rgb).max() < 70, colour
        assert nearest == colour or nearest not in WORLD.alternatives("colour", colour), f"{colour} looks {nearest}"


def test_transparency_lets_the_ground_through() -> None:
    def on_snow(transparency: str) -> float:
        thing = a_thing(colour="black", transparency=transparency)
        drawn = render(Scene(60.0, 80.0, ("snow",), (), (thing,), seed=0), (60, 80))
        return float(drawn.image[drawn.masks[0]].mean())

    assert on_snow("opaque") < on_snow("translucent") < on_snow("transparent")


@pytest.mark.parametrize("changes", [1, 2, 3])
def test_hard_negatives_change_as_many_attributes_as_asked(changes: int) -> None:
    rng = np.random.default_rng(0)
    for index in range(20):
        scene = sample_scene(np.random.default_rng(index))
        for thing in scene.things:
            words = full_caption(thing).split()
            negatives = hard_negatives(full_caption(thing), WORLD, rng, changes=changes)
            assert len(set(negatives)) == 10
            assert full_caption(thing) not in negatives
            for negative in negatives:
                assert negative.startswith(("a ", "an "))
                assert negative.split()[-1] == words[-1]


@pytest.mark.parametrize("family", ATTRIBUTES)
def test_hard_negatives_of_one_family_change_only_that(family: str) -> None:
    thing = a_thing()
    value = thing.attributes[family]
    for negative in hard_negatives(full_caption(thing), WORLD, np.random.default_rng(0), changes=family):
        rest = [word for other, word in thing.attributes.items() if other != family]
        assert all(word in negative for word in rest)
        assert not any(f" {near} " in f" {negative} " for near in {value} if near not in " ".join(rest))


def test_unclear_colours_are_no_alternatives() -> None:
    assert "dark red" not in WORLD.alternatives("colour", "red")
    assert "blue" in WORLD.alternatives("colour", "red")


def test_the_stream_is_a_function_of_seed_and_position() -> None:
    one, again, other = WorldStream(seed=0, batch=4), WorldStream(seed=0, batch=4), WorldStream(seed=1, batch=4)
    for index in (0, 7, 31):
        assert one[index][1] == again[index][1]
        assert np.array_equal(np.asarray(one[index][0]), np.asarray(again[index][0]))
    assert [one[index][1] for index in range(40)] != [other[index][1] for index in range(40)]
    assert max(one[0][0].size) <= 64


def test_the_stream_has_noun_only_closeups_and_batches_that_share_all_but_shape() -> None:
    stream = WorldStream(batch=16)
    captions = [[stream[batch * 16 + i][1] for i in range(16)] for batch in range(30)]
    nouns = {noun for names in (*SHAPES.values(), *GROUNDS.values()) for noun in names}
    short = [batch for batch in captions if all(nouns & set(text.replace(",", "").split()) for text in batch)]
    assert len(short) > 10
    assert any(len(set(batch)) < len(batch) for batch in captions), "equal captions should occur"


def test_probe_questions_have_their_answer_among_the_choices() -> None:
    questions = attribute_probe(12)
    assert {question.family for question in questions} == {"shape", "ground", *ATTRIBUTES}
    for question in questions:
        assert 0 <= question.answer < len(question.choices)
        assert len(set(question.choices)) == len(question.choices)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"count": 0}, "at least 1 scene"),
        ({"size": (16, 64)}, "at least 32 by 32"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        World(**arguments)  # type: ignore[arg-type]
