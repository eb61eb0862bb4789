"""One archive for each kind of machine: our wheel, all that it needs, and the hashes of everything.

An archive holds ``wheels/`` and ``requirements.txt``, in which every wheel has its one hash; a server
installs from it without any network. Not for installing (the Ansible role does that).
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

from release.targets import Target
from release.tree import ReleaseError


def requirements_for(target: Target, locked: str) -> str:
    """Give the part of a locked requirements file that a target needs, without markers.

    pip looks at the machine that it runs on, not at the one that it collects for.
    """
    kept = []
    for entry in locked.replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.lstrip().startswith("#"):
            continue
        requirement, *hashes = entry.split(" --hash=")
        name, _, marker = requirement.partition(";")
        if not hashes:
            raise ReleaseError(f"{name.strip()} has no hash; run: make lock")
        if target.fits(marker.strip()):
            kept.append(" ".join([name.strip(), *(f"--hash={each.strip()}" for each in hashes)]))
    return "\n".join(kept) + "\n"


def collect(target: Target, locked: Path, cache: Path) -> list[Path]:
    """Give the wheels that a target needs, from the cache where it has them. Raises ReleaseError."""
    folder = cache / target.tag
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "requirements.txt"
    text = requirements_for(target, locked.read_text())
    wanted.write_text(text)
    if _download(target, wanted, folder, "--no-index", "--find-links", str(folder)):
        failure = _download(target, wanted, folder)
        if failure:
            raise ReleaseError(f"the wheels for {target.tag} could not be collected:\n{failure}")
    names = {canonicalize_name(line.split("==")[0]): line for line in text.splitlines()}
    wheels = []
    for path in sorted(folder.glob("*.whl")):
        line = names.get(canonicalize_name(path.name.split("-")[0]), "")
        if f"sha256:{digest(path.read_bytes())}" in line:
            wheels.append(path)
        else:
            path.unlink()  # an earlier lock wanted it
    if len(wheels) != len(names):
        raise ReleaseError(f"{len(wheels)} wheels for {len(names)} requirements in {folder}")
    return wheels


def _download(target: Target, wanted: Path, folder: Path, *source: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(wanted)]
    command += ["--implementation", "cp", "--python-version", target.python, "-d", str(folder)]
    for platform in target.platforms:
        command += ["--platform", platform]
    done = subprocess.run(  # noqa: S603  # a fixed command
        [*command, *source], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def pack(target: Target, version: str, wheels: Iterable[Path], out: Path, moment: int) -> Path:
    """Write the archive of one target: the same bytes from the same wheels."""
    name = f"headwater-{version}-{target.tag}.tar"
    contents = {path.name: path.read_bytes() for path in wheels}
    lines = []
    for wheel in sorted(contents):
        distribution, number, _, _ = parse_wheel_filename(wheel)
        lines.append(f"{distribution}=={number} --hash=sha256:{digest(contents[wheel])}\n")
    about = {"version": version, "python": target.python, "machine": target.machine}
    files = {
        "release.json": (json.dumps(about, indent=2) + "\n").encode(),
        "requirements.txt": "".join(lines).encode(),
        **{f"wheels/{wheel}": body for wheel, body in sorted(contents.items())},
    }
    out.mkdir(parents=True, exist_ok=True)
    # POSIX' form: the older one has no room for the names that wheels for many systems have.
    with tarfile.open(out / name, "w", format=tarfile.PAX_FORMAT) as archive:
        for path, body in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mtime, member.mode = len(body), moment, 0o644
            archive.addfile(member, io.BytesIO(body))
    return out / name


def write_sums(out: Path) -> Path:
    """Write SHA256SUMS over everything in a release's folder; ``sha256sum -c`` reads it."""
    sums = out / "SHA256SUMS"
    paths = sorted(path for path in out.iterdir() if path.is_file() and path != sums)
    sums.write_text("".join(f"{digest(path.read_bytes())}  {path.name}\n" for path in paths))
    return sums


def digest(body: bytes) -> str:
    """Give the SHA-256 as text."""
    return hashlib.sha256(body).hexdigest()
