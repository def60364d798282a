"""A text encoder for tests: open_clip's own tokenizer and towers, with few and random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import open_clip
import torch
from torch import Tensor


class TinyText:
    """A real open_clip model with random weights, as a text encoder; it notes every batch that it is asked for."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = open_clip.CLIP(
            embed_dim=32,
            vision_cfg={"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
        ).eval()
        self.tokenizer = open_clip.SimpleTokenizer()
        self.batches: list[list[str]] = []

    @property
    def text_fingerprint(self) -> str:
        return hashlib.sha256(self.model.text_projection.detach().numpy().tobytes()).hexdigest()

    def encode_text(self, texts: Sequence[str], *, normalize: bool = True) -> Tensor:
        self.batches.append(list(texts))
        encoded: Tensor = self.model.encode_text(self.tokenizer(list(texts)), normalize=normalize)
        return encoded
