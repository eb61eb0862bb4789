"""Docker's own reader, the library that `docker compose config` is made of, takes the examples."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.images.test_compose import each_example
from tests.interop import build

pytestmark = [pytest.mark.interop]

FOLDER = Path(__file__).parent / "compose"


@pytest.fixture(scope="module")
def reader() -> Path:
    try:
        return build.program("compose", FOLDER)
    except build.Unavailable as reason:
        pytest.skip(f"DOCKER'S READER IS NOT HERE: {reason}")


def read(reader: Path, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [reader, file.name],
        cwd=file.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@each_example
def test_docker_takes_the_example(reader: Path, folder: Path) -> None:
    done = read(reader, folder / "compose.yaml")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    service: dict[str, Any] = json.loads(done.stdout)["services"]["headwater"]
    assert service["read_only"] is True
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] == "30s"
    assert [each["type"] for each in service["volumes"]] == ["bind", "volume"]
    # A file that is missing is not made a folder: the site file is in one that is there.
    assert service["volumes"][0]["source"] == str(folder / "headwater")
    assert {each["target"] for each in service["ports"]} >= {3478}


def test_docker_refuses_a_word_that_it_does_not_know(reader: Path, tmp_path: Path) -> None:
    """Or the test above could not fail."""
    file = tmp_path / "compose.yaml"
    file.write_text("services: {headwater: {image: x, read_onli: true}}\n")
    done = read(reader, file)
    assert done.returncode == 1
    assert "read_onli" in done.stderr
