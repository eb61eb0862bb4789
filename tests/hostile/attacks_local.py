"""At the local socket: whoever may open it may do everything, but must not break it for others."""

from __future__ import annotations

import asyncio

from tests.fuzz.harness import mutate
from tests.hostile.attacks import Battle, attack
from tests.hostile.raw import Line, request

PATHS = (
    "/api/v1/node",
    "/api/v1/user",
    "/api/v1/preauthkey",
    "/health",
    "/metrics",
    "/api/v1/nothing",
)


@attack("process_cpu_seconds_total")
async def garbage_on_the_socket(battle: Battle) -> None:
    """Send garbage, wrong bodies, endless heads, absurd ids; and hold connections."""
    rng = battle.rng
    bodies = (
        b"[" * 50_000,
        b'{"name":"' + b"\\u0000" * 100 + b'"}',
        b'{"user":99999999999999999999999}',
        b'{"expiration":"9999-12-31T23:59:59-23:59","user":"1"}',
        b'{"aclTags":' + b"[[[[" * 100 + b"}",
        b'{"name":"' + b"x" * 100_000 + b'"}',
        b"\xff\xfe\x00",
    )

    async def one() -> None:
        line = Line(*await asyncio.open_unix_connection(battle.target.socket))
        for _ in range(20):
            path = rng.choice(PATHS) + rng.choice(
                ("", "/77777", "/-1", "/%00", "/" + "9" * 400, "?tailnet=%ff")
            )
            body = rng.choice(bodies)
            method = rng.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "BREW"))
            fields = [f"Content-Length: {len(body)}", "Content-Type: application/json"]
            data = request(method, path, *fields, body=body)
            if rng.random() < 0.3:
                data = mutate(rng, data)
            if not await line.press(data):
                break
            try:
                async with asyncio.timeout(1.0):
                    answer = await line.reader.read(1 << 16)
            except TimeoutError:
                battle.seen["no answer"] += 1
                break
            battle.seen[answer[9:12].decode("latin-1")] += 1
        line.close()

    await battle.again(4, one)
