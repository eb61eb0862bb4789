"""Packet filter rules. Not for making them (``policy``). Source: tailscale tailcfg/tailcfg.go."""

from msgspec import field

from appliance.wire.tailcfg.message import Int64, Message, Prefix, Raw, Uint16


class PortRange(Message, frozen=True, kw_only=True):
    """Ports ``first`` to ``last``, both included; all ports are 0 to 65535."""

    first: Uint16 = field(default_factory=int)
    last: Uint16 = field(default_factory=int)


class NetPortRange(Message, frozen=True, kw_only=True):
    """Destination: ``ip`` is an address, a prefix, a range ``a-b`` or ``*``.

    ``bits`` is obsolete: read, never to be sent (newer clients drop the whole filter).
    """

    ip: str = field(default_factory=str)
    bits: Int64 | None = None
    ports: PortRange = field(default_factory=PortRange)


class CapGrant(Message, frozen=True, kw_only=True):
    """Peer capabilities towards ``dsts``; ``caps`` is the deprecated form without values."""

    dsts: tuple[Prefix, ...] = field(default_factory=tuple)
    caps: tuple[str, ...] = ()
    cap_map: dict[str, tuple[Raw, ...]] = field(default_factory=dict)


class FilterRule(Message, frozen=True, kw_only=True):
    """Permit ``src_ips`` to reach ``dst_ports``, or grant them capabilities; never both.

    ``ip_proto`` () means TCP, UDP, ICMPv4 and ICMPv6.
    ``src_bits`` is obsolete: read, never to be sent (newer clients drop the whole filter).
    """

    src_ips: tuple[str, ...] = field(default_factory=tuple)
    src_bits: tuple[Int64, ...] = ()
    dst_ports: tuple[NetPortRange, ...] = ()
    ip_proto: tuple[Int64, ...] = ()
    cap_grant: tuple[CapGrant, ...] = ()
