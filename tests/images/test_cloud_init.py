"""examples/cloud-init.yaml: its script fetches the release that was meant, and nothing else.

What cloud-init itself makes of it is in the story `cloud_init`.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.examples import PLACE

TEXT = (PLACE / "cloud-init.yaml").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
OURS = f"cp{sys.version_info[0]}{sys.version_info[1]}-{platform.machine()}"
COLLECTION = "headwater-headwater-0.1.0.tar.gz"
INSTALLER = '#!/bin/sh\nset -eu\nprintf "%s " "$@"\nls\n'


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A folder as `make release` writes it; the archive for other machines is only in the sums."""
    made = tmp_path / "release"
    made.mkdir()
    names = ["install.sh", COLLECTION, f"headwater-0.1.0-{OURS}.tar"]
    bodies = {name: INSTALLER if name == "install.sh" else name for name in names}
    for name, body in bodies.items():
        (made / name).write_text(body)
    bodies["headwater-0.1.0-cp39-other.tar"] = "not fetched, so not missed"
    (made / "SHA256SUMS").write_text(
        "".join(f"{digest(body.encode())}  {name}\n" for name, body in bodies.items())
    )
    return made


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def first_boot(release: Path, *, meant: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script as cloud-init would, with the values of whoever uses it."""
    (file,) = DOCUMENT["write_files"]
    meant = meant or digest((release / "SHA256SUMS").read_bytes())
    script = file["content"]
    for said, ours in (
        ("https://files.example.com/headwater-0.1.0", f"file://{release}"),
        ("0" * 64, meant),
    ):
        assert script.count(said) == 1
        script = script.replace(said, ours)
    home = release.parent / "home"
    home.mkdir(exist_ok=True)
    return subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def installed(release: Path) -> Path:
    return release.parent / "home" / "headwater-release" / "installed.txt"


def test_it_is_a_cloud_config_that_runs_what_it_writes() -> None:
    assert TEXT.startswith("#cloud-config\n")
    (file,) = DOCUMENT["write_files"]
    assert DOCUMENT["runcmd"] == [[file["path"]]]
    assert file["permissions"] == "0700"
    assert set(DOCUMENT["packages"]) == {"ca-certificates", "curl", "python3"}


def test_the_release_is_fetched_and_installed(release: Path) -> None:
    done = first_boot(release)
    assert done.returncode == 0, done.stderr
    arguments, *_ = installed(release).read_text().partition("SHA256SUMS")
    assert arguments.split() == [
        "--domain",
        "hw.example.com",
        "--email",
        "you@example.com",
        "--yes",
    ]
    fetched = {path.name for path in installed(release).parent.iterdir()} - {"installed.txt"}
    assert fetched == {path.name for path in release.iterdir()}
    assert installed(release).stat().st_mode & 0o077 == 0
    # A key may be among its words.
    assert "--domain" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["install.sh", COLLECTION, f"headwater-0.1.0-{OURS}.tar"])
@pytest.mark.parametrize("fault", ["changed", "missing"])
def test_a_release_that_is_not_whole_is_not_installed(release: Path, name: str, fault: str) -> None:
    if fault == "missing":
        (release / name).unlink()
    else:
        (release / name).write_text("#!/bin/sh\n")
    assert first_boot(release).returncode != 0
    assert not installed(release).exists()


def test_another_release_than_the_one_that_is_meant_is_not_installed(release: Path) -> None:
    assert first_boot(release, meant=digest(b"")).returncode != 0
    assert not installed(release).exists()
