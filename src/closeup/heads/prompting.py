"""The words of a dense predictor: embedded once for all pictures, or anew for each, by one interface.

    learned     t = text([contexts, name])
    post        t = text([contexts, name]) + gamma * decoder(t, [z, Z])          the paper's best
    pre         t = text([decoder(contexts, [z, Z]), name])
    instance    t = text([contexts, W z, name])

where z is the embedding of the picture and Z its dense map. The first two need the text tower in training alone.

Source: Rao et al., DenseCLIP, CVPR 2022 (arXiv 2112.01518), Section 3.3; ``raoyongming/DenseCLIP``
``segmentation/denseclip/denseclip.py`` has ``post``; the code of ``pre`` was never published, and ours is from the
paper's words. ``learned`` is CoOp (arXiv 2109.01134) with contexts that all words share; ``instance`` is after ICPC
(arXiv 2308.07078), whose picture enters as one more token.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from closeup._types import DenseMap, Embeddings
from closeup.errors import ModelError
from closeup.heads.context_decoder import ContextDecoder
from closeup.heads.denseclip_config import DenseClipConfig
from closeup.text.prompts import LearnedContexts

SEEING = ("pre", "instance")
"""Prompts that go through the text tower for each picture."""


class Prompting(nn.Module):
    """The embeddings of words, not normalised, as far as they know of a picture.

    ``bank`` are the embeddings that are the same for all pictures: those of sentences where no context learns; else
    those of the contexts as they are, once ``fix`` was called. ``contexts`` is None where the text tower is gone: then
    the bank is all there is.

    Raises:
        ModelError: prompts that see the picture, and no text tower.
    """

    bank: Embeddings

    def __init__(self, bank: Embeddings, contexts: LearnedContexts | None, config: DenseClipConfig) -> None:
        super().__init__()
        if contexts is None and config.prompts in SEEING:
            raise ModelError(f"Prompts of the kind {config.prompts!r} need a text tower for each picture.")
        self.kind = config.prompts
        self.contexts = contexts
        self.register_buffer("bank", bank.clone())
        dim = bank.shape[1]
        width = dim if contexts is None or self.kind != "pre" else contexts.width
        if self.kind in ("post", "pre"):
            self.decoder = ContextDecoder(
                width,
                dim,
                width=config.decoder_width,
                heads=config.decoder_heads,
                layers=config.decoder_layers,
                dropout=config.decoder_dropout,
            )
        if self.kind == "post":
            self.gamma = nn.Parameter(torch.full((dim,), config.gamma))
        if contexts is not None and self.kind == "instance":
            self.token = nn.Linear(dim, contexts.width)

    def forward(self, pooled: Embeddings, dense: DenseMap) -> Float[Tensor, "one_or_batch words dim"]:
        """Return the words for the pictures of a batch; one row for all where they do not see the picture."""
        if self.contexts is not None and self.kind in SEEING:
            return self._through_tower(self.contexts, pooled, dense)
        words = self._words()
        if self.kind != "post":
            return words
        words = words.expand(len(pooled), -1, -1)
        moved: Tensor = words + self.gamma * self.decoder(words, memory(pooled, dense))
        return moved

    @torch.no_grad()
    def fix(self) -> None:
        """Write the words of the contexts as they are into the bank."""
        if self.contexts is not None:
            self.bank.copy_(self.contexts()[0])

    def train(self, mode: bool = True) -> Prompting:
        """Go over to training, or to inference from a fresh bank."""
        if self.training and not mode:
            self.fix()
        super().train(mode)
        return self

    def _words(self) -> Float[Tensor, "1 words dim"]:
        if self.contexts is None or not self.training:
            return self.bank[None]
        words: Tensor = self.contexts()
        return words

    def _through_tower(
        self, contexts: LearnedContexts, pooled: Embeddings, dense: DenseMap
    ) -> Float[Tensor, "batch words dim"]:
        learned = contexts.contexts.expand(len(pooled), -1, -1)
        if self.kind == "pre":
            learned = self.decoder(learned, memory(pooled, dense))
        else:
            learned = torch.cat([learned, self.token(pooled)[:, None]], dim=1)
        words: Tensor = contexts(learned)
        return words


def memory(pooled: Embeddings, dense: DenseMap) -> Float[Tensor, "batch places dim"]:
    """Return what a decoder looks at: the embedding of a picture, then its map, row by row."""
    return torch.cat([pooled[:, None], dense.flatten(2).transpose(1, 2)], dim=1)
