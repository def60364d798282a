"""``import closeup`` and ``closeup --help`` against Python's own start: torch is loaded when first needed.

Run: python -m benches.import_time
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from statistics import median

from benches.common import compare, finish


def main() -> None:
    """Measure fresh interpreters."""
    start = _python("-c", "pass")
    rows = [
        compare("import closeup", _python("-c", "import closeup"), "python -c pass", start, target="+ 0.3 s"),
        compare("closeup --help", _python("-m", "closeup", "--help"), "python -c pass", start, target="+ 1 s"),
    ]
    above = {row.name: round(median(row.ours) - median(row.baseline), 4) for row in rows}
    finish("import_time", rows, seconds_above_start=above)


def _python(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    main()
