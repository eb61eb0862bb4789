"""What proves a person without an identity provider: one-time links, invitations, passkeys, codes.

Only hashes are kept, and what is secret has 80 random bits and more, so that a plain SHA-256 is enough
and a look-up by it takes a time that tells nothing. Not for the passkeys' protocol (``passkeys``) nor for
who may make links (the doors). Verbs over an ``Edit``, pure.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from appliance.errors import Conflict, Forbidden, Invalid, NotFound, TooMany
from appliance.records import Credential, CredentialID, CredentialKind, Role, User, UserID
from appliance.tailnet import users
from appliance.tailnet.snapshot import Edit, Snapshot

RandomBytes = Callable[[int], bytes]

LINK_BYTES = 32
LINK_LIFETIME = timedelta(minutes=15)
"""Of a sign-in link: it goes from a terminal to the browser beside it."""
INVITATION_LIFETIME = timedelta(days=7)
"""It is sent to somebody who may be away."""
MAX_LINKS = 8
"""Links or invitations of one user that wait at a time; the oldest makes room."""
MAX_PASSKEYS = 16
"""Of one user: devices and security keys, with some to spare."""
MAX_NAME_CHARS = 60

CODES = 10
CODE_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
"""No letter that looks like another; people copy these from paper."""
CODE_LENGTH = 16
"""79 random bits."""
GROUP = 4

_LASTING = (CredentialKind.PASSKEY, CredentialKind.RECOVERY_CODE)


def holder(edit: Edit, name: str, now: datetime) -> User:
    """Return the user whom a sign-in link is for; the owner if none is named.

    Where nobody owns the tailnet, whoever is named does from now on, and is made if there is no such
    user. Raises Invalid where there is neither an owner nor a name, NotFound.
    """
    owner = users.owner_of(edit)
    if not name:
        if owner is None:
            raise Invalid(
                "owner-missing",
                "this tailnet has no owner yet: name who is to be it "
                "(headwater sign-in-link --user NAME)",
            )
        return owner
    if owner is not None:
        return users.find_one(edit, name=name)
    found = users.find(edit, name=name)
    if found:
        take_back_invitations(edit, found[0].id)
        return users.set_role(edit, found[0].id, Role.OWNER)
    return users.create(edit, name, now, role=Role.OWNER)


def check_never_signed_in(state: Snapshot | Edit, user: User) -> None:
    """Refuse to invite somebody who is there: the link would let its holder be them. Raises Conflict."""
    has_keys = any(
        each.user_id == user.id and each.kind is not CredentialKind.INVITATION
        for each in state.credentials.values()
    )
    has_nodes = any(node.user_id == user.id for node in state.nodes.values())
    is_signed_in = any(each.user_id == user.id for each in state.sessions.values())
    if user.subject or has_keys or has_nodes or is_signed_in:
        raise Conflict(
            "user-is-there",
            f"{user.name!r} is there already: an invitation would let its holder be that user. On the "
            "server, headwater sign-in-link makes a link for somebody who lost the way in",
            concerns=user.name,
        )


def make_link(
    edit: Edit,
    user_id: UserID,
    kind: CredentialKind,
    now: datetime,
    *,
    random_bytes: RandomBytes,
) -> tuple[str, Credential]:
    """Make a link or an invitation; give its secret, which nobody can find out again."""
    users.get(edit, user_id)
    _forget_expired(edit, now)
    mine = of_user(edit, user_id, kind)
    for oldest in mine[: max(0, len(mine) + 1 - MAX_LINKS)]:
        edit.drop(oldest)
    text = urlsafe_b64encode(random_bytes(LINK_BYTES)).rstrip(b"=").decode()
    lifetime = LINK_LIFETIME if kind is CredentialKind.LINK else INVITATION_LIFETIME
    link = Credential(
        id=CredentialID(edit.ids.next("credentials")),
        user_id=user_id,
        kind=kind,
        lookup=_hash(kind, text),
        created_at=now,
        expires_at=now + lifetime,
    )
    edit.put(link)
    return text, link


def find(
    state: Snapshot | Edit, kind: CredentialKind, text: str, now: datetime
) -> Credential | None:
    """Find what a secret proves; None if there is nothing, or nothing any more."""
    found = state.by_credential.get(_hash(kind, _plain_code(text) if _is_code(kind) else text))
    credential = None if found is None else state.credentials[found]
    if credential is None or credential.kind is not kind or _is_expired(credential, now):
        return None
    if kind is CredentialKind.INVITATION and has_come(state, credential.user_id):
        return None
    return credential


def has_come(state: Snapshot | Edit, user_id: UserID) -> bool:
    """Tell whether a user signed in, or has a way to: an invitation would let its holder be them."""
    user = state.users.get(user_id)
    has_account = user is not None and bool(user.subject)
    return (
        has_account
        or any(each.user_id == user_id for each in state.sessions.values())
        or any(
            each.user_id == user_id and each.kind in _LASTING for each in state.credentials.values()
        )
    )


def take_back_invitations(edit: Edit, user_id: UserID) -> None:
    """Let no invitation of a user be good any more: it was for somebody who might do less."""
    for each in of_user(edit, user_id, CredentialKind.INVITATION):
        edit.drop(each)


def spend(edit: Edit, kind: CredentialKind, text: str, now: datetime) -> Credential:
    """Take a link, an invitation or a code for its one use. Raises Forbidden."""
    credential = find(edit, kind, text, now)
    if credential is None:
        raise refusal(kind)
    edit.drop(credential)
    if kind is CredentialKind.INVITATION:
        take_back_invitations(edit, credential.user_id)  # whoever made it may have kept another one
    return credential


def refusal(kind: CredentialKind) -> Forbidden:
    """Return the refusal of a secret that proves nothing."""
    if _is_code(kind):
        return Forbidden("code-wrong", "this is no recovery code that is still good")
    return Forbidden(
        "link-used",
        "this link is not good (any more): it works once, and not for long. Ask for a new one",
    )


def make_codes(
    edit: Edit, user_id: UserID, now: datetime, *, random_bytes: RandomBytes
) -> tuple[str, ...]:
    """Make recovery codes for a user; those from before are worth nothing from now on."""
    users.get(edit, user_id)
    for old in of_user(edit, user_id, CredentialKind.RECOVERY_CODE):
        edit.drop(old)
    texts = []
    for _ in range(CODES):
        text = "".join(CODE_LETTERS[b % len(CODE_LETTERS)] for b in random_bytes(CODE_LENGTH))
        edit.put(
            Credential(
                id=CredentialID(edit.ids.next("credentials")),
                user_id=user_id,
                kind=CredentialKind.RECOVERY_CODE,
                lookup=_hash(CredentialKind.RECOVERY_CODE, text),
                created_at=now,
            )
        )
        texts.append("-".join(text[at : at + GROUP] for at in range(0, CODE_LENGTH, GROUP)))
    return tuple(texts)


def add_passkey(
    edit: Edit,
    user_id: UserID,
    now: datetime,
    *,
    public_id: bytes,
    public_key: bytes,
    sign_count: int,
    name: str,
) -> Credential:
    """Add a passkey to a user. Raises NotFound, TooMany, or Conflict if it is known already."""
    users.get(edit, user_id)
    if len(of_user(edit, user_id, CredentialKind.PASSKEY)) >= MAX_PASSKEYS:
        raise TooMany("passkeys-too-many", f"a user has at most {MAX_PASSKEYS} passkeys")
    if find_passkey(edit, public_id) is not None:
        raise Conflict("passkey-known", "this passkey is registered already")
    passkey = Credential(
        id=CredentialID(edit.ids.next("credentials")),
        user_id=user_id,
        kind=CredentialKind.PASSKEY,
        lookup=_lookup_of(public_id),
        created_at=now,
        name="".join(c for c in name[:MAX_NAME_CHARS] if c.isprintable()).strip() or "Passkey",
        public_id=public_id,
        public_key=public_key,
        sign_count=sign_count,
    )
    edit.put(passkey)
    return passkey


def find_passkey(state: Snapshot | Edit, public_id: bytes) -> Credential | None:
    """Find a passkey by its public id."""
    found = state.by_credential.get(_lookup_of(public_id))
    return None if found is None else state.credentials[found]


def use_passkey(
    edit: Edit, credential_id: CredentialID, sign_count: int, now: datetime
) -> Credential:
    """Note a use. Raises Forbidden for a count that does not go up: the passkey may be a copy."""
    passkey = edit.credentials.get(credential_id)
    if passkey is None:
        raise Forbidden("passkey-unknown", "this passkey is not registered here (any more)")
    if (sign_count or passkey.sign_count) and sign_count <= passkey.sign_count:
        raise Forbidden(
            "passkey-copied",
            "this passkey counts backwards, as a copy of one does: sign in by other means and remove it",
        )
    passkey = replace(passkey, sign_count=sign_count, used_at=now)
    edit.put(passkey)
    return passkey


def remove_passkey(edit: Edit, user_id: UserID, credential_id: CredentialID) -> Credential:
    """Remove a passkey of a user. Raises NotFound, also for one of somebody else."""
    passkey = edit.credentials.get(credential_id)
    if passkey is None or passkey.kind is not CredentialKind.PASSKEY or passkey.user_id != user_id:
        raise NotFound("passkey-unknown", "you have no such passkey (any more)")
    edit.drop(passkey)
    return passkey


def of_user(state: Snapshot | Edit, user_id: UserID, kind: CredentialKind) -> list[Credential]:
    """List a user's credentials of a kind, the oldest first."""
    return [
        each for each in state.credentials.values() if each.user_id == user_id and each.kind is kind
    ]


def _forget_expired(edit: Edit, now: datetime) -> None:
    for each in [each for each in edit.credentials.values() if _is_expired(each, now)]:
        edit.drop(each)


def _is_expired(credential: Credential, now: datetime) -> bool:
    return credential.expires_at is not None and credential.expires_at <= now


def _is_code(kind: CredentialKind) -> bool:
    return kind is CredentialKind.RECOVERY_CODE


def _plain_code(text: str) -> str:
    """Read a code as people type it."""
    return "".join(c for c in text[: 4 * CODE_LENGTH].lower() if c in CODE_LETTERS)


def _hash(kind: CredentialKind, text: str) -> str:
    """A link is no invitation: the kind is hashed with the secret."""
    return hashlib.sha256(f"{kind} {text}".encode(errors="replace")).hexdigest()


def _lookup_of(public_id: bytes) -> str:
    return hashlib.sha256(b"passkey " + public_id).hexdigest()
