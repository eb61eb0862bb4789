"""The driver is a root of its own: these tests find it as `make stories` does."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "vm-tests"))
