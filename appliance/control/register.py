"""``/machine/register``: find the tailnet that is meant, ask ``tailnet.enrolment``, answer.

Not for the rules of registration. A refusal is an answer with status 200 and an ``Error`` text:
that is what clients show to people.
"""

from __future__ import annotations

import logging
from random import Random

from appliance.control.exchange import Exchange
from appliance.errors import Conflict, Rejected
from appliance.identity.principals import Principal, PrincipalKind
from appliance.live import CommitFailed, LiveTailnet, LiveTailnets
from appliance.tailnet import enrolment
from appliance.tailnet.enrolment import KeyGrant
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey
from appliance.wire.tailcfg import capver

log = logging.getLogger(__name__)

MOST_CHOICES = 4
"""How often a request may find that its tailnet is another one now; once is rare enough."""


async def answer(exchange: Exchange, tailnets: LiveTailnets, rng: Random) -> None:
    """Answer one register request."""
    try:
        request = tailcfg.decode_register_request(exchange.body)
    except ProtocolError as error:
        exchange.respond(400, f"bad register request: {error}".encode(), content_type=b"text/plain")
        return
    try:
        response = await _register(exchange.machine_key, request, tailnets, rng)
    except Rejected as refusal:
        log.info(
            "registration refused",
            extra={"machine_key": exchange.machine_key.short, "reason": refusal.code},
        )
        response = tailcfg.RegisterResponse(error=refusal.sentence)
    except CommitFailed:
        exchange.respond(
            503, b"the change could not be stored; try again", content_type=b"text/plain"
        )
        return
    if not response.error:
        exchange.vouch()
    exchange.respond(200, tailcfg.encode(response))


async def _register(
    machine: MachineKey, request: tailcfg.RegisterRequest, tailnets: LiveTailnets, rng: Random
) -> tailcfg.RegisterResponse:
    if request.version < capver.OLDEST_SUPPORTED:
        return tailcfg.RegisterResponse(
            error=f"this client is too old (capability version {request.version}): "
            f"update it to release {capver.first_release(capver.OLDEST_SUPPORTED)} or newer"
        )
    grant = enrolment.key_grant(request.auth)
    by = Principal(PrincipalKind.NODE, machine.short)
    for _ in range(MOST_CHOICES):
        live = _choose(machine, request, grant, tailnets)
        async with live.edit(by=by) as edit:
            # Chosen again: while this waited for its turn, another may have brought the same key.
            if _choose(machine, request, grant, tailnets) is live:
                result = enrolment.register(edit, machine, request, grant, live.clock(), rng=rng)
                break
    else:
        raise Conflict("tailnet-changes", "this device is being registered elsewhere; try again")
    if result.node is not None:
        log.info("node registered", extra={"node": result.node.name, "machine_key": machine.short})
    return result.response


def _choose(
    machine: MachineKey, request: tailcfg.RegisterRequest, grant: KeyGrant, tailnets: LiveTailnets
) -> LiveTailnet:
    """Choose the tailnet: the node key's, then the auth key's, then the machine's, then the first.

    Drafts count, or one node key could come to stand in two tailnets, and only one would be found.
    """
    for live in tailnets:
        if request.node_key in live.drafted.by_node_key:
            return live
    for live in tailnets:
        if grant.prefix in live.drafted.by_key_prefix:
            return live
    for live in tailnets:
        if request.old_node_key in live.drafted.by_node_key:
            return live
    for live in tailnets:
        if machine in live.drafted.by_machine_key:
            return live
    return tailnets.default
