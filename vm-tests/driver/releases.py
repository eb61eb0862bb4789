"""Releases of our own tree, as it is and with faults, in the folders that `make release` writes.

For: what upgrades are tried with. Built once, kept with the machines' systems. Not for installing.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance import __version__
from appliance.store import schema
from driver import images, server
from driver.server import INSTALL_S, ROOT
from driver.spec import TRIXIE
from release import collection, wheelhouse
from release.__main__ import INSTALLER
from release.tree import FIRST_MOMENT

CRASH = """

def _fault() -> None:
    raise RuntimeError("this release is broken, as the story wants it")
"""
CALL = re.compile(r"^( +)systemd\.ready\(", re.MULTILINE)

MIGRATION = '''"""A schema that older releases cannot read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"

OLDEST_READER = {number}
OLDEST_PROGRAM = "{version}"


def upgrade() -> None:
    """Add a table."""
    op.create_table("story", sa.Column("id", sa.Integer, primary_key=True))
'''


@dataclass(frozen=True)
class Release:
    """One release, by its version and by what is done to the tree before it is built."""

    version: str
    change: Callable[[Path, str], None] | None = None
    suite: str = TRIXIE

    def folder(self) -> Path:
        """Find the release, or build it; building needs the network once. Raises NoImage."""
        python = server.PYTHONS[self.suite]
        change = self.change.__name__ if self.change else "as it is"
        recipe = Path(__file__).read_text()
        digest = images.digest_of(*server.sources(), recipe, self.version, change, python)
        target = images.cache() / f"release-{self.version}-{digest}"
        if not (target / "SHA256SUMS").exists():
            with images.locked("release"):
                if not (target / "SHA256SUMS").exists():
                    self._build(target, python)
        return target

    def whole(self) -> Path:
        """Find the release with the roles and the install script of this tree. Raises NoImage."""
        made = self.folder()
        files = {
            **{name: str(body) for name, body in collection.read(ROOT).items()},
            "install.sh": INSTALLER.read_text(),
        }
        digest = images.digest_of(made.name, *(f"{name}\n{text}" for name, text in files.items()))
        target = images.cache() / f"release-whole-{digest}"
        if not (target / "SHA256SUMS").exists():
            with images.locked("release"):
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(made, target)
                for old in target.glob("headwater-headwater-*"):
                    old.unlink()
                collection.pack(ROOT, self.version, target, FIRST_MOMENT)
                shutil.copyfile(INSTALLER, target / INSTALLER.name)
                wheelhouse.write_sums(target)
        return target

    def _build(self, target: Path, python: str) -> None:
        with tempfile.TemporaryDirectory(prefix="headwater-story-") as scratch:
            tree = Path(scratch) / "tree"
            skipped = shutil.ignore_patterns("__pycache__")
            for name in ("appliance", "ansible"):
                shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=skipped)
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, tree / name)
            if self.change is not None:
                self.change(tree, self.version)
            words = f"--source {tree} --version {self.version} --out {target}"
            words += f" --python {python} --machine {server.processor()}"
            done = subprocess.run(
                ["make", "--no-print-directory", "release", f"ARGS={words}"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=INSTALL_S,
                check=False,
            )
        if done.returncode:
            words = f"{done.stdout}{done.stderr}"[-3000:]
            raise images.NoImage(f"release {self.version} cannot be built:\n{words}")


def current(suite: str = TRIXIE) -> Release:
    """The release that this tree is."""
    return Release(__version__, suite=suite)


def crash(tree: Path, _version: str) -> None:
    """Break a release: it falls over just before it would be ready."""
    path = tree / "appliance" / "serve" / "process.py"
    text, count = CALL.subn(r"\1_fault()\n\1systemd.ready(", path.read_text(), count=1)
    if not count:
        raise images.NoImage("appliance/serve/process.py says nowhere that it is ready")
    path.write_text(text + CRASH)


def move_schema_and_crash(tree: Path, version: str) -> None:
    """Break a release that has changed the database by then, so that older ones cannot read it."""
    move_schema(tree, version)
    crash(tree, version)


def move_schema(tree: Path, version: str) -> None:
    """Make a release of which the database cannot be read by older ones."""
    number = schema.SCHEMA_VERSION + 1
    place = tree / "appliance" / "store"
    path = place / "schema.py"
    old = f"SCHEMA_VERSION = {schema.SCHEMA_VERSION}"
    path.write_text(path.read_text().replace(old, f"SCHEMA_VERSION = {number}"))
    migration = MIGRATION.format(
        revision=f"{number:04}", before=f"{number - 1:04}", number=number, version=version
    )
    (place / "migrations" / "versions" / f"v{number:04}_story.py").write_text(migration)
