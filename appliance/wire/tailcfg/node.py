"""What control says about nodes and their users: Node, PeerChange, UserProfile.

Not for what a node says about itself (``hostinfo``). Source: tailscale tailcfg/tailcfg.go.
"""

from typing import TypeAlias

import msgspec
from msgspec import field

from appliance.wire.keys import DiscoKey, MachineKey, NodeKey
from appliance.wire.tailcfg.dns import Resolver
from appliance.wire.tailcfg.hostinfo import Hostinfo
from appliance.wire.tailcfg.message import (
    Address,
    AddrPort,
    Int64,
    Message,
    Prefix,
    Raw,
    Time,
)

CapMap: TypeAlias = dict[str, tuple[Raw, ...]]
"""Capability to its values, each any JSON; no values means the capability is there without."""


class Node(Message, frozen=True, kw_only=True):
    """A node as one viewer sees it; whole, never a part (parts are a ``PeerChange``).

    ``name`` ends with a dot. ``allowed_ips`` None means "same as addresses" (capver 112 and up),
    () means none. ``endpoints`` None is not written: to a client that knows the node it then
    changes nothing, () clears. ``online`` None is unknown. ``key_expiry`` None is never.
    Left out: ``DERP`` (before capver 111) and ``Capabilities`` (before 74).
    """

    id: Int64 = field(default_factory=int)
    stable_id: str = field(default_factory=str)
    name: str = field(default_factory=str)
    user: Int64 = field(default_factory=int)
    sharer: Int64 = 0
    key: NodeKey = field(default_factory=NodeKey.zero)
    key_expiry: Time | None = None
    key_signature: bytes = b""
    machine: MachineKey | None = None
    disco_key: DiscoKey | None = None
    addresses: tuple[Prefix, ...] = field(default_factory=tuple)
    allowed_ips: tuple[Prefix, ...] | None = None
    endpoints: tuple[AddrPort, ...] | None = None
    home_derp: Int64 = 0
    hostinfo: Hostinfo | None = None
    created: Time | None = None
    cap: Int64 = 0
    tags: tuple[str, ...] = ()
    primary_routes: tuple[Prefix, ...] = ()
    last_seen: Time | None = None
    online: bool | None = None
    machine_authorized: bool = field(default_factory=bool)
    cap_map: CapMap | None = None
    unsigned_peer_api_only: bool = False
    computed_name: str = ""
    computed_name_with_host: str = ""
    data_plane_audit_log_id: str = ""
    expired: bool = False
    self_node_v4_masq_addr_for_this_peer: Address | None = None
    self_node_v6_masq_addr_for_this_peer: Address | None = None
    is_wireguard_only: bool = False
    is_jailed: bool = False
    exit_node_dns_resolvers: tuple[Resolver, ...] = field(name="ExitNodeDNSResolvers", default=())
    stable_tailnet_id: str = ""

    def __post_init__(self) -> None:
        for name, value in (
            ("key_expiry", self.key_expiry),
            ("created", self.created),
            ("last_seen", self.last_seen),
        ):
            if value is not None and value.year == 1:
                msgspec.structs.force_setattr(self, name, None)


class PeerChange(Message, frozen=True, kw_only=True):
    """A patch of one known peer; a field that is None or 0 changes nothing.

    ``endpoints`` () and ``cap_map`` {} clear; ``key_expiry`` ``NEVER`` says "never expires".
    """

    node_id: Int64 = field(default_factory=int)
    derp_region: Int64 = 0
    cap: Int64 = 0
    cap_map: CapMap | None = None
    endpoints: tuple[AddrPort, ...] | None = None
    key: NodeKey | None = None
    key_signature: bytes | None = None
    disco_key: DiscoKey | None = None
    online: bool | None = None
    last_seen: Time | None = None
    key_expiry: Time | None = None


class User(Message, frozen=True, kw_only=True):
    """The user in a RegisterResponse; ``id`` must not be 0."""

    id: Int64 = field(default_factory=int)
    display_name: str = field(default_factory=str)
    profile_pic_url: str = ""
    created: Time | None = None

    def __post_init__(self) -> None:
        if self.created is not None and self.created.year == 1:
            msgspec.structs.force_setattr(self, "created", None)


class Login(Message, frozen=True, kw_only=True):
    """The account at an identity provider, in a RegisterResponse."""

    id: Int64 = field(default_factory=int)
    provider: str = field(default_factory=str)
    login_name: str = field(default_factory=str)
    display_name: str = field(default_factory=str)
    profile_pic_url: str = ""


class UserProfile(Message, frozen=True, kw_only=True):
    """A user as peers see it; every owner of a visible node needs one."""

    id: Int64 = field(default_factory=int)
    login_name: str = field(default_factory=str)
    display_name: str = field(default_factory=str)
    profile_pic_url: str = ""
    groups: tuple[str, ...] = ()
