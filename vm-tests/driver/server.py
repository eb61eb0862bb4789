"""Our server on a Debian machine, without Ansible: a release and its units, as one layer.

For: stories that are about what the server does, not about how it got there; the program is
installed once from the wheelhouse and shared by all of them. Not for the role (`ansible.py`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

from appliance import config
from appliance.deploy import facts, plan, render
from appliance.deploy.units import Host
from driver import images
from driver.images import Image
from driver.spec import BOOKWORM, TRIXIE, Spec

ROOT = Path(__file__).resolve().parent.parent.parent

CURRENT = "/opt/headwater/current"

SYSTEMD = {BOOKWORM: 252, TRIXIE: 257}
PYTHONS = {BOOKWORM: "3.11", TRIXIE: "3.13"}

# pip unpacks some thirty wheels on a busy machine.
INSTALL_S = 300


def wheelhouse(suite: str) -> Path:
    """Find the release archive for a Debian, or build it. Raises NoImage."""
    # One release a digest of the tree: what is tested is what is checked out.
    digest = images.digest_of(*sources())
    python = PYTHONS[suite]
    target = images.cache() / f"release-{digest}"
    found = list(target.glob(f"headwater-*-cp{python.replace('.', '')}-*.tar"))
    if found:
        return found[0]
    with images.locked("release"):
        _build(target / python, python)
        for archive in (target / python).glob("headwater-*.tar"):
            return archive.rename(target / archive.name)
    raise images.NoImage(f"the release has no archive for Python {python}")


def sources() -> list[str]:
    """The texts that a release is made of."""
    files = [ROOT / "pyproject.toml", ROOT / "requirements" / "run.txt"]
    for ending in ("*.py", "*.json", "*.mako"):
        files += sorted((ROOT / "appliance").rglob(ending))
    return [f"{file.relative_to(ROOT)}\n{file.read_text()}" for file in files]


def _build(out: Path, python: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    command = [
        *("make", "--no-print-directory", "release"),
        f"ARGS=--out {out} --python {python} --machine {processor()}",
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        raise images.NoImage(f"the release cannot be built:\n{done.stdout}{done.stderr}"[-3000:])


def processor() -> str:
    """The kind of processor that this machine has, and that machines on it have."""
    return os.uname().machine


def installed(image: Image) -> Path:
    """Find or make the layer that puts the server onto a system: program, user, units."""
    archive = wheelhouse(image.suite)
    recipe = Path(__file__).read_text()
    digest = images.digest_of(archive.parent.name, recipe)
    return images.layer(image, "server", digest, lambda root: install(root, archive))


def install(root: Path, archive: Path) -> None:
    """Install a release into a system that does not run."""
    shutil.copy(archive, root / "tmp/release.tar")
    inside(
        root,
        f"""
        mkdir -p /opt/headwater/releases /tmp/release && tar -C /tmp/release -xf /tmp/release.tar
        python3 -m venv /opt/headwater/releases/story
        /opt/headwater/releases/story/bin/pip install --quiet --no-index --no-deps \\
          --disable-pip-version-check --require-hashes --find-links /tmp/release/wheels \\
          -r /tmp/release/requirements.txt
        rm -r /tmp/release /tmp/release.tar
        ln -s releases/story {CURRENT}
        ln -s {CURRENT}/bin/headwater /usr/local/bin/headwater
        """,
    )


def inside(root: Path, script: str) -> None:
    """Run a script in a system that does not run. Raises NoImage with what it said."""
    done = subprocess.run(
        ["chroot", str(root), "/bin/sh", "-euc", script],
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode:
        raise images.NoImage(f"installing ended with {done.returncode}: {done.stderr[-3000:]}")


def box(
    story_file: str,
    *,
    suite: str = TRIXIE,
    site: str = "site.json",
    role: Literal["server", "relay"] = "server",
    **changes: Any,
) -> Spec:
    """A machine with our server or relay on it: the site file of a story, and all that follows.

    Units, sockets, firewall, user and kernel settings are those of `headwater deploy render`, so
    they are what the role and the NixOS module put there too.
    """
    path = Path(story_file).parent / site
    text = path.read_text()
    made = plan.make(config.load(path), role=role, secrets={})
    on_disk = f"{facts.CONFIG_DIR}/config{path.suffix}"
    host = Host(program=facts.PROGRAM, config=on_disk, systemd=SYSTEMD[suite], groups=())
    rendered = render.render(made, host)
    files = {name: file.text for name, file in rendered.files.items()}
    changes["files"] = {on_disk: text, **files, **changes.get("files", {})}
    changes["script"] = "\n".join(
        ("systemd-sysusers", f"systemctl enable --quiet {' '.join(rendered.enabled)}")
        + ((changes["script"],) if "script" in changes else ())
    )
    roles = ("server", *changes.pop("roles", ()))
    return Spec(suite=suite, roles=roles, **changes)
