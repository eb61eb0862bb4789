"""Where the secrets of the kept generations lie: for root alone, each by the digest of its contents.

Beside ``headwater-release`` in /opt/headwater. Needs only the system's own Python.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from headwater_state import SECRET_MODE, Refused, write

FOLDER_MODE = 0o700


@dataclass(frozen=True)
class Store:
    """The folder of kept secrets."""

    folder: Path

    def keep(self, data: bytes) -> None:
        """Keep a secret."""
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(FOLDER_MODE)
        write(self.folder / digest_of(data), data, SECRET_MODE)

    def has(self, digest: str) -> bool:
        """Whether a secret is kept."""
        return bool(digest) and (self.folder / digest).is_file()

    def read(self, digest: str, name: str) -> bytes:
        """Return a secret. Raises Refused if it was never kept, or is not what it was."""
        data = (self.folder / digest).read_bytes() if self.has(digest) else b""
        if digest_of(data) != digest:
            raise Refused(f"{name} cannot be put back: it was not kept; deploy it again")
        return data

    def forget_all_but(self, needed: set[str]) -> None:
        """Remove every secret that no kept generation names."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                if path.name not in needed:
                    path.unlink()


def digest_of(data: bytes) -> str:
    """Return the name of a secret in the store."""
    return hashlib.sha256(data).hexdigest()
