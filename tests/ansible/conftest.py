"""The collection's programs are files that Ansible copies, not packages: their folders are looked in here."""

from __future__ import annotations

import sys
from pathlib import Path

COLLECTION = Path(__file__).parents[2] / "ansible"
for folder in ("roles/headwater/files", "plugins/filter", "plugins/modules"):
    sys.path.append(str(COLLECTION / folder))
