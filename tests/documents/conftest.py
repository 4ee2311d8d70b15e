"""The benchmarks lie beside the package, not in it, so they are no part of the wheel."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[2])

# At the end: what is tested is the package that is installed.
if ROOT not in sys.path:
    sys.path.append(ROOT)
