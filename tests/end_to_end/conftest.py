"""The chaos lies beside the package, so it is found from the root of the repository only."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])

if ROOT not in sys.path:
    # At the end: the package itself is to be the installed one.
    sys.path.append(ROOT)
