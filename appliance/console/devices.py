"""The page at which a device that asks to join is let in, or is not.

The link was shown to whoever runs the device, and may have been sent on: the page says what asks, and
from where, before anybody lets it in. Not for the rules of joining (``tailnet.enrolment``).
"""

from __future__ import annotations

import hmac
import shlex
from urllib.parse import quote

from aiohttp import web

from appliance.console.visits import Visit
from appliance.errors import Invalid, NotFound, Rejected
from appliance.records import NodeID, RegisterMethod, SignInMethod
from appliance.tailnet import logins
from appliance.tailnet.enrolment import LoginGrant, Pending

FINGERPRINT_CHARS = 16
"""Of the machine key: enough to tell devices apart by eye."""


async def show(visit: Visit) -> web.Response:
    """Show the device, and who may let it in."""
    login_id = visit.request.match_info["login_id"]
    try:
        pending = visit.console.logins.find(login_id)
    except (Invalid, NotFound) as refusal:
        return _expired(visit, refusal)
    return visit.page(
        "register.html",
        facts=_facts(pending),
        tags=pending.request.hostinfo.request_tags if pending.request.hostinfo else (),
        login_id=pending.id,
        auth_id=f"{logins.ID_PREFIX}{pending.id}",
        command="headwater auth register --user NAME --auth-id "
        + shlex.quote(f"{logins.ID_PREFIX}{pending.id}"),
        ways=[
            (
                way,
                f"{way.url}{'&' if '?' in way.url else '?'}next={quote(_path(pending), safe='/')}",
            )
            for way in visit.console.sign_in_ways()
        ],
        is_elsewhere=bool(pending.source) and pending.source != (visit.request.remote or ""),
        source=pending.source,
    )


async def connect(visit: Visit) -> web.Response:
    """Let the device in as whoever is signed in."""
    who = visit.user
    login_id = visit.request.match_info["login_id"]
    is_provider = who.session.method is SignInMethod.OIDC
    grant = LoginGrant(
        who.user.id,
        RegisterMethod.OIDC if is_provider else RegisterMethod.SIGN_IN,
        who.session.login_expires_at,
    )
    try:
        node = await visit.console.logins.approve(who.live, login_id, grant, by=who.principal)
    except NotFound as refusal:
        return _expired(visit, refusal)
    # A tagged device is nobody's, and is not shown to everybody for that.
    seal = f"?seal={_seal(visit, node.id)}" if node.is_tagged else ""
    return visit.go(f"/connected/{node.id}{seal}")


async def reject(visit: Visit) -> web.Response:
    """Refuse the device."""
    who = visit.user
    try:
        visit.console.logins.reject(visit.request.match_info["login_id"], by=who.principal)
    except (Invalid, NotFound) as refusal:
        return _expired(visit, refusal)
    return visit.page(
        "refused.html",
        title="Device refused",
        sentence="The device was not let in, and is told so. Nothing else is to be done.",
    )


async def connected(visit: Visit) -> web.Response:
    """Say that the device is in, or waits for an administrator."""
    who = visit.user
    node = who.live.snapshot.nodes.get(NodeID(int(visit.request.match_info["node_id"])))
    given = visit.request.query.get("seal", "").encode(errors="replace")
    if node is None or not (
        node.user_id == who.user.id
        or (node.is_tagged and hmac.compare_digest(given, _seal(visit, node.id).encode()))
    ):
        raise NotFound("node-unknown", "there is no such device of yours")
    return visit.page(
        "connected.html",
        node=node,
        name=f"{node.name}.{who.live.snapshot.tailnet.domain}",
    )


def _seal(visit: Visit, node_id: NodeID) -> str:
    """Return what shows that this browser has let a device in."""
    return visit.seal(f"connected {node_id}")


def _path(pending: Pending) -> str:
    return f"/register/{logins.ID_PREFIX}{pending.id}"


def _expired(visit: Visit, refusal: Rejected) -> web.Response:
    return visit.page(
        "expired.html",
        status=400 if isinstance(refusal, Invalid) else 404,
        sentence=refusal.sentence[:1].upper() + refusal.sentence[1:],
    )


def _facts(pending: Pending) -> list[tuple[str, str]]:
    """List what is known of a device: what it says of itself, and what nobody can forge."""
    said = pending.request.hostinfo
    found = []
    if said is not None:
        system = f"{said.os} {said.os_version}".strip()
        found = [
            ("Name", said.hostname),
            ("System", system + (f" ({said.device_model})" if said.device_model else "")),
            ("Client", said.ipn_version.partition("-")[0]),
        ]
    found += [
        ("Asks from", pending.source),
        ("Machine key", str(pending.machine).rpartition(":")[2][:FINGERPRINT_CHARS] + "…"),
        ("Asked at", pending.asked_at.strftime("%Y-%m-%d %H:%M UTC")),
        ("Link good until", pending.expires_at.strftime("%Y-%m-%d %H:%M UTC")),
    ]
    return [(name, value) for name, value in found if value]
