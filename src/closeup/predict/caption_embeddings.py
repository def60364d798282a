"""Captions embedded as they are asked for, each of them once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from closeup._types import Embeddings
from closeup.models.clip import Clip
from closeup.text import Templates


class CaptionEmbeddings:
    """The raw embeddings of captions, on the CPU, each made when it is first asked for."""

    def __init__(self, clip: Clip, templates: Templates) -> None:
        self._clip, self._templates = clip, templates
        self.known: dict[str, Float[Tensor, " dim"]] = {}

    def embed(self, texts: Iterable[str]) -> Embeddings:
        """Return the embedding of each caption: the mean over the templates, as the tower gives them."""
        wanted = list(texts)
        new = [text for text in dict.fromkeys(wanted) if text not in self.known]
        if new:
            sentences = [sentence for text in new for sentence in self._templates.fill(text)]
            found = self._clip.encode_text(sentences, normalize=False).cpu()
            means = found.unflatten(0, (len(new), len(self._templates))).mean(dim=1)
            self.known |= zip(new, means, strict=True)
        return torch.stack([self.known[text] for text in wanted])
