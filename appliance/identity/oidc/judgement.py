"""From the claims of a provider to a person, and whether that person may come in.

Pure: values in, values out. Not for signatures (``tokens``) nor for users (``tailnet.people``).
Source: OpenID Connect Core 1.0 sections 5.1 (claims) and 5.3 (userinfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from appliance.errors import Forbidden
from appliance.identity.oidc.provider import ClaimNames, Provider
from appliance.records import Role
from appliance.tailnet.people import MAX_GROUP_CHARS, MAX_GROUPS, MAX_SUBJECT_CHARS, Person

Claims = Mapping[str, Any]

_MIGHT = (
    Role.ADMIN,
    Role.NETWORK_ADMIN,
    Role.IT_ADMIN,
    Role.BILLING_ADMIN,
    Role.AUDITOR,
    Role.MEMBER,
)
"""Roles that a provider may give, the mightiest first. Nobody becomes owner by a claim."""
_MAX_TEXT = 1024


@dataclass(frozen=True, slots=True)
class Judged:
    """A person who may come in, and until when the provider's token holds."""

    person: Person
    token_expires_at: datetime | None


def together(id_token: Claims, userinfo: Claims, names: ClaimNames) -> dict[str, Any]:
    """Join the claims of an ID token with those of userinfo, which are newer and count more.

    What makes a token that token stays its own, and what one says of an address is not said of
    another one. Raises Forbidden if the two speak of different
    subjects (OpenID Connect Core 1.0 section 5.3.2).
    """
    if userinfo and userinfo.get("sub") != id_token.get("sub"):
        raise Forbidden(
            "oidc-userinfo-differs",
            "the provider's userinfo speaks of another account than its ID token",
        )
    own = {
        key: id_token[key]
        for key in ("iss", "sub", "aud", "exp", "iat", "nonce")
        if key in id_token
    }
    found = {**id_token, **userinfo, **own}
    told = id_token.get(names.email)
    if told is not None and found[names.email] != told and names.email_verified not in userinfo:
        found.pop(names.email_verified, None)
    return found


def judge(provider: Provider, claims: Claims) -> Judged:
    """Return who it is. Raises Forbidden with a sentence for the person if they may not come in."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        raise Forbidden("oidc-no-subject", "the provider does not say whose account this is")
    if not subject.isprintable():
        raise Forbidden("oidc-no-subject", "the provider's name of this account is not printable")
    groups = groups_of(provider, claims)
    email = _text(claims, provider.claims.email)
    is_verified = _is_true(pick(claims, provider.claims.email_verified))
    if provider.email_verified_required and not is_verified:
        if email and (provider.allowed_domains or provider.allowed_users):
            raise Forbidden(
                "oidc-email-unverified",
                f"the provider has not verified the address {email}: confirm it there, then sign in"
                " again",
                concerns=email,
            )
        email = ""
    _check_allowed(provider, email, groups)
    person = Person(
        provider=provider.name,
        issuer=str(claims.get("iss", provider.issuer)),
        subject=subject,
        username=_text(claims, provider.claims.username),
        email=email if _is_address(email) else "",
        display_name=_text(claims, provider.claims.display_name),
        picture_url=_picture(_text(claims, provider.claims.picture)),
        groups=groups,
        role=role_of(provider, groups),
    )
    return Judged(person, _moment(claims.get("exp")))


def groups_of(provider: Provider, claims: Claims) -> tuple[str, ...]:
    """Return the groups that the claims name: a list of texts, or one text."""
    found = pick(claims, provider.claims.groups)
    items = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    kept = [
        item.lstrip("/")  # Keycloak gives paths
        for item in items
        if isinstance(item, str) and 0 < len(item) <= MAX_GROUP_CHARS and item.isprintable()
    ]
    return tuple(dict.fromkeys(group for group in kept if group))[:MAX_GROUPS]


def role_of(provider: Provider, groups: tuple[str, ...]) -> Role | None:
    """Return the role that groups give; None where the site file leaves roles to administrators."""
    if not provider.roles:
        return None
    given = {provider.roles[group] for group in groups if group in provider.roles}
    return next((role for role in _MIGHT if role in given), Role.MEMBER)


def pick(claims: Claims, path: str) -> object:
    """Return a claim: of exactly this name, or else along the dots; None if there is none."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _check_allowed(provider: Provider, email: str, groups: tuple[str, ...]) -> None:
    address = _folded(email)
    _, at, domain = address.rpartition("@")
    domains = {_folded(each).lstrip("@") for each in provider.allowed_domains}
    people = {_folded(each) for each in provider.allowed_users}
    wanted = {each.lstrip("/") for each in provider.allowed_groups}
    if domains and not (at and domain in domains):
        raise Forbidden(
            "oidc-domain-not-allowed",
            f"only people of {', '.join(sorted(domains))} may sign in with {provider.label}",
            concerns=email,
        )
    if people and (not address or address not in people):
        raise Forbidden(
            "oidc-user-not-allowed",
            f"{email or 'this account'} is not among those who may sign in with {provider.label}:"
            " ask an administrator",
            concerns=email,
        )
    if wanted and wanted.isdisjoint(groups):
        raise Forbidden(
            "oidc-group-not-allowed",
            f"this account is in none of the groups that may sign in with {provider.label}: ask an"
            " administrator",
            concerns=email,
        )


def _folded(text: str) -> str:
    """Give an address without its case; other letters fold to the same ones, and are not the same."""
    return text.lower() if text.isascii() else text


def _text(claims: Claims, path: str) -> str:
    found = pick(claims, path)
    return found.strip()[:_MAX_TEXT] if isinstance(found, str) else ""


def _is_true(value: object) -> bool:
    # Some providers send texts.
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")


def _is_address(text: str) -> bool:
    local, at, domain = text.partition("@")
    return (
        bool(at and local and domain)
        and "@" not in domain
        and text.isprintable()
        and " " not in text
        # Policies read addresses in lower case, where a Kelvin sign is a k.
        and text.isascii() == text.lower().isascii()
    )


def _picture(text: str) -> str:
    return text if text.startswith("https://") and text.isprintable() and " " not in text else ""


def _moment(seconds: object) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None
