"""Logins that wait for a person: a machine without an auth key was shown a link, and waits there.

Command line, API, console and identity provider resolve the same pending login, each with its own
``LoginGrant``. Not for showing pages, for proving who somebody is (``identity``), nor for holding the
client's request: it asks again with the link (``Followup``) until the answer differs. Sits on
``enrolment``. A table is a value that the next one replaces; nothing here is stored, so that after a
restart a client gets a new link.
Source: tailscale control/controlclient/auto.go (authRoutine: a client shows a link that differs from
the one that it follows up, and repeats the request if it is the same).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType

from appliance.errors import Conflict, Invalid, NotFound
from appliance.records import Node
from appliance.tailnet import checkin, enrolment, names
from appliance.tailnet.addresses import Rng
from appliance.tailnet.enrolment import LoginGrant, Pending
from appliance.tailnet.snapshot import Edit
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey

LIFETIME = timedelta(hours=1)
"""How long a link is good: an administrator may have to be asked. Clients may follow one up for
days; they are given a new one then."""
MAX_PENDING = 1024
"""Links of one server at a time, each less than 16 KiB. When there are too many the oldest one goes, of
the source that has most: whoever still waits for it is given a new one."""
MAX_PENDING_PER_SOURCE = 128
"""Links that were asked for from one address, or one IPv6 network, so that no stranger pushes out
everybody's: a class room, or an office behind one address."""

ID_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
"""For ids: no letter that looks like another; people copy these."""
ID_LENGTH = 24
"""119 random bits: who knows the id of a login could have it approved in another's name."""
ID_PREFIX = "hskey-authreq-"
"""Before the id wherever it is shown: tools for Headscale know an id by it, and by its length."""
MAX_LINK_CHARS = 512
"""Of what is looked at to find an id in it."""


@dataclass(frozen=True, slots=True)
class PendingLogins:
    """The pending logins of one server, the oldest one first; ``base_url`` ends with a slash."""

    base_url: str
    by_id: Mapping[str, Pending] = field(default_factory=lambda: MappingProxyType({}))


def wait(
    logins: PendingLogins,
    machine: MachineKey,
    request: tailcfg.RegisterRequest,
    now: datetime,
    *,
    random_bytes: Callable[[int], bytes],
    source: str = "",
    crowd: str = "",
) -> tuple[PendingLogins, Pending]:
    """Return what a machine's request waits for, made now if need be, as the grant to register with.

    For a request that no auth key speaks for and whose node key no valid node has.
    The login that the request follows up, also a rejected one; else one that waits for the same node
    key, so that a link that was shown stays good; else a new one. ``source`` is the address that
    asks, for people to see; ``crowd`` is the stranger that it counts for, else the address itself.
    """
    for pending in logins.by_id.values():
        if not _is_of(pending, machine, request) or pending.expires_at <= now:
            continue
        if request.followup == pending.url or not pending.is_rejected:
            return logins, pending
    login_id = "".join(ID_LETTERS[b % len(ID_LETTERS)] for b in random_bytes(ID_LENGTH))
    expires_at = now + LIFETIME
    if request.expiry is not None:
        expires_at = min(expires_at, request.expiry)
    pending = Pending(
        id=login_id,
        url=f"{logins.base_url}{ID_PREFIX}{login_id}",
        machine=machine,
        request=_kept(request),
        expires_at=expires_at,
        asked_at=now,
        source=source,
        crowd=crowd or source,
    )
    if expires_at <= now:
        return logins, pending  # a log-out
    others = {key: each for key, each in logins.by_id.items() if each.expires_at > now}
    _make_room(others, pending.crowd)
    return _with(logins, {**others, login_id: pending}), pending


def find(logins: PendingLogins, login_id: str, now: datetime) -> Pending:
    """Return a login that waits for a decision. Raises Invalid for what is no id, NotFound."""
    login_id = plain_id(login_id)
    if len(login_id) != ID_LENGTH or not set(login_id) <= set(ID_LETTERS):
        raise Invalid(
            "login-id-invalid", "that is not the id of a login: copy it from the link at its end"
        )
    pending = logins.by_id.get(login_id)
    if pending is None or pending.expires_at <= now or pending.is_rejected:
        raise NotFound(
            "login-unknown",
            "no login with this id waits (any more): run tailscale up again and take the new link",
            concerns=login_id,
        )
    return pending


def plain_id(text: str) -> str:
    """Give the id in what people and tools copy: the id, with its prefix, or the whole link."""
    return text.strip()[-MAX_LINK_CHARS:].rpartition("/")[2].removeprefix(ID_PREFIX)


def approve(
    logins: PendingLogins, edit: Edit, login_id: str, grant: LoginGrant, now: datetime, *, rng: Rng
) -> Node:
    """Let the machine join as the grant's user. Its next request finds the node, and is answered.

    The login is forgotten once this is stored. Raises Invalid, NotFound, and whatever
    ``enrolment.register`` refuses; then the login waits on.
    """
    pending = find(logins, login_id, now)
    result = enrolment.register(edit, pending.machine, pending.request, grant, now, rng=rng)
    if result.node is None or result.response.node_key_expired:
        raise Conflict("login-outdated", "this machine has asked for another login meanwhile")
    return result.node


def forget(logins: PendingLogins, login_id: str) -> PendingLogins:
    """Leave out a login that is over."""
    return _with(logins, {k: v for k, v in logins.by_id.items() if k != plain_id(login_id)})


def reject(logins: PendingLogins, login_id: str, now: datetime) -> PendingLogins:
    """Say no: whoever follows up this login is told so. Raises Invalid, NotFound."""
    rejected = replace(find(logins, login_id, now), is_rejected=True)
    return _with(logins, {**logins.by_id, rejected.id: rejected})


def _make_room(others: dict[str, Pending], crowd: str) -> None:
    """Leave out what is too much: the oldest login of this crowd, or of the one that has most."""
    mine = [key for key, each in others.items() if crowd and each.crowd == crowd]
    for oldest in mine[: max(0, len(mine) + 1 - MAX_PENDING_PER_SOURCE)]:
        del others[oldest]
    while len(others) >= MAX_PENDING:
        count = Counter(each.crowd for each in others.values())
        largest = count.most_common(1)[0][0]
        del others[next(key for key, each in others.items() if each.crowd == largest)]


def _with(logins: PendingLogins, by_id: dict[str, Pending]) -> PendingLogins:
    return replace(logins, by_id=MappingProxyType(by_id))


def _is_of(pending: Pending, machine: MachineKey, request: tailcfg.RegisterRequest) -> bool:
    return pending.machine == machine and pending.request.node_key == request.node_key


def _kept(request: tailcfg.RegisterRequest) -> tailcfg.RegisterRequest:
    """Return what joining needs of a request; the node says all else with its first map request."""
    said = request.hostinfo or tailcfg.Hostinfo()
    if len(said.request_tags) > checkin.MAX_REQUEST_TAGS:
        raise Invalid("tags-too-many", f"a node carries at most {checkin.MAX_REQUEST_TAGS} tags")
    enrolment.check_signature(request)
    return tailcfg.RegisterRequest(
        version=request.version,
        node_key=request.node_key,
        old_node_key=request.old_node_key,
        nl_key=request.nl_key,
        expiry=request.expiry,
        ephemeral=request.ephemeral,
        node_key_signature=request.node_key_signature,
        hostinfo=tailcfg.Hostinfo(
            hostname=checkin.plain(said.hostname),
            os=checkin.plain(said.os),
            os_version=checkin.plain(said.os_version),
            ipn_version=checkin.plain(said.ipn_version),
            device_model=checkin.plain(said.device_model),
            request_tags=tuple(
                checkin.plain(t, names.MAX_TAG_CHARS + 1) for t in said.request_tags
            ),
        ),
    )
