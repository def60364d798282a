"""Text towers run from token embeddings, so that some of the tokens may be learned or made from a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import deepcopy
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from open_clip import CLIP
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import TextTransformer, text_global_pool
from torch import Tensor, nn

from closeup._types import Embeddings
from closeup.errors import ModelError
from closeup.models.clip import Clip, TokenIds

TokenEmbeddings = Float[Tensor, "texts context width"]

_Module = TypeVar("_Module", bound=nn.Module)


class TextTower(nn.Module, ABC):
    """A text tower in two steps, with what may be put in the place of token embeddings between them."""

    width: int

    @abstractmethod
    def used(self, tokens: TokenIds) -> int:
        """Return how many of the first columns the embeddings depend on: what comes after may be cut off."""

    @abstractmethod
    def embed(self, tokens: TokenIds) -> TokenEmbeddings:
        """Return the embeddings of tokens, without their positions."""

    @abstractmethod
    def encode(self, embedded: TokenEmbeddings, tokens: TokenIds) -> Embeddings:
        """Return the embeddings of texts in the joint space, as the CLIP's own tower does, not L2-normalised.

        ``tokens`` tell where a text ends and where its padding is: where an embedding is not that of a token, give
        any id that is neither.
        """


class TransformerText(TextTower):
    """open_clip's own text transformer, built into a CLIP or beside it (CustomTextCLIP, CoCa, SigLIP).

    A causal tower that reads the end of the text does not see the padding. One without causal mask sees it (SigLIP,
    CLIPA, small MobileCLIPs), and CoCa's class token has the position after it: these need all their columns.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        source: Any = model  # CLIP or TextTransformer, which call nearly all of their parts alike
        self.token_embedding: nn.Embedding = source.token_embedding
        self.positional_embedding: Tensor = source.positional_embedding
        self.transformer: Any = source.transformer
        self.ln_final: nn.Module = source.ln_final
        self.text_projection: nn.Module | Tensor | None = source.text_projection
        self.cls_emb: Tensor | None = getattr(source, "cls_emb", None)
        self.attn_mask: Tensor | None
        self.register_buffer("attn_mask", source.attn_mask, persistent=False)
        built_in = hasattr(source, "text_pool_type")
        self.pool: str = source.text_pool_type if built_in else source.pool_type
        self.eos: int | None = source.text_eos_id if built_in else source.eos_id
        self.masks_padding: bool = self.cls_emb is not None or getattr(source, "use_pad_mask", False)
        self.pad: int = getattr(source, "pad_id", 0)
        self.correct_cls_mask: bool = getattr(source, "correct_cls_mask", False)
        self.heads: int = getattr(source, "heads", 1)
        self.width = self.token_embedding.embedding_dim

    def used(self, tokens: TokenIds) -> int:
        """Return the last column that the end of a text is in, plus 1, where the tower is causal; else all."""
        if self.attn_mask is None or self.cls_emb is not None:
            return tokens.shape[1]
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return int(text_global_pool(positions, tokens, self.pool, self.eos).max()) + 1

    def embed(self, tokens: TokenIds) -> TokenEmbeddings:
        """Return the embeddings of tokens, without their positions."""
        embedded: Tensor = self.token_embedding(tokens)
        return embedded

    def encode(self, embedded: TokenEmbeddings, tokens: TokenIds) -> Embeddings:
        """Return the embeddings of texts in the joint space, as ``TextTransformer.forward`` and ``encode_text`` do."""
        x = embedded.to(self.transformer.get_cast_dtype())
        if self.cls_emb is not None:
            x = torch.cat([x, self.cls_emb.to(x.dtype).expand(len(x), 1, -1)], dim=1)
        x = x + self.positional_embedding[: x.shape[1]].to(x.dtype)
        x = self.transformer(x, attn_mask=self._mask(tokens, x))
        if self.cls_emb is not None:
            pooled: Tensor = self.ln_final(x[:, -1])
        else:
            pooled = text_global_pool(self.ln_final(x), tokens, self.pool, self.eos)
        if isinstance(self.text_projection, nn.Module):
            projected: Tensor = self.text_projection(pooled)
            return projected
        return pooled if self.text_projection is None else pooled @ self.text_projection

    def _mask(self, tokens: TokenIds, x: Tensor) -> Tensor | None:
        length = x.shape[1]
        causal = None if self.attn_mask is None else self.attn_mask[:length, :length]
        if not self.masks_padding:
            return causal
        valid = tokens != self.pad
        if self.cls_emb is not None:
            # The mask of CoCa's published weights has the class token first, where it is not; so they were trained.
            shown = valid.new_ones(len(valid), 1)
            valid = torch.cat([valid, shown] if self.correct_cls_mask else [shown, valid], dim=1)
        padding = torch.zeros_like(valid, dtype=x.dtype).masked_fill(~valid, float("-inf"))[:, None]
        whole = padding.expand(-1, length, -1) if causal is None else padding + causal
        return whole.repeat_interleave(self.heads, dim=0)


class HuggingFaceText(TextTower):
    """A text tower of transformers (RoBERTa, XLM-R, mT5, NLLB): padding is masked, so that none of them sees it."""

    def __init__(self, model: HFTextEncoder) -> None:
        super().__init__()
        source: Any = model
        self.transformer: Any = source.transformer
        self.pooler: nn.Module = source.pooler
        self.proj: nn.Module = source.proj
        self.pad: int = source.config.pad_token_id
        self.width: int = self.transformer.get_input_embeddings().embedding_dim

    def used(self, tokens: TokenIds) -> int:
        """Return the last column that is not padding, plus 1."""
        return int((tokens != self.pad).any(dim=0).nonzero().max()) + 1

    def embed(self, tokens: TokenIds) -> TokenEmbeddings:
        """Return the embeddings of tokens, without their positions."""
        embedded: Tensor = self.transformer.get_input_embeddings()(tokens)
        return embedded

    def encode(self, embedded: TokenEmbeddings, tokens: TokenIds) -> Embeddings:
        """Return the embeddings of texts in the joint space, as ``HFTextEncoder.forward`` does."""
        shown = (tokens != self.pad).long()
        found = self.transformer(inputs_embeds=embedded, attention_mask=shown)
        projected: Tensor = self.proj(self.pooler(found, shown))
        return projected


def frozen_view(module: _Module) -> _Module:
    """Return a module in eval mode with the same weights in memory, that take no gradients here.

    The module itself stays in its mode, and learns if it did.
    """
    shared: dict[int, Any] = {
        id(each): nn.Parameter(each.detach(), requires_grad=False) for each in module.parameters()
    }
    shared |= {id(each): each for each in module.buffers()}
    return deepcopy(module, shared).eval()


def text_tower(clip: Clip) -> TextTower:
    """Return a frozen view of the text tower of a CLIP.

    Raises:
        ModelError: the CLIP has no text tower (``image_copy``), or one that cannot be run from token embeddings.
    """
    source = getattr(clip.model, "text", clip.model)
    if isinstance(source, HFTextEncoder):
        return _checked(clip, frozen_view(HuggingFaceText(source)))
    if not isinstance(source, CLIP | TextTransformer):
        raise ModelError(f"The model {clip.name!r} has no text tower that takes learned contexts; load another model.")
    return frozen_view(TransformerText(source))


@torch.no_grad()
def _checked(clip: Clip, tower: HuggingFaceText) -> HuggingFaceText:
    # What transformers makes of embeddings given in the place of ids is each architecture's own affair.
    tokens = clip.tokenizer(["a photo of a dog"]).to(clip.device)
    with torch.autocast(clip.device.type, enabled=False):
        expected = frozen_view(clip.model.text)(tokens)
        found = tower.encode(tower.embed(tokens), tokens)
    expected = expected[0] if isinstance(expected, tuple) else expected
    if not torch.allclose(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max())):
        raise ModelError(
            f"The text tower of {clip.name!r} ({type(tower.transformer).__name__}) gives other embeddings when it is "
            "run from token embeddings, so it takes no learned contexts; load another model."
        )
    return tower
