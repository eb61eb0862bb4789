"""What a machine's file system holds before it boots, whatever kind of machine it is.

For: its layers, its name, the names of the others, the files and the script of its spec. Not for
making layers (`images.py`) or for booting.
"""

from __future__ import annotations

from pathlib import Path

from driver import server
from driver.overlay import mount_overlay
from driver.spec import Spec


def lay_out(folder: Path, name: str, spec: Spec, layers: list[Path], hosts: str) -> Path:
    """Mount the machine's file system below a folder; give its root."""
    for part in ("upper", "work", "root"):
        (folder / part).mkdir(parents=True)
    root = folder / "root"
    mount_overlay(root, layers, folder / "upper", folder / "work")
    etc = root / "etc"
    (etc / "hostname").write_text(f"{name}\n")
    (etc / "hosts").write_text(hosts)
    (etc / "resolv.conf").unlink(missing_ok=True)
    # A resolver that refuses at once: nothing of a story may wait for a name of the world.
    (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (etc / "machine-id").write_text("")
    for path, text in spec.files.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    if spec.script:
        server.inside(root, spec.script)
    return root
