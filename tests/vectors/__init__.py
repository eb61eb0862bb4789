"""Golden data; where it comes from says PROVENANCE.md."""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def load(name: str) -> Any:
    """Read one file of golden data."""
    return json.loads((HERE / name).read_text(encoding="utf-8"))
