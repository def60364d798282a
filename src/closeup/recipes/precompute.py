"""Teacher embeddings of a whole data set, computed ahead of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from closeup._types import Embeddings
from closeup.errors import InputError
from closeup.recipes.distill_samples import DistillSamples, Views, Wanted

CHUNK = 64
"""Views that travel together: 38 MB at 224 px."""


def precompute(
    samples: DistillSamples, embed: Callable[[Views], Embeddings], *, workers: int = 0, rank: int = 0, world: int = 1
) -> Iterator[int]:
    """Fill a store with what it lacks, yielding the index of every record that is done.

    What is there is kept, so that a run that was stopped goes on where it was. Each of ``world`` processes takes
    every ``world``-th record.

    Raises:
        InputError: there is no store to fill.
    """
    store = samples.store
    if store is None:
        raise InputError("There is no cache to keep teacher embeddings in. Give the recipe a folder as `cache`.")
    todo = DataLoader(_Unknown(samples, rank, world), batch_size=None, num_workers=workers)
    for index, wanted in todo:
        if wanted is None:
            yield int(index)
        else:
            store.write(wanted.places, embed(wanted.views))


class _Unknown(IterableDataset[tuple[int, Wanted | None]]):
    """Everything a store lacks, record by record, each followed by None."""

    def __init__(self, samples: DistillSamples, rank: int, world: int) -> None:
        self._samples, self._rank, self._world = samples, rank, world

    def __iter__(self) -> Iterator[tuple[int, Wanted | None]]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        if worker:
            torch.set_num_threads(1)
        for index in range(self._rank + self._world * number, len(self._samples.reader), self._world * count):
            for wanted in self._samples.unknown(index, CHUNK):
                yield index, wanted
            yield index, None
