"""Tensors to files; a full disk is the OSError that it is, whatever library met it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; OSError where the disk is full or the file cannot be written."""
    try:
        save_file(dict(tensors), path, metadata=dict(metadata) if metadata else None)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def write_objects(objects: object, path: Path) -> None:
    """Write plain objects with tensors in them in torch's own format; OSError as above."""
    try:
        with path.open("wb") as file:
            torch.save(objects, file)
    except RuntimeError as error:
        # torch meets the error of the file, and on its way out fails anew over the file's length.
        if not isinstance(error.__context__, OSError):
            raise
        met = error.__context__
        raise OSError(met.errno, met.strerror, str(path)) from error
