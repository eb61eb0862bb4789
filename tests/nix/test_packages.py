"""The package, the container image and the formatter of the flake, as far as they can be evaluated."""

from __future__ import annotations

import json
import tomllib
from typing import Any, cast

import pytest

from appliance.deploy import facts
from tests.nix.evaluation import HERE, ROOT, EvaluationError, evaluate, needs_nix

pytestmark = needs_nix

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def made(*, release: str = "26.11", **arguments: str) -> dict[str, Any]:
    return cast("dict[str, Any]", evaluate(HERE / "packages.nix", release=release, **arguments))


def test_the_package_has_what_pyproject_asks_for() -> None:
    found = made()
    assert found["version"] == PROJECT["version"]
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["postgresql"]]
    assert len(found["dependencies"]) == len(asked)
    for requirement, name in zip(asked, found["dependencies"], strict=True):
        assert requirement.startswith(name)


def test_a_nixpkgs_that_is_too_old_is_refused_by_name() -> None:
    """While it is evaluated: before hours of building, and with what to do."""
    old = {"aiohttp": "3.13.5", "psycopg": "3.1.9", "alembic": "1.13", "msgspec": "0.21.1"}
    with pytest.raises(EvaluationError) as raised:
        made(versions=json.dumps(old), release="26.05")
    said = str(raised.value)
    assert "aiohttp 3.13.5 (3.14 or newer), psycopg 3.1.9 (3.2 or newer) in nixpkgs 26.05" in said
    assert "NixOS 26.11" in said
    assert "alembic" not in said
    assert "msgspec" not in said


def test_every_requirement_says_how_new_it_must_be_in_a_way_that_nix_reads() -> None:
    """Each too old by itself is found, so none slips through for how it is written."""
    for requirement in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["postgresql"]]:
        name = requirement.partition(">=")[0].partition("[")[0]
        with pytest.raises(EvaluationError, match=f"found {name} 0.0.1 "):
            made(versions=json.dumps({name: "0.0.1"}))


def test_the_image_says_of_itself_what_the_facts_say() -> None:
    """So that it takes the place of the one that deploy/Containerfile makes, which is tested too."""
    config = made()["image"]["config"]
    for key, value in facts.IMAGE.items():
        if key != "Env":
            assert config[key] == value, key
    environment = facts.IMAGE["Env"]
    assert isinstance(environment, list)
    assert config["Env"][: len(environment)] == environment
    assert "PATH=/bin" in config["Env"]
    assert any(each.startswith("SSL_CERT_FILE=/nix/store/") for each in config["Env"])
    assert config["Labels"]["org.opencontainers.image.version"] == PROJECT["version"]
    # Nothing that a reader of the facts does not know of.
    assert set(config) == {*facts.IMAGE, "Labels"}


def test_the_image_has_its_user_and_its_places_and_no_tools() -> None:
    image = made()["image"]
    assert image["name"] == "headwater"
    assert image["tag"] == PROJECT["version"]
    assert image["contents"] == ["headwater", "cacert", "passwd", "group"]
    number = str(facts.IMAGE_UID)
    assert image["files"]["etc/passwd"].split(":")[:4] == ["headwater", "x", number, number]
    assert image["files"]["etc/group"] == f"headwater:x:{number}:\n"
    commands = image["fakeRootCommands"].splitlines()
    assert commands == [
        f"install -d -o {number} -g {number} -m 0700 ./var/lib/headwater",
        f"install -d -o {number} -g {number} -m 0755 ./run/headwater",
        "install -d -m 0755 ./etc/headwater",
        "install -d -m 1777 ./tmp",
    ]


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("24.11", "nixfmt-rfc-style"),
        ("25.05", "nixfmt-rfc-style"),
        ("25.11", "nixfmt"),
        ("26.11", "nixfmt"),
    ],
)
def test_the_formatter_has_the_name_of_its_release(release: str, name: str) -> None:
    assert made(release=release)["formatter"] == name
