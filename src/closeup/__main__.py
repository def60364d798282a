"""``python -m closeup`` is the command ``closeup``."""

from __future__ import annotations

import sys

from closeup.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
