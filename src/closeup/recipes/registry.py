"""Every recipe that adapts a CLIP, by name; pre-training, which starts from none, stands apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from closeup.config import Config
from closeup.errors import InputError, suggest
from closeup.recipes import maskadapt_config, regionclip_config
from closeup.recipes.clipself import ClipSelf
from closeup.recipes.clipself_config import paper, released, tiny
from closeup.recipes.config import TrainConfig, fitted
from closeup.recipes.maskadapt import MaskAdapt
from closeup.recipes.recipe import Recipe
from closeup.recipes.regionclip import RegionClip

Preset: TypeAlias = Callable[[int], tuple[Config, TrainConfig]]
"""From the number of pictures to what is distilled and how long it is trained."""


@dataclass(frozen=True, slots=True)
class Entry:
    """How a recipe is built: ``build(clip, reader, config, seed=..., cache=...)``, and its settings by name."""

    build: Callable[..., Recipe]
    presets: Mapping[str, Preset]

    def settings(
        self, preset: str, pictures: int, config: Mapping[str, Any], training: Mapping[str, Any]
    ) -> tuple[Config, TrainConfig]:
        """Return a preset's settings for a number of pictures, with some of them changed, and ``fitted``.

        Raises:
            InputError: an unknown preset.
            ConfigError: an unknown setting, or a value outside its range.
        """
        if preset not in self.presets:
            raise InputError(f"Unknown preset {preset!r}. {suggest(preset, self.presets)}")
        what, how = self.presets[preset](pictures)
        return what.replace(**config), fitted(how, training)


REGISTRY: Mapping[str, Entry] = {
    "clipself": Entry(ClipSelf, {"paper": paper, "released": released, "tiny": tiny}),
    "regionclip": Entry(
        RegionClip,
        {"paper": regionclip_config.paper, "clipself": regionclip_config.clipself, "tiny": regionclip_config.tiny},
    ),
    "maskadapt": Entry(
        MaskAdapt,
        {
            "paper": maskadapt_config.paper,
            "paper-prompts": maskadapt_config.paper_prompts,
            "tiny": maskadapt_config.tiny,
            "tiny-prompts": maskadapt_config.tiny_prompts,
        },
    ),
}
"""A new recipe is one entry."""


def get_recipe(name: str) -> Entry:
    """Return a recipe's entry; InputError with near misses for an unknown name."""
    if name not in REGISTRY:
        raise InputError(f"Unknown recipe {name!r}. {suggest(name, REGISTRY)}")
    return REGISTRY[name]
