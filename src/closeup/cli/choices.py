"""Choices that a command line checks before anything is loaded; a test holds them to the library's own lists."""

from __future__ import annotations

from typing import Literal, TypeAlias

Encoder: TypeAlias = Literal["dense", "crop", "masked-crop", "mask-prompt", "mask-token"]
MaskEncoder: TypeAlias = Literal["dense", "masked-crop", "mask-prompt", "mask-token"]
Apart: TypeAlias = Literal["components", "whole"]
Upsample: TypeAlias = Literal["bilinear", "nearest"]
Contrast: TypeAlias = Literal["none", "others", "empty"]
Canvas: TypeAlias = Literal["official", "fit"]
Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
MatcherKind: TypeAlias = Literal[
    "cosine", "linear", "linear-image", "linear-text", "mlp", "residual", "residual-mlp", "attention"
]
