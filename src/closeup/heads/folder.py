"""A trained head as a folder: its weights, and a card that says which kind it is and names the CLIP below it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from closeup.errors import ModelError
from closeup.models.checkpoint import CARD, HEAD, mismatches, model_folder, read_state_dict, stored
from closeup.models.clip import Clip
from closeup.models.disk import write_tensors
from closeup.models.load import PACKAGED, load


def head_folder(name: str | Path) -> Path:
    """Return the folder of a head by its path, or by the name of one that ships."""
    folder = Path(name)
    return PACKAGED / folder if str(name) in packaged_heads() and not folder.exists() else folder


def packaged_heads() -> list[str]:
    """Return the names of the heads that ship inside."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{HEAD}"))


def write_head(
    folder: Path, kind: str, head: nn.Module, clip: Clip, card: Mapping[str, Any], dtype: Literal["fp32", "fp16"]
) -> Path:
    """Write a head; the CLIP is named and not copied. The folder appears whole or not at all.

    Raises:
        InputError: the folder holds something else.
    """
    # A folder must be found from elsewhere too.
    place = str(Path(clip.name).resolve()) if Path(clip.name).is_dir() else clip.name
    told = {**card, "name": folder.name, "head": kind, "clip": {"name": place, "fingerprint": clip.fingerprint}}
    with model_folder(folder) as fresh:
        write_tensors({name: stored(tensor, dtype) for name, tensor in head.state_dict().items()}, fresh / HEAD)
        (fresh / CARD).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        (fresh / HEAD).chmod(0o644)
    return folder


def read_head_card(folder: Path, kinds: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the card of a head of one of some kinds; ModelError where there is none, or it lacks a key of its kind."""
    if not (folder / HEAD).is_file() or not (folder / CARD).is_file():
        raise ModelError(
            f"{str(folder)!r} holds no {HEAD} with a {CARD}, so it is no trained head: see closeup train, or "
            f"closeup adapt denseclip. Those that ship are {', '.join(packaged_heads()) or 'none'}."
        )
    try:
        card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"The card of {str(folder)!r} is no json ({error}). Train the head anew.") from error
    kind = card.get("head", next(iter(kinds)))
    if kind not in kinds:
        wanted = " or ".join(map(repr, kinds))
        raise ModelError(f"{str(folder)!r} is a head of the kind {kind!r}, and {wanted} is wanted here.")
    lacking = [key for key in ("head", "clip", *kinds[kind]) if key not in card]
    if lacking:
        raise ModelError(f"The card of {str(folder)!r} has no {', '.join(lacking)}. Train the head anew.")
    return card


def clip_of(
    card: Mapping[str, Any], folder: Path, clip: Clip | None, *, device: str | torch.device, precision: str
) -> Clip:
    """Return the CLIP that a card names, or the one given; ModelError where it is another one."""
    named = card["clip"]
    clip = clip or load(named["name"], device=device, precision=precision)
    if clip.fingerprint != named["fingerprint"]:
        raise ModelError(
            f"{str(folder)!r} was trained on {named['name']!r} with the weights {named['fingerprint'][:12]}, but those "
            f"here are {clip.fingerprint[:12]}. Give the same model."
        )
    return clip


def fill(head: nn.Module, folder: Path, beside: tuple[str, ...] = ()) -> None:
    """Copy a folder's weights into a head, in eval mode from then on; ModelError where they do not fit.

    Weights whose names begin with one of ``beside`` are not wanted here.
    """
    stored = read_state_dict(folder / HEAD)
    state = {name: tensor for name, tensor in stored.items() if not name.startswith(beside)}
    problems = mismatches(head.state_dict(), state)
    if problems:
        raise ModelError(f"The weights in {str(folder)!r} do not fit their card: {'; '.join(problems[:3])}.")
    head.load_state_dict(state)
    head.eval()
