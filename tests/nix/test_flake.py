"""The flake: that every output of it evaluates, and that a wrong host fails. Nothing is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nix import wheels
from tests.nix.evaluation import EVALUATION_S, HERE, ROOT, needs_nix

pytestmark = needs_nix

PARTS = (
    "flake.nix",
    "nix",
    "appliance",
    "release",
    "requirements",
    "docs",
    "vm-tests",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
NODE = Path("tests/interop/node")


@pytest.fixture
def flake(tmp_path: Path) -> Iterator[Path]:
    """Copy what the flake reads; the stand-in for nixpkgs and disko lies beside it."""
    tree = tmp_path / "tree"
    tree.mkdir()
    leave = shutil.ignore_patterns("__pycache__")
    for part in PARTS:
        place = ROOT / part
        if place.is_dir():
            shutil.copytree(place, tree / part, ignore=leave)
        else:
            shutil.copy(place, tree / part)
    shutil.copytree(ROOT / NODE, tree / NODE)
    if _is_old():
        # With a store of its own, as here, it takes a template's path for one outside of the store.
        file = tree / "flake.nix"
        file.write_text(file.read_text().replace("= ./nix/hosts;", '= "${self}/nix/hosts";'))
    stub = tmp_path / "stub"
    shutil.copytree(HERE / "stubflake", stub)
    shutil.copytree(HERE / "stub", stub / "stub")
    shutil.copy(HERE / "minilib.nix", stub)
    (stub / "names.json").write_text(json.dumps(requirements()))
    yield tree
    # What Nix puts into a store is read-only, also for pytest's tidying.
    for path, folders, _ in os.walk(tmp_path / "store"):
        for folder in (path, *(str(Path(path) / each) for each in folders)):
            Path(folder).chmod(0o755)


def _is_old() -> bool:
    done = subprocess.run(["nix", "--version"], capture_output=True, text=True, check=False)
    major, minor = re.findall(r"\d+", done.stdout)[:2]
    return (int(major), int(minor)) < (2, 20)


def requirements() -> list[str]:
    """Name every package that pyproject.toml asks for."""
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        read["build-system"]["requires"],
        read["project"]["dependencies"],
        *read["project"]["optional-dependencies"].values(),
        *read["dependency-groups"].values(),
    ]
    return sorted({re.split(r"[^A-Za-z0-9_-]", each)[0] for group in lists for each in group})


def nix(flake: Path, *command: str) -> subprocess.CompletedProcess[str]:
    stub = flake.parent / "stub"
    return subprocess.run(
        [
            *("nix", "--extra-experimental-features", "nix-command flakes"),
            *("--offline", "--store", str(flake.parent / "store")),
            *command,
            *("--override-input", "nixpkgs", f"path:{stub}"),
            "--no-write-lock-file",
        ],
        capture_output=True,
        text=True,
        timeout=EVALUATION_S,
        check=False,
        env={**os.environ, "HOME": str(flake.parent)},
    )


def test_every_output_of_the_flake_evaluates(flake: Path) -> None:
    done = nix(flake, "flake", "check", f"path:{flake}", "--no-build")
    assert done.returncode == 0, done.stderr
    for output in (
        "nixosModules.default",
        "nixosModules.node",
        "nixosConfigurations.image",
        "templates.default",
        "lib.images",
        "overlays.default",
        "packages.x86_64-linux.headwater",
        "packages.x86_64-linux.wheelhouse",
        "packages.x86_64-linux.docs",
        "packages.x86_64-linux.oci",
        "packages.aarch64-linux.oci",
        "packages.x86_64-linux.iso",
        "packages.x86_64-linux.qcow2",
        "packages.aarch64-linux.raw",
        "packages.x86_64-linux.openstack",
        "formatter.x86_64-linux",
        "apps.x86_64-linux.dev",
        "apps.x86_64-linux.release",
        "devShells.x86_64-linux.default",
        "checks.x86_64-linux.unit",
        "checks.x86_64-linux.lint",
        "checks.x86_64-linux.two_nodes",
    ):
        kind, _, rest = output.partition(".")
        found = nix(flake, "eval", f"path:{flake}#{kind}", "--apply", f"o: o ? {rest}")
        assert found.stdout.strip() == "true", f"{output}: {found.stderr}"


def test_nobody_locks_more_than_nixpkgs_for_it(flake: Path) -> None:
    """Disko is for the machines of nix/hosts/, which are a template with a flake of its own."""
    done = nix(flake, "flake", "metadata", "--json", f"path:{flake}")
    assert set(json.loads(done.stdout)["locks"]["nodes"]) == {"root", "nixpkgs"}, done.stderr


def of_hosts(flake: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the flake of nix/hosts/, as somebody has it who took the template."""
    mine = ("--override-input", "headwater", f"path:{flake}")
    return nix(flake, *command, *mine, "--override-input", "disko", f"path:{flake.parent}/stub")


@pytest.fixture
def hosts(flake: Path) -> Path:
    """Take the template: the folder alone, away from the checkout."""
    done = nix(flake, "eval", f"path:{flake}#templates.default.path")
    assert done.stdout.strip('"\n').endswith("/nix/hosts"), done.stderr
    theirs = flake.parent / "machines"
    shutil.copytree(flake / "nix" / "hosts", theirs)
    return theirs


def test_the_template_evaluates_by_itself(flake: Path, hosts: Path) -> None:
    done = of_hosts(flake, "flake", "check", f"path:{hosts}", "--no-build")
    assert done.returncode == 0, done.stderr
    names = of_hosts(
        flake,
        "eval",
        "--json",
        f"path:{hosts}#nixosConfigurations",
        "--apply",
        "builtins.attrNames",
    )
    assert json.loads(names.stdout) == ["image", "metal", "vps"]
    made = of_hosts(
        flake,
        "eval",
        "--json",
        f"path:{hosts}#packages.x86_64-linux",
        "--apply",
        "builtins.attrNames",
    )
    assert {"iso", "qcow2", "raw"} <= set(json.loads(made.stdout))


def test_a_host_with_a_wrong_setting_fails_the_check(flake: Path, hosts: Path) -> None:
    host = hosts / "common.nix"
    host.write_text(host.read_text().replace('server_url = "https:', 'server_url = "ftp:'))
    done = of_hosts(flake, "flake", "check", f"path:{hosts}", "--no-build")
    assert done.returncode != 0
    assert "services.headwater.settings.server_url: found" in done.stderr


@pytest.mark.parametrize(
    ("system", "qcow2"), [("x86_64-linux", "image-qemu"), ("aarch64-linux", "image-qemu-efi")]
)
def test_an_image_boots_as_its_processor_does(flake: Path, system: str, qcow2: str) -> None:
    found = nix(flake, "eval", "--raw", f"path:{flake}#packages.{system}.qcow2.name")
    assert found.stdout == qcow2, found.stderr


def test_a_nixpkgs_without_images_has_the_other_packages(flake: Path) -> None:
    stub = flake.parent / "stub" / "flake.nix"
    stub.write_text(stub.read_text().replace("build.images =", "build.former ="))
    names = nix(
        flake,
        "eval",
        "--json",
        f"path:{flake}#packages.x86_64-linux",
        "--apply",
        "builtins.attrNames",
    )
    assert json.loads(names.stdout) == ["default", "docs", "headwater", "oci", "wheelhouse"]


def test_the_flake_on_the_page_evaluates(flake: Path) -> None:
    """What docs/nixos.md tells people to write, on this tree."""
    page = (ROOT / "docs" / "nixos.md").read_text()
    blocks = re.findall(r"^```nix\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    theirs = flake.parent / "theirs"
    theirs.mkdir()
    (theirs / "flake.nix").write_text(blocks[0])
    (theirs / "configuration.nix").write_text(blocks[1])
    toplevel = "nixosConfigurations.vps.config.system.build.toplevel.name"
    done = nix(
        flake,
        *("eval", f"path:{theirs}#{toplevel}", "--override-input", "headwater", f"path:{flake}"),
    )
    assert done.stdout.strip() == '"toplevel"', done.stderr


def test_the_hash_of_the_wheels_is_of_the_locked_ones() -> None:
    known = json.loads(wheels.PLACE.read_text())
    said = "after `make lock`, with the tools of a release: python -m tests.nix.wheels"
    assert known["requirements"] == wheels.requirements_digest(), said
