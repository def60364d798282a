"""What every image tower offers, whatever its family: the joint-space map, the pooled embedding, the pyramid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings, Images
from closeup.errors import InputError
from closeup.models.reading import Reading
from closeup.models.routes import Grid, Route, get_route
from closeup.models.windows import Window, window_grid


class ImageTower(ABC):
    """An image tower of open_clip, read as a map: one subclass a family, no weights of its own.

    ``visual`` is open_clip's own module; a tower only calls its parts in another order, so training
    the one trains the other. Images are normalised, and ``patch`` divides their height and width
    (``Clip.encode_dense`` pads them) or they are of the native size, ``image_size``. Every output is in
    the joint space and not L2-normalised.
    """

    family: str
    """Name of the family, as messages and tables show it."""

    routes: tuple[str, ...] = ("value", "attention", "value-cls-residual")
    """Names of the routes that make sense for the family."""

    def __init__(self, visual: nn.Module, *, dim: int, patch: int, depth: int, image_size: tuple[int, int]) -> None:
        self.visual = visual
        self.dim = dim
        self.patch = patch
        self.depth = depth
        self.image_size = image_size

    @classmethod
    @abstractmethod
    def accepts(cls, visual: nn.Module) -> bool:
        """Tell whether ``visual``, the image module of an open_clip model, belongs to this family."""

    @classmethod
    @abstractmethod
    def from_visual(cls, visual: nn.Module, dim: int) -> ImageTower:
        """Wrap ``visual``, whose joint space has ``dim`` dimensions; ModelError where it cannot be read as a map."""

    @abstractmethod
    def dense(self, images: Images, route: Route, window: Window | None = None) -> DenseMap:
        """Return the joint-space map, one vector per ``patch`` by ``patch`` square.

        With a ``window`` attention stays inside windows (``windows.WindowedBlock``); InputError where that has no
        meaning for the family.
        """

    @abstractmethod
    def pooled_and_dense(self, images: Images, route: Route) -> tuple[Embeddings, DenseMap]:
        """Return the family's own pooling of the routed last layer, and the map, from one pass.

        With the route ``attention`` at the native size the first equals open_clip's ``encode_image``.
        """

    def pooled(self, images: Images) -> Embeddings:
        """Return the embedding of whole images: open_clip's ``encode_image``, at any size."""
        return self.pooled_and_dense(images, get_route("attention"))[0]

    @abstractmethod
    def features(self, images: Images, blocks: Sequence[int]) -> list[Float[Tensor, "batch channels rows cols"]]:
        """Return the outputs of the given blocks (0-based; or stages) as maps, before any head."""

    @abstractmethod
    def features_and_dense(
        self, images: Images, blocks: Sequence[int], route: Route
    ) -> tuple[list[Float[Tensor, "batch channels rows cols"]], DenseMap]:
        """Return the outputs of the given blocks and the joint-space map, from one pass."""

    @abstractmethod
    def read(self, images: Images, blocks: Sequence[int], route: Route) -> Reading:
        """Return the outputs of the given blocks, the pooled embedding and the joint-space map, from one pass."""

    @property
    def native_grid(self) -> Grid:
        """Rows and columns of patches at the native size."""
        return self.image_size[0] // self.patch, self.image_size[1] // self.patch

    def check_window(self, window: Window | None) -> None:
        """Raise InputError for what is no window, or where the family has no attention that it could confine."""
        if window is not None:
            window_grid(window, self.native_grid)

    def grid(self, images: Images) -> Grid:
        """Return the rows and columns of patches; InputError where the patch does not divide a side.

        Some models were trained at a size that their patch does not divide (384 with patch 14). At that size, and
        at no other, the pixels beyond the last whole patch are not seen, as in the model itself.
        """
        height, width = images.shape[-2:]
        whole = height % self.patch == 0 and width % self.patch == 0 and min(height, width) > 0
        if not whole and (height, width) != self.image_size:
            raise InputError(
                f"Images of {height} x {width} pixels are not a whole number of {self.patch}-pixel patches. "
                "Pad them, or call Clip.encode_dense, which does."
            )
        return height // self.patch, width // self.patch
