"""HuJSON text to ``Policy``: the whole language, read strictly, every mistake with its place.

Not for what a policy does. This file reads what defines names (groups, hosts, tags, IP sets,
postures) and the small sections; ``rulesections`` and ``loginsections`` read the others.
Sits on ``language``, ``selectors`` and ``mistakes``.
Source: the hosted service's page "Syntax reference for the tailnet policy file"; headscale 0.29
hscontrol/policy/v2/types.go; the recorded error answers (their wording is kept where there is
a recording, since people search for it).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_network
from itertools import groupby
from typing import Final, TypeVar

from appliance.policy.engine import limits, nodeattrs
from appliance.policy.text import loginsections, postures, rulesections, spans
from appliance.policy.text.language import Approvers, NodeAttribute, Place, Policy
from appliance.policy.text.mistakes import Mistake, PolicyError, Reader, name_in, parse
from appliance.policy.text.selectors import (
    ATTRIBUTE_TARGET,
    TAG_NAME,
    Kind,
    Names,
    Selector,
    Side,
    bare,
)
from appliance.policy.text.spans import Span
from appliance.records import Network
from appliance.wire.hujson import JSON, Path, Spot

MAX_TEXT_CHARS = 1 << 20
"""A policy with 5,000 rules has 1 MB; reading this much takes less than a second."""
MAX_VALUES = 60_000
"""Commas in the text: bounds the parts that a short text can consist of, and so the memory."""
MAX_ENTRIES = {
    "acls": limits.MAX_RULES,
    "grants": limits.MAX_RULES,
    "ssh": 1000,
    "nodeAttrs": 1000,
    "tests": 20_000,
    "sshTests": 20_000,
}
"""Entries of a section. A device is told of each SSH rule with all its sources, and every node is
held against each node attribute."""
MAX_TAGS = 10_000
"""Tests make up a device for each that no device has."""
MAX_POSTURES = 500
MAX_CONDITIONS = 1000
"""Postures, and conditions of all together: every node is held against each."""
MAX_IPSET_ENTRIES = 5000
MAX_IPSET_TURNS = 100
"""Entries of all IP sets together, and changes between adding and removing: each turn works on a
whole set again."""
MAX_IPSET_SPANS = 100_000
"""Addresses and ranges that all IP sets together are put together from."""
MAX_IPSET_DEPTH = 16
"""IP sets may name other sets; nobody nests them deeper, and a circle must end."""

UNUSED: Final = ("derpMap", "attrConfig")
"""Sections of the hosted service that are read over: what they set comes from elsewhere here."""
SECTIONS: Final = (
    "acls",
    "grants",
    "groups",
    "hosts",
    "tagOwners",
    "autoApprovers",
    *UNUSED,
    "ipsets",
    "postures",
    "defaultSrcPosture",
    "nodeAttrs",
    "ssh",
    "tests",
    "sshTests",
    "randomizeClientPort",
    "disableIPv4",
    "OneCGNATRoute",
)
_T = TypeVar("_T")
_NO_OWNER = "an owner or approver is a user, group, tag or autogroup of users"
_OWNER = Side(
    bare,
    dict.fromkeys(
        (
            Kind.SELF,
            Kind.INTERNET,
            Kind.DANGER_ALL,
            Kind.EVERYONE,
            Kind.SERVICE,
            Kind.ADDRESSES,
            Kind.SHARED,
        ),
        _NO_OWNER,
    ),
)
_NO_SERVICE = (
    "the name of a service starts with svc:, or a tag stands for all services that have it"
)
_SERVICE = Side(bare, {kind: _NO_SERVICE for kind in Kind if kind not in (Kind.SERVICE, Kind.TAG)})
# Addresses that clients use for themselves: MagicDNS and its kin, and the part for ChromeOS.
_RESERVED_POOLS = tuple(
    spans.of_network(ip_network(text))
    for text in ("100.100.0.0/24", "100.100.100.0/24", "100.115.92.0/23")
)


def decode(
    text: str | bytes,
    *,
    domains: frozenset[str] = frozenset(),
    providers: frozenset[str] = frozenset(),
) -> Policy:
    """Read a policy; an empty text is the empty policy. Raises PolicyError with all mistakes.

    ``domains`` are those that the tailnet owns: ``user:*@domain`` and ``localpart:*@domain`` of
    any other are mistakes. ``providers`` are identity providers: where there is one, a group that
    the text does not define is one of theirs.
    """
    _check_size(text)
    document = parse(text)
    reader = Reader(document)
    policy = _Document(reader, document.value, domains, providers).read()
    reader.finish()
    too_large = [Mistake(spot, text) for spot, text in limits.problems(policy)]
    if too_large:
        raise PolicyError(too_large)
    return policy


def _check_size(text: str | bytes) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise PolicyError([Mistake(Spot(1, 1), f"the text is longer than {MAX_TEXT_CHARS} bytes")])
    values = text.count("," if isinstance(text, str) else b",")  # type: ignore[arg-type]  # same type
    if values > MAX_VALUES:
        raise PolicyError([Mistake(Spot(1, 1), f"the text has more than {MAX_VALUES} values")])


class _Document:
    """One reading of one document."""

    def __init__(
        self, reader: Reader, value: JSON, domains: frozenset[str], providers: frozenset[str]
    ) -> None:
        self._reader = reader
        self._fields = reader.fields(value, (), SECTIONS)
        self._names = Names(domains=domains, providers=providers)
        self._turns = 0
        self._spelled = 0

    def read(self) -> Policy:
        """Read every section; those that define names first."""
        fields, reader, names = self._fields, self._reader, self._names
        for name in UNUSED:
            for _ in reader.members(*self._part(name)):
                pass  # whatever it says
        self._hosts()
        self._ipsets()
        self._groups()
        self._tags()
        conditions = self._postures()
        return Policy(
            acls=self._section("acls", rulesections.acls),
            grants=self._section("grants", rulesections.grants),
            groups=names.groups,
            hosts=names.hosts,
            ipsets=names.ipsets,
            tags=names.tags,
            postures=conditions,
            default_postures=self._default_postures(),
            approvers=self._approvers(),
            ssh=self._section("ssh", loginsections.ssh) or (),
            attributes=self._section("nodeAttrs", _attributes) or (),
            tests=self._section("tests", loginsections.tests) or (),
            ssh_tests=self._section("sshTests", loginsections.ssh_tests) or (),
            randomize_client_port=reader.flag(*self._part("randomizeClientPort")),
            disable_ipv4=reader.flag(*self._part("disableIPv4")),
            one_cgnat_route=self._one_cgnat_route(),
            domains=names.domains if fields else frozenset(),
            providers=names.providers if fields else frozenset(),
        )

    def _part(self, name: str) -> tuple[JSON, Path]:
        return self._fields.get(name), (name_in(self._fields, name),)

    def _section(
        self, name: str, read: Callable[[Reader, Names, JSON, Path], tuple[_T, ...]]
    ) -> tuple[_T, ...] | None:
        value, path = self._part(name)
        if isinstance(value, list) and len(value) > MAX_ENTRIES[name]:
            self._reader.note(path, f"more than {MAX_ENTRIES[name]} entries in {name}: join some")
            return ()
        return None if value is None else read(self._reader, self._names, value, path)

    def _hosts(self) -> None:
        value, path = self._part("hosts")
        for name, part in self._reader.members(value, path):
            where = (*path, name)
            span = spans.parse(self._reader.text(part, where))
            if not re.fullmatch(r"[A-Za-z0-9_][\w.-]*", name, re.ASCII):
                text = f'hosts["{name}"]: a host name has letters, digits, "-", "_" and "."'
                self._reader.note(where, text, at_name=True)
            elif spans.parse(name) is not None:
                text = (
                    f'hosts["{name}"]: a name that is an address would hide what rules mean by it'
                )
                self._reader.note(where, text, at_name=True)
            if span is None:
                text = f'hosts["{name}"]: want an IP address or a prefix'
                self._reader.note(where, text)
            else:
                self._names.hosts[name] = span

    def _ipsets(self) -> None:
        value, path = self._part("ipsets")
        lists: dict[str, list[tuple[str, Path]]] = {}
        for name, part in self._reader.members(value, path):
            if not name.startswith("ipset:"):
                text = f'ipsets["{name}"]: the name must start with "ipset:"'
                self._reader.note((*path, name), text, at_name=True)
            lists[name] = list(self._reader.texts(part, (*path, name)))
        if sum(map(len, lists.values())) > MAX_IPSET_ENTRIES:
            self._reader.note(path, f"more than {MAX_IPSET_ENTRIES} entries in all ipsets")
            lists = {name: [] for name in lists}
        for name in lists:
            self._names.ipsets[name] = self._ipset(name, lists, ())

    def _ipset(
        self, name: str, lists: dict[str, list[tuple[str, Path]]], above: tuple[str, ...]
    ) -> tuple[Span, ...]:
        if name in self._names.ipsets:
            return self._names.ipsets[name]
        found: tuple[Span, ...] = ()
        for is_removal, turn in groupby(lists[name], lambda each: each[0].startswith("remove ")):
            part: list[Span] = []
            for text, path in turn:
                if self._spelled > MAX_IPSET_SPANS:
                    self._reader.note(path, f"more than {MAX_IPSET_SPANS} spans in all ipsets")
                    return found
                verb, _, rest = text.partition(" ")
                word = rest.strip() if verb in ("add", "remove") else text
                if word in above or word == name or len(above) >= MAX_IPSET_DEPTH:
                    self._reader.note(path, f'ipsets["{name}"]: "{word}" contains this set')
                    continue
                more = self._ipset_part(word, path, lists, (*above, name))
                self._spelled += len(more)
                part += more
            found = spans.subtract(found, part) if is_removal else spans.union((*found, *part))
            self._turns += 1
            if self._turns > MAX_IPSET_TURNS:
                self._reader.note(path, "ipsets add and remove in turns too often: sort them")
                return found
        self._names.ipsets[name] = found
        return found

    def _ipset_part(
        self,
        word: str,
        path: Path,
        lists: dict[str, list[tuple[str, Path]]],
        above: tuple[str, ...],
    ) -> tuple[Span, ...]:
        if word in lists:
            return self._ipset(word, lists, above)
        span = self._names.hosts.get(word.removeprefix("host:")) or spans.parse(word)
        if span is None:
            near = self._reader.suggest(word, (*lists, *self._names.hosts))
            text = f'"{word}" is no address, prefix, range, host or ipset{near}'
            self._reader.note(path, text)
            return ()
        return (span,)

    def _groups(self) -> None:
        value, path = self._part("groups")
        for name, part in self._reader.members(value, path):
            if not re.fullmatch(r"group:\S+", name):
                text = f'groups["{name}"]: a group\'s name must start with "group:"'
                self._reader.note((*path, name), text, at_name=True)
            members = []
            for word, where in self._reader.texts(part, (*path, name)):
                problem = _member_problem(word)
                if problem:
                    self._reader.note(where, f'groups["{name}"]: "{word}": {problem}')
                else:
                    members.append(word.lower())
            self._names.groups[name] = tuple(members)

    def _tags(self) -> None:
        value, path = self._part("tagOwners")
        owners = list(self._reader.members(value, path))
        if len(owners) > MAX_TAGS:
            self._reader.note(path, f"more than {MAX_TAGS} tags")
            return
        for name, _ in owners:
            self._names.tags[name] = ()
            if not TAG_NAME.fullmatch(name):
                text = f'tagOwners["{name}"]: {_tag_problem(name)}'
                self._reader.note((*path, name), text, at_name=True)
        for name, part in owners:
            self._names.tags[name] = self._selectors(part, (*path, name), _OWNER)

    def _selectors(self, value: JSON, path: Path, side: Side) -> tuple[Selector, ...]:
        found = (
            self._names.read(self._reader, word, where, side)
            for word, where in self._reader.texts(value, path)
        )
        return tuple(selector for selector in found if selector is not None)

    def _postures(self) -> dict[str, tuple[postures.Condition, ...]]:
        value, path = self._part("postures")
        found: dict[str, tuple[postures.Condition, ...]] = {}
        left = MAX_CONDITIONS
        for name, part in self._reader.members(value, path):
            left -= len(part) if isinstance(part, list) else 0
            if len(found) >= MAX_POSTURES or left < 0:
                bound = f"more than {MAX_POSTURES} postures or {MAX_CONDITIONS} conditions in all"
                self._reader.note((*path, name), bound, at_name=True)
                break
            if not re.fullmatch(r"posture:[\w-]+", name):
                text = f'postures["{name}"]: the name must start with "posture:"'
                self._reader.note((*path, name), text, at_name=True)
            conditions = []
            texts = list(self._reader.texts(part, (*path, name)))
            for text, where in texts:
                try:
                    conditions.append(postures.parse(text))
                except postures.ConditionError as error:
                    self._reader.note(where, f'postures["{name}"]: {error}')
            if not texts:
                text = f'postures["{name}"]: without a condition every device would be in it'
                self._reader.note((*path, name), text, at_name=True)
            found[name] = tuple(conditions)
        self._names.postures.update(found)
        return found

    def _default_postures(self) -> tuple[str, ...]:
        value, path = self._part("defaultSrcPosture")
        return rulesections.postures(self._reader, self._names, value, path)

    def _approvers(self) -> Approvers:
        value, path = self._part("autoApprovers")
        fields = self._reader.fields(value, path, ("routes", "exitNode", "services"))
        routes: list[tuple[Network, tuple[Selector, ...]]] = []
        here = (*path, name_in(fields, "routes"))
        for text, part in self._reader.members(fields.get("routes"), here):
            try:
                network = ip_network(text.strip(), strict=False)
            except ValueError:
                problem = f'autoApprovers: "{text}" is no prefix, such as 10.0.0.0/8'
                self._reader.note((*here, text), problem, at_name=True)
                continue
            routes.append((network, self._selectors(part, (*here, text), _OWNER)))
        exit_path = (*path, name_in(fields, "exitNode"))
        exit_node = self._selectors(fields.get("exitNode"), exit_path, _OWNER)
        return Approvers(tuple(routes), exit_node, self._service_approvers(fields, path))

    def _service_approvers(
        self, fields: dict[str, JSON], path: Path
    ) -> tuple[tuple[Selector, tuple[Selector, ...]], ...]:
        here = (*path, name_in(fields, "services"))
        services = []
        for name, part in self._reader.members(fields.get("services"), here):
            # Its keys are services, and tags: the services of nodes with that tag.
            service = self._names.read(self._reader, name, (*here, name), _SERVICE)
            who = self._selectors(part, (*here, name), _OWNER)
            if service is not None:
                services.append((service, who))
        return tuple(services)

    def _one_cgnat_route(self) -> str:
        value, path = self._part("OneCGNATRoute")
        text = self._reader.text(value, path)
        if text not in ("", "mac-always", "mac-never"):
            self._reader.note(path, 'OneCGNATRoute is "", "mac-always" or "mac-never"')
        return text


def _member_problem(word: str) -> str:
    if word.startswith("group:"):
        return "group members cannot be recursive"
    if word.startswith(("tag:", "autogroup:", "user:")) or word.count("@") != 1:
        return "group members must be users, such as alice@example.com"
    return ""


def _tag_problem(name: str) -> str:
    if not name.startswith("tag:"):
        return "a tag's name must start with 'tag:'"
    if re.match(r"tag:[A-Za-z]", name) is None:
        return "tag names must start with a letter, after 'tag:'"
    return "tag names have no blanks and no colons, after 'tag:'"


def _attributes(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[NodeAttribute, ...]:
    """Read ``nodeAttrs``."""
    found = []
    for index, (item, where) in enumerate(reader.items(value, path)):
        fields = reader.fields(item, where, ("target", "attr", "app", "ipPool"))
        targets = rulesections.selectors(reader, names, fields, where, "target", ATTRIBUTE_TARGET)
        attributes = []
        here = (*where, name_in(fields, "attr"))
        for text, spot in reader.texts(fields.get("attr"), here):
            problem = nodeattrs.problem(text)
            if problem:
                reader.note(spot, problem)
            attributes.append(text)
        found.append(
            NodeAttribute(
                Place("nodeAttrs", index, reader.spot(where)),
                targets,
                tuple(dict.fromkeys(attributes)),
                rulesections.capabilities(reader, fields, where, rulesections.no_check),
                _pools(reader, fields.get("ipPool"), (*where, name_in(fields, "ipPool"))),
            )
        )
    return tuple(found)


def _pools(reader: Reader, value: JSON, path: Path) -> tuple[Network, ...]:
    pools: list[Network] = []
    for text, where in reader.texts(value, path):
        try:
            network = ip_network(text)
        except ValueError:
            reader.note(where, f"IPPool({text}): not a network")
            continue
        span = spans.of_network(network)
        whole = spans.of_network(spans.CGNAT)
        if span.family != 4 or span.low < whole.low or span.high > whole.high:
            reader.note(where, f"IPPool({text}): network must be within {spans.CGNAT}")
        elif any(span.meets(reserved) for reserved in _RESERVED_POOLS):
            reader.note(where, f"IPPool({text}): network within reserved range")
        pools.append(network)
    return tuple(pools)
