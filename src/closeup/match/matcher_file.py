"""Matchers in files: a folder of weights with a card, or an official checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from closeup.errors import InputError, ModelError
from closeup.match.matcher import Matcher, Seen
from closeup.match.matchers import KINDS, new_matcher
from closeup.match.official_matchers import from_official
from closeup.models.checkpoint import CARD, MATCHER, mismatches, model_folder, read_state_dict, stored
from closeup.models.disk import write_tensors
from closeup.models.load import PACKAGED

TEXTS = "text_fingerprint"
"""Where a card tells the text tower whose embeddings a matcher learned from."""

SEEN = "seen"
"""Where a card tells what a matcher sees of regions besides their embeddings."""

KEYS = ("matcher", "dim", "inputs", "scale")
"""What every card tells; those of some kinds tell ``hidden`` or ``heads`` too."""


def save_matcher(
    matcher: Matcher,
    folder: str | Path,
    card: Mapping[str, Any] | None = None,
    *,
    dtype: Literal["fp32", "fp16"] = "fp32",
) -> Path:
    """Write a matcher as a folder, with ``card`` telling whatever made it. It appears whole or not at all.

    Raises:
        InputError: the folder holds something else, or the kind cannot be loaded again.
    """
    folder = Path(folder)
    if matcher.kind not in KINDS:
        raise InputError(f"A matcher of the kind {matcher.kind!r} has no file of its own: save its parts.")
    own = {"matcher": matcher.kind, "dim": matcher.dim, "inputs": matcher.inputs, "scale": matcher.scale}
    told = {**(card or {}), "name": folder.name, **own, **matcher.settings}
    if (seen := matcher.seen) is not None:
        told[SEEN] = {"levels": seen.levels, "details": seen.details, "images": seen.images, "how": seen.how}
    with model_folder(folder) as fresh:
        write_tensors({name: stored(tensor, dtype) for name, tensor in matcher.state_dict().items()}, fresh / MATCHER)
        (fresh / CARD).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        (fresh / MATCHER).chmod(0o644)
    return folder


def load_matcher(path: str | Path, *, device: str | torch.device = "cpu") -> Matcher:
    """Load a matcher in eval mode: a folder that ``save_matcher`` wrote, one that ships, or an official checkpoint.

    A checkpoint of FG-CLIP is a file, whose ``.pt`` may be left out; its keys tell which matching function it is. An
    official attention matcher, of which none was published, is taken to have 64 heads.

    Raises:
        ModelError: there is none, or it is no matcher, or its weights do not fit each other.
    """
    shipped = PACKAGED / Path(path).name
    path = shipped if str(path) == shipped.name and _is_matcher(shipped) and not Path(path).exists() else Path(path)
    path = path.expanduser()
    files = [file for file in (path, Path(f"{path}.pt")) if file.is_file()]
    if path.is_dir():
        made = _from_folder(path)
    elif files:
        made = from_official(read_state_dict(files[0]), repr(str(files[0])))
    else:
        raise ModelError(f"There is no matcher {str(path)!r}: give the folder of one, or an FG-CLIP checkpoint (.pt).")
    made.name = str(path)
    return made.to(device)


def packaged_matchers() -> list[str]:
    """Return the names of the matchers that ship inside."""
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{MATCHER}"))


def _is_matcher(folder: Path) -> bool:
    return (folder / MATCHER).is_file() and (folder / CARD).is_file()


def _from_folder(folder: Path) -> Matcher:
    if not _is_matcher(folder):
        raise ModelError(f"{str(folder)!r} holds no {MATCHER} with a {CARD}, so it is no matcher.")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        lacking = [key for key in KEYS if key not in card]
        if lacking:
            raise ModelError(f"The card of {str(folder)!r} has no {', '.join(lacking)}. Train the matcher anew.")
        scale = card["scale"]
        if scale is not None and not (isinstance(scale, int | float) and scale > 0):
            raise ModelError(f"The card of {str(folder)!r} has the scale {scale!r}, which is no number above 0.")
        made = new_matcher(
            card["matcher"],
            card["dim"],
            hidden=card.get("hidden"),
            heads=card.get("heads"),
            inputs=card["inputs"],
            scale=scale,
            seen=Seen(**card[SEEN]) if SEEN in card else None,
        )
    except (ValueError, TypeError) as error:  # no json, or what new_matcher refuses
        raise ModelError(f"The card of {str(folder)!r} makes no matcher: {error}") from error
    wanted = made.state_dict()
    state = read_state_dict(folder / MATCHER) if wanted else {}
    problems = mismatches(wanted, state)
    if problems:
        raise ModelError(f"The weights in {str(folder)!r} do not fit their card: {'; '.join(problems[:3])}.")
    made.load_state_dict(state)
    made.texts = card.get(TEXTS)
    return made.eval()
