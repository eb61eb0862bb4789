"""May this machine join, as whom, and until when: the one answer, whatever is shown for it.

A machine asks with a register request: to join, to say that it is still there, to rotate its node key,
to log out. A *grant* says what speaks for it: an auth key, a person who logged in, or nobody yet. Not
for finding the tailnet (``control.register``), for proving who a person is (``identity``), nor for
keeping logins that wait (``logins``). Sits on ``snapshot``.

The machine key comes from Noise and proves the device; everything in the request is a claim. Two
traps decide the order of the checks: ``old_node_key`` stays set after a node's first rotation, and
the auth key is repeated at every request, at a log-out too.
Source: tailscale control/controlclient/direct.go (what clients send and how they take answers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import assert_never

import msgspec

from appliance.errors import Conflict, Forbidden, Invalid, Rejected
from appliance.records import AuthKey, Node, RegisterMethod, User, UserID
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
class KeyGrant:
    """An auth key's text, taken apart. The key itself is looked up and checked inside the edit.

    ``prefix`` is public. Both are empty if the text is not one of this server's keys, which
    ``is_missing`` and ``is_foreign`` tell further: no text at all, or a key of the hosted service.
    """

    prefix: str = ""
    secret: str = field(default="", repr=False)
    is_missing: bool = False
    is_foreign: bool = False


@dataclass(frozen=True, slots=True)
class LoginGrant:
    """A user who proved to be that user; ``method`` is how.

    ``expires_at`` is when the identity provider wants the login to end; None means that the node
    key lives as long as the tailnet's settings say.
    """

    user_id: UserID
    method: RegisterMethod
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """Nobody has spoken for the machine yet: its user is shown ``url``, and ``logins`` waits.

    ``request`` is what the machine asked, without secrets and bounded, ``source`` the address it
    asked from, ``crowd`` what counts as the same stranger. ``is_rejected`` means that somebody said no.
    """

    id: str
    url: str
    machine: MachineKey
    request: tailcfg.RegisterRequest
    expires_at: datetime
    asked_at: datetime
    source: str = ""
    crowd: str = ""
    is_rejected: bool = False


Grant = KeyGrant | LoginGrant | Pending
"""What speaks for a machine that asks to join."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The outcome: the answer for the client, and the node as it is now (None if there is none)."""

    node: Node | None
    response: tailcfg.RegisterResponse


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a grant entitles a machine to: its owner, and how long and how it may stay.

    ``user_id`` with ``tags`` is the user of a tagged key, or who claims the tags. ``key`` is None
    for a login.
    """

    user_id: UserID | None
    tags: tuple[str, ...]
    expires_at: datetime | None
    ephemeral: bool
    method: RegisterMethod
    key: AuthKey | None = None


def key_grant(auth: tailcfg.RegisterResponseAuth | None) -> KeyGrant:
    """Take apart the auth key that a register request shows, if it shows one."""
    text = "" if auth is None else auth.auth_key
    prefix, secret = keys.parse_auth_key(text)
    return KeyGrant(prefix, secret, is_missing=not text, is_foreign=text.startswith("tskey-"))


def register(
    edit: Edit,
    machine: MachineKey,
    request: tailcfg.RegisterRequest,
    grant: Grant,
    now: datetime,
    *,
    rng: Rng,
) -> Registration:
    """Decide about a register request and draft what follows from it.

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
        return _answer(edit, _again(edit, known, request, now, grant))
    terms: _Terms
    match grant:
        case KeyGrant():
            terms = _terms_of_key(edit, request, _usable_key(edit, grant, now), now)
        case LoginGrant():
            terms = _terms_of_login(edit, request, grant, now)
        case Pending():
            return _wait(grant)
        case _:
            assert_never(grant)
    return _answer(edit, _enrol(edit, machine, request, now, terms, rng))


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


def _wait(pending: Pending) -> Registration:
    if pending.is_rejected:
        raise Forbidden("login-rejected", "this login was rejected: ask an administrator")
    return Registration(None, tailcfg.RegisterResponse(auth_url=pending.url))


def _again(
    edit: Edit, known: Node, request: tailcfg.RegisterRequest, now: datetime, grant: Grant
) -> Node:
    """Take over what a valid node says at a restart. Its auth key may be used up or deleted.

    A tagged key that the node did not come with converts a user's node in place.
    """
    if isinstance(grant, LoginGrant) and known.user_id != grant.user_id:
        # It joined by other means while its login waited.
        raise Conflict(
            "node-joined-already",
            f"this machine has joined already, as {known.name!r}: delete that node or move it",
            concerns=known.name,
        )
    node = _described(edit, known, request, request.hostinfo)
    node = replace(node, expires_at=_shortened(node.expires_at, request.expiry))
    if isinstance(grant, KeyGrant) and not node.is_tagged:
        key = _key_of(edit, grant)
        if key is not None and key.tags and key.id != node.auth_key_id:
            node = _converted(edit, node, request, grant, key, now)
    if node.is_tagged != known.is_tagged or routes.differ(known, node):
        node = policies.with_approved_routes(edit, node)
    edit.put(node)
    return edit.nodes[node.id]


def _converted(
    edit: Edit,
    node: Node,
    request: tailcfg.RegisterRequest,
    grant: KeyGrant,
    key: AuthKey,
    now: datetime,
) -> Node:
    """Return a user's valid node as a tagged key makes it; unchanged if the key lets nobody in."""
    if _why_not(grant, key, now) is not None:
        return node
    terms = _terms_of_key(edit, request, key, now)
    _note_use(edit, key, now)
    return _owned(edit, node, request, terms)


def _enrol(
    edit: Edit,
    machine: MachineKey,
    request: tailcfg.RegisterRequest,
    now: datetime,
    terms: _Terms,
    rng: Rng,
) -> Node:
    """Let the machine in: as its node of the same owner, with a new node key, or as a new node."""
    node = _predecessor(edit, machine, request, now, terms)
    is_new = node is None
    said = request.hostinfo
    if node is None:
        said = said or tailcfg.Hostinfo()
        bounded = checkin.bounded_hostinfo(said)
        node = _new(edit, machine, request, now, bounded)
        said = msgspec.structs.replace(bounded, net_info=said.net_info)
    else:
        node = replace(node, node_key=request.node_key)
    node = _described(edit, node, request, said)
    node = _owned(edit, node, request, terms)
    if is_new:
        # By its owner or its tags a policy may choose the pool that the address comes from.
        node = addresses.assign(edit, node, rng)
    node = policies.with_approved_routes(edit, node)
    edit.put(node)
    presence.note_expiry(edit, node, now)
    if terms.key is not None:
        _note_use(edit, terms.key, now)
    return node


def _predecessor(
    edit: Edit, machine: MachineKey, request: tailcfg.RegisterRequest, now: datetime, terms: _Terms
) -> Node | None:
    """Find the node of this machine that these terms go on with: it keeps its id and addresses.

    A tagged key goes on with the node that the client says it was before, a tagged node, the node of
    the key's user, or the machine's only node, which it converts. A user's key or login goes on with
    the node of that user, or with a tagged node: one that is still valid and that the client says it
    was before, or one that this user may bring back.
    """
    mine = [edit.nodes[i] for i in sorted(edit.by_machine_key.get(machine, ()))]
    before = edit.node_of(request.old_node_key)
    if before is not None and before in mine:
        mine.remove(before)
        mine.insert(0, before)
    choices: tuple[Callable[[Node], bool], ...]
    if terms.tags and terms.key is not None:
        choices = (
            lambda node: node is before or node.is_tagged,
            lambda node: node.user_id == terms.user_id,
            lambda _node: len(mine) == 1,
        )
    else:
        choices = (
            lambda node: node is before and node.is_tagged and not node.is_expired(now),
            lambda node: node is before and _may_renew(edit, node, terms),
            lambda node: node.user_id == terms.user_id,
            lambda node: _may_renew(edit, node, terms),
        )
    for fits in choices:
        found = next(filter(fits, mine), None)
        if found is not None:
            return found
    return None


def _new(
    edit: Edit,
    machine: MachineKey,
    request: tailcfg.RegisterRequest,
    now: datetime,
    hostinfo: tailcfg.Hostinfo,
) -> Node:
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
    )


def _described(
    edit: Edit, node: Node, request: tailcfg.RegisterRequest, said: tailcfg.Hostinfo | None
) -> Node:
    """Return the node with what the request says of the machine; tags are none of its business."""
    if said is not None:
        node = checkin.with_hostinfo(edit, node, said)
    check_signature(request)
    return replace(
        node,
        capver=checkin.bounded_capver(request.version),
        lock_key=node.lock_key if request.nl_key.is_zero else request.nl_key,
        key_signature=request.node_key_signature or node.key_signature,
    )


def check_signature(request: tailcfg.RegisterRequest) -> None:
    """Raise Invalid for a signature of the node key that is too long to be one."""
    if len(request.node_key_signature) > MAX_SIGNATURE_BYTES:
        raise Invalid("signature-too-long", "the signature of the node key is too long")


def _owned(edit: Edit, node: Node, request: tailcfg.RegisterRequest, terms: _Terms) -> Node:
    """Return the node as the terms make it: its user or its tags, its life-time.

    Tags that an administrator set stay: a key takes none away (a tagged one that the node did not
    come with replaces them), and nor does a login of somebody who does not own them all.
    """
    given, expires_at = terms.tags, terms.expires_at
    if node.is_tagged and not _may_replace_tags(edit, node, terms):
        given, expires_at = node.tags, None
        if not _may_renew(edit, node, terms):
            # Still valid, and that is all: it gets a new node key, and no longer life.
            return replace(node, expires_at=_earlier(node.expires_at, request.expiry))
    return replace(
        node,
        user_id=None if given else terms.user_id,
        tags=given,
        expires_at=_earlier(expires_at, request.expiry),
        ephemeral=terms.ephemeral,
        auth_key_id=None if terms.key is None else terms.key.id,
        register_method=terms.method,
    )


def _may_replace_tags(edit: Edit, node: Node, terms: _Terms) -> bool:
    if terms.key is None:
        return _may_renew(edit, node, terms)
    return bool(terms.tags) and node.auth_key_id != terms.key.id


def _may_renew(edit: Edit, node: Node, terms: _Terms) -> bool:
    """Return whether a grant may bring back a tagged node that has expired.

    An administrator expires a node to lock it out, so what brings it back must be what let it in:
    the same key, another key of the same user, or a login of somebody who owns all of its tags.
    """
    if not node.is_tagged:
        return False
    if terms.key is None:
        user = None if terms.user_id is None else edit.users.get(terms.user_id)
        return user is not None and all(tags.may_claim(edit, user, tag) for tag in node.tags)
    if node.auth_key_id == terms.key.id:
        return True
    first = None if node.auth_key_id is None else edit.auth_keys.get(node.auth_key_id)
    return first is not None and not first.tags and first.user_id == terms.user_id


def _in_utc(said: datetime) -> datetime:
    try:
        return said.astimezone(UTC)
    except OverflowError as error:
        # The last hours of the year 9999 west of Greenwich, say.
        raise Invalid("expiry-impossible", "the expiry asked for cannot be kept") from error


def _note_use(edit: Edit, key: AuthKey, now: datetime) -> None:
    if key.used_at is None:
        edit.put(replace(key, used_at=now))


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    """Return the earlier of two times; None is never."""
    if one is None or other is None:
        return one or other
    return min(one, other)


def _shortened(current: datetime | None, wanted: datetime | None) -> datetime | None:
    if wanted is None:
        return current
    if current is not None and wanted > current:
        raise Forbidden(
            "expiry-extended", "a node may only shorten the life of its key; log in again instead"
        )
    return wanted


def _lifetime_end(edit: Edit, now: datetime) -> datetime | None:
    lifetime = edit.settings.key_expiry
    return None if lifetime is None else now + lifetime


def _terms_of_key(
    edit: Edit, request: tailcfg.RegisterRequest, key: AuthKey, now: datetime
) -> _Terms:
    """Return what a key gives. Raises Invalid if the client asks for tags that it does not give.

    Who owns a tag may claim it when logging in. A key speaks for nobody: it may have been made by
    an administrator for a user, or be in many hands, so it gives what it was made with.
    """
    asked = () if request.hostinfo is None else request.hostinfo.request_tags
    wrong = [tag for tag in asked if tag not in key.tags]
    if wrong:
        user = None if key.user_id is None else edit.users.get(key.user_id)
        owned = user is not None and all(
            tags.may_claim(edit, user, tag) for tag in wrong[: tags.MAX_TAGS_TOLD]
        )
        raise _not_permitted(
            wrong,
            "an auth key gives the tags that it was made with"
            + (
                f", also where its user {user.name} owns others"
                if user is not None and owned
                else ""
            )
            + "; leave --advertise-tags out or use a key with these tags "
            "(headwater preauthkeys create --tags)",
        )
    return _Terms(
        user_id=key.user_id,
        tags=key.tags,
        expires_at=None if key.tags else _lifetime_end(edit, now),
        ephemeral=key.ephemeral or request.ephemeral,
        method=RegisterMethod.AUTH_KEY,
        key=key,
    )


def _terms_of_login(
    edit: Edit, request: tailcfg.RegisterRequest, grant: LoginGrant, now: datetime
) -> _Terms:
    """Return what a login gives: a node of the user, or of tags that the user owns and asks for.

    Raises NotFound for an unknown user, Forbidden for a login that has run out, Invalid for tags.
    """
    user = users.get(edit, grant.user_id)
    if grant.expires_at is not None and grant.expires_at <= now:
        raise Forbidden("login-expired", "this login has run out: log in again")
    claimed = _claimed_tags(edit, request, user)
    expires_at = grant.expires_at or _lifetime_end(edit, now)
    return _Terms(
        user_id=user.id,
        tags=claimed,
        expires_at=None if claimed else expires_at,
        ephemeral=request.ephemeral,
        method=grant.method,
    )


def _claimed_tags(edit: Edit, request: tailcfg.RegisterRequest, user: User) -> tuple[str, ...]:
    asked = () if request.hostinfo is None else request.hostinfo.request_tags
    if len(asked) > checkin.MAX_REQUEST_TAGS:
        raise Invalid("tags-too-many", f"a node carries at most {checkin.MAX_REQUEST_TAGS} tags")
    wrong = [tag for tag in asked if not tags.may_claim(edit, user, tag)]
    if wrong:
        raise _not_permitted(
            wrong,
            f"the user {user.name} does not own them: leave --advertise-tags out, or have the policy "
            "name the user as an owner (tagOwners)",
        )
    return names.check_tags(asked)


def _not_permitted(wrong: list[str], why: str) -> Invalid:
    listed = tags.listed([checkin.plain(tag, names.MAX_TAG_CHARS) for tag in wrong])
    return Invalid(
        "tags-not-permitted",
        f"requested tags [{listed}] are invalid or not permitted: {why}",
        concerns=listed,
    )


def _key_of(edit: Edit, grant: KeyGrant) -> AuthKey | None:
    """Return the key that a text names, as it is in the draft; whether it is proved is not looked at."""
    key_id = edit.by_key_prefix.get(grant.prefix)
    return None if key_id is None else edit.auth_keys[key_id]


def _usable_key(edit: Edit, grant: KeyGrant, now: datetime) -> AuthKey:
    """Return the key as it is in the draft, or raise the reason why it does not let a node in."""
    if grant.is_missing:
        raise Forbidden(
            "auth-key-missing", f"this server lets nodes in by auth key: {HOW_TO_ENROL}"
        )
    if grant.is_foreign:
        raise Invalid(
            "auth-key-foreign",
            f"a key that starts with tskey- belongs to another service: {HOW_TO_ENROL}",
        )
    key = _key_of(edit, grant)
    if key is None:
        raise Forbidden("auth-key-unknown", f"this server has no such auth key: {HOW_TO_ENROL}")
    refusal = _why_not(grant, key, now)
    if refusal is not None:
        raise refusal
    return key


def _why_not(grant: KeyGrant, key: AuthKey, now: datetime) -> Rejected | None:
    """Return why a key does not let a node in now; None if it does."""
    if not keys.verify(key, grant.secret):
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
