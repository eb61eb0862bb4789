"""People whom an identity provider vouches for: which user they are, and what follows from a login.

Not for proving who somebody is (``identity.oidc``). A user is linked to a provider's account by issuer
and subject; an e-mail address or a name alone never links two. Sits on ``users``.
Source: OpenID Connect Core 1.0 section 5.7 (only issuer and subject together name an account).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from appliance.errors import Conflict, Forbidden, Rejected
from appliance.policy.engine.matches import names_of
from appliance.records import Role, User
from appliance.tailnet import users
from appliance.tailnet.snapshot import Edit, Snapshot

MAX_SUBJECT_CHARS = 255
"""OpenID Connect Core 1.0 section 2: a subject has at most 255 ASCII characters."""
MAX_GROUPS = 1000
"""Groups of one person that are kept, in the order of the provider; Entra sends at most 200."""
MAX_GROUP_CHARS = 255
"""Of a longer one no policy can speak; it is left out."""
MAX_NAMESAKES = 100
"""How many users may ask for one and the same name; a further one is named by an administrator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What a provider says of somebody who logged in, checked and in our words.

    ``email`` is empty unless the provider vouches for it. ``username`` is what they would like to be
    called. ``role`` None means that the provider has no say in it. ``provider`` is the name of the
    provider in the site file.
    """

    provider: str
    issuer: str
    subject: str
    username: str = ""
    email: str = ""
    display_name: str = ""
    picture_url: str = ""
    groups: tuple[str, ...] = ()
    role: Role | None = None


def find(state: Snapshot | Edit, issuer: str, subject: str) -> User | None:
    """Return the user whose account this is, if there is one."""
    for user in state.users.values():
        if user.subject == subject and user.issuer == issuer:
            return user
    return None


def sign_in(edit: Edit, person: Person, now: datetime) -> User:
    """Return the user of a person who logged in, made or brought up to date.

    Raises Conflict if the address that the provider vouches for belongs to another user.
    """
    known = find(edit, person.issuer, person.subject)
    _check_email_free(edit, person, known)
    if known is None:
        return _made(edit, person, now)
    return _updated(edit, known, person)


def link(edit: Edit, user: User, *, provider: str, issuer: str, subject: str) -> User:
    """Let an account of a provider log in as this user. Raises Conflict.

    For an administrator, who knows that both are the same person.
    """
    other = find(edit, issuer, subject)
    if other is not None and other.id != user.id:
        raise Conflict(
            "account-linked",
            f"this account logs in as the user {other.name!r}: remove that user or their link first",
            concerns=other.name,
        )
    if user.issuer and (user.issuer, user.subject) != (issuer, subject):
        raise Conflict(
            "user-linked",
            f"{user.name!r} logs in with another account (of {user.issuer}): unlink it first",
            concerns=user.name,
        )
    edit.put(replace(user, provider=provider, issuer=issuer, subject=subject))
    return edit.users[user.id]


def unlink(edit: Edit, user: User) -> User:
    """Take away a user's account at a provider, with the groups that came from there."""
    return users.changed(edit, replace(user, provider="", issuer="", subject="", groups=()))


def _check_email_free(edit: Edit, person: Person, known: User | None) -> None:
    if not person.email:
        return
    for user in edit.users.values():
        is_same = user.email.casefold() == person.email.casefold()
        # Somebody without an address may have one as the name, and policies mean them by it.
        is_same = is_same or person.email.lower() in names_of(user)
        if is_same and (known is None or user.id != known.id):
            raise Conflict(
                "email-of-another",
                f"the address {person.email} belongs to the user {user.name!r}, who does not log in"
                " with this account: an administrator can say that both are the same person"
                f" ({_how_to_link(person, user.name)})",
                concerns=user.name,
            )


def _how_to_link(person: Person, name: str) -> str:
    """Return a command for an administrator to copy; what a provider says must be safe there."""
    words = ("users", "link", name, "--provider", person.provider, "--subject", person.subject)
    return shlex.join(("headwater", *words))


def _made(edit: Edit, person: Person, now: datetime) -> User:
    role = person.role or Role.MEMBER
    for name in _names(person):
        try:
            user = users.create(
                edit,
                name,
                now,
                display_name=person.display_name,
                email=person.email,
                profile_pic_url=person.picture_url,
                role=role,
            )
        except Rejected:
            continue
        return users.changed(
            edit,
            replace(
                user,
                provider=person.provider,
                issuer=person.issuer,
                subject=person.subject,
                groups=person.groups,
            ),
        )
    raise Forbidden(
        "no-name-left",
        "the provider gives no name that is still free here: an administrator can make a user and"
        f" link it ({_how_to_link(person, 'NAME')})",
        concerns=person.subject,
    )


def _updated(edit: Edit, known: User, person: Person) -> User:
    """Return the user as the provider describes them now. Their name stays: policies may use it."""
    role = known.role if person.role is None or known.role is Role.OWNER else person.role
    return users.changed(
        edit,
        replace(
            known,
            provider=person.provider,
            email=person.email or known.email,
            display_name=users.plain(person.display_name) or known.display_name,
            profile_pic_url=person.picture_url or known.profile_pic_url,
            groups=person.groups,
            role=role,
        ),
    )


def _names(person: Person) -> Iterator[str]:
    """Return names to try, in order.

    None has an ``@``, whatever the provider calls somebody: policies take such a word for an e-mail
    address, and for most providers people may choose what they are called.
    """
    wanted = [person.username.partition("@")[0], person.email.partition("@")[0]]
    wanted.append(person.display_name.partition("@")[0])
    for text in wanted:
        name = re.sub(r"[^\w.+-]+", "-", text.strip()).strip("-.+")[: users.MAX_NAME_CHARS - 4]
        if not name:
            continue
        yield name
        for number in range(2, MAX_NAMESAKES):
            yield f"{name}-{number}"
