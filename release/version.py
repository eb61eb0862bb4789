"""The version: where it is written, how it is raised, and the changelog that goes with it.

Not for building (``wheel``).
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from release.tree import ReleaseError

PATTERN = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\+[a-z0-9]+(\.[a-z0-9]+)*)?")
"""What we call a version. It is also a folder's name on servers, so nothing else goes."""
PLACES = {
    "appliance/__init__.py": re.compile(r'^(__version__ = ")([^"]+)(")$', re.MULTILINE),
    "pyproject.toml": re.compile(r'^(version = ")([^"]+)(")$', re.MULTILINE),
    "ansible/galaxy.yml": re.compile(r'^(version: ")([^"]+)(")$', re.MULTILINE),
}
"""Where the version is written; a test keeps the places equal."""
KINDS = {
    "breaking": "Breaking",
    "security": "Security",
    "added": "Added",
    "changed": "Changed",
    "fixed": "Fixed",
}
"""The kinds of fragments, in the order in which a release lists them."""
HEAD = """\
# Changes

What is not released yet is in [changelog.d/](changelog.d/), one fragment a change.
"""


def read(root: Path) -> str:
    """Give the version of a tree. Raises ReleaseError if its places differ."""
    found = {place: _find(root / place, place) for place in PLACES if (root / place).exists()}
    if len(set(found.values())) != 1:
        said = ", ".join(f"{place} {version}" for place, version in found.items())
        raise ReleaseError(f"the version differs: {said}; run: make bump VERSION=1.2.3")
    return next(iter(found.values()))


def write(root: Path, version: str) -> None:
    """Write a version into every place that a tree has. Raises ReleaseError for a bad one."""
    if not PATTERN.fullmatch(version):
        raise ReleaseError(f"{version!r} is no version: write it like 1.2.3, 1.2.3rc1 or 1.2.3+try")
    for place, pattern in PLACES.items():
        path = root / place
        if path.exists():
            _find(path, place)
            path.write_text(pattern.sub(rf"\g<1>{version}\g<3>", path.read_text(), count=1))


def bump(root: Path, version: str, today: date, facts: str) -> int:
    """Raise the version and move the fragments into the changelog; give how many there were."""
    fragments = collect(root / "changelog.d")
    write(root, version)
    changelog = root / "CHANGELOG.md"
    older = changelog.read_text().removeprefix(HEAD).lstrip("\n")
    section = "\n".join([f"## {version} ({today})", "", facts, "", *_list(fragments)])
    changelog.write_text(f"{HEAD}\n{section}\n{older}".rstrip() + "\n")
    for path in fragments:
        path.unlink()
    return len(fragments)


def collect(folder: Path) -> dict[Path, str]:
    """Give the fragments with their kinds. Raises ReleaseError for an unknown kind."""
    found = {}
    for path in sorted(folder.glob("*.md")):
        if path.name == "README.md":
            continue
        kind = path.name.split(".")[-2]
        if kind not in KINDS:
            raise ReleaseError(f"{path}: {kind!r} is no kind; one of {', '.join(KINDS)}")
        found[path] = kind
    return found


def _list(fragments: dict[Path, str]) -> list[str]:
    lines = []
    for kind, title in KINDS.items():
        texts = [path.read_text() for path, its in fragments.items() if its == kind]
        if texts:
            lines += [f"### {title}", "", *("* " + " ".join(text.split()) for text in texts), ""]
    return lines


def _find(path: Path, place: str) -> str:
    match = PLACES[place].search(path.read_text())
    if match is None:
        raise ReleaseError(f"{path}: no line with the version")
    return match[2]
