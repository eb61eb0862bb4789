"""The relay as a whole, on an event loop: who is let in, who is still there, what time it is.

Makes logins out of HTTP requests and links out of logins, asks for admission, sends keep-alives and
ends what is late. Not for packets (``link``, ``scan``, ``server``). ``front`` mounts ``route``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from appliance.front.stream import Sink, Stream, WebSocketStream
from appliance.ratelimit import TokenBucket
from appliance.relay.counters import Refusal, RelayCounters
from appliance.relay.link import RelayLink
from appliance.relay.login import Login
from appliance.relay.server import Link, RelayServer
from appliance.relay.upgrade import check_upgrade
from appliance.repeats import Repeats
from appliance.wire import derp
from appliance.wire.derp import NONCE_BYTES, ClientInfo
from appliance.wire.http1 import Answer, Head
from appliance.wire.keys import MeshKey, NodeKey, PrivateKey

log = logging.getLogger(__name__)

Admit = Callable[[NodeKey, str], bool | Awaitable[bool | None] | None]
"""Whether a node may use the relay: its key, and its address as text (empty if not known). None means
that nobody could be asked: then a stranger does not come in, and who is there stays."""

# -- of the protocol --

KEEP_ALIVE_S = 60
"""Clients give up after twice this without a frame. Source: derp/derp.go KeepAlive."""

# -- our own limits --

LOGIN_TIMEOUT_S = 10.0
"""From the upgrade until the client is admitted; official relays grant the same."""

MAX_LOGINS = 4096
"""Unfinished logins; a reconnect storm of thousands of nodes fits."""

MAX_CLIENTS = 50_000
"""Logged-in connections: more would run into the limit of open files."""

RECHECK_ROUNDS = 5
"""Admission is asked again every so many keep-alives, should nobody have told of a removal."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """The bounds of one relay; the defaults are right outside of tests."""

    bytes_per_second: int = 0
    """What one client may send; 0 means no limit."""
    burst_bytes: int = 0
    """What it may send at once above the rate; at least one largest frame."""
    login_timeout_s: float = LOGIN_TIMEOUT_S
    max_logins: int = MAX_LOGINS
    max_clients: int = MAX_CLIENTS


class RelayDoor:
    """One relay: its key, its server, its logins and its clock."""

    def __init__(
        self,
        private: PrivateKey,
        *,
        admit: Admit | None = None,
        mesh_key: MeshKey | None = None,
        limits: RelayLimits | None = None,
        server: RelayServer | None = None,
    ) -> None:
        self.private = private
        self.greeting = derp.encode_server_key(private.public_raw)
        self.server = server or RelayServer()
        self._admit = admit
        self._mesh_key = mesh_key
        self._limits = limits or RelayLimits()
        self._logins: dict[Login, float] = {}  # with their deadlines, in order
        self._wheel: list[set[RelayLink]] = [set() for _ in range(KEEP_ALIVE_S)]
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._asking: set[asyncio.Future[bool | None]] = set()
        self._asked_for: dict[Login, asyncio.Future[bool | None]] = {}
        self._refusals = Repeats()
        self._closed = False

    @property
    def counters(self) -> RelayCounters:
        """What happened so far."""
        return self.server.counters

    @property
    def public_key(self) -> NodeKey:
        """The relay's own key."""
        return NodeKey(self.private.public_raw)

    @property
    def unfinished_logins(self) -> int:
        """How many connections have not proved who they are."""
        return len(self._logins)

    def start(self) -> None:
        """Let time pass for the relay; needs a running event loop."""
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._tick)

    def close(self) -> None:
        """End every login and link; the relay takes no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for asking in list(self._asking):
            asking.cancel()
        for login in list(self._logins):
            login.refuse(Refusal.LATE)
        for link in list(self.server.links()):
            link.close(Refusal.REVOKED)

    def route(self, head: Head, _stream: Stream) -> Sink | Answer:
        """Take a request for ``/derp`` (``front.dispatch.Route``)."""
        if self._closed or self.counters.clients >= self._limits.max_clients:
            self.counters.refused[Refusal.CROWDED] += 1
            return Answer(503, b"the relay is full\n", close=True)
        upgrade = check_upgrade(head, self.private.public_raw)
        if isinstance(upgrade, Answer):
            return upgrade
        self.counters.fast_starts += upgrade.fast_start
        if not upgrade.in_websocket:
            return Login(self, upgrade.answer, not_ideal=upgrade.not_ideal)
        self.counters.websockets += 1
        login = Login(self, b"", not_ideal=upgrade.not_ideal)
        return WebSocketStream(login, upgrade.answer)

    # -- for the logins (``login.Doorkeeper``) --

    def began(self, login: Login) -> bool:
        """Count an unfinished login; when there are too many the oldest makes room, for a true one
        needs a round trip."""
        self.start()
        if self._closed:
            return False
        if len(self._logins) >= self._limits.max_logins:
            next(iter(self._logins)).refuse(Refusal.CROWDED)
        loop = asyncio.get_running_loop()
        self._logins[login] = loop.time() + self._limits.login_timeout_s
        return True

    def over(self, login: Login, refusal: Refusal | None) -> None:
        """Count the end of a login; what is still asked about it is withdrawn."""
        self._logins.pop(login, None)
        asking = self._asked_for.pop(login, None)
        if asking is not None:
            asking.cancel()
        if refusal is not None:
            self.counters.refused[refusal] += 1

    def ask(self, login: Login, key: NodeKey, info: ClientInfo) -> None:
        """Decide whether the client may come: relays of the region always, nodes by ``admit``."""
        if self._admit is None or self._is_trusted(info):
            login.admitted(admit=True)
            return
        answer = self._admit(key, login.source)
        if isinstance(answer, Awaitable):
            self._asked_for[login] = self._later(answer, lambda admit: login.admitted(admit=admit))
        else:
            login.admitted(admit=answer)

    def repeated(self, key: NodeKey, reason: str) -> int | None:
        """Count that this key was not admitted. A deleted node tries every two seconds, for days."""
        return self._refusals.note((key, reason), asyncio.get_running_loop().time())

    def make_link(self, key: NodeKey, info: ClientInfo, login: Login) -> RelayLink:
        """Make the link of an admitted client and put it on the wheel."""
        trusted = self._is_trusted(info)
        limit = None
        if self._limits.bytes_per_second and not trusted:
            now = asyncio.get_running_loop().time()
            burst = max(self._limits.burst_bytes, derp.MAX_SEND_BYTES)
            limit = TokenBucket(burst, self._limits.bytes_per_second, now)
        link = RelayLink(
            self.server,
            key.raw,
            info,
            own_key=self.private.public_raw,
            trusted=trusted,
            not_ideal=login.not_ideal,
            limit=limit,
        )
        # Spread over the wheel, so that keep-alives do not come in one burst.
        slot = random.randrange(KEEP_ALIVE_S)  # noqa: S311  # nobody gains by guessing it
        link.slot = self._wheel[slot]
        link.slot.add(link)
        return link

    def nonce(self) -> bytes:
        """Give 24 fresh random bytes."""
        return os.urandom(NONCE_BYTES)

    # -- inside --

    def _is_trusted(self, info: ClientInfo) -> bool:
        ours, theirs = self._mesh_key, info.mesh_key
        return ours is not None and theirs is not None and ours.matches(theirs)

    def _tick(self) -> None:
        """Once a second: late logins, keep-alives of one slot, tokens."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(1.0, self._tick)
        self._ticks += 1
        now = loop.time()
        for login, deadline in list(self._logins.items()):
            if deadline > now:
                break
            login.refuse(Refusal.LATE)
        self.server.refill()
        slot = self._wheel[self._ticks % KEEP_ALIVE_S]
        recheck = self._ticks // KEEP_ALIVE_S % RECHECK_ROUNDS == RECHECK_ROUNDS - 1
        for link in list(slot):
            if not link.congested:
                self.counters.keep_alives += 1
                link.write(_KEEP_ALIVE)
            if recheck and not link.trusted:
                self.check_again(link)

    def check_again(self, link: Link) -> None:
        """Ask again whether a connected client may stay."""
        if self._admit is None:
            return
        answer = self._admit(NodeKey(link.key), str(link.presence().address))
        if isinstance(answer, Awaitable):
            self._later(answer, lambda admit: _recheck(link, admit))
        else:
            _recheck(link, answer)

    def _later(
        self, answer: Awaitable[bool | None], decide: Callable[[bool | None], None]
    ) -> asyncio.Future[bool | None]:
        """Call ``decide`` with the answer once it is there; None says that asking failed.

        The answer's own coroutine is the task: one around it, cancelled before its first step,
        would leave it behind, never awaited.
        """
        asking = asyncio.ensure_future(answer)
        self._asking.add(asking)

        def answered(asking: asyncio.Future[bool | None]) -> None:
            self._asking.discard(asking)
            if asking.cancelled():
                return
            error = asking.exception()
            if error is not None:
                log.error("admission failed", exc_info=error)
            decide(asking.result() if error is None else None)

        asking.add_done_callback(answered)
        return asking


_KEEP_ALIVE = derp.encode_frame(derp.FrameType.KEEP_ALIVE)


def _recheck(link: Link, admit: bool | None) -> None:
    """Close a client that is refused now; one that could not be asked about stays."""
    if admit is False:
        log.info(
            "relay client closed: it is not admitted any more",
            extra={"node": NodeKey(link.key).short, "remote": str(link.presence().address)},
        )
        link.close(Refusal.REVOKED)
