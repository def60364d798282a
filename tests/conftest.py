"""What tests of several folders share: a small random CLIP, in memory and saved, and a cache of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from closeup.models import Clip, load, save_local_dir
from tiny_clips import vit_clip


@pytest.fixture(scope="session", autouse=True)
def closeup_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep text banks in a folder of this run."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLOSEUP_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def small_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a random ViT of 3 blocks (32 px, patch 8, 24 dimensions), saved as a folder."""
    return save_local_dir(vit_clip(), tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def small_clip(small_clip_folder: Path) -> Clip:
    """Return that model, loaded."""
    return load(small_clip_folder, device="cpu", precision="fp32")
