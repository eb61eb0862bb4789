"""A machine asks to be a node: new, again, with a new key, as another user, or to be forgotten.

Not for finding the tailnet (``control.register``) and not for logging people in (``identity``).
Sits on ``snapshot``. The machine key comes from Noise and proves the device; everything in the
request is a claim. Two traps decide the order of the checks: ``old_node_key`` stays set for ever
after a node's first rotation, and the auth key is repeated at every request, at a log-out too.
Source: tailscale control/controlclient/direct.go (what clients send and how they take answers).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import msgspec

from appliance.errors import Forbidden, Invalid, Rejected
from appliance.records import AuthKey, Node, RegisterMethod
from appliance.tailnet import (
    addresses,
    checkin,
    keys,
    names,
    policies,
    presence,
    routes,
    tags,
    users,
)
from appliance.tailnet.addresses import Rng
from appliance.tailnet.snapshot import Edit
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey

MAX_SIGNATURE_BYTES = 4096
"""A signature of the tailnet lock that was rotated as often as its rules allow is below 1 KiB."""
HOW_TO_ENROL = (
    "ask its administrator for a key (headwater preauthkeys create) and run "
    "tailscale up --login-server=URL --auth-key=KEY"
)


@dataclass(frozen=True, slots=True)
class Registration:
    """The outcome: the answer for the client, and the node as it is now (None if there is none)."""

    node: Node | None
    response: tailcfg.RegisterResponse


def register(
    edit: Edit,
    machine: MachineKey,
    request: tailcfg.RegisterRequest,
    now: datetime,
    *,
    auth_key: AuthKey | None,
    rng: Rng,
) -> Registration:
    """Decide about a register request and draft what follows from it.

    ``auth_key`` is the record that the request's key text names; its secret is checked here.
    Raises Rejected with a sentence for the person at the client.
    """
    if request.node_key.is_zero:
        raise Invalid("node-key-missing", "the request carries no node key")
    if request.expiry is not None:
        request = msgspec.structs.replace(request, expiry=_in_utc(request.expiry))
    known = edit.node_of(request.node_key)
    if known is not None and known.machine_key != machine:
        raise Forbidden("machine-key-differs", "this node key belongs to another machine")
    if request.expiry is not None and request.expiry <= now:
        return _log_out(edit, known, now)
    if known is not None and known.is_expired(now):
        # The client makes a new node key and asks again, with its auth key if it has one.
        return Registration(known, tailcfg.RegisterResponse(node_key_expired=True))
    if known is not None:
        return _answer(edit, _again(edit, known, request, now, auth_key))
    key = _usable_key(edit, request, now, auth_key)
    return _answer(edit, _enrol(edit, machine, request, now, key, rng))


def refuse(refusal: Rejected) -> tailcfg.RegisterResponse:
    """Put a refusal into the form that clients show to people."""
    return tailcfg.RegisterResponse(error=refusal.sentence)


def _answer(edit: Edit, node: Node) -> Registration:
    user, login = users.wire_owner(edit, node)
    return Registration(
        node, tailcfg.RegisterResponse(user=user, login=login, machine_authorized=True)
    )


def _log_out(edit: Edit, known: Node | None, now: datetime) -> Registration:
    """Expire the node now, whatever time in the past was sent; forget it if it is ephemeral.

    A client that logs out twice, or of which nothing is known any more, gets the same answer.
    """
    gone = tailcfg.RegisterResponse(node_key_expired=True)
    if known is None:
        return Registration(None, gone)
    if known.ephemeral:
        edit.drop(known)
        return Registration(None, gone)
    if not known.is_expired(now):
        known = replace(known, expires_at=now)
        edit.put(known)
        presence.note_expiry(edit, known, now)
    return Registration(known, gone)


def _again(
    edit: Edit,
    known: Node,
    request: tailcfg.RegisterRequest,
    now: datetime,
    auth_key: AuthKey | None,
) -> Node:
    """Take over what a valid node says at a restart. Its auth key may be used up or deleted.

    A tagged key that the node did not come with converts a user's node in place.
    """
    node = _described(edit, known, request)
    node = replace(node, expires_at=_shortened(node.expires_at, request.expiry))
    if auth_key is not None and not node.is_tagged and auth_key.id != node.auth_key_id:
        key = edit.auth_keys.get(auth_key.id)
        text = "" if request.auth is None else request.auth.auth_key
        if key is not None and key.tags and _why_not(text, key, now) is None:
            _check_tags(edit, request, key)
            node = _owned_by_key(edit, node, request, now, key)
            _note_use(edit, key, now)
    if node.is_tagged != known.is_tagged or routes.differ(known, node):
        node = policies.with_approved_routes(edit, node)
    edit.put(node)
    return edit.nodes[node.id]


def _enrol(
    edit: Edit,
    machine: MachineKey,
    request: tailcfg.RegisterRequest,
    now: datetime,
    key: AuthKey,
    rng: Rng,
) -> Node:
    """Let the key's node in: the machine's node of the same owner with a new node key, or a new one."""
    _check_tags(edit, request, key)
    node = _predecessor(edit, machine, request, key)
    is_new = node is None
    if node is None:
        node = _new(edit, machine, request, now)
    else:
        node = replace(node, node_key=request.node_key)
    node = _described(edit, node, request)
    node = _owned_by_key(edit, node, request, now, key)
    if is_new:
        # By its owner or its tags a policy may choose the pool that the address comes from.
        node = addresses.assign(edit, node, rng)
    node = policies.with_approved_routes(edit, node)
    edit.put(node)
    presence.note_expiry(edit, node, now)
    _note_use(edit, key, now)
    return node


def _predecessor(
    edit: Edit, machine: MachineKey, request: tailcfg.RegisterRequest, key: AuthKey
) -> Node | None:
    """Find the node of this machine that the key's owner has: it keeps its id and addresses.

    With a tagged key that is a tagged node, else a user's node, which the key converts: the one
    that the client says it was before, the one of the key's user, or the only one.
    """
    mine = [edit.nodes[i] for i in sorted(edit.by_machine_key.get(machine, ()))]
    before = edit.node_of(request.old_node_key)
    if before is not None and before in mine:
        mine.remove(before)
        mine.insert(0, before)
    if not key.tags:
        return next((node for node in mine if node.user_id == key.user_id), None)
    for fits in (
        lambda node: node is before or node.is_tagged,
        lambda node: node.user_id == key.user_id,
        lambda _node: len(mine) == 1,
    ):
        found = next(filter(fits, mine), None)
        if found is not None:
            return found
    return None


def _new(edit: Edit, machine: MachineKey, request: tailcfg.RegisterRequest, now: datetime) -> Node:
    hostinfo = checkin.bounded_hostinfo(request.hostinfo or tailcfg.Hostinfo())
    node_id = edit.ids.next_node()
    return Node(
        id=node_id,
        stable_id=str(node_id),
        machine_key=machine,
        node_key=request.node_key,
        name=names.choose(edit, names.wanted(hostinfo)),
        hostname=hostinfo.hostname,
        created_at=now,
        hostinfo=hostinfo,
        register_method=RegisterMethod.AUTH_KEY,
    )


def _described(edit: Edit, node: Node, request: tailcfg.RegisterRequest) -> Node:
    """Give the node with what the request says of the machine; tags are none of its business."""
    if request.hostinfo is not None:
        node = checkin.with_hostinfo(edit, node, request.hostinfo)
    signature = request.node_key_signature
    if len(signature) > MAX_SIGNATURE_BYTES:
        raise Invalid("signature-too-long", "the signature of the node key is too long")
    return replace(
        node,
        capver=checkin.bounded_capver(request.version),
        lock_key=node.lock_key if request.nl_key.is_zero else request.nl_key,
        key_signature=signature or node.key_signature,
    )


def _owned_by_key(
    edit: Edit, node: Node, request: tailcfg.RegisterRequest, now: datetime, key: AuthKey
) -> Node:
    """Give the node as the key makes it: its tags or its user, its life-time.

    Tags that an administrator set stay when the node comes again with the key it came with.
    """
    given, user_id, expires_at = key.tags, None, None
    if not given:
        user_id = key.user_id
        lifetime = edit.settings.key_expiry
        expires_at = None if lifetime is None else now + lifetime
    elif node.is_tagged and node.auth_key_id == key.id:
        given = node.tags
    if request.expiry is not None:
        expires_at = min(request.expiry, expires_at or request.expiry)
    return replace(
        node,
        user_id=user_id,
        tags=given,
        expires_at=expires_at,
        ephemeral=key.ephemeral or request.ephemeral,
        auth_key_id=key.id,
        register_method=RegisterMethod.AUTH_KEY,
    )


def _in_utc(said: datetime) -> datetime:
    try:
        return said.astimezone(UTC)
    except OverflowError as error:
        # The last hours of the year 9999 west of Greenwich, say.
        raise Invalid("expiry-impossible", "the expiry asked for cannot be kept") from error


def _note_use(edit: Edit, key: AuthKey, now: datetime) -> None:
    if key.used_at is None:
        edit.put(replace(key, used_at=now))


def _shortened(current: datetime | None, wanted: datetime | None) -> datetime | None:
    if wanted is None:
        return current
    if current is not None and wanted > current:
        raise Forbidden(
            "expiry-extended", "a node may only shorten the life of its key; log in again instead"
        )
    return wanted


def _check_tags(edit: Edit, request: tailcfg.RegisterRequest, key: AuthKey) -> None:
    """Raise Invalid if a client asks for tags that its key does not give.

    Who owns a tag may claim it when logging in. A key speaks for nobody: it may have been made by
    an administrator for a user, or be in many hands, so it gives what it was made with.
    """
    if request.hostinfo is None:
        return
    wrong = [tag for tag in request.hostinfo.request_tags if tag not in key.tags]
    if not wrong:
        return
    listed = tags.listed([checkin.plain(tag, names.MAX_TAG_CHARS) for tag in wrong])
    user = None if key.user_id is None else edit.users.get(key.user_id)
    owned = user is not None and all(tags.may_claim(edit, user, tag) for tag in wrong)
    raise Invalid(
        "tags-not-permitted",
        f"requested tags [{listed}] are invalid or not permitted: an auth key gives the tags "
        "that it was made with"
        + (f", also where its user {user.name} owns others" if user is not None and owned else "")
        + "; leave --advertise-tags out or use a key with these tags "
        "(headwater preauthkeys create --tags)",
        concerns=listed,
    )


def _usable_key(
    edit: Edit, request: tailcfg.RegisterRequest, now: datetime, auth_key: AuthKey | None
) -> AuthKey:
    """Give the key as it is in the draft, or raise the reason why it does not let a node in."""
    text = "" if request.auth is None else request.auth.auth_key
    if not text:
        raise Forbidden(
            "auth-key-missing", f"this server lets nodes in by auth key: {HOW_TO_ENROL}"
        )
    if text.startswith("tskey-"):
        raise Invalid(
            "auth-key-foreign",
            f"a key that starts with tskey- belongs to another service: {HOW_TO_ENROL}",
        )
    key = None if auth_key is None else edit.auth_keys.get(auth_key.id)
    if key is None:
        raise Forbidden("auth-key-unknown", f"this server has no such auth key: {HOW_TO_ENROL}")
    refusal = _why_not(text, key, now)
    if refusal is not None:
        raise refusal
    return key


def _why_not(text: str, key: AuthKey, now: datetime) -> Rejected | None:
    """Tell why a key does not let a node in now; None if it does."""
    prefix, secret = keys.parse_auth_key(text)
    if prefix != key.prefix or not keys.verify(key, secret):
        return Forbidden("auth-key-unknown", f"this server has no such auth key: {HOW_TO_ENROL}")
    if keys.is_expired(key, now):
        return Forbidden(
            "auth-key-expired", f"this auth key has expired: {HOW_TO_ENROL}", concerns=key.prefix
        )
    if keys.is_used_up(key):
        return Forbidden(
            "auth-key-used",
            f"this auth key was good for one node and has been used: {HOW_TO_ENROL}",
            concerns=key.prefix,
        )
    return None
