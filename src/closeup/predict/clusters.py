"""Which places of an image models hold to be alike: clusters of their dense maps, side by side."""

from __future__ import annotations

from collections.abc import Mapping

import PIL.Image
import torch

from closeup._types import ImageLike
from closeup.models.clip import Clip
from closeup.models.preprocess import Size
from closeup.models.routes import Route
from closeup.models.windows import Window
from closeup.viz import kmeans_sheet


@torch.inference_mode()
def clusters(
    clips: Mapping[str, Clip],
    image: ImageLike,
    count: int,
    *,
    size: int | Size | None = None,
    route: str | Route = "value",
    window: Window | None = None,
) -> PIL.Image.Image:
    """Return a sheet of the image and the ``count`` k-means clusters of each model's dense map, under its title.

    ``size`` is the longest side in pixels for the dense map (None: the native size), ``window`` the cells along a side
    of windows that attention stays inside. Needs no words: nothing is named.

    Raises:
        InputError: ``count`` is below 1, the route is unknown, or the image cannot be read.

    Source: CLIPSelf (arXiv 2310.01403), Figure 4.
    """
    maps = []
    for title, clip in clips.items():
        pixels, _ = clip.preprocess(image, policy="fit", size=size)
        maps.append((title, clip.encode_dense(pixels[None], route=route, window=window)[0].cpu()))
    return kmeans_sheet(image, maps, clusters=count)
