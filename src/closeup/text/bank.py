"""The text bank: a vocabulary embedded once by a text tower and kept on disk by its content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from closeup._types import Embeddings, Labels
from closeup.errors import InputError, suggest
from closeup.text.cache import cache_folder, content_key, load_embeddings, store_embeddings
from closeup.text.means import MEANS
from closeup.text.names import clean_name, clean_names
from closeup.text.templates import Templates, get_templates
from closeup.text.vocabulary import Vocabulary

CACHE_VERSION = 1
"""Part of every key; raised when the same inputs would give other embeddings."""


@runtime_checkable
class TextEncoder(Protocol):
    """What a bank needs of a CLIP: its text tower, and a hash of the weights behind it."""

    @property
    def text_fingerprint(self) -> str:
        """Content hash of the text tower."""
        ...

    def encode_text(self, texts: Sequence[str], *, normalize: bool = True) -> Embeddings:
        """Embed texts into the joint space."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class TextBank:
    """One embedding for every synonym of a vocabulary; ``owner`` tells the label that a row belongs to.

    Rows are in the order of the vocabulary's names and, within a name, of its synonyms. ``match.score``
    compares with every row and lets a name score as its best synonym. Unit length, except for the mean
    "mean-of-raw". On the CPU in float32 until ``to`` moves it. ``fingerprint`` is that of the text tower: a bank serves
    every model that shares it, however its image tower was adapted.
    """

    embeddings: Embeddings
    owner: Labels
    vocabulary: Vocabulary
    templates: str
    mean: str
    fingerprint: str

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order of their labels."""
        return self.vocabulary.names

    def __len__(self) -> int:
        return len(self.vocabulary)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> TextBank:
        """Return the bank on a device, in a floating type."""
        moved = self.embeddings.to(device=device, dtype=dtype)
        return replace(self, embeddings=moved, owner=self.owner.to(device))


@torch.inference_mode(False)  # a bank made inside inference mode could not enter a loss later
def build_bank(
    clip: TextEncoder,
    vocabulary: Vocabulary,
    *,
    templates: str | Templates = "simple",
    mean: str = "normalise-then-mean",
    clean: str = "vild",
    cache_dir: str | Path | None = None,
    cache: bool = True,
) -> TextBank:
    """Embed a vocabulary: every synonym is cleaned, put into every template, encoded, and averaged.

    ``clean`` is a rule of ``text.names``. Embeddings are read from ``cache_dir`` (the folder ``text`` of
    ``cache_folder()`` if None) where the same prompts met the same weights before; a damaged file is made
    anew. InputError names an unknown mean, rule or template set, or two names that are cleaned to one.
    """
    if mean not in MEANS:
        raise InputError(f"Unknown mean {mean!r}. {suggest(mean, MEANS)}")
    chosen = get_templates(templates) if isinstance(templates, str) else templates
    strings = _clean_strings(vocabulary, clean)
    unique = list(dict.fromkeys(string for row in strings for string in row))
    prompts = {string: chosen.fill(string) for string in unique}
    folder = Path(cache_dir) if cache_dir is not None else cache_folder() / "text"
    path = folder / f"{content_key(CACHE_VERSION, clip.text_fingerprint, list(prompts.values()), mean)}.safetensors"

    rows = load_embeddings(path) if cache else None
    if rows is None or len(rows) != len(unique):
        rows = _encode(clip, list(prompts.values()), mean)
        if cache:
            store_embeddings(path, rows)
    place = {string: i for i, string in enumerate(unique)}
    index = [place[string] for row in strings for string in row]
    owner = [label for label, row in enumerate(strings) for _ in row]
    return TextBank(rows[index], torch.tensor(owner), vocabulary, chosen.name, mean, clip.text_fingerprint)


@torch.no_grad()
def _encode(clip: TextEncoder, prompts: Sequence[Sequence[str]], mean: str) -> Embeddings:
    # One word's prompts are one batch. A row's last bits depend on the size of its batch and its place in it,
    # so a batch that mixed words would let a new word change the embedding of an old one.
    rows = [MEANS[mean](clip.encode_text(list(texts), normalize=False).float()) for texts in prompts]
    return torch.stack(rows).cpu()


def _clean_strings(vocabulary: Vocabulary, rule: str) -> list[list[str]]:
    clean_names(vocabulary.names, rule)  # the names alone must differ: a synonym may belong to several
    return [list(dict.fromkeys(clean_name(word, rule) for word in words)) for words in vocabulary.synonyms]
