"""Records read and prepared by threads ahead of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(make: Callable[[int], Item], count: int, workers: int) -> Iterator[Item]:
    """Yield ``make(0)`` to ``make(count - 1)`` in order, up to twice ``workers`` of them made ahead by threads.

    With 0 workers each is made when it is asked for. An error is raised in its turn.
    """
    if workers < 1:
        yield from map(make, range(count))
        return
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Item]] = deque()
    try:
        for index in range(count):
            waiting.append(pool.submit(make, index))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
