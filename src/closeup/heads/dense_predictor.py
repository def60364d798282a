"""A trained DenseCLIP as a folder: image tower, head and embedded words in one; no text tower is needed to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from closeup.errors import InputError
from closeup.heads.denseclip import DenseClip
from closeup.heads.denseclip_config import DenseClipConfig
from closeup.heads.folder import clip_of, fill, head_folder, read_head_card
from closeup.heads.prompting import SEEING, Prompting
from closeup.heads.tower_backbone import TowerBackbone
from closeup.heads.trained import KEYS, TrainedHead, save_head
from closeup.models.clip import Clip
from closeup.models.image_tower import grafted_tower, image_tower, resized_tower
from closeup.models.load import chosen_device
from closeup.models.timm_backbone import CELL
from closeup.text import Vocabulary, build_bank, get_templates
from closeup.text.prompts import LearnedContexts

CONTEXTS = "prompting.contexts."
"""The beginning of the names of what training alone needs."""

KEYS_OF_PREDICTORS = (*KEYS, "tower")
"""What the card of such a head must say."""


@dataclass(frozen=True, slots=True, eq=False)
class ClosedHead(TrainedHead):
    """A head of a closed list of words whose tower learns; ``clip`` is the one that it was made from, or a tower alone.

    Its module has a ``backbone`` and a ``prompting``, which may be None.
    """

    @property
    def eyes(self) -> Clip:
        """The image tower that learns, which is not the CLIP's where a backbone takes its place."""
        tower: Clip = self.head.backbone.clip
        return tower

    @property
    def paces(self) -> dict[str, float]:
        """The image tower learns more slowly than the rest."""
        return {"backbone.": self.head.config.backbone_pace}


@dataclass(frozen=True, slots=True, eq=False)
class DensePredictor(ClosedHead):
    """A DenseCLIP that names pixels."""

    head: DenseClip

    @property
    def outlines(self) -> bool:
        """Label maps, or masks, are all that it learns from."""
        return True


Closed = TypeVar("Closed", bound=ClosedHead)


def new_dense_predictor(
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    config: Mapping[str, Any],
) -> DensePredictor:
    """Return an untrained DenseCLIP of words; ``novel`` is of no account, for it learns all of them.

    Raises:
        ModelError: a ViT of fewer than four blocks, or a text tower that contexts cannot go through.
    """
    settings = DenseClipConfig().replace(**config)
    return new_closed(DensePredictor, DenseClip, settings, clip, words, novel, templates=templates, size=size)


def save_dense_predictor(
    predictor: ClosedHead,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write all that it takes to use it, the words as they are embedded now. The folder appears whole or not at all.

    Raises:
        InputError: the folder holds something else.
    """
    if predictor.head.prompting is not None:
        predictor.head.prompting.fix()
    told = predictor.head.backbone.clip.config
    tower = {"model_cfg": {**told["model_cfg"], "text_cfg": {}}, "preprocess_cfg": told.get("preprocess_cfg", {})}
    return save_head(predictor, folder, {**(card or {}), "tower": tower}, dtype=dtype)


def load_dense_predictor(
    name: str | Path, *, device: str | torch.device = "auto", precision: str = "auto", clip: Clip | None = None
) -> DensePredictor:
    """Load a DenseCLIP in eval mode. No CLIP is loaded, unless its prompts see the picture and need a text tower.

    ``name`` is a folder, or the name of one that ships; ``clip`` is the CLIP of its card, where that is elsewhere now.

    Raises:
        ModelError: there is none, or the CLIP that is needed is another one than it was trained on.
    """
    how: dict[str, Any] = {"device": device, "precision": precision, "clip": clip}
    return load_closed(DensePredictor, DenseClip, DenseClipConfig(), name, **how)


def new_closed(
    kind: type[Closed],
    module: type[Any],
    config: DenseClipConfig,
    clip: Clip,
    words: Sequence[str],
    novel: Sequence[bool],
    *,
    templates: str,
    size: int,
    native: int | None = None,
) -> Closed:
    """Return an untrained head of a closed list of words.

    ``module`` is made of a backbone, the prompts of words, their number and the settings; ``native`` is the tower's
    native size where it is not that of the canvas.
    """
    backbone, prompting = new_parts(clip, words, config, templates=templates, size=native or size)
    head = module(backbone, prompting, len(words), config).to(clip.device)
    return kind(head, clip, size, "untrained", tuple(words), tuple(novel), templates)


def load_closed(
    kind: type[Closed],
    module: type[Any],
    defaults: DenseClipConfig,
    name: str | Path,
    *,
    device: str | torch.device,
    precision: str,
    clip: Clip | None,
) -> Closed:
    """Load a head of a closed list in eval mode."""
    folder = head_folder(name)
    card = read_head_card(folder, {module.kind: KEYS_OF_PREDICTORS})
    config, words = defaults.replace(**card["config"]), tuple(card["words"])
    # What is drawn here is overwritten: chance goes on as if nothing had been.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        backbone, prompting, whole = stored_parts(card, folder, config, device=device, precision=precision, clip=clip)
        head = module(backbone, prompting, len(words), config)
    # What contexts had learned is in the words; without a text tower they are of no use.
    fill(head, folder, beside=() if config.prompts in SEEING else (CONTEXTS,))
    head.to(backbone.clip.device)
    return kind(head, whole, card["size"], str(name), words, tuple(card["novel"]), card["templates"])


def new_parts(
    clip: Clip, words: Sequence[str], config: DenseClipConfig, *, templates: str, size: int
) -> tuple[TowerBackbone, Prompting | None]:
    """Return what every head of a closed list of words has: a backbone of a native size, and its words if wanted.

    Raises:
        ModelError: a ViT of fewer than four blocks, or a text tower that contexts cannot go through.
    """
    get_templates(templates)
    cell = CELL if config.backbone else clip.patch
    if size < 2 * cell:
        raise InputError(f"The size {size} is too small: give at least two cells of {cell} px.")
    prompting = None
    if config.language:
        contexts = _contexts(clip, words, config)
        if contexts is None:
            bank = build_bank(clip, Vocabulary(words), templates=templates).embeddings
        else:
            bank = contexts()[0].detach()
        prompting = Prompting(bank, contexts, config)
    if config.backbone:
        tower = grafted_tower(clip, config.backbone, size, config.backbone_weights or None)
    else:
        tower = resized_tower(clip, size)
    return TowerBackbone(tower, config), prompting


def stored_parts(
    card: Mapping[str, Any],
    folder: Path,
    config: DenseClipConfig,
    *,
    device: str | torch.device,
    precision: str,
    clip: Clip | None,
) -> tuple[TowerBackbone, Prompting | None, Clip]:
    """Return the same of a card, untrained, and the CLIP: an image tower alone, unless prompts need a text tower.

    Raises:
        ModelError: the CLIP that is needed is another one than it was trained on.
    """
    words = tuple(card["words"])
    tower = image_tower(card["tower"], name=str(folder), precision=precision).to(chosen_device(device))
    whole, prompting = tower, None
    if config.language:
        contexts = None
        if config.prompts in SEEING:
            whole = clip_of(card, folder, clip, device=device, precision=precision)
            contexts = _contexts(whole, words, config)
        prompting = Prompting(torch.zeros(len(words), tower.dim), contexts, config)
    return TowerBackbone(tower, config), prompting, whole


def _contexts(clip: Clip, words: Sequence[str], config: DenseClipConfig) -> LearnedContexts | None:
    return LearnedContexts(clip, words, config.contexts, std=config.context_std) if config.contexts else None
