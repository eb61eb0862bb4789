"""``/machine/register``: find the tailnet that is meant, ask ``tailnet.enrolment``, answer.

Not for the rules of registration. A refusal is an answer with status 200 and an ``Error`` text:
that is what clients show to people. A machine that nothing speaks for is shown a link; when it follows
that up, its request is held until somebody has decided (``live.logins``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from random import Random

from appliance.control.exchange import TEXT, Exchange
from appliance.errors import Conflict, Invalid, Rejected
from appliance.front.source import source_of
from appliance.identity.principals import Principal, PrincipalKind
from appliance.live import CommitFailed, LiveTailnet, LiveTailnets
from appliance.live.logins import LiveLogins
from appliance.records import Node
from appliance.repeats import Repeats
from appliance.tailnet import enrolment
from appliance.tailnet.enrolment import KeyGrant, Pending, Registration
from appliance.tailnet.snapshot import Edit, Snapshot
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey
from appliance.wire.tailcfg import capver

log = logging.getLogger(__name__)

MOST_CHOICES = 4
"""How often a request may find that its tailnet is another one now; once is rare enough."""
MAX_HELD = 1024
"""Requests that are held for a decision: one for each login that waits, and a link below each."""


class Registrations:
    """Answers the register requests of one server's nodes; ``now`` is for telling repetitions."""

    def __init__(
        self,
        tailnets: LiveTailnets,
        logins: LiveLogins,
        rng: Random,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tailnets = tailnets
        self._logins = logins
        self._rng = rng
        self._now = now
        self._refusals = Repeats()

    async def answer(self, exchange: Exchange) -> Pending | None:
        """Answer one request, or give the login that it follows up and that nobody decided yet.

        Then it is to be held (``held``), and asked again.
        """
        try:
            request = tailcfg.decode_register_request(exchange.body)
        except ProtocolError as error:
            exchange.respond(400, f"bad register request: {error}".encode(), content_type=TEXT)
            return None
        try:
            result = await self._register(exchange, request)
        except Rejected as refusal:
            self._note_refusal(exchange.machine_key, refusal)
            response = tailcfg.RegisterResponse(error=refusal.sentence)
        except CommitFailed:
            exchange.respond(503, b"the change could not be stored; try again", content_type=TEXT)
            return None
        else:
            if isinstance(result, Pending):
                return result
            response = result.response
            if result.node is not None:
                exchange.vouch()
        exchange.respond(200, tailcfg.encode(response))
        return None

    async def held(self, exchange: Exchange, pending: Pending) -> None:
        """Wait until a login is decided or runs out.

        Where it cannot be waited for, the client is told the link that it knows: it comes again.
        """
        if self._logins.waiting < MAX_HELD and await self._logins.decided(pending):
            return
        exchange.respond(200, tailcfg.encode(tailcfg.RegisterResponse(auth_url=pending.url)))

    async def _register(
        self, exchange: Exchange, request: tailcfg.RegisterRequest
    ) -> Registration | Pending:
        machine = exchange.machine_key
        if request.version < capver.OLDEST_SUPPORTED:
            raise Invalid(
                "client-too-old",
                f"this client is too old (capability version {request.version}): "
                f"update it to release {capver.first_release(capver.OLDEST_SUPPORTED)} or newer",
            )
        grant = enrolment.key_grant(request.auth)
        by = Principal(PrincipalKind.NODE, machine.short)
        for _ in range(MOST_CHOICES):
            live = self._choose(machine, request, grant)
            async with live.edit(by=by, act="node.register") as edit:
                # Chosen again: while this waited for its turn, another may have brought the key.
                if self._choose(machine, request, grant) is live:
                    before = [edit.nodes[i] for i in edit.by_machine_key.get(machine, ())]
                    spoken = self._grant(exchange, edit, request, grant, live.clock())
                    if isinstance(spoken, Pending) and self._logins.is_followed(spoken, request):
                        return spoken
                    result = enrolment.register(
                        edit, machine, request, spoken, live.clock(), rng=self._rng
                    )
                    break
        else:
            raise Conflict(
                "tailnet-changes", "this device is being registered elsewhere; try again"
            )
        _tell(live.snapshot, _news(before, request, result, live.clock()), grant, by)
        return result

    def _grant(
        self,
        exchange: Exchange,
        edit: Edit,
        request: tailcfg.RegisterRequest,
        grant: KeyGrant,
        now: datetime,
    ) -> KeyGrant | Pending:
        """Give what speaks for a machine: its key, or nobody yet, and then a login that waits."""
        is_leaving = request.expiry is not None and request.expiry <= now
        is_known = edit.node_of(request.node_key) is not None
        if not grant.is_missing or is_leaving or is_known or request.node_key.is_zero:
            return grant
        peer = exchange.peer
        source, crowd = "" if peer is None else peer[0], source_of(peer) or ""
        return self._logins.ask(exchange.machine_key, request, source, crowd)

    def _choose(
        self, machine: MachineKey, request: tailcfg.RegisterRequest, grant: KeyGrant
    ) -> LiveTailnet:
        """Choose the tailnet: the node key's, else the auth key's, the machine's, the first.

        Drafts count, or one node key could come to stand in two tailnets, and only one would be
        found.
        """
        for live in self._tailnets:
            if request.node_key in live.drafted.by_node_key:
                return live
        for live in self._tailnets:
            if grant.prefix in live.drafted.by_key_prefix:
                return live
        for live in self._tailnets:
            if request.old_node_key in live.drafted.by_node_key:
                return live
        for live in self._tailnets:
            if machine in live.drafted.by_machine_key:
                return live
        return self._tailnets.default

    def _note_refusal(self, machine: MachineKey, refusal: Rejected) -> None:
        """Write a refusal once: a client that is not let in asks every half minute, for days."""
        repeated = self._refusals.note((machine, refusal.code), self._now())
        if repeated is not None:
            log.info(
                "registration refused",
                extra={
                    "machine_key": machine.short,
                    "reason": refusal.code,
                    "repeated": repeated,
                },
            )


def _news(
    before: Iterable[Node],
    request: tailcfg.RegisterRequest,
    result: Registration,
    now: datetime,
) -> tuple[str, Node] | None:
    """Tell what a colleague would be told: what has happened, and to which node.

    ``before`` are the nodes that the machine had. A daemon that restarts is no news.
    """
    node = result.node
    if node is None:
        gone = next((old for old in before if old.node_key == request.node_key), None)
        return None if gone is None else ("ephemeral node logged out", gone)
    old = next((old for old in before if old.id == node.id), None)
    if old is None:
        return "node enrolled", node
    if result.response.node_key_expired:
        return None if old.expires_at == node.expires_at else ("node logged out", node)
    is_rotated = old.node_key != node.node_key
    if (old.user_id, old.tags) != (node.user_id, node.tags) or (is_rotated and old.is_expired(now)):
        return "node re-enrolled", node
    return ("node key rotated", node) if is_rotated else None


def _tell(
    snapshot: Snapshot, news: tuple[str, Node] | None, grant: KeyGrant, by: Principal
) -> None:
    if news is None:
        return
    message, node = news
    user = None if node.user_id is None else snapshot.users.get(node.user_id)
    fields: dict[str, object] = {
        "node": node.name,
        "user": ",".join(node.tags) if user is None else user.name,
        "tailnet": snapshot.tailnet.name,
        "by": str(by),
    }
    if grant.prefix:
        fields["source"] = f"auth key {grant.prefix}"  # its public half
    log.info(message, extra=fields)
