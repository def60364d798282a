"""The models behind RegionCLIP's tables, and the list of concepts that they learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from closeup.data.world import World
from closeup.reproduce.measure import Counter
from closeup.reproduce.run import Wanted
from closeup.reproduce.trainings import ABLATION_PICTURES, ABLATION_SIZE, PICTURES, Training
from closeup.text.concepts import ConceptMiner, write_concepts

REGIONCLIP = "tiny-regionclip"

CAPTIONED = 5_000
"""Scenes whose captions concepts are mined from."""
QUICK_CAPTIONED = 40
COMMON = 0.01
"""The share of them that must name a concept."""


def concepts(wanted: Wanted, counter: Counter) -> str:
    """Mine the concepts of the world's captions, unless that was done, and return the file's name."""
    path = wanted.work / "concepts.txt"
    if not path.is_file():
        count = QUICK_CAPTIONED if wanted.quick else CAPTIONED
        world = World("train", count=count)
        with counter("mining concepts") as tell:
            found = ConceptMiner()(
                (world[index].captions for index in range(count)),
                min_count=max(1, round(COMMON * count)),
                on_progress=lambda done: tell(done, count),
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_concepts(found, path)
    return str(path)


def shipped_training(concepts: str) -> Training:
    """Return the training of the model that ships."""
    return _training(REGIONCLIP, PICTURES, {"concepts": concepts})


def ablation_trainings(concepts: str) -> dict[str, Training]:
    """Return short trainings by the name of their row: each loss alone, without each, and noun labels instead."""
    losses = ("contrast", "distill", "image_text")
    alone = {"size": ABLATION_SIZE, "scales": (), "concepts": concepts}
    only = {
        name: _training(
            f"short-regionclip-{name}", ABLATION_PICTURES, alone | {each: float(each == name) for each in losses}
        )
        for name in losses
    }
    return {
        "regions and concepts (contrast) alone": only["contrast"],
        "the teacher's probabilities (distillation) alone": only["distill"],
        "pictures and captions alone": only["image_text"],
        "contrast and distillation": _training(
            "short-regionclip-regions", ABLATION_PICTURES, alone | {"image_text": 0.0}
        ),
        "all three, as the paper": _training("short-regionclip", ABLATION_PICTURES, alone),
        "noun labels (the baseline of CLIPSelf)": _training(
            "short-regionclip-nouns", ABLATION_PICTURES, alone | {"objective": "nouns"}
        ),
    }


def _training(name: str, pictures: int, config: Mapping[str, Any]) -> Training:
    return Training(name, pictures, config, recipe="regionclip")
