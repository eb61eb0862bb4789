"""The nodes' door: routing, who may ask for what, and refusals that never hang."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from random import Random

import pytest

from appliance.control.calls import PING_PATH
from appliance.control.machine import MachineDoor
from appliance.control.mapsession import MapSessions
from appliance.errors import NotFound
from appliance.identity.principals import SYSTEM
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.netmap.encoded import Encoder
from appliance.records import NodeID, UserID
from appliance.tailnet import keys
from appliance.wire import tailcfg
from tests.control.recorder import Recorder
from tests.control.tailnets import T0, MemoryStore, machine_key, make_live, node_key
from tests.support.waitinglogins import logins_of


class Lab:
    def __init__(self, live: LiveTailnet) -> None:
        self.live = live
        encoder = Encoder()
        self.sessions = MapSessions(live, encoder, clock=lambda: 0.0, jitter=lambda: 0.0)
        self.door = MachineDoor(
            LiveTailnets([live]),
            {live.id: self.sessions},
            {live.id: encoder},
            SSHChecks(Random(2).randbytes),
            logins_of(LiveTailnets([live])),
            rng=Random(1),
        )

    async def ask(
        self, machine: int, path: str, body: bytes = b"{}", method: str = "POST"
    ) -> Recorder:
        recorder = Recorder(machine_key(machine))
        pending: Awaitable[None] | None = self.door.handle(recorder.request(path, body, method))
        if pending is not None:
            await pending
        return recorder

    async def new_key(self) -> str:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            _key, text = keys.create_auth_key(
                edit, user_id=UserID(1), now=T0, random_bytes=Random(7).randbytes
            )
        return text


@asynccontextmanager
async def running(nodes: int = 2) -> AsyncIterator[Lab]:
    lab = Lab(make_live(nodes))
    tasks = [asyncio.create_task(lab.live.run()), asyncio.create_task(lab.sessions.run())]
    try:
        yield lab
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def register_request(number: int, auth_key: str = "", version: int = 130) -> bytes:
    return tailcfg.encode(
        tailcfg.RegisterRequest(
            version=version,
            node_key=node_key(number),
            auth=tailcfg.RegisterResponseAuth(auth_key=auth_key) if auth_key else None,
            hostinfo=tailcfg.Hostinfo(hostname="Laptop"),
        )
    )


def map_request(number: int, **fields: object) -> bytes:
    request = tailcfg.MapRequest(version=130, node_key=node_key(number), **fields)  # type: ignore[arg-type]
    return tailcfg.encode(request)


async def test_register_with_a_key_makes_a_node() -> None:
    async with running() as lab:
        text = await lab.new_key()
        recorder = await lab.ask(50, "/machine/register", register_request(50, text))
        response = tailcfg.decode_register_response(recorder.body)
        assert recorder.status == 200
        assert response.error == ""
        assert response.machine_authorized
        assert recorder.vouched
        node = lab.live.snapshot.node_of(node_key(50))
        assert node is not None
        assert (node.name, node.machine_key) == ("laptop", machine_key(50))


async def test_register_with_a_wrong_key_says_what_to_do() -> None:
    async with running() as lab:
        for text in ("nonsense", "hskey-auth-abcdefghijkl-" + "x" * 64):
            recorder = await lab.ask(50, "/machine/register", register_request(50, text))
            response = tailcfg.decode_register_response(recorder.body)
            assert recorder.status == 200
            assert "key" in response.error
            assert not recorder.vouched
        assert len(lab.live.snapshot.nodes) == 2


async def test_register_of_a_client_too_old_is_told_so() -> None:
    async with running() as lab:
        recorder = await lab.ask(50, "/machine/register", register_request(50, version=40))
        assert "too old" in tailcfg.decode_register_response(recorder.body).error


async def test_register_that_cannot_be_stored_is_not_announced() -> None:
    async with running() as lab:
        text = await lab.new_key()
        store = lab.live._store
        assert isinstance(store, MemoryStore)
        store.failure = OSError("disk full")
        recorder = await lab.ask(50, "/machine/register", register_request(50, text))
        assert recorder.status == 503
        assert lab.live.snapshot.node_of(node_key(50)) is None
        store.failure = None
        recorder = await lab.ask(50, "/machine/register", register_request(50, text))
        assert tailcfg.decode_register_response(recorder.body).error == ""


@pytest.mark.parametrize("path", ["/machine/register", "/machine/map"])
async def test_garbage_is_a_bad_request(path: str) -> None:
    async with running() as lab:
        for body in (b"", b"{", b"[]", b"\xff" * 30, b"[" * 100_000):
            assert (await lab.ask(1, path, body)).status == 400
        assert (await lab.ask(1, path, method="GET")).status == 405


async def test_map_of_somebody_elses_node_is_not_found() -> None:
    async with running() as lab:
        assert (await lab.ask(2, "/machine/map", map_request(1))).status == 404
        assert (await lab.ask(1, "/machine/map", map_request(99))).status == 404


async def test_lite_update_is_stored_and_answered_empty() -> None:
    async with running() as lab:
        endpoint = tailcfg.AddrPort.parse("192.0.2.9:41641")
        body = map_request(1, omit_peers=True, endpoints=(endpoint,))
        recorder = await lab.ask(1, "/machine/map", body)
        assert (recorder.status, recorder.body) == (200, b"")
        assert recorder.vouched
        assert lab.live.snapshot.nodes[NodeID(1)].endpoints == (endpoint,)


async def test_one_shot_request_gets_one_whole_map() -> None:
    async with running() as lab:
        recorder = await lab.ask(1, "/machine/map", map_request(1, read_only=True))
        (message,) = recorder.messages()
        assert message.node is not None
        assert [peer.id for peer in message.peers or ()] == [2]
        assert not lab.live.snapshot.presence_of(NodeID(1)).online


async def test_streaming_request_does_not_overwrite_endpoints() -> None:
    async with running() as lab:
        endpoint = tailcfg.AddrPort.parse("192.0.2.9:41641")
        await lab.ask(1, "/machine/map", map_request(1, omit_peers=True, endpoints=(endpoint,)))
        recorder = await lab.ask(1, "/machine/map", map_request(1, stream=True))
        assert recorder.messages()[0].node is not None
        assert lab.live.snapshot.nodes[NodeID(1)].endpoints == (endpoint,)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/machine/set-dns", "POST", 501),
        ("/machine/id-token", "POST", 501),
        ("/machine/audit-log", "POST", 501),
        ("/machine/set-device-attr", "PATCH", 501),
        ("/machine/tka/bootstrap", "GET", 501),
        ("/machine/tka/sync/offer", "GET", 501),
        ("/machine/webclient/init/1/to/2", "POST", 501),
        ("/machine/feature/query", "POST", 200),
        ("/machine/ssh/event", "POST", 501),
        ("/machine/ssh/action/1/to/2", "GET", 400),
        ("/machine/update-health", "POST", 204),
        ("/machine/nonsense", "POST", 404),
        ("/", "GET", 404),
    ],
)
async def test_later_features_are_refused_in_words(path: str, method: str, status: int) -> None:
    async with running() as lab:
        recorder = await lab.ask(1, path, method=method)
        assert recorder.status == status
        assert recorder.body or status == 204


async def test_serve_and_funnel_are_answered_with_what_works() -> None:
    """Real clients, 8: serve over HTTP and TCP works, and the refusal says so."""
    async with running() as lab:
        answer = json.loads((await lab.ask(1, "/machine/feature/query", method="POST")).body)
        assert answer["Complete"] is False
        assert "--http=PORT" in answer["Text"]
        assert "--tcp=PORT" in answer["Text"]


async def test_ssh_action_rejects_instead_of_leaving_the_user_waiting() -> None:
    async with running() as lab:
        path = "/machine/ssh/action/1/to/2?local_user=root"
        recorder = await lab.ask(2, path, method="GET")
        assert recorder.status == 200
        assert json.loads(recorder.body)["reject"] is True
        assert (await lab.ask(1, path, method="GET")).status == 404


async def test_whoami_says_the_machine_key() -> None:
    async with running() as lab:
        assert (await lab.ask(1, "/machine/whoami", method="GET")).body == str(
            machine_key(1)
        ).encode()


async def test_ping_is_answered_by_the_same_machine_only() -> None:
    async with running() as lab:
        posted: list[tailcfg.MapResponse] = []

        def post(response: tailcfg.MapResponse) -> bool:
            posted.append(response)
            return True

        waiting = asyncio.create_task(lab.door.pings.ping(machine_key(1), post, "token"))
        await asyncio.sleep(0)
        ping = posted[0].ping_request
        assert ping is not None
        assert ping.url == f"https://unused{PING_PATH}token"
        assert (await lab.ask(2, PING_PATH + "token", b"", "HEAD")).status == 404
        assert (await lab.ask(1, PING_PATH + "other", b"", "HEAD")).status == 404
        assert (await lab.ask(1, PING_PATH + "token", b"", "HEAD")).status == 200
        assert await waiting is None


async def test_ping_of_a_node_without_a_session_says_so() -> None:
    async with running() as lab:
        with pytest.raises(NotFound, match="no open map session"):
            await lab.door.pings.ping(machine_key(1), lambda _response: False, "token")
