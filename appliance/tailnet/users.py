"""The verbs for users, and what the wire says of a node's owner.

Not for who may log in (``identity``). Sits on ``snapshot``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from appliance.errors import Conflict, Invalid, NotFound
from appliance.policy.engine.matches import names_of
from appliance.records import (
    TAGGED_USER_ID,
    ApiKey,
    AuthKey,
    Credential,
    Node,
    OAuthClient,
    Role,
    Session,
    User,
    UserID,
)
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Snapshot
from appliance.wire import tailcfg

MAX_NAME_CHARS = 254
"""The longest e-mail address, since an identity provider's users may be named by theirs."""
MAX_TEXT_CHARS = 1024
"""For display names and picture URLs: they are sent to every node."""

TAGGED_PROFILE = tailcfg.UserProfile(
    id=TAGGED_USER_ID, login_name="tagged-devices", display_name="Tagged Devices"
)
"""The owner of tagged nodes, as clients know it from other servers."""

_NAME = re.compile(r"\w(?:[\w.@+ -]*[\w.@+-])?")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")
_PICTURE_URL = re.compile(r"https?://\S+")


def create(
    edit: Edit,
    name: str,
    now: datetime,
    *,
    display_name: str = "",
    email: str = "",
    profile_pic_url: str = "",
    role: Role = Role.MEMBER,
) -> User:
    """Add a user. Raises Invalid, or Conflict if the name or the e-mail address is taken.

    Nobody becomes owner unasked, and where there is an owner a new one must be made by ``set_role``.
    """
    name = check_name(name)
    email = _check_email(email)
    if profile_pic_url and not _PICTURE_URL.fullmatch(profile_pic_url[:MAX_TEXT_CHARS]):
        raise Invalid(
            "user-picture-invalid", "the picture of a user is a link that starts with https://"
        )
    _check_unique(edit, name, email)
    _check_words(edit, User(UserID(0), name, now, email=email))
    owner = owner_of(edit)
    if role is Role.OWNER and owner is not None:
        raise Conflict(
            "owner-taken",
            f"{owner.name!r} is the owner of this tailnet, and it has one only: make the new user"
            " a member, then hand the role over ('users set-role')",
            concerns=owner.name,
        )
    user = User(
        id=edit.ids.next_user(),
        name=name,
        created_at=now,
        display_name=plain(display_name),
        email=email,
        profile_pic_url=profile_pic_url[:MAX_TEXT_CHARS],
        role=role,
    )
    edit.put(user)
    return user


def get(state: Snapshot | Edit, user_id: UserID) -> User:
    """Return a user. Raises NotFound."""
    user = state.users.get(user_id)
    if user is None:
        raise NotFound("user-unknown", f"there is no user with the id {user_id}")
    return user


def find(
    state: Snapshot | Edit, *, user_id: UserID | None = None, name: str = "", email: str = ""
) -> list[User]:
    """List users by id; of the filters that are given, name counts before e-mail before id."""
    found = sorted(state.users.values(), key=lambda user: user.id)
    if name:
        return [user for user in found if user.name == name]
    if email:
        return [user for user in found if user.email == email]
    if user_id is not None:
        return [user for user in found if user.id == user_id]
    return found


def find_one(state: Snapshot | Edit, *, user_id: UserID | None = None, name: str = "") -> User:
    """Return the user with this id or this name. Raises Invalid if none is asked for, NotFound."""
    if user_id is not None:
        return get(state, user_id)
    if not name:
        raise Invalid("user-not-named", "say which user: by id or by name")
    found = find(state, name=name)
    if not found:
        raise NotFound("user-unknown", f"there is no user named {name!r}", concerns=name)
    return found[0]


def rename(edit: Edit, user_id: UserID, name: str) -> User:
    """Give a user another name. Raises NotFound, Invalid, Conflict.

    A user who comes from an identity provider has the name from there.
    """
    old = get(edit, user_id)
    if old.provider:
        raise Invalid(
            "user-from-provider",
            f"{old.name!r} comes from the identity provider {old.provider}, with that name: unlink"
            " the account first (headwater users unlink)",
            concerns=old.name,
        )
    name = check_name(name)
    _check_unique(edit, name, "", besides=user_id)
    renamed = replace(old, name=name)
    _check_words(edit, renamed)
    return changed(edit, renamed)


def set_role(edit: Edit, user_id: UserID, role: Role) -> User:
    """Set a user's role, as policies name it. Raises NotFound.

    A tailnet has one owner or none; whoever hands the role over becomes an administrator.
    """
    owner = owner_of(edit)
    if role is Role.OWNER and owner is not None and owner.id != user_id:
        get(edit, user_id)
        changed(edit, replace(owner, role=Role.ADMIN))
    return changed(edit, replace(get(edit, user_id), role=role))


def check_role(text: str) -> Role:
    """Read a role's name; empty is that of a member. Raises Invalid."""
    try:
        return Role(text.strip().lower().removeprefix("autogroup:") or Role.MEMBER)
    except ValueError as error:
        sentence = f"{text[:MAX_NAME_CHARS]!r} is no role: roles are {', '.join(Role)}"
        raise Invalid("role-unknown", sentence, concerns=text[:MAX_NAME_CHARS]) from error


def owner_of(state: Snapshot | Edit) -> User | None:
    """Return the owner of the tailnet, if it has one."""
    return next((user for user in state.users.values() if user.role is Role.OWNER), None)


def destroy(edit: Edit, user_id: UserID) -> User:
    """Remove a user with all keys, sessions and credentials. Raises NotFound, or Conflict while they own anything."""
    user = get(edit, user_id)
    if user.role is Role.OWNER:
        raise Conflict(
            "user-is-owner",
            f"{user.name!r} is the owner of the tailnet: give the role to somebody else first, or"
            " make the user a member ('users set-role')",
            concerns=user.name,
        )
    owned = sum(node.user_id == user_id for node in edit.nodes.values())
    if owned:
        raise Conflict(
            "user-has-nodes",
            f"the user {user.name!r} still owns {owned} node(s); delete or move them first",
            concerns=user.name,
        )
    held: tuple[AuthKey | ApiKey | OAuthClient | Session | Credential, ...] = (
        *edit.auth_keys.values(),
        *edit.api_keys.values(),
        *edit.oauth_clients.values(),
        *edit.sessions.values(),
        *edit.credentials.values(),
    )
    for each in held:
        if each.user_id == user_id:
            edit.drop(each)
    edit.drop(user)
    return user


def check_name(text: str) -> str:
    """Read a user's name. Raises Invalid."""
    name = text.strip()
    is_formed = len(name) <= MAX_NAME_CHARS and _NAME.fullmatch(name) and name.count("@") <= 1
    if not is_formed or name.isdigit():  # commands take a number for an id
        raise Invalid(
            "user-name-invalid",
            f"{text[:MAX_NAME_CHARS]!r} cannot be a user's name: start with a letter or a digit, then"
            " use letters, digits, spaces and . _ + - with at most one @, and not digits only",
            concerns=text[:MAX_NAME_CHARS],
        )
    if name.casefold() == TAGGED_PROFILE.login_name:
        raise Invalid("user-name-reserved", f"the name {name!r} stands for all tagged nodes")
    return name


def profile(state: Snapshot | Edit, owner_id: UserID) -> tailcfg.UserProfile:
    """Return what the wire says of ``Node.owner_id``: a user, or the owner of all tagged nodes."""
    if owner_id == TAGGED_USER_ID:
        return TAGGED_PROFILE
    user = state.users[owner_id]
    return tailcfg.UserProfile(
        id=user.id,
        login_name=user.login_name,
        display_name=user.display_name or user.name,
        profile_pic_url=user.profile_pic_url,
    )


def wire_owner(state: Snapshot | Edit, node: Node) -> tuple[tailcfg.User, tailcfg.Login]:
    """Return the owner of a node in the two forms of a RegisterResponse."""
    owner = profile(state, node.owner_id)
    user = None if node.user_id is None else state.users[node.user_id]
    return (
        tailcfg.User(
            id=owner.id,
            display_name=owner.display_name,
            profile_pic_url=owner.profile_pic_url,
            created=None if user is None else user.created_at,
        ),
        tailcfg.Login(
            id=owner.id,
            provider="" if user is None else user.provider,
            login_name=owner.login_name,
            display_name=owner.display_name,
            profile_pic_url=owner.profile_pic_url,
        ),
    )


def changed(edit: Edit, user: User) -> User:
    """Put a user whom a policy may mean by other words than before; their routes may be approved."""
    edit.put(user)
    policies.approve_offers(edit, [n for n in edit.nodes.values() if n.user_id == user.id])
    return edit.users[user.id]


def _check_email(text: str) -> str:
    email = text.strip()
    if email and (len(email) > MAX_NAME_CHARS or not _EMAIL.fullmatch(email)):
        raise Invalid(
            "user-email-invalid",
            f"{email[:MAX_NAME_CHARS]!r} is not an e-mail address",
            concerns=email[:MAX_NAME_CHARS],
        )
    return email


def _check_unique(edit: Edit, name: str, email: str, besides: UserID | None = None) -> None:
    for user in edit.users.values():
        if user.id == besides:
            continue
        if user.name.casefold() == name.casefold():
            raise Conflict(
                "user-name-taken", f"there is a user named {user.name!r} already", concerns=name
            )
        if email and user.email.casefold() == email.casefold():
            raise Conflict(
                "user-email-taken",
                f"the address {email!r} belongs to the user {user.name!r}",
                concerns=email,
            )


def _check_words(edit: Edit, wanted: User) -> None:
    """Refuse a user whom policies would call by a word that means somebody else already.

    A name may be an e-mail address, and one without an address is called by the name as it is.
    """
    words = names_of(wanted)
    for user in edit.users.values():
        shared = words & names_of(user) if user.id != wanted.id else ()
        for word in shared:
            raise Conflict(
                "user-word-taken",
                f"policies mean the user {user.name!r} by {word!r}, and would mean both: choose"
                " another name or address",
                concerns=word,
            )


def plain(text: str) -> str:
    """Leave out what could steer a terminal, and bound the rest."""
    return "".join(c for c in text[:MAX_TEXT_CHARS] if c.isprintable())
