"""The systems that machines boot: made once by mmdebstrap, kept outside of the repository.

For: a folder a system, named by everything that went into it; layers on top of one. The packages
come from where the host's own apt gets its packages. Not for booting them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driver.overlay import mount_overlay
from driver.spec import Spec

CACHE_VARIABLE = "HEADWATER_VM_CACHE"
MIRROR_VARIABLE = "HEADWATER_VM_MIRROR"

DEFAULT_CACHE = "/var/cache/headwater-vm"

# A slow mirror, not a hanging one.
BUILD_S = 900

# Every state of the tree makes layers of its own; who comes back after this waits a minute.
KEPT_S = 24 * 3600

# Raised when the recipe below makes other systems of the same packages.
RECIPE = "1"

# What a minimal Debian server has, and what stories ask it with. netbase: names of protocols, which
# nftables wants; python3-apt: what Ansible's apt module wants.
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "udev", "iproute2", "nftables", "iputils-ping", "procps"),
    *("python3", "python3-venv", "python3-apt", "ca-certificates", "curl", "openssl", "netbase"),
    "netcat-openbsd",
)

# The least that boots and has a network, as the smallest images of providers; the rest is for apt.
BARE_PACKAGES = ("systemd", "systemd-sysv", "dbus", "udev", "iproute2")


class NoImage(Exception):
    """A system could not be made; the text has the reason."""


@dataclass(frozen=True, slots=True)
class Image:
    """One system on disk."""

    suite: str
    root: Path

    @property
    def digest(self) -> str:
        """What tells it from every other one."""
        return self.root.parent.name


def cache() -> Path:
    """The folder of everything that is kept between runs."""
    return Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Let one process at a time make things; the others then find them."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def digest_of(*words: str) -> str:
    """Name something by what goes into it."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def find(spec: Spec) -> Image:
    """Find the system of a machine, or make it. Raises NoImage."""
    packages = (*(BARE_PACKAGES if spec.bare else PACKAGES), *spec.extra)
    sources = debian_sources(spec.suite)
    name = f"{spec.suite}-{digest_of(RECIPE, *sources, *sorted(packages))}"
    target = cache() / name
    if not (target / "root").exists():
        with locked("images"):
            if not (target / "root").exists():
                _bootstrap(spec.suite, packages, sources, target)
    target.touch()
    return Image(spec.suite, target / "root")


def _bootstrap(suite: str, packages: tuple[str, ...], sources: list[str], target: Path) -> None:
    began = time.monotonic()
    print(f"vm: making {target.name} with {len(packages)} packages", file=sys.stderr, flush=True)
    fresh = target / "fresh"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}"]
    # Not from the archive's documentation: a minimal server has no manuals.
    command += [
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
    ]
    command += ["--mode=root", suite, str(fresh), *sources]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoImage(f"{suite}: {error}") from error
    if done.returncode:
        words = "\n".join(done.stderr.strip().splitlines()[-12:])
        raise NoImage(f"mmdebstrap of {suite} ended with {done.returncode}:\n{words}")
    fresh.rename(target / "root")
    print(
        f"vm: made {target.name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
    )


def layer(image: Image, name: str, digest: str, make: Callable[[Path], None]) -> Path:
    """Find a layer on top of a system, or let `make` write it into a mounted root.

    Raises whatever `make` raises; a layer that was not finished is not kept.
    """
    target = cache() / f"{image.digest}.{name}-{digest}"
    if not (target / "layer").exists():
        with locked("layers"):
            if not (target / "layer").exists():
                _make_layer(image, target, make)
    target.touch()
    return target / "layer"


def _make_layer(image: Image, target: Path, make: Callable[[Path], None]) -> None:
    began = time.monotonic()
    shutil.rmtree(target, ignore_errors=True)
    for part in ("upper", "work", "root"):
        (target / part).mkdir(parents=True)
    root = target / "root"
    mount_overlay(root, [image.root], target / "upper", target / "work")
    try:
        make(root)
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True, timeout=30)
    shutil.rmtree(target / "work", ignore_errors=True)
    root.rmdir()
    (target / "upper").rename(target / "layer")
    print(
        f"vm: made {target.name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True
    )


def prune() -> None:
    """Remove systems, layers and releases that no story has used for a while."""
    oldest = time.time() - KEPT_S
    with locked("images"), locked("layers"), locked("release"):
        for folder in cache().iterdir():
            if folder.is_dir() and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


# Where packages come from


def debian_sources(suite: str, apt: Path = Path("/etc/apt")) -> list[str]:
    """The apt sources of a Debian release, from the mirrors that the host uses itself.

    None where the host uses none, as on Ubuntu: mmdebstrap knows where Debian is.
    """
    archive = os.environ.get(MIRROR_VARIABLE) or ""
    security = ""
    for uri, suites, components in _host_sources(apt):
        # Others offer packages for Debian too, under other components or at other places.
        if "main" in components and uri.endswith("/debian"):
            archive = archive or uri
        elif "main" in components and any(each.endswith("-security") for each in suites):
            security = security or uri
    if not archive:
        return []
    lines = [f"deb {archive} {suite} main", f"deb {archive} {suite}-updates main"]
    if security:
        lines.append(f"deb {security} {suite}-security main")
    return lines


def _host_sources(apt: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Give the host's apt sources: address, suites and components, from both kinds of file."""
    folder = apt / "sources.list.d"
    for file in sorted(folder.glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", file.read_text(errors="replace")):
            fields = dict(re.findall(r"^(\w[\w-]*):[ \t]*(.*)$", stanza, re.MULTILINE))
            if "deb" in fields.get("Types", "").split():
                suites, components = (fields.get(k, "").split() for k in ("Suites", "Components"))
                for uri in fields.get("URIs", "").split():
                    yield uri.rstrip("/"), suites, components
    line = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s*(.*)$", re.MULTILINE)
    for file in (apt / "sources.list", *sorted(folder.glob("*.list"))):
        for match in line.finditer(file.read_text(errors="replace") if file.exists() else ""):
            yield match[1].rstrip("/"), [match[2]], match[3].split()
