from __future__ import annotations

import numpy as np
import pytest
import torch

from closeup.data.record import Reader, Record, iterate
from closeup.errors import InputError

PICTURE = np.zeros((4, 6, 3), np.uint8)


def record(**parts: object) -> Record:
    return Record(**{"id": "one", "image": PICTURE, "size": (4, 6), **parts})  # type: ignore[arg-type]


def test_a_record_counts_its_regions_and_loads_its_picture() -> None:
    assert record().count == 0
    assert record(labels=torch.tensor([0, 1])).count == 2
    assert record(attributes=({"colour": "red"},)).count == 1
    assert record().load().size == (6, 4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"boxes": torch.zeros(2, 4), "attributes": ({},)}, "number of regions: boxes says 2, attributes says 1"),
        ({"masks": torch.zeros(1, 6, 4, dtype=torch.bool)}, r"size \(height, width\): size says \(4, 6\), masks says"),
        ({"label_map": torch.zeros(3, 6, dtype=torch.int64)}, r"label_map says \(3, 6\)"),
    ],
)
def test_parts_that_disagree_are_named(parts: dict[str, object], message: str) -> None:
    # A path as image: the shape checks of the test run would otherwise meet the mistake first.
    with pytest.raises(InputError, match=f"Record 'one'.*{message}"):
        record(image="x.png", **parts)


def test_a_picture_of_another_size_is_named() -> None:
    with pytest.raises(InputError, match=r"image says \(4, 6\), size says \(5, 6\)"):
        record(size=(5, 6)).load()


def test_a_list_like_class_is_a_reader() -> None:
    class One:
        names = ("dog",)
        things = (True,)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int, /) -> Record:
            return [record()][index]

    reader: Reader = One()
    assert isinstance(reader, Reader)
    assert [item.id for item in iterate(reader)] == ["one"]
