"""Debian's package archive on a machine that has no way out: what stories install there, and its index.

For: machines on which apt is to work for real, from nothing. The packages are fetched once, from where
the host's own apt gets its packages, and lie on the machine as a folder. Not for what images have from
the start (`images.py`).
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

from driver import images, server
from driver.images import Image
from driver.spec import BOOKWORM, TRIXIE

PLACE = "/srv/archive"
SOURCE = f"deb [trusted=yes] file:{PLACE} ./\n"

# What the role and the install script install, and what a story wants beside them.
BOX = ("python3", "python3-venv", "python3-apt", "ca-certificates", "nftables", "ansible-core")
PACKAGES = {BOOKWORM: BOX, TRIXIE: (*BOX, "postgresql")}

FETCH = """
mkdir -p {place}/partial
apt-get update -q
apt-get install --yes --quiet --no-install-recommends --download-only \\
  -o Dir::Cache::archives={place} {packages}
rm -rf {place}/partial {place}/lock /var/lib/apt/lists/* /var/cache/apt/*.bin
"""


def installed(image: Image) -> Path:
    """Find or make the layer that puts the archive onto a system. Raises NoImage."""
    digest = images.digest_of(Path(__file__).read_text())
    return images.layer(image, "archive", digest, lambda root: put(root, image.suite))


def put(root: Path, suite: str) -> None:
    """Fetch the packages that a system lacks, and make them its only source."""
    resolver = root / "etc/resolv.conf"
    resolver.unlink(missing_ok=True)
    shutil.copy("/etc/resolv.conf", resolver)
    server.inside(root, FETCH.format(place=PLACE, packages=" ".join(PACKAGES[suite])))
    folder = root / PLACE.lstrip("/")
    entries = [entry(each) for each in sorted(folder.glob("*.deb"))]
    (folder / "Packages").write_text("\n".join(entries))
    for old in (root / "etc/apt").glob("sources.list.d/*"):
        old.unlink()
    (root / "etc/apt/sources.list").write_text(SOURCE)


def entry(package: Path) -> str:
    """Return what an index says about a package."""
    command = ["dpkg-deb", "--field", str(package)]
    control = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    body = package.read_bytes()
    return (
        f"{control.rstrip()}\nFilename: ./{package.name}\nSize: {len(body)}\n"
        f"SHA256: {hashlib.sha256(body).hexdigest()}\n"
    )
