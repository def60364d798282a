"""The proposer that a detector cannot do without: how its card names it, and how it is found again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from closeup.errors import InputError, ModelError
from closeup.heads.folder import head_folder, read_head_card
from closeup.heads.rpn import KINDS, Proposer, load_proposer
from closeup.models.checkpoint import HEAD
from closeup.models.clip import Clip


def load_beside(name: str | Path, clip: Clip) -> Proposer:
    """Load a proposer onto the device of a CLIP, which it shares where it was trained on the same one.

    Raises:
        ModelError: there is no proposer.
    """
    named = read_head_card(head_folder(name), KINDS)["clip"]
    shared = clip if named["fingerprint"] == clip.fingerprint else None
    return load_proposer(name, device=clip.device, precision=clip.precision, clip=shared)


def proposer_card(proposer: Proposer) -> dict[str, str]:
    """Return how a card names a proposer; InputError for one that is in no folder."""
    folder = head_folder(proposer.name)
    if not (folder / HEAD).is_file():
        raise InputError(
            f"The proposer {proposer.name!r} is in no folder, and would not be found again. Save it first."
        )
    # A folder must be found from elsewhere too; one that ships is found by its name.
    place = str(folder.resolve()) if Path(proposer.name).exists() else proposer.name
    return {"name": place, "fingerprint": proposer.fingerprint}


def proposer_of(card: Mapping[str, Any], folder: Path, clip: Clip, given: Proposer | None = None) -> Proposer:
    """Return the proposer that a detector's card names, or the one given; ModelError where it is another or none.

    Where it is not in its place any more, one of the same name beside the detector is taken.
    """
    name, fingerprint = card["proposer"]["name"], card["proposer"]["fingerprint"]
    places = [place for place in (name, folder.parent / Path(name).name) if (head_folder(place) / HEAD).is_file()]
    if given is None and not places:
        raise ModelError(
            f"{str(folder)!r} was trained with the proposer {name!r}, which is not there, nor beside it. Put it back."
        )
    proposer = given or load_beside(places[0], clip)
    if proposer.fingerprint != fingerprint:
        raise ModelError(
            f"{str(folder)!r} was trained with the proposer {name!r} with the weights {fingerprint[:12]}, but those "
            f"here are {proposer.fingerprint[:12]}. Give the same proposer."
        )
    return proposer
