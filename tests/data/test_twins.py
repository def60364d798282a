"""Twins differ in one family of attributes and in nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from closeup.data.world.lexicon import ATTRIBUTES, THINGS, WORLD
from closeup.data.world.twins import Twins
from closeup.errors import InputError


@pytest.mark.parametrize("family", ATTRIBUTES)
def test_twins_differ_in_their_family_alone(family: str) -> None:
    reader = Twins(family, count=12, side=96)
    for index in range(len(reader)):
        record = reader[index]
        assert record.count == 2
        left, right = record.attributes
        assert [name for name in left if left[name] != right[name]] == [family]
        assert right[family] in WORLD.alternatives(family, left[family]), "a clear mistake"
        assert record.labels is not None
        assert record.labels[0] == record.labels[1]
        assert record.boxes is not None
        assert record.masks is not None
        assert record.label_map is not None
        assert set(record.label_map[record.masks.any(dim=0)].tolist()) == {int(record.labels[0])}
        (ground,) = record.label_map[~record.masks.any(dim=0)].unique().tolist()
        assert not THINGS[ground]
        assert record.boxes[0, 2] <= record.boxes[1, 0], "side by side"
        first, second = record.descriptions
        assert (first.right, first.wrong) == (second.wrong[0], (second.right,))
        for one, attributes in zip(record.descriptions, record.attributes, strict=True):
            assert attributes[family] in one.right, "the phrase says what tells it from its twin"


def test_a_scene_depends_on_family_seed_and_number_alone() -> None:
    few, many = Twins(count=2), Twins(count=9)
    assert np.array_equal(np.asarray(few[1].load()), np.asarray(many[1].load()))
    assert few[1].descriptions == many[1].descriptions
    other = Twins(count=2, seed=1)
    assert few[0].descriptions != other[0].descriptions or not torch.equal(
        torch.from_numpy(np.asarray(few[0].load())), torch.from_numpy(np.asarray(other[0].load()))
    )


def test_errors() -> None:
    with pytest.raises(InputError, match="Did you mean 'pattern'"):
        Twins("patern")
    with pytest.raises(InputError, match="at least 1"):
        Twins(count=0)
    with pytest.raises(IndexError):
        Twins(count=2)[2]
