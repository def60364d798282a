"""Recipe ``pretrain``: a CLIP from nothing, on pictures with captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from math import log
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from closeup.data.world.probe import Question, attribute_probe
from closeup.models.clip import Clip
from closeup.models.explicit_attention import explicit_attention
from closeup.recipes.captioned import Captioned
from closeup.recipes.contrastive import contrastive_loss, same_captions
from closeup.recipes.gather import gather
from closeup.recipes.recipe import Recipe

MAX_SCALE = 100.0
"""CLIP clamps its logit scale here (arXiv 2103.00020, section 2.5)."""

Sample: TypeAlias = tuple[Float[Tensor, "3 height width"], Int[Tensor, " length"]]


class Pretrain(Recipe):
    """Symmetric contrastive training of both towers, equal captions in a batch not being negatives.

    Pictures are brought to the native size by the model's own preprocessing. Held-out close-ups of the
    world tell in the log which attributes the model can name so far: the loss does not.

    Every picture of the global batch is compared with every caption of it, so a batch cannot be computed in parts:
    ``accumulate`` above 1 is a ConfigError. Several processes do share a batch, exactly.
    """

    name: ClassVar[str] = "pretrain"
    divisible = False

    def __init__(self, clip: Clip, source: Captioned, *, probes: int = 240) -> None:
        self.clip = clip
        self.module = _Contrastive(clip.model)
        self._source = source
        self._probes = probes
        self._tokens = lru_cache(maxsize=100_000)(lambda text: clip.tokenizer([text])[0])

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return every parameter of both towers."""
        return dict(self.module.named_parameters())

    def sample(self, position: int) -> Sample:
        """Return a preprocessed picture and its caption's tokens."""
        picture, caption = self._source[position]
        return self.clip.preprocess(picture)[0], self._tokens(caption)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Stack pictures and tokens."""
        pictures, tokens = zip(*samples, strict=True)
        return {"images": torch.stack(pictures), "tokens": torch.stack(tokens)}

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Leave the embeddings of words and places undecayed besides gains and biases."""
        return parameter.ndim >= 2 and "embedding" not in name

    def after_step(self) -> None:
        """Clamp the logit scale to 1 .. 100."""
        scale = dict(self.clip.model.named_parameters())["logit_scale"]
        scale.data.clamp_(0, log(MAX_SCALE))

    def evaluate(self) -> dict[str, float]:
        """Return the share of right answers about held-out close-ups of the world, by attribute family."""
        questions = attribute_probe(self._probes, side=max(self.clip.image_size))
        right: dict[str, list[bool]] = {}
        for question, scores in zip(questions, answers(self.clip, questions), strict=True):
            right.setdefault(question.family, []).append(int(scores.argmax()) == question.answer)
        return {f"probe/{family}": float(np.mean(hits)) for family, hits in right.items()}


def answers(clip: Clip, questions: Sequence[Question]) -> list[Float[Tensor, " choices"]]:
    """Return the cosine of each question's picture with each of its choices."""
    texts = sorted({choice for question in questions for choice in question.choices})
    row = {text: index for index, text in enumerate(texts)}
    bank = clip.encode_text(texts)
    pictures = {id(question.picture): question.picture for question in questions}
    column = {key: index for index, key in enumerate(pictures)}
    stack = torch.stack([clip.preprocess(picture)[0] for picture in pictures.values()])
    images = torch.cat([clip.encode_image(part, normalize=True) for part in torch.split(stack, 256)])
    return [
        bank[[row[choice] for choice in question.choices]] @ images[column[id(question.picture)]]
        for question in questions
    ]


class _Contrastive(nn.Module):
    """The loss as a module, so that a wrapper for many devices sees every forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        images, tokens = batch["images"], batch["tokens"]
        with explicit_attention(self.model) if images.device.type == "cpu" else nullcontext():
            image, text, scale = self.model(images, tokens)[:3]
        same = same_captions(gather(tokens))
        return {"loss": contrastive_loss(gather(image).float(), gather(text).float(), scale, same), "scale": scale}
