"""The Ansible collection as an archive, as ``ansible-galaxy collection build`` would make it.

For: a release, which has the collection beside its archives; the same bytes from the same tree, and
nothing in it but the collection's own kinds of files. Not for what the collection does.
Source: docs.ansible.com, collection artifacts: MANIFEST.json and FILES.json, format 1.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from release.tree import ReleaseError

ALWAYS_IGNORED = ("galaxy.yml", "*.pyc", "*.retry")
"""What the tool leaves out by itself, besides build_ignore; of its list, what may be here."""
FROM_GALAXY = ("namespace", "name", "authors", "readme", "tags", "description", "license")
ABSENT: dict[str, Any] = {"license_file": None, "dependencies": {}}
ADDRESSES = ("repository", "documentation", "homepage", "issues")
PRERELEASE = re.compile(r"(?<=\d)((?:a|b|rc)\d+)")


def semantic(version: str) -> str:
    """Return a version as collections want it: 1.2.3rc1 is 1.2.3-rc1 there."""
    return PRERELEASE.sub(r"-\1", version)


def read(source: Path) -> dict[str, bytes]:
    """Return a checkout's collection: each file by its path there. Raises ReleaseError."""
    folder = source / "ansible"
    if not (folder / "galaxy.yml").is_file():
        raise ReleaseError(f"{folder} has no galaxy.yml: name a whole checkout with --source")
    return _files(folder, yaml.safe_load((folder / "galaxy.yml").read_text())["build_ignore"])


def _files(folder: Path, ignored: Sequence[str]) -> dict[str, bytes]:
    """Leave out what the tool would, by build_ignore.

    A pattern is compared with a whole path from the collection on, and ``*`` matches slashes too. A
    folder that matches is left out with all that is in it.
    """
    found = {}
    for place, folders, names in os.walk(folder):
        here = Path(place).relative_to(folder)
        for name in sorted([*folders, *names]):
            path = (here / name).as_posix()
            if any(fnmatchcase(path, pattern) for pattern in (*ALWAYS_IGNORED, *ignored)):
                folders[:] = [each for each in folders if each != name]
            elif name in names:
                found[path] = (folder / path).read_bytes()
    return found


def pack(source: Path, version: str, out: Path, moment: int) -> Path:
    """Write the archive of a checkout's collection into a folder."""
    contents = read(source)
    about = yaml.safe_load((source / "ansible" / "galaxy.yml").read_text())
    listed = _json({"files": _entries(contents), "format": 1})
    manifest = {
        "collection_info": {
            **{key: about[key] for key in FROM_GALAXY},
            **ABSENT,
            **{key: about.get(key) for key in ADDRESSES},
            "version": semantic(version),
        },
        "file_manifest_file": _entry("FILES.json", listed),
        "format": 1,
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{about['namespace']}-{about['name']}-{semantic(version)}.tar.gz"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        whole = {"MANIFEST.json": _json(manifest), "FILES.json": listed, **contents}
        # Whoever installs it looks for each folder by its name.
        for name in sorted({*whole, *_folders(contents)}):
            member = tarfile.TarInfo(name)
            body = whole.get(name)
            member.mtime, member.mode = moment, 0o755 if body is None else 0o644
            member.size = len(body or b"")
            member.type = tarfile.DIRTYPE if body is None else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(body or b""))
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=moment))
    return path


def _entries(contents: dict[str, bytes]) -> list[dict[str, Any]]:
    return [_entry(name, None) for name in (".", *sorted(_folders(contents)))] + [
        _entry(name, body) for name, body in sorted(contents.items())
    ]


def _folders(contents: dict[str, bytes]) -> set[str]:
    return {parent.as_posix() for name in contents for parent in Path(name).parents} - {"."}


def _entry(name: str, body: bytes | None) -> dict[str, Any]:
    digest = None if body is None else hashlib.sha256(body).hexdigest()
    return {
        "name": name,
        "ftype": "dir" if body is None else "file",
        "chksum_type": None if body is None else "sha256",
        "chksum_sha256": digest,
        "format": 1,
    }


def _json(what: object) -> bytes:
    return (json.dumps(what, indent=1) + "\n").encode()
