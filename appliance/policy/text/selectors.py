"""Selectors: the words of a policy that name nodes, users or addresses.

Not for who matches them (``matches``). ``Names`` knows what the document defines (groups, tags,
hosts, IP sets) and reads one word; two words that mean the same give equal selectors.
Sits on ``spans`` and ``mistakes``.
Source: the hosted service's page "Syntax reference for the tailnet policy file"; headscale 0.29
hscontrol/policy/v2/types.go; the recorded error answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, TypeAlias

from appliance.policy.text import spans
from appliance.policy.text.mistakes import Reader
from appliance.policy.text.spans import Span
from appliance.wire.hujson import Path


class Kind(StrEnum):
    """What sort of thing a selector names."""

    EVERYONE = "*"
    DANGER_ALL = "autogroup:danger-all"
    INTERNET = "autogroup:internet"
    SELF = "autogroup:self"
    MEMBER = "autogroup:member"
    TAGGED = "autogroup:tagged"
    SHARED = "autogroup:shared"
    ROLE = "role"
    USER = "user"
    DOMAIN = "domain"
    GROUP = "group"
    SYNCED_GROUP = "group of an identity provider"
    TAG = "tag"
    ADDRESSES = "addresses"
    SERVICE = "service"


PEOPLE = frozenset(
    {
        Kind.USER,
        Kind.GROUP,
        Kind.SYNCED_GROUP,
        Kind.DOMAIN,
        Kind.MEMBER,
        Kind.ROLE,
        Kind.SHARED,
        Kind.EVERYONE,
    }
)
"""Kinds that are decided by the user alone, so that ``autogroup:self`` can follow them."""

ROLES = ("owner", "admin", "it-admin", "network-admin", "billing-admin", "auditor")
_PLAIN_AUTOGROUPS = (
    Kind.DANGER_ALL,
    Kind.INTERNET,
    Kind.SELF,
    Kind.MEMBER,
    Kind.TAGGED,
    Kind.SHARED,
)
AUTOGROUPS = (*(str(kind) for kind in _PLAIN_AUTOGROUPS), *(f"autogroup:{role}" for role in ROLES))


@dataclass(frozen=True, slots=True)
class Selector:
    """One word. ``name`` is what tells it from others of its kind; ``written`` is for people.

    ``spans`` are the addresses of kind ADDRESSES, in the cuts that the rules are to show.
    """

    kind: Kind
    name: str = ""
    spans: tuple[Span, ...] = ()
    written: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Side:
    """Where a word stands: which kinds are allowed there, and how its mistakes begin."""

    prefix: Callable[[str], str]
    forbidden: Mapping[Kind, str] = field(default_factory=dict)


def bare(_word: str) -> str:
    """Begin a mistake with nothing."""
    return ""


_NOT_IN_SOURCES = {
    Kind.SELF: '"autogroup:self" not valid on the src side of a rule',
    Kind.INTERNET: "autogroup:internet can only be used in ACL destinations, "
    '"autogroup:internet" not valid on the src side of a rule',
    Kind.SERVICE: "a service can only be a destination",
}
_NOT_IN_DESTINATIONS = {
    Kind.DANGER_ALL: "cannot use autogroup:danger-all as a dst",
    Kind.SHARED: '"autogroup:shared" not valid on the dst side of a rule',
}
SOURCE = Side(lambda _: "src=", _NOT_IN_SOURCES)
ACL_DESTINATION = Side(lambda word: f'dst="{word}": ', _NOT_IN_DESTINATIONS)
GRANT_DESTINATION = Side(bare, _NOT_IN_DESTINATIONS)
ATTRIBUTE_TARGET = Side(
    bare,
    {
        kind: f'nodeAttrs target does not support "{kind}"'
        for kind in (Kind.SELF, Kind.INTERNET, Kind.DANGER_ALL, Kind.SHARED, Kind.SERVICE)
    },
)

_Found: TypeAlias = "tuple[Selector | None, str, Iterable[str]]"
"""A selector, or what is wrong with a word and the words that it may have been meant to be."""

_BARE_LOGIN = re.compile(r"[A-Za-z][\w.+-]*", re.ASCII)
# Clients can only ask for letters, digits and dashes; what an administrator sets may have more.
TAG_NAME = re.compile(r"tag:[A-Za-z][^\s:]*")


@dataclass(slots=True)
class Names:
    """What the document defines; filled section by section, then used to read all others.

    ``domains`` are those that the tailnet owns; None means that nobody said, so none is refused.
    ``providers`` are identity providers that bring groups of their own.
    """

    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tags: dict[str, tuple[Selector, ...]] = field(default_factory=dict)
    hosts: dict[str, Span] = field(default_factory=dict)
    ipsets: dict[str, tuple[Span, ...]] = field(default_factory=dict)
    postures: set[str] = field(default_factory=set)
    domains: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    _known: dict[tuple[str, int], Selector] = field(default_factory=dict)

    def read(self, reader: Reader, word: str, path: Path, side: Side) -> Selector | None:
        """Read one word; None, and a mistake noted, if it means nothing here."""
        key = word, id(side)
        if key in self._known:
            return self._known[key]
        selector, problem = self._find(reader, word)
        if selector is not None and selector.kind in side.forbidden:
            reader.note(path, side.forbidden[selector.kind])
            return None
        if selector is None:
            reader.note(path, f"{side.prefix(word)}{problem}")
            return None
        self._known[key] = selector
        return selector

    def _find(self, reader: Reader, word: str) -> tuple[Selector | None, str]:
        """Return the selector for a word, or what is wrong with it."""
        if word == "*":
            return Selector(Kind.EVERYONE, written=word), ""
        find = self._finders.get(word.partition(":")[0]) if ":" in word else None
        if find is not None:
            selector, problem, known = find(self, word)
            near = reader.suggest(word, known) if selector is None and known else ""
            return selector, problem + near
        if word.count("@") == 1:
            return Selector(Kind.USER, word.lower(), written=word), ""
        span = self.hosts.get(word.removeprefix("host:")) or spans.parse(word)
        if span is not None:
            return Selector(Kind.ADDRESSES, "", (span,), word), ""
        near = reader.suggest(word, (*AUTOGROUPS, *self.groups, *self.tags, *self.hosts))
        if not near and _BARE_LOGIN.fullmatch(word):
            near = f'; if it is a user, write "{word}@"'
        return None, f'host not defined in policy: "{word}"{near}'

    def _autogroup(self, word: str) -> _Found:
        name = word.removeprefix("autogroup:")
        if name == "members":
            return Selector(Kind.MEMBER, written=word), "", ()
        if name in ROLES:
            return Selector(Kind.ROLE, name, written=word), "", ()
        if word in _PLAIN_AUTOGROUPS:
            return Selector(Kind(word), written=word), "", ()
        return None, f'invalid autogroup: got "{word}"', AUTOGROUPS

    def _tag(self, word: str) -> _Found:
        if word in self.tags:
            return Selector(Kind.TAG, word, written=word), "", ()
        return None, f'tag not found: "{word}"', self.tags

    def _group(self, word: str) -> _Found:
        if word in self.groups:
            return Selector(Kind.GROUP, word, written=word), "", ()
        _, at, provider = word.rpartition("@")
        if self.providers and (not at or provider in self.providers):
            return Selector(Kind.SYNCED_GROUP, word, written=word), "", ()
        return None, f'group not defined in policy: "{word}"', self.groups

    def _domain(self, word: str) -> _Found:
        login = word.removeprefix("user:")
        if not login.startswith("*@"):
            if login.count("@") == 1:
                return Selector(Kind.USER, login.lower(), written=word), "", ()
            return None, f'"{word}" is neither user:*@<domain> nor user:<name>@<domain>', ()
        domain = login.removeprefix("*@")
        if domain in self.domains:
            return Selector(Kind.DOMAIN, domain, written=word), "", ()
        return None, foreign_domain(domain), ()

    def _service(self, word: str) -> _Found:
        if re.fullmatch(r"svc:[a-z0-9*][a-z0-9-]*", word):
            return Selector(Kind.SERVICE, word, written=word), "", ()
        return None, f'"{word}" is not a service name, which is svc: and a DNS label', ()

    def _ipset(self, word: str) -> _Found:
        if word in self.ipsets:
            return Selector(Kind.ADDRESSES, "", self.ipsets[word], word), "", ()
        return None, f'ipset not found: "{word}"', self.ipsets

    _finders: ClassVar[Mapping[str, Callable[[Names, str], _Found]]] = {
        "autogroup": _autogroup,
        "tag": _tag,
        "group": _group,
        "user": _domain,
        "svc": _service,
        "ipset": _ipset,
    }
    """What a word may begin with, before its first colon."""


def foreign_domain(domain: str) -> str:
    """Return the mistake for a domain that the tailnet does not own."""
    return (
        f"{domain} is not associated with this Tailnet and cannot be used in "
        "user:*@<domain> expressions"
    )
