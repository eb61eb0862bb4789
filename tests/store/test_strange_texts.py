"""What strangers and API clients write, down to the database: NUL bytes, control characters, much of it.

SQLite takes nearly everything, PostgreSQL no NUL; whatever the doors let in, both must take.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from appliance.errors import Rejected
from appliance.identity.principals import LOCAL
from appliance.live import LiveTailnet
from appliance.live.policy import PolicyKeeper, PolicySource
from appliance.store.store import Database
from appliance.tailnet import keys
from appliance.tailnet.snapshot import Snapshot
from tests.fuzz import fuzz_registration, fuzz_rest
from tests.store.test_roundtrip import assert_same
from tests.support import builder
from tests.support.clock import NOON

SEEDS = range(30)


@pytest.fixture
async def live(database: Database) -> AsyncIterator[LiveTailnet]:
    """A running tailnet with three nodes over a real database."""
    _, ids = await database.load()
    tailnet = await database.create_tailnet(ids, name="t", domain="t.example", created_at=NOON)
    live = LiveTailnet(Snapshot(tailnet), database, ids, clock=lambda: NOON)
    running = asyncio.create_task(live.run())
    async with live.edit(by=LOCAL, act="test.change") as edit:
        builder.extend(edit, "alice: laptop phone; tag:web: srv")
    yield live
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_policy_that_is_taken_can_be_stored(database: Database, live: LiveTailnet) -> None:
    keeper = PolicyKeeper(live, PolicySource())
    for n in range(0x100):
        with suppress(Rejected):
            await keeper.replace(f"{{}} // {n} {chr(n)} \U0001f600", LOCAL)
    for text in ("{} // \ud83d", "{} // \x85\u2028\ufffe\U0010ffff"):
        with suppress(Rejected):
            await keeper.replace(text, LOCAL)
    loaded, _ = await database.load()
    assert loaded[0].policy_text == live.snapshot.policy_text is not None


async def test_strangers_are_stored_as_they_are_known(
    database: Database, live: LiveTailnet
) -> None:
    for seed in SEEDS:
        rng = random.Random(seed)
        async with live.edit(by=LOCAL, act="test.change") as edit:
            _key, text = keys.create_auth_key(
                edit,
                user_id=next(iter(edit.users)),
                reusable=True,
                now=NOON,
                random_bytes=rng.randbytes,
            )
        with suppress(Rejected):
            async with live.edit(by=LOCAL, act="test.change") as edit:
                fuzz_registration.register(rng, edit, text)
        with suppress(Rejected):
            async with live.edit(by=LOCAL, act="test.change") as edit:
                fuzz_registration.check_in(rng, edit)
    await assert_stored(database, live)


async def test_callers_of_the_api_are_stored_or_refused(
    database: Database, live: LiveTailnet
) -> None:
    for seed in SEEDS:
        await fuzz_rest.attack(random.Random(seed), live)
    await assert_stored(database, live)


async def assert_stored(database: Database, live: LiveTailnet) -> None:
    (loaded,), _ = await database.load()
    assert_same(loaded, live.snapshot)
