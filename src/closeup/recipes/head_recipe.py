"""What recipes have in common that teach a head on a CLIP."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import nn

from closeup.models.clip import Clip
from closeup.recipes.recipe import Recipe


@runtime_checkable
class Headed(Protocol):
    """A head that is being trained, with what it stands on; the module holds every parameter."""

    @property
    def head(self) -> nn.Module:
        """The module whose ``forward`` gives losses."""
        ...

    @property
    def eyes(self) -> Clip:
        """The model that pictures are prepared for."""
        ...

    @property
    def needs(self) -> Mapping[str, str]:
        """Fingerprints of what it stands on besides the CLIP, by name: a resumed training needs the same."""
        ...

    @property
    def outlines(self) -> bool:
        """Whether it learns from masks too."""
        ...

    @property
    def paces(self) -> Mapping[str, float]:
        """Factors on the rate by the beginnings of parameters' names; 1 for all others."""
        ...


class HeadRecipe(Recipe):
    """A recipe whose module is a head, whose ``forward`` gives the losses of a batch of canvases.

    ``paces`` are factors on the rate by the beginnings of parameters' names. The head's running means are those of one
    device, so a batch is never computed in parts.
    """

    divisible = False
    lesson: ClassVar[str]
    """What of a word a picture must have for something to be learned from it."""

    def __init__(
        self, head: nn.Module, paces: Mapping[str, float] | None, probe: Callable[[], Mapping[str, float]] | None
    ) -> None:
        self.module = head
        self.paces = dict(paces or {})
        self._probe = probe

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the head's parameters that ask for gradients: what none would ever reach does not."""
        return {name: value for name, value in self.module.named_parameters() if value.requires_grad}

    @abstractmethod
    def teaches(self, sample: Any) -> bool:  # noqa: ANN401  (a recipe's sample is its own affair)
        """Return whether something is learned from a sample."""

    def pace(self, name: str) -> float:
        """Return the factor of the first of ``paces`` that a parameter's name begins with."""
        return next((pace for start, pace in self.paces.items() if name.startswith(start)), 1.0)

    def evaluate(self) -> dict[str, float]:
        """Return what the probe measures."""
        return dict(self._probe()) if self._probe is not None else {}
