"""The embedded world: seeded, endless, drawn scenes with exact truth."""

from __future__ import annotations

from closeup.data.world.stream import WorldStream as WorldStream
from closeup.data.world.world import World as World
