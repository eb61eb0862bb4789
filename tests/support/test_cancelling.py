"""The harness finds what is not given back, and passes what is."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.cancelling import Interruption, at_every_await


class Counted:
    """Something that is counted while it waits three times."""

    def __init__(self) -> None:
        self.count = 0

    async def carelessly(self) -> None:
        self.count += 1
        for _ in range(3):
            await asyncio.sleep(0)
        self.count -= 1

    async def with_care(self) -> None:
        self.count += 1
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            self.count -= 1

    async def trial(self, interruption: Interruption, how: str) -> None:
        task = asyncio.create_task(interruption(getattr(self, how)()))
        interruption.act = task.cancel
        await asyncio.gather(task, return_exceptions=True)
        assert self.count == 0


async def test_every_await_has_its_turn() -> None:
    one = Counted()
    assert await at_every_await(lambda i: one.trial(i, "with_care")) == 2 * 5


async def test_what_is_not_given_back_is_found_with_its_place() -> None:
    with pytest.raises(AssertionError) as caught:
        await at_every_await(lambda i: Counted().trial(i, "carelessly"))
    assert caught.value.__notes__ == ["interrupted at await 1, while it waits"]


async def test_a_coroutine_that_was_never_awaited_is_found() -> None:
    async def inner() -> None: ...

    async def trial(interruption: Interruption) -> None:
        async def outer() -> None:
            await work

        work = inner()
        task = asyncio.create_task(interruption(outer()))
        interruption.act = task.cancel
        await asyncio.gather(task, return_exceptions=True)

    with pytest.raises(AssertionError, match="inner' was never awaited"):
        await at_every_await(trial)
