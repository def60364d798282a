"""The order of training data: a function of the step alone, whatever the number of workers or processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import DataLoader, Dataset

from closeup.errors import CloseupError
from closeup.recipes.recipe import Batch, Recipe


class Positions(Dataset[Any]):
    """Sample number ``position`` of a recipe, for data loader workers."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def __getitem__(self, position: int) -> Any:  # noqa: ANN401  (a recipe's sample is its own affair)
        try:
            return self._recipe.sample(position)
        except CloseupError as error:
            return _Failed(error)

    def collate(self, samples: Sequence[Any]) -> Batch | _Failed:
        """Return the recipe's batch, or the first failure among the samples."""
        failed = next((sample for sample in samples if isinstance(sample, _Failed)), None)
        return self._recipe.collate(samples) if failed is None else failed


@dataclass(frozen=True, slots=True)
class _Failed:
    """An error that the user is to read, on its way out of a worker: torch would wrap it in a traceback."""

    error: CloseupError


class ShardedBatches:
    """Yields the positions of every local batch from ``start`` to ``stop``, in units of global batches.

    The global batch of step ``s`` is positions ``s * size`` to ``(s + 1) * size``; each of ``world``
    processes takes its contiguous share, cut into ``parts`` for gradient accumulation.
    """

    def __init__(self, start: int, stop: int, size: int, *, rank: int = 0, world: int = 1, parts: int = 1) -> None:
        self._span = (start, stop)
        self._size = size
        self._rank, self._world, self._parts = rank, world, parts

    def __len__(self) -> int:
        return (self._span[1] - self._span[0]) * self._parts

    def __iter__(self) -> Iterator[list[int]]:
        share = self._size // (self._world * self._parts)
        for step in range(*self._span):
            for part in range(self._parts):
                first = step * self._size + (part * self._world + self._rank) * share
                yield list(range(first, first + share))


def loader(recipe: Recipe, batches: ShardedBatches, workers: int, *, pin: bool = False) -> Iterator[Batch]:
    """Yield the recipe's collated batches in exactly the order of ``batches``.

    Raises:
        CloseupError: what a sample raises, whichever process it was made in.
    """
    positions = Positions(recipe)
    made: DataLoader[Batch | _Failed] = DataLoader(
        positions,
        batch_sampler=batches,
        collate_fn=positions.collate,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_prepare_worker if workers else None,
    )
    for batch in made:
        if isinstance(batch, _Failed):
            raise batch.error
        yield batch


def _prepare_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C goes to a whole group of processes; the step that it lets finish may still wait for a batch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def visited(position: int, records: int, seed: int) -> int:
    """Return the record of visit number ``position``: all records once an epoch, in an order of each epoch's own."""
    epoch, offset = divmod(position, records)
    return int(_order(seed, epoch, records)[offset])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, records: int) -> Int[np.ndarray, " records"]:
    return np.random.default_rng([seed, 1, epoch]).permutation(records)
