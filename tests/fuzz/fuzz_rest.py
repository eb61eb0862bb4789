"""Bodies, paths and queries of the API: any answer but a failure of the server."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from appliance.api import app
from appliance.api.door import Door
from appliance.api.routes import MAX_BODY_BYTES
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.policy import PolicyKeeper, PolicySource
from appliance.records import AuditEntry, NodeID, TailnetID
from appliance.tailnet.snapshot import Rows, Sequences
from tests.fuzz.harness import main, mutate
from tests.support.builder import build
from tests.support.clock import NOON, fixed_rng
from tests.support.waitinglogins import logins_of

CALLS = 20
ROUTES = [
    "/api/v1/node", "/api/v1/node/{}", "/api/v1/node/{}/expire", "/api/v1/node/{}/rename/{}",
    "/api/v1/node/{}/tags", "/api/v1/node/{}/approve_routes", "/api/v1/user", "/api/v1/user/{}",
    "/api/v1/user/{}/rename/{}", "/api/v1/preauthkey", "/api/v1/preauthkey/expire", "/health",
    "/api/v1/user/{}/role", "/api/v1/policy", "/api/v1/policy/check", "/api/v1/policy/test",
    "/api/v1/policy/diff", "/api/v1/policy/explain", "/api/v1/policy/dump",
    "/api/v1/policy/status", "/api/v1/ssh/check", "/api/v1/ssh/check/{}/approve", "/api/v1/auth/approve",
    "/version", "/metrics", "/verify", "/{}",
    "/api/v1/node/1/attributes", "/api/v1/node/{}/attributes", "/api/v1/node/2/attributes/{}",
    "/api/v1/node/{}/user", "/api/v1/node/1/user", "/api/v1/node/1/expire",
    "/api/v1/node/backfillips", "/api/v1/device-attributes", "/api/v1/openapi.json", "/api/v1/docs",
    "/api/v1/audit",
]  # fmt: skip
VALUES: list[object] = [
    None, 0, 1, 2, -1, 2**63, 1e400, True, "", "1", "2", "alice", "x" * 300, "\0", "a\0b", "\u202e",
    "2030-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z", "tag:web", "Ä", [],
    "{}", '{"acls":[]}', '{"acls":[{"action":"accept","src":["*"],"dst":["tag:a:22"]}]}', "owner",
    "100.64.0.1", "[fd7a:115c:a1e0::1]:22", "alice:*", "tag:web:443", "autogroup:self", "tcp",
    ["tag:a"], [1], ["10.0.0.0/8"], ["10.0.0.1/8", "x"], {}, "9" * 5000, "-0", " 1",
    "custom:level", "custom:Level", "node:os", "ip:country", 10**400, 2.5,
]  # fmt: skip
FIELDS = [
    "user", "name", "displayName", "email", "pictureUrl", "reusable", "ephemeral", "expiration",
    "expiry", "aclTags", "id", "tags", "routes", "NodePublic", "disableExpiry", "policy",
    "against", "src", "dst", "protocol", "role", "x", "value", "comment", "disable_expiry",
    "acl_tags", "display_name", "picture_url", "key", "nodes", "plan", "confirmed", "authId",
    "act", "by", "kind", "target", "since", "before", "limit",
]  # fmt: skip
NO_POLICY_YET = ("GET", "/api/v1/policy")
"""Headscale answers this with a 500, and so consoles know what it means."""


class Nowhere:
    """A database that takes everything and keeps nothing."""

    async def write(self, tailnet: TailnetID, batch: Sequence[Rows]) -> None:
        pass

    def note_last_seen(self, seen: Sequence[tuple[NodeID, datetime]]) -> None:
        pass

    def note_audit(self, tailnet: TailnetID, entries: Sequence[AuditEntry]) -> None:
        pass


def body(data: bytes) -> StreamReader:
    """Give what aiohttp reads a body from."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(BaseProtocol(loop), 1 << 20, loop=loop)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def no_trouble() -> str:
    return ""


async def nothing(_tailnet: TailnetID, /, **_asked: object) -> list[tuple[int, AuditEntry]]:
    return []


def call(rng: random.Random, site: web.Application) -> web.Request:
    """Make up one request."""
    part = quote(str(rng.choice(VALUES)), safe="")
    path = rng.choice(ROUTES).replace("{}", part or "1")
    if rng.random() < 0.3:
        path += f"?{rng.choice(('tailnet', 'user', 'id', 'name', *FIELDS))}={part}"
        if rng.random() < 0.5:
            path += f"&{rng.choice(FIELDS)}={quote(str(rng.choice(VALUES)), safe='')}"
    said = {rng.choice(FIELDS): rng.choice(VALUES) for _ in range(rng.randint(0, 5))}
    data = json.dumps(said).encode()
    data = mutate(rng, data) if rng.random() < 0.3 else data
    return make_mocked_request(
        rng.choice(("GET", "POST", "PUT", "DELETE", "PATCH")),
        path,
        app=site,
        payload=body(data),
        client_max_size=MAX_BODY_BYTES,
    )


async def attack(rng: random.Random, live: LiveTailnet) -> None:
    """Ask a tailnet, which is running, some things."""
    policies = {live.id: PolicyKeeper(live, PolicySource())}
    tailnets = LiveTailnets([live])
    door = Door(
        tailnets,
        policies,
        no_trouble,
        rng.randbytes,
        fixed_rng(),
        lambda: b"metrics",
        SSHChecks(rng.randbytes),
        nothing,
        logins_of(tailnets),
        "https://control.example",
    )
    site = app.build(door)
    site.freeze()
    for _ in range(CALLS):
        request = call(rng, site)
        try:
            answer = await site._handle(request)
        except web.HTTPException as refusal:
            answer = refusal
        if (request.method, request.path) != NO_POLICY_YET:
            assert answer.status < 500, (request.method, request.path_qs)


async def attack_small_one(rng: random.Random) -> None:
    """Ask a small tailnet without a database."""
    ids = Sequences(node=10, user=10, auth_key=10)
    live = LiveTailnet(build("alice: laptop* phone; tag:web: srv"), Nowhere(), ids, clock=noon)
    running = asyncio.create_task(live.run())
    try:
        await attack(rng, live)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def noon() -> datetime:
    return NOON


def case(rng: random.Random) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(attack_small_one(rng))


if __name__ == "__main__":
    main(case)
