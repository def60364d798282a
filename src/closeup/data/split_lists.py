"""The lists of picture names that PASCAL's sets ship for each split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from closeup.errors import DataError


def read_split(candidates: Sequence[Path], layout: str) -> list[str]:
    """Return the names in the first of the lists that exists: what each line starts with, empty lines skipped.

    Raises:
        DataError: none exists, or it lists nothing; the message shows the expected layout.
    """
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        looked = " or ".join(map(str, candidates))
        beside = sorted({path.stem for candidate in candidates for path in candidate.parent.glob("*.txt")})[:10]
        there = f" There are {', '.join(beside)}." if beside else ""
        raise DataError(f"No list of pictures: looked for {looked}.{there} Expected: {layout}.")
    try:
        lines = found.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{found}: a list of pictures is UTF-8 text, a name a line ({error}).") from error
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise DataError(f"{found}: lists no pictures. Expected: {layout}.")
    return names


def inside(root: str | Path, *below: str) -> Path:
    """Return the first folder of these names that exists below the root, or the root itself."""
    base = Path(root).expanduser()
    return next((base / name for name in below if (base / name).is_dir()), base)
