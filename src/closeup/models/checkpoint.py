"""Weights in files: read without unpickling code, matched to a model by name and shape, written whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from open_clip.tokenizer import HFTokenizer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from closeup.errors import InputError, ModelError
from closeup.models.clip import Clip
from closeup.models.disk import write_tensors
from closeup.models.mask_prompt import stored_prompts
from closeup.models.official_keys import is_official_eva, official_eva_to_timm

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
CARD = "card.json"
PROMPTS = "mask_prompts.safetensors"
"""Mask prompts of a model in open_clip's form, which knows none: in a file of their own."""

CHANGES = "changes.safetensors"
"""A folder with this file, and a card that names the base, is a model to ``load`` (``models.changes``)."""

HEAD = "head.safetensors"
"""A folder with this file is a trained head (``heads.saved``)."""

MATCHER = "matcher.safetensors"
"""A folder with this file is a matcher (``match.matcher_file``)."""


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors; ModelError if it is missing, broken, or holds more than plain tensors.

    Safetensors, or torch's own format with ``weights_only=True``: code in a pickle is never run. The tensors may
    lie under ``state_dict``, ``model`` or ``module``, and carry the prefix ``module.`` of a distributed run.
    """
    if not path.is_file():
        raise ModelError(f"There is no checkpoint file {str(path)!r}.")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's remarks on old pickles; the error says it all
            stored = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"The checkpoint {str(path)!r} cannot be read as plain tensors: {reason}. "
            "Save it again as a state_dict, or better as safetensors; code inside a checkpoint is never run."
        ) from error
    for key in ("state_dict", "model", "module"):
        if isinstance(stored, dict) and isinstance(stored.get(key), dict):
            stored = stored[key]
    if not isinstance(stored, dict) or not all(isinstance(value, Tensor) for value in stored.values()) or not stored:
        raise ModelError(f"The checkpoint {str(path)!r} holds no state_dict, but {_describe(stored)}.")
    return {str(name).removeprefix("module."): tensor for name, tensor in stored.items()}


def load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a model, official EVA-CLIP and other known key names included.

    Position embeddings of another size are resized, as open_clip does. Raises ModelError with the first
    keys or shapes that do not belong to the model; nothing is copied then.
    """
    state = _translated(model, dict(state))
    problems = mismatches(model.state_dict(), state)
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ModelError(
            f"The weights in {source} are not of this architecture: {'; '.join(problems[:4])}{more}. "
            "Name the architecture that they were trained with."
        )
    model.load_state_dict(state)


def mismatches(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Describe every key that is missing, unknown, or of another shape, in the model's order."""
    problems = []
    for name, tensor in wanted.items():
        if name not in found:
            problems.append(f"{name} is missing")
        elif found[name].shape != tensor.shape:
            problems.append(f"{name} is {tuple(found[name].shape)} and not {tuple(tensor.shape)}")
    return problems + [f"{name} is unknown" for name in found if name not in wanted]


def save_local_dir(
    clip: Clip,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write a model as a folder that ``open_clip.create_model("local-dir:FOLDER")`` loads without Closeup.

    The folder holds open_clip's config, the weights as safetensors, mask prompts beside them where there are some, the
    tokenizer's files where it is not open_clip's own, and ``card`` as ``card.json``. A folder of this form is replaced;
    InputError for any other that is not empty. It appears whole or not at all; OSError where the disk is full. ``fp16``
    halves the file; loading gives fp32 again.
    """
    folder = Path(folder)
    with model_folder(folder) as fresh:
        _write(clip, fresh, card or {}, dtype)
    return folder


@contextmanager
def model_folder(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write a model into, which then takes the place of ``folder`` whole, or not at all.

    Raises:
        InputError: there is something else than a saved model.
    """
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        if folder.exists():
            old = fresh.with_name(fresh.name + "-old")
            os.replace(folder, old)
            os.replace(fresh, folder)
            shutil.rmtree(old)
        else:
            os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise InputError unless a model may be saved as a folder: there is none, an empty one, or a saved model."""
    saved = any((folder / name).is_file() for name in (CONFIG, CHANGES, HEAD, MATCHER))
    if folder.exists() and not saved and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{str(folder)!r} exists and is not a saved model. Choose another folder, or empty it.")


def _write(clip: Clip, folder: Path, card: Mapping[str, Any], dtype: str) -> None:
    config = {
        "model_cfg": clip.config["model_cfg"],
        "preprocess_cfg": {
            "mean": list(clip.mean),
            "std": list(clip.std),
            "interpolation": clip.image_preprocess.interpolation,
            "resize_mode": clip.image_preprocess.resize_mode,
        },
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(json.dumps({"name": clip.name, **card}, indent=2) + "\n", encoding="utf-8")
    state = clip.model.state_dict()
    prompts = stored_prompts(state)
    weights = {name: stored(tensor, dtype) for name, tensor in state.items() if name not in prompts}
    write_tensors(weights, folder / WEIGHTS, {"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    if prompts:
        write_tensors({name: stored(tensor, dtype) for name, tensor in prompts.items()}, folder / PROMPTS)
        (folder / PROMPTS).chmod(0o644)
    if "hf_tokenizer_name" in clip.config["model_cfg"]["text_cfg"] and isinstance(clip.tokenizer, HFTokenizer):
        clip.tokenizer.save_pretrained(str(folder))


def stored(tensor: Tensor, dtype: str) -> Tensor:
    """Return a tensor as it goes into a file: on the CPU, contiguous, floating point halved for ``fp16``."""
    halve = dtype == "fp16" and tensor.is_floating_point() and tensor.ndim > 0
    return (tensor.detach().half() if halve else tensor.detach()).cpu().clone().contiguous()


def _translated(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bring other key names and shapes that stand for this model to the model's own."""
    state = official_eva_to_timm(state) if is_official_eva(state) else convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    wanted = model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in wanted:
            state[name] = state[name].reshape(wanted[name].shape)
    if "text.transformer.embeddings.position_ids" not in wanted:
        state.pop("text.transformer.embeddings.position_ids", None)
    if not mismatches(wanted, state):
        return state
    try:
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
    except (RuntimeError, AssertionError, AttributeError):
        pass  # not a position embedding of this model; load_weights says which key it is
    return state


def _describe(stored: object) -> str:
    if isinstance(stored, dict):
        return f"a dictionary with the keys {sorted(map(str, stored))[:5]}"
    return f"a {type(stored).__name__}"
