"""The options that choose a model and how it looks at pictures."""

from __future__ import annotations

from dataclasses import dataclass

from closeup.cli.choices import Precision
from closeup.cli.fields import Maybe
from closeup.errors import InputError
from closeup.models import Clip, get_route, load


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it looks at pictures."""

    model: str = "tiny"
    """A name as in "tiny", "ViT-B-16/openai", "random:ViT-B-16" or "hf-hub:owner/name", or a folder of a model; all
    names: closeup models."""

    route: str = "value"
    """How the last block is replaced to keep features local: "value", "attention" (unchanged), ..."""

    size: Maybe[int] = None
    """Longest side in pixels at which pictures are looked at, the model's own unless given."""

    precision: Precision = "auto"
    """Arithmetic: "auto" is bf16 where the machine is faster at it and the model bears it."""

    device: str = "auto"
    """Where to compute: "auto", "cpu", "cuda", "cuda:1"."""

    def check(self) -> None:
        """Raise InputError for what can be seen to be wrong without the model."""
        get_route(self.route)
        if self.size is not None and self.size < 1:
            raise InputError(f"--size {self.size} is below one pixel. Give the longest side in pixels, as in 336.")

    def load(self) -> Clip:
        """Return the model; InputError where its tower does not know the route."""
        self.check()
        clip = load(self.model, device=self.device, precision=self.precision)
        known = clip.tower.routes
        if get_route(self.route).name not in known:
            raise InputError(
                f"--route {self.route}: the {clip.tower.family} tower of {clip.name} knows {', '.join(known)}."
            )
        return clip
