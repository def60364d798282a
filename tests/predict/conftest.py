from __future__ import annotations

from pathlib import Path

import pytest

from closeup.models.clip import Clip
from tiny_clips import vit_clip


@pytest.fixture(scope="session")
def clip() -> Clip:
    """Return a random ViT of 3 blocks: 32 px, patch 8."""
    return vit_clip()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    folder: Path = tmp_path_factory.getbasetemp() / "closeup-cache"
    monkeypatch.setenv("CLOSEUP_CACHE", str(folder))
