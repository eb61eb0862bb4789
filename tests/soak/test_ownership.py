"""The short form of the rounds over who owns the database; ``python -m tests.soak.ownership`` is the long one."""

from __future__ import annotations

import pytest

from tests.soak import ownership
from tests.store.conftest import POSTGRES_BINARIES


@pytest.mark.parametrize("event", ["cut", "second", "lost answer", "file"])
async def test_nothing_acknowledged_is_missing_afterwards(event: str) -> None:
    """B15: one round of each; nobody says well and refuses, no row is another's."""
    if not POSTGRES_BINARIES:
        pytest.skip("NO POSTGRESQL: apt-get install postgresql")
    assert await ownership.play(1, seed=1, only=event) == 0
