from __future__ import annotations

import threading

import pytest

from closeup.data.prefetch import prefetched


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 20])
def test_items_come_in_order(count: int, workers: int) -> None:
    assert list(prefetched(lambda index: index * index, count, workers)) == [i * i for i in range(count)]


def test_no_more_is_made_ahead_than_promised() -> None:
    made: list[int] = []
    for taken, _ in enumerate(prefetched(made.append, 100, 2), start=1):
        assert len(made) <= taken + 4


def test_without_workers_the_callers_thread_does_it() -> None:
    assert list(prefetched(lambda _: threading.get_ident(), 2, 0)) == [threading.get_ident()] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_in_its_turn(workers: int) -> None:
    def make(index: int) -> int:
        return 10 // (2 - index)

    items = prefetched(make, 5, workers)
    assert [next(items), next(items)] == [5, 10]
    with pytest.raises(ZeroDivisionError):
        next(items)
