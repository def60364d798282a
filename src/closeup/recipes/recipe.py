"""What a recipe tells the training loop: what is trained, on which batches, with which loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

Batch = Mapping[str, Tensor]
"""Named tensors whose first axis is the picture, or the region with a tensor beside it that says of which picture."""


class Recipe(ABC):
    """One adaptation method, in the form that the training loop drives.

    ``module`` holds every parameter, and its ``forward`` maps a batch to named scalars of which ``loss`` is
    minimised; the loop never reaches around that ``forward``, so gradients are synchronised on many
    devices as they should be. Only the parameters named by ``trainable`` move.
    """

    name: ClassVar[str]
    divisible: bool = True
    """Whether a batch may be computed in parts; not where the pictures of a batch are compared with each other."""
    module: nn.Module

    @abstractmethod
    def trainable(self) -> Mapping[str, nn.Parameter]:
        """Return the parameters to train by their name in ``module``."""

    @abstractmethod
    def sample(self, position: int) -> Any:  # noqa: ANN401  (a recipe's sample is its own affair)
        """Return training picture number ``position``: a function of the configuration and the number alone."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Batch:
        """Put the samples of one batch together."""

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Return whether weight decay applies: to matrices, not to gains, biases and scalars."""
        return parameter.ndim >= 2

    def pace(self, name: str) -> float:
        """Return what the rate of a parameter is multiplied by."""
        return 1.0

    def terms(self, batch: Batch) -> int | None:
        """Return how many terms the loss of a batch is the mean of, if it is not one a picture.

        The loop then gives ``module`` the mean of this number over all parts and processes as ``batch["terms"]``: a
        part that divides by it, and not by its own number, adds its share to the mean over the whole global batch.
        """
        return None

    def after_step(self) -> None:  # noqa: B027  (most recipes have nothing to do here)
        """Run after every optimiser step, for constraints on parameters."""

    def evaluate(self) -> dict[str, float]:
        """Return figures for the log, measured on data held out from training."""
        return {}
