"""The site files among the examples: those of a server or a relay, whatever their form."""

from __future__ import annotations

from pathlib import Path

PLACE = Path(__file__).resolve().parents[2] / "examples"
OF_OTHERS = ("compose.yaml", "cloud-init.yaml")
"""Files that other programs read; tests/images looks at them."""

SITES = sorted(path for path in PLACE.glob("*.*") if path.name not in OF_OTHERS)
"""Those that NixOS and the role make a box of."""
EVERY_SITE = sorted(
    path
    for path in PLACE.rglob("*")
    if path.suffix in (".yaml", ".toml", ".json") and path.name not in OF_OTHERS
)
"""Those of containers, too."""
