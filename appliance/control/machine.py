"""What nodes ask inside Noise: paths to handlers, and the check that a node is who it says.

Not for transport (``link``) nor rules (``tailnet``). A newcomer's first page of the nodes' door.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from random import Random

from appliance.control import calls, register, sshcheck
from appliance.control.exchange import TEXT, Answering, Exchange
from appliance.control.gone import GonePolls
from appliance.control.mapsession import MapSessions
from appliance.control.sshcheck import SSHActions
from appliance.control.valve import MAP_OBEYS, MOST_WAITING, REGISTER_OBEYS, Valve
from appliance.errors import Rejected
from appliance.identity.principals import Principal, PrincipalKind
from appliance.identity.sshchecks import SSHChecks
from appliance.live import CommitFailed, LiveTailnet, LiveTailnets
from appliance.live.logins import LiveLogins
from appliance.netmap.encoded import Encoder
from appliance.records import Node, TailnetID
from appliance.tailnet import checkin
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.tailcfg import capver

log = logging.getLogger(__name__)


class MachineDoor:
    """The application behind the nodes' door. ``handle`` is what a link calls for each request."""

    def __init__(
        self,
        tailnets: LiveTailnets,
        sessions: Mapping[TailnetID, MapSessions],
        encoders: Mapping[TailnetID, Encoder],
        ssh_checks: SSHChecks,
        logins: LiveLogins,
        *,
        rng: Random,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._tailnets = tailnets
        self._sessions = sessions
        self._encoders = encoders
        self._turn = asyncio.Lock()
        self._gone = GonePolls()
        self.registering = Valve(REGISTER_OBEYS, jitter=rng.random, most=most_waiting)
        self.opening = Valve(MAP_OBEYS, jitter=rng.random, most=most_waiting)
        self._registrations = register.Registrations(tailnets, logins, rng)
        self.pings = calls.Pings()
        self._ssh = SSHActions(tailnets, ssh_checks)
        self._routes: dict[str, Callable[[Exchange], Answering | None]] = {
            "/machine/register": self._register,
            "/machine/map": self._map,
            "/machine/whoami": self._whoami,
            "/machine/update-health": _accept,
        }

    def handle(self, exchange: Exchange) -> Answering | None:
        """Route one request; an unknown or later feature is refused in words, never left open."""
        route = self._routes.get(exchange.path)
        if route is not None:
            return route(exchange)
        if exchange.path.startswith(calls.PING_PATH):
            self.pings.answered(exchange)
            return None
        if exchange.path.startswith(sshcheck.PREFIX):
            return self._ssh.answer(exchange)
        calls.refuse(exchange)
        return None

    def _register(self, exchange: Exchange) -> Answering | None:
        if exchange.method != "POST":
            _wrong_method(exchange)
            return None
        return self._register_in_turn(exchange)

    async def _register_in_turn(self, exchange: Exchange) -> None:
        while not self.registering.defers(exchange):
            with self.registering.turn():
                waiting = await self._registrations.answer(exchange)
            if waiting is None:
                break
            # Not counted as under way: nothing is done for it until somebody decides.
            await self._registrations.held(exchange, waiting)
            if exchange.answered:
                break
        if self._tailnets.find_machine(exchange.machine_key) is not None:
            self._gone.end(exchange.machine_key)

    def _whoami(self, exchange: Exchange) -> None:
        exchange.respond(200, str(exchange.machine_key).encode(), content_type=TEXT)

    def _map(self, exchange: Exchange) -> Answering | None:
        if exchange.method != "POST":
            _wrong_method(exchange)
            return None
        try:
            request = tailcfg.decode_map_request(exchange.body)
        except ProtocolError as error:
            exchange.respond(400, f"bad map request: {error}".encode(), content_type=TEXT)
            return None
        if request.version < capver.OLDEST_SUPPORTED:
            text = f"client too old: update it to release {capver.first_release(capver.OLDEST_SUPPORTED)}"
            exchange.respond(400, text.encode(), content_type=TEXT)
            return None
        found = self._tailnets.find_node(request.node_key)
        if found is None or found[1].machine_key != exchange.machine_key:
            # The same answer for both, so that node keys cannot be probed.
            self._refuse(exchange, request)
            return None
        exchange.vouch()
        live, node = found
        if request.stream:
            return self._poll(exchange, live, node, request)
        return self._check_in(exchange, live, node, request)

    def _refuse(self, exchange: Exchange, request: tailcfg.MapRequest) -> None:
        has_node = self._tailnets.find_machine(exchange.machine_key) is not None
        self._gone.answer(exchange, request, has_node=has_node)

    async def _poll(
        self, exchange: Exchange, live: LiveTailnet, node: Node, request: tailcfg.MapRequest
    ) -> None:
        if self.opening.defers(exchange):
            return
        with self.opening.turn():
            if not await self._sessions[live.id].open(exchange, node.id, request):
                self._refuse(exchange, request)

    async def _check_in(
        self, exchange: Exchange, live: LiveTailnet, node: Node, request: tailcfg.MapRequest
    ) -> None:
        """Take over what the node says of itself; then, if it wants, tell it everything once."""
        if not request.read_only and not await self._take_in(exchange, live, node, request):
            return
        if request.omit_peers and not request.read_only:
            exchange.respond(200)
            return
        async with self._turn:
            await asyncio.sleep(0)  # a hundred of these at once must not hold everybody up
        snapshot = live.snapshot
        if snapshot.by_node_key.get(request.node_key) != node.id:
            self._refuse(exchange, request)
            return
        out = exchange.open_stream(200)
        zstd = request.compress == "zstd"
        encoder, now = self._encoders[live.id], live.clock()
        out.write(encoder.full(snapshot, node.id, request.version, zstd=zstd, now=now))
        out.close()

    async def _take_in(
        self, exchange: Exchange, live: LiveTailnet, node: Node, request: tailcfg.MapRequest
    ) -> bool:
        """Write down what a node says of itself; False if it was refused and told so."""
        try:
            by = Principal(PrincipalKind.NODE, node.name)
            async with live.edit(by=by, act="node.check-in") as edit:
                # Looked up again: meanwhile the key may have been rotated, or the node deleted.
                is_known = edit.by_node_key.get(request.node_key) == node.id
                if is_known and not exchange.closed:
                    checkin.check_in(edit, node.id, request)
        except Rejected as refusal:
            exchange.respond(400, refusal.sentence.encode(), content_type=TEXT)
            return False
        except CommitFailed:
            exchange.respond(503, b"could not be stored; try again", content_type=TEXT)
            return False
        if not is_known:
            self._refuse(exchange, request)
        return is_known


def _wrong_method(exchange: Exchange) -> None:
    exchange.respond(405, b"POST is the only method here", content_type=TEXT)


def _accept(exchange: Exchange) -> None:
    exchange.respond(204)
