from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from closeup.errors import InputError
from closeup.models.clip import Clip
from closeup.models.routes import ROUTES, Block, Route, Tokens, get_route
from goldens import assert_close
from tiny_clips import as_clip, eva_clip, vit_clip
from tiny_towers import images, timm_vit_clip


def siglip_clip() -> Clip:
    return as_clip(timm_vit_clip(), {"embed_dim": 32})


class NeighbourhoodRoute:
    """A route as a user may write it: keys with keys, a Gaussian over the places on the grid, no residual, no MLP.

    Source: NACLIP (arXiv 2404.08181).
    """

    name = "neighbourhood"

    def __init__(self, width: float) -> None:
        self.width = width

    def __call__(self, block: Block, x: Tokens) -> Tokens:
        _, keys, values = block.queries_keys_values(x)
        return block.project(block.attend(keys, keys, values, self.bias(block)))

    def bias(self, block: Block) -> Tensor:
        rows, cols = block.grid
        places = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).double()
        patches = -torch.cdist(places, places).square() / (2 * self.width**2)
        bias = torch.zeros(block.prefix + rows * cols, block.prefix + rows * cols)
        bias[block.prefix :, block.prefix :] = patches
        bias[block.prefix :, : block.prefix] = -torch.inf
        return bias


class ValueAlone:
    """What a neighbourhood of no width is."""

    name = "value-alone"

    def __call__(self, block: Block, x: Tokens) -> Tokens:
        return block.project(block.values(x))


@pytest.mark.parametrize("make", [vit_clip, eva_clip, siglip_clip])
@torch.no_grad()
def test_a_route_of_ones_own_knows_where_the_patches_lie(make: Callable[[], Clip]) -> None:
    clip, pictures = make(), images(80, 48)
    alone = clip.encode_dense(pictures, route=ValueAlone())
    assert_close(clip.encode_dense(pictures, route=NeighbourhoodRoute(1e-3)), alone, 1e-5)
    assert not torch.allclose(clip.encode_dense(pictures, route=NeighbourhoodRoute(1.0)), alone, atol=1e-3)


def test_routes_by_name() -> None:
    assert set(ROUTES) == {"value", "maskclip", "attention", "value-cls-residual"}
    assert all(get_route(name) is route for name, route in ROUTES.items())
    own: Route = NeighbourhoodRoute(1.0)
    assert get_route(own) is own
    with pytest.raises(InputError, match=r"Unknown route 'vale'. Did you mean 'value'"):
        get_route("vale")
