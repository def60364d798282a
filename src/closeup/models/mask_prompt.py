"""OVSeg's mask prompts: learned tokens in the place of the patches that a region's mask leaves out.

    m_j  = 1 where the mask covers any pixel of patch j, else 0
    x_j  = m_j patch_j + (1 - m_j) P_0,j       before prefix tokens, positions and the first block
    x_j  = m_j x_j     + (1 - m_j) P_d,j       after block d, for d = 1 .. depth - 1

Class token and registers stay. A mask of ones leaves the tower as it is, to the bit.

Source: Liang et al., OVSeg, CVPR 2023 (arXiv 2210.04150), Section 3.3; ``facebookresearch/ov-seg``
``third_party/CLIP/clip/model.py``, whose code fails for a single mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from closeup._types import Embeddings, Images, Masks
from closeup.errors import InputError, ModelError
from closeup.models.pos_embed import resize_position_embedding
from closeup.models.token_tower import Patches, TokenTower
from closeup.models.tower import ImageTower

DEPTH = 3
"""Places where prompts enter, the first before the first block: OVSeg's choice (Table 6 has 1, 3, 6 and 12)."""
DEVIATION = 0.02
"""Of the first values, which are normal around zero."""

NAME = "mask_prompts"
"""Of the prompts in the image module that they are for, so that they are copied, moved and saved with it."""

Kept = Bool[Tensor, "count cells"]


def kept_cells(masks: Masks, patch: int) -> Kept:
    """Return which cells of masks on a canvas have any pixel in them, row by row.

    Also CLIP's patches that ODISE's mask tokens attend to (arXiv 2303.04803).

    Raises:
        InputError: a side that the patch does not divide.
    """
    height, width = masks.shape[1:]
    if height % patch or width % patch:
        raise InputError(f"Masks of {height} x {width} pixels are not a whole number of {patch}-pixel cells. Pad them.")
    cells: Tensor = masks.unflatten(2, (width // patch, patch)).unflatten(1, (height // patch, patch))
    return cells.any(dim=4).any(dim=2).flatten(1)


class MaskPrompts(nn.Module):
    """The tokens that stand for what is masked out, at the input and after each of the next ``depth - 1`` blocks.

    One per patch of the native grid, or with ``shared`` one for all patches. At another size they are resized as
    positions are.

    Raises:
        ModelError: a tower that is not made of tokens.
        InputError: a depth below 1 or above the number of blocks.
    """

    def __init__(self, tower: ImageTower, depth: int = DEPTH, *, shared: bool = False, seed: int | None = None) -> None:
        super().__init__()
        tower = _token_tower(tower)
        if not 1 <= depth <= tower.depth:
            raise InputError(f"Prompts of depth {depth}: give 1 to {tower.depth}, the blocks of the tower.")
        rows, cols = tower.native_grid
        width = _width(tower)
        self.grid = tower.native_grid
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            tokens = torch.randn(depth, 1 if shared else rows * cols, width)
        self.tokens = nn.Parameter(tokens * DEVIATION)

    @property
    def depth(self) -> int:
        """Places where prompts enter."""
        return len(self.tokens)

    @property
    def shared(self) -> bool:
        """Whether all patches of a place share one prompt."""
        return self.tokens.shape[1] == 1

    def at(self, place: int, grid: tuple[int, int]) -> Float[Tensor, "cells width"]:
        """Return the prompts of one place on a grid; one row that stands for all where they are shared."""
        tokens = self.tokens[place]
        if len(tokens) == 1:
            return tokens
        return resize_position_embedding(tokens, grid, prefix=0, native=self.grid)


@runtime_checkable
class Prompted(Protocol):
    """What is asked of a Clip."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def tower(self) -> ImageTower: ...  # noqa: D102


def prompts_of(tower: ImageTower) -> MaskPrompts | None:
    """Return the prompts that a tower was given or loaded with, if any."""
    prompts = getattr(tower.visual, NAME, None)
    return prompts if isinstance(prompts, MaskPrompts) else None


def cut_out_view(clip: Prompted) -> str:
    """Return the region encoder by which a model sees masks cut out: with its mask prompts where it has some."""
    return "masked-crop" if prompts_of(clip.tower) is None else "mask-prompt"


def needed_prompts(clip: Prompted) -> MaskPrompts:
    """Return a model's prompts; InputError where it has none."""
    prompts = prompts_of(clip.tower)
    if prompts is None:
        raise InputError(
            f"The model {clip.name!r} has no mask prompts. Adapt it with closeup adapt maskadapt, or look at masked "
            "crops."
        )
    return prompts


def check_prompts(clip: Prompted, how: str | None) -> None:
    """Raise InputError where a region encoder wants mask prompts and the model has none."""
    if how == "mask-prompt":
        needed_prompts(clip)


def give_prompts(
    tower: ImageTower, depth: int = DEPTH, *, shared: bool = False, seed: int | None = None
) -> MaskPrompts:
    """Give a tower new prompts, in the place of others if it has some, and return them.

    With a ``seed`` they are drawn by it, and the caller's random numbers stay as they are.

    Raises:
        ModelError: a tower that is not made of tokens.
        InputError: a depth below 1 or above the number of blocks.
    """
    prompts = MaskPrompts(tower, depth, shared=shared, seed=seed).to(next(tower.visual.parameters()).device)
    setattr(tower.visual, NAME, prompts)
    return prompts


def stored_prompts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the prompts among a model's weights."""
    return {name: tensor for name, tensor in state.items() if name.startswith(f"visual.{NAME}.")}


def give_stored_prompts(tower: ImageTower, state: Mapping[str, Tensor], source: str) -> None:
    """Give a tower the prompts that are among some weights, if there are any.

    Raises:
        ModelError: they do not fit the tower.
    """
    stored = stored_prompts(state)
    if not stored:
        return
    tokens = stored.get(f"visual.{NAME}.tokens")
    if tokens is None or tokens.ndim != 3:
        raise ModelError(f"The mask prompts in {source} are no table of depth, patches and width.")
    prompts = give_prompts(tower, len(tokens), shared=tokens.shape[1] == 1, seed=0)
    if prompts.tokens.shape != tokens.shape:
        delattr(tower.visual, NAME)
        raise ModelError(
            f"The mask prompts in {source} are {tuple(tokens.shape)} and not {tuple(prompts.tokens.shape)}: they "
            "are of another tower."
        )
    prompts.load_state_dict({"tokens": tokens.float()})


def encode_prompted(tower: ImageTower, images: Images, kept: Kept, prompts: MaskPrompts) -> Embeddings:
    """Return the tower's pooled embedding of images whose left-out cells are prompts; not normalised.

    ``kept`` is ``kept_cells`` of the images' masks.

    Raises:
        ModelError: a tower that is not made of tokens.
        InputError: not one row of cells per image.
    """
    tower = _token_tower(tower)
    grid = tower.grid(images)
    if kept.shape != (len(images), grid[0] * grid[1]):
        raise InputError(f"{tuple(kept.shape)} cells for {len(images)} images of {grid[0]} x {grid[1]} cells each.")
    if not len(images):  # timm's EVA has no blocks for none
        return images.new_zeros(0, tower.dim)

    def prompted(tokens: Patches, place: int) -> Patches:
        return torch.where(kept[:, :, None], tokens, prompts.at(place, grid).to(tokens.dtype))

    tokens = tower.assemble(prompted(tower.patches(images), 0), grid)
    for index in range(tower.depth):
        tokens = tower.run(index, tokens, grid)
        if index + 1 < prompts.depth:
            patches = prompted(tokens[:, tower.prefix :], index + 1)
            tokens = torch.cat([tokens[:, : tower.prefix], patches], dim=1)
    return tower.pool(tokens)


def _token_tower(tower: ImageTower) -> TokenTower:
    if not isinstance(tower, TokenTower):
        raise ModelError(f"Mask prompts take the place of a ViT's patch tokens; a {tower.family} has none.")
    return tower


def _width(tower: TokenTower) -> int:
    """Return the width of the tower's tokens."""
    height, width = tower.image_size
    parameter = next(tower.visual.parameters())
    with torch.no_grad():
        tokens = tower.patches(parameter.new_zeros(1, 3, height, width))
    return tokens.shape[2]
