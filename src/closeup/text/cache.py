"""Tensors kept on disk under a content key: written whole or not at all, and never trusted blindly when read."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from closeup._types import Embeddings


def cache_folder() -> Path:
    """Return ``$CLOSEUP_CACHE``, else ``closeup`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; it need not exist."""
    if chosen := os.environ.get("CLOSEUP_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "closeup"


def content_key(*parts: object) -> str:
    """Return the SHA-256 of JSON-like values, the same in every process."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def load_embeddings(path: Path) -> Embeddings | None:
    """Return what ``store_embeddings`` wrote; None if the file is absent, cut short, changed or of another form."""
    try:
        stored = load(path.read_bytes())
    except (OSError, SafetensorError, ValueError):
        return None
    embeddings, digest = stored.get("embeddings"), stored.get("sha256")
    if embeddings is None or digest is None or embeddings.ndim != 2:
        return None
    return embeddings if digest.tolist() == _digest(embeddings).tolist() else None


def store_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Write the embeddings so that a reader sees the old file or the new one, whichever processes write at once.

    A folder that cannot be written is a warning and not an error: the embeddings are at hand all the same.
    """
    content = save({"embeddings": embeddings.contiguous(), "sha256": _digest(embeddings)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)
    except OSError as error:
        warnings.warn(f"{path} cannot be kept ({error}); set CLOSEUP_CACHE to a folder you can write.", stacklevel=2)


def _replace(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:16]}-", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _digest(embeddings: Embeddings) -> torch.Tensor:
    content = embeddings.contiguous().view(torch.uint8).numpy().tobytes()
    return torch.frombuffer(bytearray(hashlib.sha256(content).digest()), dtype=torch.uint8)
