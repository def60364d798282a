"""Kinds of option fields, so that a help text tells a default only where there is one to tell."""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

from tyro.conf import Positional, arg

Value = TypeVar("Value")

Maybe: TypeAlias = Annotated[Value | None, arg(help_behavior_hint="")]
"""An option that may be left out; its sentence says what happens then."""

Flag: TypeAlias = Annotated[bool, arg(help_behavior_hint="")]
"""An option without a value, off unless given."""

Photos: TypeAlias = Positional[Annotated[tuple[str, ...], arg(metavar="PHOTOS ...", help_behavior_hint="(required)")]]
"""Files, folders and globs; that there is one at all is checked by ``find_photos``."""
