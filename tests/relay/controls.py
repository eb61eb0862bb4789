"""A control server that relays ask, with answers made beforehand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web


@contextlib.asynccontextmanager
async def control(answers: list[web.Response], path: Path | None = None) -> AsyncIterator[str]:
    """Run a control server that gives these answers, one a question; an exhausted one answers 502."""

    async def verify(request: web.Request) -> web.Response:
        assert set(await request.json()) == {"NodePublic", "Source"}
        return _anew(answers.pop(0)) if answers else web.Response(status=502, text="<html>")

    app = web.Application()
    app.router.add_post("/verify", verify)
    runner = web.AppRunner(app)
    await runner.setup()
    if path is not None:
        await web.UnixSite(runner, str(path)).start()
        yield "http://control/verify"
    else:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/verify"
    await runner.cleanup()


def _anew(answer: web.Response) -> web.Response:
    """Copy an answer: aiohttp sends each object once, and a test may run on several loops."""
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


def allow(value: object) -> web.Response:
    """Make an answer of the verify protocol."""
    return web.json_response({"Allow": value})
