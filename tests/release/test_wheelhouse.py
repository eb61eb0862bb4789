from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from release import targets, wheelhouse
from release.targets import Target
from release.tree import ReleaseError

ROOT = Path(__file__).parents[2]
TARGETS = [Target(python, machine) for python in targets.PYTHONS for machine in targets.MACHINES]
LOCKED = """\
everywhere==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
old-only==2.0 ; python_full_version < '3.12' \\
    --hash=sha256:cc
windows==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:dd
"""


@pytest.mark.parametrize(
    ("python", "names"),
    [("3.11", ["everywhere==1.0", "old-only==2.0"]), ("3.13", ["everywhere==1.0"])],
)
def test_requirements_are_those_of_the_target_not_of_this_machine(
    python: str, names: list[str]
) -> None:
    text = wheelhouse.requirements_for(Target(python, "x86_64"), LOCKED)
    assert [line.split()[0] for line in text.splitlines()] == names
    assert ";" not in text
    assert "everywhere==1.0 --hash=sha256:aa --hash=sha256:bb\n" in text


def test_a_requirement_without_hash_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"loose==1\.0 has no hash"):
        wheelhouse.requirements_for(TARGETS[0], "loose==1.0\n")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.tag)
def test_the_lock_of_this_tree_gives_every_target_its_requirements(target: Target) -> None:
    text = wheelhouse.requirements_for(target, (ROOT / "requirements" / "run.txt").read_text())
    assert "msgspec==" in text
    assert "win32" not in text
    assert all(" --hash=sha256:" in line for line in text.splitlines())


def test_platforms_reach_from_the_oldest_wheels_to_debian_12() -> None:
    names = Target("3.11", "x86_64").platforms
    assert {"manylinux1_x86_64", "manylinux_2_17_x86_64", "manylinux_2_36_x86_64"} <= set(names)
    assert "manylinux_2_37_x86_64" not in names  # Debian 12 has 2.36
    assert "manylinux1_aarch64" not in Target("3.11", "aarch64").platforms  # there is no such tag


@pytest.fixture
def wheels(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "collected"
    folder.mkdir()
    paths = [
        folder / name for name in ("b_c-2.0-py3-none-any.whl", "a-1.0-cp311-cp311-linux_x86_64.whl")
    ]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_an_archive_has_one_hash_for_each_wheel(tmp_path: Path, wheels: list[Path]) -> None:
    path = wheelhouse.pack(TARGETS[0], "1.2.3", wheels, tmp_path, 1_000_000_000)
    assert path.name == "headwater-1.2.3-cp311-x86_64.tar"
    with tarfile.open(path) as archive:
        bodies = {
            member.name: archive.extractfile(member).read()  # type: ignore[union-attr]  # only files
            for member in archive.getmembers()
        }
        assert all(member.mode == 0o644 and member.uid == 0 for member in archive.getmembers())
    assert json.loads(bodies["release.json"]) == {
        "version": "1.2.3",
        "python": "3.11",
        "machine": "x86_64",
    }
    lines = bodies["requirements.txt"].decode().splitlines()
    assert lines == [
        f"{name} --hash=sha256:{hashlib.sha256(bodies[f'wheels/{wheel}']).hexdigest()}"
        for name, wheel in (
            ("a==1.0", "a-1.0-cp311-cp311-linux_x86_64.whl"),
            ("b-c==2.0", "b_c-2.0-py3-none-any.whl"),
        )
    ]


def test_names_may_be_longer_than_tar_once_allowed(tmp_path: Path) -> None:
    tags = "manylinux1_x86_64.manylinux_2_28_x86_64.manylinux_2_5_x86_64"
    path = tmp_path / f"charset_normalizer-3.5.3-cp313-cp313-{tags}.whl"
    path.write_bytes(b"a wheel")
    assert len(path.name) > 100
    first, second = (
        wheelhouse.pack(TARGETS[0], "1.2.3", [path], tmp_path / out, 1_000_000_000)
        for out in ("1", "2")
    )
    assert first.read_bytes() == second.read_bytes()
    listed = subprocess.run(["tar", "-tf", first], capture_output=True, text=True, check=True)
    assert f"wheels/{path.name}" in listed.stdout.splitlines()


def test_the_same_wheels_give_the_same_bytes(tmp_path: Path, wheels: list[Path]) -> None:
    first = wheelhouse.pack(TARGETS[0], "1.2.3", wheels, tmp_path / "1", 1_000_000_000)
    for path in wheels:
        path.touch()
    second = wheelhouse.pack(TARGETS[0], "1.2.3", wheels[::-1], tmp_path / "2", 1_000_000_000)
    assert first.read_bytes() == second.read_bytes()


def test_sums_are_over_everything_else(tmp_path: Path) -> None:
    (tmp_path / "headwater-1.tar").write_bytes(b"one")
    (tmp_path / "headwater-2.tar").write_bytes(b"two")
    wheelhouse.write_sums(tmp_path)
    text = wheelhouse.write_sums(tmp_path).read_text()  # not over itself either
    assert text.splitlines() == [
        f"{hashlib.sha256(body).hexdigest()}  headwater-{i}.tar"
        for i, body in ((1, b"one"), (2, b"two"))
    ]
