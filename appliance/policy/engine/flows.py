"""Policy to flows: the rules in the order and the cut in which nodes are told of them.

A flow is one set of sources, one list of destinations and either ports with protocols or
capabilities. Flows know no nodes: they change only with the policy. Not for who matches
(``matches``). Sits on ``language``.

The cut follows what the hosted service sends, learned from its recorded answers: grants come before
ACLs; a grant's ports are grouped by protocol; an ACL's destinations are grouped by the text of
their ports, in the order of that text, ``autogroup:self`` behind the others unless all
destinations are autogroups; capabilities come after the ports of their grant, then their reverse
companions (the sharing side tells the using side; tailscale 1.103 tailcfg/peercap/peercap.go).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import msgspec

from appliance.policy.text.language import Acl, Grant, Place, Policy, SSHRule, Target
from appliance.policy.text.ports import ALL_PORTS, Ports
from appliance.policy.text.selectors import Kind, Selector
from appliance.wire.hujson import Spot

COMPANIONS = {
    "tailscale.com/cap/drive": "tailscale.com/cap/drive-sharer",
    "tailscale.com/cap/relay": "tailscale.com/cap/relay-target",
}
"""What the using side must be told of the offering side. Source: tailscale 1.103
tailcfg/peercap/peercap.go."""

Capabilities = Mapping[str, tuple[msgspec.Raw, ...]]

_AUTOGROUPS = frozenset(
    {Kind.INTERNET, Kind.SELF, Kind.MEMBER, Kind.TAGGED, Kind.SHARED, Kind.ROLE, Kind.DANGER_ALL}
)
_EVERYONE = Selector(Kind.EVERYONE, written="*")
_DEFAULT_PLACE = Place("no acls and no grants", 0, Spot(1, 1))


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """One rule as it is sent. ``capabilities`` None means packets, else ``ports`` is empty.

    ``is_self``: the destination is ``autogroup:self`` and ``dst`` is empty. ``via`` names tags of
    routers: then only they carry the flow, to what they route. ``is_reverse``: a companion.
    ``is_login``: not sent as a rule, but what an SSH rule is made of; its ``source`` is -1.
    """

    number: int
    place: Place
    source: int
    src: tuple[Selector, ...]
    dst: tuple[Selector, ...]
    postures: tuple[str, ...] = ()
    protocols: tuple[int, ...] = ()
    ports: tuple[Ports, ...] = ()
    capabilities: Capabilities | None = None
    via: frozenset[str] = frozenset()
    is_self: bool = False
    is_reverse: bool = False
    is_login: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A set of sources that flows share: who, and in what posture."""

    selectors: frozenset[Selector]
    postures: frozenset[str]


@dataclass(frozen=True, slots=True, eq=False)
class Login:
    """An SSH rule and the flows that say who starts and serves it; None where it has none.

    ``others`` goes to what the rule names, ``own`` to ``autogroup:self``; ``recorders`` ends at
    the nodes that record.
    """

    rule: SSHRule
    others: Flow | None
    own: Flow | None
    recorders: Flow | None


@dataclass(slots=True)
class _Draft:
    """A flow before it has its number."""

    place: Place
    src: tuple[Selector, ...]
    dst: tuple[Selector, ...]
    postures: tuple[str, ...]
    protocols: tuple[int, ...] = ()
    ports: tuple[Ports, ...] = ()
    capabilities: Capabilities | None = None
    via: frozenset[str] = frozenset()
    is_self: bool = False
    is_reverse: bool = False


def flows_of(policy: Policy) -> tuple[tuple[Flow, ...], tuple[Source, ...]]:
    """Return all flows in order, and the sources that they name by index."""
    sources: dict[Source, int] = {}
    flows: list[Flow] = []
    src: tuple[Selector, ...] = ()
    source, number = Source(frozenset(), frozenset()), 0
    for draft in _drafts(policy):
        # One rule makes many flows with the same sources, one after another.
        if draft.src is not src or source.postures != set(draft.postures) or not flows:
            src, source = draft.src, Source(frozenset(draft.src), frozenset(draft.postures))
            number = sources.setdefault(source, len(sources))
        flows.append(
            Flow(
                number=len(flows),
                place=draft.place,
                source=number,
                src=draft.src,
                dst=draft.dst,
                postures=draft.postures,
                protocols=draft.protocols,
                ports=draft.ports,
                capabilities=draft.capabilities,
                via=draft.via,
                is_self=draft.is_self,
                is_reverse=draft.is_reverse,
            )
        )
    return tuple(flows), tuple(sources)


def logins_of(policy: Policy, first: int) -> tuple[Login, ...]:
    """Return the SSH rules; their flows are numbered from ``first`` on."""
    logins = []
    number = first
    for rule in policy.ssh:
        made: list[Flow | None] = []
        others = tuple(selector for selector in rule.dst if selector.kind is not Kind.SELF)
        is_own = len(others) < len(rule.dst)
        for wanted, src, dst, is_self in (
            (others, rule.src, others, False),
            (is_own, rule.src, (), True),
            (rule.recorders, (), rule.recorders, False),
        ):
            if not wanted:
                made.append(None)
                continue
            made.append(
                Flow(
                    number=number,
                    place=rule.place,
                    source=-1,
                    src=src,
                    dst=dst,
                    postures=rule.postures or policy.default_postures,
                    is_self=is_self,
                    is_login=True,
                )
            )
            number += 1
        logins.append(Login(rule, *made))
    return tuple(logins)


def _drafts(policy: Policy) -> Iterator[_Draft]:
    if policy.allows_all:
        everyone = (_EVERYONE,)
        yield _Draft(_DEFAULT_PLACE, everyone, everyone, (), ports=(ALL_PORTS,))
        return
    for grant in policy.grants or ():
        yield from _of_grant(grant, grant.postures or policy.default_postures)
    for acl in policy.acls or ():
        yield from _of_acl(acl, acl.postures or policy.default_postures)


def _of_grant(grant: Grant, postures: tuple[str, ...]) -> Iterator[_Draft]:
    if not grant.src or not grant.dst:
        return
    for is_self, dst in _parts(grant.dst):
        if is_self and grant.via:
            continue  # no router leads to the source's own devices
        for protocols, ports in _by_protocol(grant):
            yield _Draft(
                grant.place,
                grant.src,
                dst,
                postures,
                protocols=protocols,
                ports=ports,
                via=frozenset(grant.via),
                is_self=is_self,
            )
        if grant.app:
            yield from _capabilities(grant, dst, postures, is_self=is_self)


def _by_protocol(grant: Grant) -> Iterator[tuple[tuple[int, ...], tuple[Ports, ...]]]:
    grouped: dict[tuple[int, ...], list[Ports]] = {}
    for part in grant.ip:
        grouped.setdefault(part.protocols, []).extend(part.ports)
    for protocols, ports in grouped.items():
        yield protocols, tuple(ports)


def _capabilities(
    grant: Grant, dst: tuple[Selector, ...], postures: tuple[str, ...], *, is_self: bool
) -> Iterator[_Draft]:
    via = frozenset(grant.via)
    yield _Draft(
        grant.place, grant.src, dst, postures, capabilities=grant.app, via=via, is_self=is_self
    )
    for offered, companion in COMPANIONS.items():
        # Through ``via`` no capability is granted, so nothing is offered that could be announced.
        if offered in grant.app and not via:
            src, towards = (grant.src, dst) if is_self else (dst, grant.src)
            yield _Draft(
                grant.place,
                src,
                towards,
                # The posture is the user's, who is the destination here.
                postures if is_self else (),
                capabilities={companion: ()},
                is_self=is_self,
                is_reverse=True,
            )


def _parts(dst: Sequence[Selector]) -> Iterator[tuple[bool, tuple[Selector, ...]]]:
    """Cut destinations into those that are the same for all and ``autogroup:self``."""
    others = tuple(selector for selector in dst if selector.kind is not Kind.SELF)
    if others:
        yield False, others
    if len(others) < len(dst):
        yield True, ()


def _of_acl(acl: Acl, postures: tuple[str, ...]) -> Iterator[_Draft]:
    if not acl.src:
        return
    for is_self, targets in _acl_parts(acl.dst):
        for _, group in groupby(sorted(targets, key=_port_text), _port_text):
            same = tuple(group)
            yield _Draft(
                acl.place,
                acl.src,
                () if is_self else tuple(target.selector for target in same),
                postures,
                protocols=acl.protocols,
                ports=same[0].ports,
                is_self=is_self,
            )


def _port_text(target: Target) -> str:
    return target.port_text


def _acl_parts(dst: Sequence[Target]) -> Iterator[tuple[bool, list[Target]]]:
    is_self = [target.selector.kind is Kind.SELF for target in dst]
    if all(target.selector.kind in _AUTOGROUPS for target in dst):
        for which, group in groupby(zip(is_self, dst, strict=True), lambda pair: pair[0]):
            yield which, [target for _, target in group]
        return
    others = [target for target, self_ in zip(dst, is_self, strict=True) if not self_]
    selves = [target for target, self_ in zip(dst, is_self, strict=True) if self_]
    yield False, others
    if selves:
        yield True, selves
