"""One thing that layers and machines both need: folders that lie on top of each other.

Not for what is in them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


def mount_overlay(root: Path, layers: list[Path], upper: Path, work: Path) -> None:
    """Mount layers, the topmost first, with one on top that takes what is written."""
    lower = ":".join(map(str, layers))
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, str(root)], check=True, timeout=30
    )
