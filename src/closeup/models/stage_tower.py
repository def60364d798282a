"""Towers made of convolutional stages: what is the same for all of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings, Images
from closeup.errors import InputError, suggest
from closeup.models.reading import Reading
from closeup.models.routes import Route
from closeup.models.token_tower import check_block
from closeup.models.tower import ImageTower
from closeup.models.windows import Window


class StageTower(ImageTower):
    """A tower whose ``blocks`` are stages, each a map at its own stride.

    There is no transformer block to take apart, so a route cannot be called here: the family knows the two
    routes that have a meaning for it by name.
    """

    routes = ("value", "attention")

    @abstractmethod
    def stem(self, images: Images) -> Float[Tensor, "batch channels rows cols"]:
        """Return the input of the first stage."""

    @abstractmethod
    def stages(self) -> Sequence[nn.Module]:
        """Return the stages, in order."""

    def features(self, images: Images, blocks: Sequence[int]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return the outputs of the given stages (0-based), in the order asked for; InputError for one it has not."""
        wanted = [check_block(block, self.depth) for block in blocks]
        outputs = [self.stem(images)]
        for stage in list(self.stages())[: max(wanted, default=-1) + 1]:
            outputs.append(stage(outputs[-1]))
        return [outputs[index + 1] for index in wanted]

    @abstractmethod
    def map_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> DenseMap:
        """Return the joint-space map of what the head sees."""

    @abstractmethod
    def both_of(self, features: Float[Tensor, "batch channels rows cols"], route: Route) -> tuple[Embeddings, DenseMap]:
        """Return the pooled embedding and the joint-space map of what the head sees."""

    def after(self, features: Float[Tensor, "batch channels rows cols"]) -> Float[Tensor, "batch _ rows cols"]:
        """Return what the head sees of the last stage's output: itself, unless the family has a layer between them."""
        return features

    def dense(self, images: Images, route: Route, window: Window | None = None) -> DenseMap:
        """Return the joint-space map, one vector per cell of the last map; InputError for a window or another route."""
        self.check_window(window)
        self.check_route(route)
        return self.map_of(self.last_map(images), route)

    def features_and_dense(
        self, images: Images, blocks: Sequence[int], route: Route
    ) -> tuple[list[Float[Tensor, "batch _ _ _"]], DenseMap]:
        """Return the outputs of the given stages and the joint-space map, from one pass."""
        chosen, last = self._with_last(images, blocks, route)
        return chosen, self.map_of(last, route)

    def read(self, images: Images, blocks: Sequence[int], route: Route) -> Reading:
        """Return the outputs of the given stages, the pooled embedding and the joint-space map, from one pass."""
        chosen, last = self._with_last(images, blocks, route)
        return Reading(chosen, *self.both_of(last, route))

    def pooled_and_dense(self, images: Images, route: Route) -> tuple[Embeddings, DenseMap]:
        """Return the pooled embedding and the map of the last stage, from one pass."""
        self.check_route(route)
        return self.both_of(self.last_map(images), route)

    def _with_last(
        self, images: Images, blocks: Sequence[int], route: Route
    ) -> tuple[list[Float[Tensor, "batch _ _ _"]], Float[Tensor, "batch channels rows cols"]]:
        """Return the outputs of the given stages, and what the head sees."""
        self.check_route(route)
        self.grid(images)
        maps = self.features(images, range(self.depth))
        return [maps[check_block(block, self.depth)] for block in blocks], self.after(maps[-1])

    def last_map(self, images: Images) -> Float[Tensor, "batch channels rows cols"]:
        """Return the map that the head sees, one cell per patch; InputError where the patch does not divide a side."""
        self.grid(images)  # convolutions take any size, but a cell must be a whole patch of the image
        return self.after(self.features(images, [self.depth - 1])[0])

    def check_window(self, window: Window | None) -> None:
        """Raise InputError where there is a window: no block attends from cell to cell that it could confine."""
        if window is not None:
            raise InputError(
                f"The window {window!r} has no meaning for a {self.family} tower: it is made of convolutions, and "
                "windows are for attention between cells. Leave the window out, or choose a ViT."
            )

    def check_route(self, route: Route) -> str:
        """Return the name of ``route``; InputError where it has no meaning for the family."""
        if route.name not in self.routes:
            raise InputError(
                f"The route {route.name!r} has no meaning for a {self.family} tower: it has no transformer block "
                f"and no class token. {suggest(route.name, self.routes)}"
            )
        return route.name
