"""One server and its bystanders for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.bystanders import Bystanders
from tests.hostile.victim import Victim, allow_open_files


@pytest.fixture(scope="session")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server that runs for the whole session."""
    allow_open_files()
    directory: Path = tmp_path_factory.mktemp("victim")
    server = Victim(directory)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def bystanders(victim: Victim) -> Iterator[Bystanders]:
    """Well-behaved clients of it."""
    crowd = Bystanders(victim.target)
    yield crowd
    crowd.leave()
