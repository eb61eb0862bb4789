"""``/machine/register``: find the tailnet that is meant, ask ``tailnet.enrolment``, answer.

Not for the rules of registration. A refusal is an answer with status 200 and an ``Error`` text:
that is what clients show to people.
"""

from __future__ import annotations

import logging
from random import Random

from appliance.control.exchange import Exchange
from appliance.errors import Rejected
from appliance.identity.principals import Principal, PrincipalKind
from appliance.live import CommitFailed, LiveTailnet, LiveTailnets
from appliance.tailnet import enrolment
from appliance.tailnet.enrolment import KeyGrant
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey
from appliance.wire.tailcfg import capver

log = logging.getLogger(__name__)


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
    live = _choose(machine, request, grant, tailnets)
    by = Principal(PrincipalKind.NODE, machine.short)
    async with live.edit(by=by) as edit:
        result = enrolment.register(edit, machine, request, grant, live.clock(), rng=rng)
    if result.node is not None:
        log.info("node registered", extra={"node": result.node.name, "machine_key": machine.short})
    return result.response


def _choose(
    machine: MachineKey, request: tailcfg.RegisterRequest, grant: KeyGrant, tailnets: LiveTailnets
) -> LiveTailnet:
    """Choose the tailnet: the node key's, then the auth key's, then the machine's, then the first."""
    # The node key comes first. Else one could stand in two tailnets, and only one would be found.
    known = tailnets.find_node(request.node_key)
    if known is not None:
        return known[0]
    auth_key = tailnets.find_auth_key(grant.prefix)
    if auth_key is not None:
        return auth_key[0]
    previous = tailnets.find_node(request.old_node_key)
    if previous is not None:
        return previous[0]
    return tailnets.find_machine(machine) or tailnets.default
