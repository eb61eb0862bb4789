"""The roles' programs are files that Ansible copies, not packages: their folders are looked in here."""

from __future__ import annotations

import sys
from pathlib import Path

ROLE = Path(__file__).parents[2] / "ansible" / "roles" / "headwater"
for folder in ("files", "library"):
    sys.path.append(str(ROLE / folder))
