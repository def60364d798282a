"""Learned contexts: vectors in the place of a template's words, run through a frozen text tower with every name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from closeup.errors import ConfigError, InputError
from closeup.models.clip import Clip, TokenIds, Tokenizer
from closeup.models.text_tower import TextTower, text_tower
from closeup.text.names import clean_names
from closeup.text.vocabulary import Vocabulary

AT_ONCE = 256
"""Texts that go through the tower together where no gradients are wanted."""

Contexts = Float[Tensor, "batch count width"]
"""Token embeddings in the place of words, one prompt an entry of the batch."""


class LearnedContexts(nn.Module):
    """Names embedded as ``[start] ctx_1 .. ctx_n [tokens of the name] [end]``, with contexts that are learned.

    All names share the contexts. The text tower is frozen, always in eval mode, and no part of this module: its
    weights are neither among the parameters nor in the state. It uses the memory of the ``clip``'s weights, and
    follows this module to another device or type.

    A name that is too long for what the contexts leave of the tower's context is cut by the tokenizer, as it cuts
    every text. ``clean`` is a rule of ``text.names``. With ``std`` 1 contexts are far longer than the embeddings of
    tokens, whose deviation is about 0.02 in CLIP.

    Raises:
        InputError: a name that is empty, twice there, or nothing to the tokenizer.
        ConfigError: fewer contexts than 1, more than the tower has room for, or a deviation that is not positive.
        ModelError: a CLIP without such a text tower.

    Source: CoOp (arXiv 2109.01134); DenseCLIP (arXiv 2112.01518), ``CLIPTextContextEncoder``. There a name of
    more than 3 tokens is an error, and the text tower learns: the schedule ends at a rate of 1e-6 for it too.
    """

    tower: TextTower

    def __init__(
        self, clip: Clip, names: Sequence[str], count: int = 8, *, std: float = 1.0, clean: str = "vild"
    ) -> None:
        super().__init__()
        if count < 1:
            raise ConfigError(f"{count} learned contexts; give at least 1.")
        if not 0 < std < math.inf:
            raise ConfigError(f"The deviation of learned contexts is {std}; give a positive number, DenseCLIP's is 1.")
        self.__dict__["tower"] = text_tower(clip)  # past nn.Module, which would make it a submodule
        self.names = Vocabulary(names).names
        self.width = self.tower.width
        self._texts = clean_names(self.names, clean)
        self._tokenizer = clip.tokenizer
        self.start, self._context = _read_form(clip.tokenizer)
        self._tokens: dict[int, TokenIds] = {}
        self.tokens(count)
        contexts = torch.empty(1, count, self.width, device=clip.device)
        self.contexts = nn.Parameter(nn.init.trunc_normal_(contexts, std=std, a=-2 * std, b=2 * std))

    def forward(self, contexts: Contexts | None = None) -> Float[Tensor, "batch words dim"]:
        """Return the embedding of every name in the joint space, in float32, not L2-normalised.

        ``contexts`` of any number of tokens, one entry a picture, take the place of the module's own (batch 1):
        prompts conditioned on pictures. The batch times the names are run through the tower at once.

        Raises:
            InputError: contexts of another width.
            ConfigError: more contexts than the tower has room for.
        """
        chosen = self.contexts if contexts is None else contexts
        if chosen.shape[2] != self.width:
            raise InputError(f"Contexts of {chosen.shape[2]} dimensions for a text tower of {self.width}.")
        device = self.contexts.device
        tokens = self.tokens(chosen.shape[1])
        return encode_prompts(self.tower, tokens.to(device), chosen.to(device), self.start)

    def tokens(self, count: int) -> Int[Tensor, "words context"]:
        """Return the ids of the names' prompts with places for that many contexts, no longer than the tower needs.

        Raises:
            ConfigError: more contexts than the tower has room for.
        """
        if count not in self._tokens:
            room = self._context - count
            if room < self.start + 2:
                most = self._context - self.start - 2
                raise ConfigError(
                    f"{count} contexts; the {self._context} tokens of the text tower hold {most} at most."
                )
            ids = self._tokenizer(["", *self._texts], context_length=room)
            for name, row in zip(self.names, ids[1:], strict=True):
                if torch.equal(row, ids[0]):
                    raise InputError(f"The name {name!r} is nothing to the tokenizer; use another name.")
            filled = with_room(ids[1:], count, self.start)
            self._tokens[count] = filled[:, : self.tower.used(filled)]
        return self._tokens[count]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LearnedContexts:
        self.tower._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def with_room(tokens: TokenIds, count: int, start: int) -> Int[Tensor, "texts _"]:
    """Return token ids with places for contexts after the first ``start`` of them.

    The places have the id of the token after them, as a tower tells ends and padding by their ids.
    """
    places = tokens[:, start : start + 1].expand(-1, count)
    return torch.cat([tokens[:, :start], places, tokens[:, start:]], dim=1)


def encode_prompts(
    tower: TextTower, tokens: TokenIds, contexts: Contexts, start: int
) -> Float[Tensor, "batch words dim"]:
    """Return the embeddings of texts with each entry's contexts in the places of ``with_room``, in float32."""
    batch, count, _ = contexts.shape
    embedded = tower.embed(tokens)[None].expand(batch, -1, -1, -1)
    placed = contexts.to(embedded.dtype)[:, None].expand(-1, len(tokens), -1, -1)
    whole = torch.cat([embedded[:, :, :start], placed, embedded[:, :, start + count :]], dim=2)
    texts, ids = whole.flatten(0, 1), tokens.repeat(batch, 1)
    # Without gradients nothing has to be kept, so that thousands of texts need no more room than a few.
    at_once = len(texts) if torch.is_grad_enabled() else AT_ONCE
    parts = zip(texts.split(at_once), ids.split(at_once), strict=True)
    found = torch.cat([tower.encode(some, names) for some, names in parts]).float()
    return found.reshape(batch, len(tokens), found.shape[1])


def _read_form(tokenizer: Tokenizer) -> tuple[int, int]:
    """Return how many tokens a tokenizer puts before every text (SigLIP's puts none), and how long its rows are."""
    ids = tokenizer(["", "a", "7"])
    same = (ids == ids[0]).all(dim=0).long()
    return int(same.cumprod(dim=0).sum()), ids.shape[1]
