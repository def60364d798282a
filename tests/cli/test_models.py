from __future__ import annotations

import open_clip
import pytest

from closeup.cli.models import TRUNKS, families, family_of, list_models
from closeup.models import load
from commands import Run


def test_every_name_and_tag_of_open_clip_is_listed() -> None:
    rows = list_models(unreadable=True)
    assert [row["name"] for row in rows] == open_clip.list_models()
    assert [(row["name"], tag) for row in rows for tag in row["tags"]] == sorted(
        open_clip.list_pretrained(), key=lambda pair: open_clip.list_models().index(pair[0])
    )


def test_models_without_a_dense_map_are_left_out() -> None:
    names = {row["name"] for row in list_models()}
    left_out = set(open_clip.list_models()) - names
    assert left_out == {
        "coca_ViT-B-32",
        "coca_ViT-L-14",
        "swin_base_patch4_window7_224",
        "vit_relpos_medium_patch16_cls_224",
    }


def test_families_are_those_of_the_towers() -> None:
    assert set(TRUNKS.values()) < set(families())
    assert {row["family"] for row in list_models()} == set(families())


@pytest.mark.parametrize("name", ["ViT-S-32-alt", "RN50"])
def test_the_family_is_that_of_the_loaded_tower(name: str) -> None:
    family = family_of(open_clip.get_model_config(name))
    assert family == load(f"random:{name}", device="cpu", precision="fp32").tower.family


def test_filter_and_table(closeup: Run) -> None:
    ran = closeup("models", "SIGLIP-384")
    assert ran.code == 0
    assert "ViT-B-16-SigLIP-384" in ran.out
    assert "RN50" not in ran.out
    assert "webli" in ran.out


def test_a_tag_selects_too(closeup: Run) -> None:
    rows = closeup("models", "vit-b-16/openai", "--json").json["models"]
    assert [(row["name"], row["family"], row["tags"]) for row in rows] == [("ViT-B-16", "ViT", ["openai"])]


def test_no_match_suggests(closeup: Run) -> None:
    ran = closeup("models", "ViT-B-61")
    assert ran.code == 2
    assert "'ViT-B-61'" in ran.err
    assert "ViT-B-16" in ran.err
