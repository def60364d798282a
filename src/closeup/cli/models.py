"""The verb ``models``: what can be given to ``--model``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import open_clip
from timm.models import is_model, model_entrypoint
from tyro.conf import Positional, arg

from closeup.cli.fields import Flag
from closeup.cli.output import show, show_json, table
from closeup.errors import InputError, suggest
from closeup.heads.folder import packaged_heads
from closeup.match.matcher_file import packaged_matchers
from closeup.models.eva import EvaTower
from closeup.models.families import FAMILIES
from closeup.models.load import packaged_models
from closeup.models.resnet import ResNetTower
from closeup.models.timm_backbone import TimmBackboneTower
from closeup.models.timm_conv import ConvTower
from closeup.models.timm_vit import TimmVitTower
from closeup.models.vit import VitTower

TRUNKS = {
    "eva": EvaTower.family,
    "vision_transformer": TimmVitTower.family,
    "vision_transformer_hybrid": TimmVitTower.family,
    "vitamin": TimmVitTower.family,
    "convnext": ConvTower.family,
    "fastvit": ConvTower.family,
}
"""The tower family of each of timm's modules whose trunks give a dense map."""


@dataclass(frozen=True)
class Options:
    """List the models that can be named.

    Every name that open_clip knows, with the tags of its trained weights: give "NAME/TAG" to --model, or
    "random:NAME" for a model without weights. Weights are fetched when they are first used.

        closeup models
        closeup models siglip
        closeup models "B-16" --json
    """

    filter: Positional[Annotated[str, arg(help_behavior_hint="")]] = ""
    """Only names and tags that contain this, in any case."""

    all: Flag = False
    """Also the models whose image tower gives no dense map."""

    json: Flag = False
    """Print one json document instead of a table."""


def run(options: Options) -> int:
    """Print the models."""
    rows = list_models(options.filter, options.all)
    if not rows:
        raise InputError(f"No model's name or tag contains {options.filter!r}. {_hint(options.filter)}")
    if options.json:
        inside = {"packaged_heads": packaged_heads(), "packaged_matchers": packaged_matchers()}
        show_json({"models": rows, "packaged": packaged_models(), **inside})
        return 0
    lines = [[row["name"], row["family"] or "(no dense map)", row["pixels"], ", ".join(row["tags"])] for row in rows]
    show(
        table(["name", "tower", "pixels", "tags"], lines),
        f"{len(rows)} models, {sum(len(row['tags']) for row in rows)} with weights. Families: {', '.join(families())}.",
        f"Ships inside: {', '.join(packaged_models())}; heads: {', '.join(packaged_heads())}; "
        f"matchers: {', '.join(packaged_matchers())}.",
        "Also: hf-hub:OWNER/NAME, a folder in open_clip's local-dir form; as heads, folders that closeup train and "
        "closeup adapt denseclip write.",
    )
    return 0


def list_models(substring: str = "", unreadable: bool = False) -> list[dict[str, Any]]:
    """Return name, tower family, native size in pixels and tags of open_clip's models that a substring selects."""
    wanted = substring.lower()
    rows: list[dict[str, Any]] = []
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        tags = [tag for tag in open_clip.list_pretrained_tags_by_model(name) if wanted in f"{name}/{tag}".lower()]
        family = family_of(config)
        if (tags or wanted in name.lower()) and (family is not None or unreadable):
            rows.append({"name": name, "family": family, "pixels": config["vision_cfg"]["image_size"], "tags": tags})
    return rows


def families() -> list[str]:
    """Return the tower families of the models that can be named; a backbone of timm's is only part of a head."""
    return [family.family for family in FAMILIES if family is not TimmBackboneTower]


def family_of(config: Mapping[str, Any]) -> str | None:
    """Return the tower family of an open_clip configuration, None where there is no dense map; nothing is built."""
    vision = config["vision_cfg"]
    trunk = vision.get("timm_model_name")
    if trunk is None:
        if isinstance(vision["layers"], list):
            return ResNetTower.family
        return None if vision.get("attentional_pool") else VitTower.family
    if not is_model(trunk):
        return None
    return TRUNKS.get(model_entrypoint(trunk).__module__.rpartition(".")[2])


def _hint(name: str) -> str:
    return suggest(name, (row["name"] for row in list_models()))
