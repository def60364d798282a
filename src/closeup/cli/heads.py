"""Trained heads as the command line names them, on the CLIP that its options choose."""

from __future__ import annotations

from pathlib import Path

from closeup.cli.model import ModelOptions
from closeup.heads.rpn import Proposer, load_proposer
from closeup.heads.saved import Detector, load_detector
from closeup.heads.segmenter import Segmenter, load_segmenter
from closeup.models import Clip


def open_detector(folder: Path, options: ModelOptions) -> Detector:
    """Load a detector, on the CLIP that its card names unless another place of it is given."""
    return load_detector(folder, device=options.device, precision=options.precision, clip=_elsewhere(options))


def open_segmenter(folder: str | Path, options: ModelOptions) -> Segmenter:
    """Load a CAT-Seg, on the CLIP that its card names unless another place of it is given."""
    return load_segmenter(folder, device=options.device, precision=options.precision, clip=_elsewhere(options))


def open_proposer(folder: Path | None, options: ModelOptions) -> Proposer | None:
    """Load a proposer, if one is named."""
    return None if folder is None else load_proposer(folder, device=options.device, precision=options.precision)


def _elsewhere(options: ModelOptions) -> Clip | None:
    return None if options.model == ModelOptions().model else options.load()
