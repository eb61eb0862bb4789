"""What a policy says, as frozen values: the result of reading a document.

Not for reading (``document``) and not for what follows from it (``flows``, ``ssh``, ``nodeattrs``,
``approvers``, ``selftest``). Also ``Background``: what rules depend on besides records.
Sits on ``selectors``, ``ports`` and ``postures``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from appliance.policy.text.ports import Ports
from appliance.policy.text.postures import Condition
from appliance.policy.text.selectors import Selector
from appliance.policy.text.spans import Span
from appliance.records import Address, AttributeValue, Network, Role, UserID
from appliance.wire.hujson import Spot


@dataclass(frozen=True, slots=True)
class Background:
    """What policies depend on besides nodes and users; equal ones mean the same.

    ``domains`` are the e-mail domains that the tailnet owns. ``guests`` are users of other
    tailnets to whom a device was shared. ``services`` are the addresses of ``svc:`` names.
    ``providers`` are the names of the identity providers whose groups may be used.
    """

    domains: frozenset[str] = frozenset()
    roles: Mapping[UserID, Role] = field(default_factory=dict)
    guests: frozenset[UserID] = frozenset()
    services: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    providers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Place:
    """Which entry of which section, and where it starts."""

    section: str
    index: int
    spot: Spot

    def __str__(self) -> str:
        return f"{self.section}[{self.index}] (line {self.spot.line})"


@dataclass(frozen=True, slots=True)
class Target:
    """A destination of an ACL: who, and which ports; ``port_text`` is how they were written."""

    selector: Selector
    ports: tuple[Ports, ...]
    port_text: str


@dataclass(frozen=True, slots=True)
class Acl:
    """One entry of ``acls``; ``protocols`` () are the default ones."""

    place: Place
    src: tuple[Selector, ...]
    dst: tuple[Target, ...]
    protocols: tuple[int, ...] = ()
    postures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProtoPorts:
    """One element of a grant's ``ip``: protocols () are the default ones."""

    protocols: tuple[int, ...]
    ports: tuple[Ports, ...]


@dataclass(frozen=True, slots=True)
class Grant:
    """One entry of ``grants``. ``app`` maps capabilities to values as JSON text."""

    place: Place
    src: tuple[Selector, ...]
    dst: tuple[Selector, ...]
    ip: tuple[ProtoPorts, ...] = ()
    app: Mapping[str, tuple[msgspec.Raw, ...]] = field(default_factory=dict)
    via: tuple[str, ...] = ()
    postures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SSHRule:
    """One entry of ``ssh``. ``check_period`` None is the default, zero means at every login."""

    place: Place
    is_check: bool
    src: tuple[Selector, ...]
    dst: tuple[Selector, ...]
    users: tuple[str, ...]
    check_period: timedelta | None = None
    accept_env: tuple[str, ...] = ()
    recorders: tuple[Selector, ...] = ()
    enforce_recorder: bool = False
    postures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeAttribute:
    """One entry of ``nodeAttrs``. ``app`` values are JSON text."""

    place: Place
    targets: tuple[Selector, ...]
    attributes: tuple[str, ...] = ()
    app: Mapping[str, tuple[msgspec.Raw, ...]] = field(default_factory=dict)
    pools: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Approvers:
    """``autoApprovers``: whose routes, exit nodes and services need no administrator.

    No node can offer a service yet, so ``services`` has no effect.
    """

    routes: tuple[tuple[Network, tuple[Selector, ...]], ...] = ()
    exit_node: tuple[Selector, ...] = ()
    services: tuple[tuple[Selector, tuple[Selector, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One entry of ``tests``, with words as written: they are read when the test runs."""

    place: Place
    src: str
    accept: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    protocol: str = ""
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SSHTest:
    """One entry of ``sshTests``; ``accept``, ``deny`` and ``check`` are login names."""

    place: Place
    src: str
    dst: tuple[str, ...]
    accept: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    check: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A whole document. ``acls`` and ``grants`` None mean that the section is absent.

    ``tags`` maps each tag to its owners (users, groups, autogroups, other tags).
    ``one_cgnat_route`` is "", "mac-always" or "mac-never".
    """

    acls: tuple[Acl, ...] | None = None
    grants: tuple[Grant, ...] | None = None
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hosts: Mapping[str, Span] = field(default_factory=dict)
    ipsets: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    tags: Mapping[str, tuple[Selector, ...]] = field(default_factory=dict)
    postures: Mapping[str, tuple[Condition, ...]] = field(default_factory=dict)
    default_postures: tuple[str, ...] = ()
    approvers: Approvers = Approvers()
    ssh: tuple[SSHRule, ...] = ()
    attributes: tuple[NodeAttribute, ...] = ()
    tests: tuple[PolicyTest, ...] = ()
    ssh_tests: tuple[SSHTest, ...] = ()
    randomize_client_port: bool = False
    disable_ipv4: bool = False
    one_cgnat_route: str = ""
    domains: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()

    @property
    def allows_all(self) -> bool:
        """Return whether there is neither ``acls`` nor ``grants``: then everything is allowed."""
        return self.acls is None and self.grants is None


UNWRITTEN = Policy()
"""The policy of a tailnet that nobody wrote one for: everything may reach everything."""
