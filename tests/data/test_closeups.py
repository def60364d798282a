from __future__ import annotations

import numpy as np
import pytest

from closeup.data.record import Reader, iterate
from closeup.data.world.closeups import CloseUps
from closeup.data.world.probe import attribute_probe
from closeup.errors import InputError


def test_every_close_up_has_one_label_and_a_caption_of_its_own() -> None:
    reader = CloseUps(count=60, side=32)
    assert isinstance(reader, Reader)
    records = list(iterate(reader))
    captions = [caption for record in records for caption in record.captions]
    assert len(set(captions)) == len(records) == 60
    for record in records:
        assert record.labels is not None
        assert len(record.labels) == 1
        assert max(record.load().size) == 32
        words = record.captions[0].split()
        assert words[-1] == reader.names[int(record.labels[0])]
        assert all(value in record.captions[0] for value in record.attributes[0].values())


def test_the_same_number_is_the_same_picture() -> None:
    few, many = CloseUps(count=2, side=32), CloseUps(count=4, side=32)
    assert few[1].captions == many[1].captions
    assert np.array_equal(np.asarray(few[1].load()), np.asarray(many[1].load()))
    assert CloseUps(count=2, side=32, seed=1)[1].captions != few[1].captions


def test_no_picture_is_one_of_the_probe() -> None:
    probe = {np.asarray(question.picture).tobytes() for question in attribute_probe(20, side=32)}
    assert probe.isdisjoint(np.asarray(record.load()).tobytes() for record in iterate(CloseUps(count=20, side=32)))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"side": 0}])
def test_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        CloseUps(**wrong)
