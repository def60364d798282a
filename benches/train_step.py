"""A contrastive training step with explicit attention against torch's fused CPU kernel.

Run: python -m benches.train_step
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from benches.common import compare, finish
from closeup.models import load
from closeup.models.explicit_attention import explicit_attention

BATCH = 64


def main() -> None:
    """Measure forward and backward of tiny in bf16."""
    clip = load("random:tiny", device="cpu")
    clip.model.train()
    images = torch.randn(BATCH, 3, *clip.image_size)
    tokens = clip.tokenizer(["a red star"] * BATCH)

    def step(attention: Callable[[nn.Module], AbstractContextManager[None]]) -> Callable[[], None]:
        def run() -> None:
            with attention(clip.model), torch.autocast("cpu", torch.bfloat16):
                image, text, scale = clip.model(images, tokens)[:3]
                loss = (scale * image @ text.T).logsumexp(dim=1).mean()
            loss.backward()
            clip.model.zero_grad()

        return run

    row = compare(
        f"tiny, {BATCH} pictures, bf16, explicit attention",
        step(explicit_attention),
        "fused attention",
        step(lambda _: nullcontext()),
        target="<= 0.8",
    )
    finish("train_step", [row], images_per_second=round(BATCH / min(row.ours), 1))


if __name__ == "__main__":
    main()
