"""What made a result: enough to make it again, or to refuse to compare it with another."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

from closeup.models.clip import Clip
from closeup.models.preprocess import Size, sides_of
from closeup.models.routes import Route
from closeup.text import TextBank
from closeup.text.cache import content_key

Setting: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model, the words and the settings behind a result."""

    model: str
    """What the model was loaded as."""
    fingerprint: str
    """Hash of its weights."""
    region_encoder: str
    """``dense``, ``crop``, ``masked-crop``, ``mask-prompt``, ``mask-token``; several joined by ``+``."""
    route: str
    """How the last block was replaced in the dense map."""
    vocabulary: str
    """Hash of the names, synonyms and marks."""
    words: int
    templates: str
    mean: str
    image_size: Size
    """Height and width in pixels that the model saw, or that its input was fitted into."""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    """Thresholds, windows and whatever else changes the outcome."""
    closeup: str = ""
    """The version of this library."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        plain = {name: getattr(self, name) for name in self.__slots__}
        return {**plain, "image_size": list(self.image_size), "settings": dict(self.settings)}

    def to_json(self) -> str:
        """Return the same as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


def describe(
    clip: Clip,
    bank: TextBank,
    *,
    region_encoder: str,
    route: str | Route,
    image_size: Size,
    **settings: Setting,
) -> Provenance:
    """Write down what is about to make a result."""
    return Provenance(
        model=clip.name,
        fingerprint=clip.fingerprint,
        region_encoder=region_encoder,
        route=route if isinstance(route, str) else route.name,
        vocabulary=bank.vocabulary.hash,
        words=len(bank),
        templates=bank.templates,
        mean=bank.mean,
        image_size=image_size,
        settings=settings,
        closeup=_version(),
    )


def describe_captions(
    clip: Clip,
    captions: Collection[str],
    *,
    templates: str,
    region_encoder: str,
    route: str | Route,
    image_size: Size,
    **settings: Setting,
) -> Provenance:
    """Write down what made a result by captions, each a word of its own that keeps the length of its embedding."""
    return Provenance(
        model=clip.name,
        fingerprint=clip.fingerprint,
        region_encoder=region_encoder,
        route=route if isinstance(route, str) else route.name,
        vocabulary=content_key(*sorted(captions)),
        words=len(captions),
        templates=templates,
        mean="mean-of-raw",
        image_size=image_size,
        settings=settings,
        closeup=_version(),
    )


def describe_foreign(
    model: str,
    fingerprint: str,
    captions: Collection[str],
    *,
    region_encoder: str,
    image_size: Size,
    **settings: Setting,
) -> Provenance:
    """Write down what made a result by captions and a model of another library, which embeds them in its own way."""
    return Provenance(
        model=model,
        fingerprint=fingerprint,
        region_encoder=region_encoder,
        route="",
        vocabulary=content_key(*sorted(captions)),
        words=len(captions),
        templates="name",
        mean="",
        image_size=image_size,
        settings=settings,
        closeup=_version(),
    )


def as_size(clip: Clip, size: int | Size | None) -> Size:
    """Return the height and width that ``size`` stands for: a side, both, or None for the model's own."""
    if size is None:
        return clip.image_size
    return sides_of(size)


def _version() -> str:
    try:
        return version("closeup")
    except PackageNotFoundError:  # the source tree, not installed
        return "unknown"
