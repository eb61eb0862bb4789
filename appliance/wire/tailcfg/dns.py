"""The DNS configuration of a node. Source: tailscale tailcfg/tailcfg.go, types/dnstype.

Not for what goes into it (``netmap.dns``).
"""

from msgspec import field

from appliance.wire.tailcfg.message import Address, Message


class Resolver(Message, frozen=True, kw_only=True):
    """An upstream resolver: ``1.1.1.1``, ``10.0.0.1:5353``, ``https://…`` or ``http://ip:port/…``."""

    addr: str = ""
    bootstrap_resolution: tuple[Address, ...] = ()
    use_with_exit_node: bool = False


class DNSRecord(Message, frozen=True, kw_only=True):
    """A static record; ``type`` empty means A or AAAA by the value."""

    name: str = field(default_factory=str)
    type: str = ""
    value: str = field(default_factory=str)


class DNSConfig(Message, frozen=True, kw_only=True):
    """The whole DNS configuration; ``proxied`` is MagicDNS.

    ``routes`` maps a suffix to its resolvers; () means that MagicDNS itself answers.
    """

    resolvers: tuple[Resolver, ...] = ()
    routes: dict[str, tuple[Resolver, ...]] = field(default_factory=dict)
    fallback_resolvers: tuple[Resolver, ...] = ()
    domains: tuple[str, ...] = ()
    proxied: bool = False
    nameservers: tuple[Address, ...] = ()
    cert_domains: tuple[str, ...] = ()
    extra_records: tuple[DNSRecord, ...] = ()
    exit_node_filtered_set: tuple[str, ...] = ()
    temp_corp_issue13969: str = ""
