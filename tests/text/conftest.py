from __future__ import annotations

import pytest

from tiny_text import TinyText


@pytest.fixture(scope="session")
def shared_clip() -> TinyText:
    return TinyText()


@pytest.fixture
def clip(shared_clip: TinyText) -> TinyText:
    shared_clip.batches.clear()
    return shared_clip
