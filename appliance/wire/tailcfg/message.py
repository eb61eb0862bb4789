"""The ground that every message stands on: base class, field names, number ranges, addresses.

Not for the messages themselves (one file per theme beside this one). Lowest in ``tailcfg``.
Source: tailscale tailcfg/tailcfg.go (names); go.dev/pkg/net/netip (text forms of addresses).
"""

import ipaddress
import re
import struct
from abc import ABCMeta
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Self, TypeAlias

import msgspec

from appliance.wire.errors import ProtocolError

MAX_PORT = 65535
MAX_ADDRESS_CHARS = 128
"""Longer than any address, zone, prefix length and port; bounds the work on nonsense."""
TEXT_CACHE_ENTRIES = 32768
"""Texts of addresses kept: a few for each of some thousand nodes, about 6 MB at most."""

NEVER = datetime(1, 1, 1, tzinfo=UTC)
"""Go's zero time. In ``PeerChange.key_expiry`` it says "never"; elsewhere it reads as None."""

_PREFIX_BITS = re.compile("0|[1-9][0-9]{0,2}")

_ACRONYMS = {
    "ace": "ACE",
    "api": "API",
    "aum": "AUM",
    "aums": "AUMs",
    "derp": "DERP",
    "dns": "DNS",
    "icmpv4": "ICMPv4",
    "id": "ID",
    "ip": "IP",
    "ipn": "IPN",
    "ips": "IPs",
    "ipv4": "IPv4",
    "ipv6": "IPv6",
    "macs": "MACs",
    "nl": "NL",
    "os": "OS",
    "pcp": "PCP",
    "pmp": "PMP",
    "ssh": "SSH",
    "stun": "STUN",
    "tka": "TKA",
    "tpm": "TPM",
    "udp": "UDP",
    "upnp": "UPnP",
    "url": "URL",
    "vip": "VIP",
    "wireguard": "WireGuard",
    "wol": "WoL",
}


def go_name(name: str) -> str:
    """Turn a snake_case field name into the Go field name (``auth_url`` into ``AuthURL``)."""
    return "".join(_ACRONYMS.get(word) or word.capitalize() for word in name.split("_"))


class Message(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename=go_name, gc=False
):
    """Base of all messages.

    A field that holds its default is not written. A field with ``default_factory`` is always
    written, also when zero: that is how fields are marked which strict clients insist on.
    None is never written as ``null``: absent and null mean the same to every reader.
    """


Int64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
Time: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
"""A moment with its time zone; Go refuses one without, and so do we."""
Uint16: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_PORT)]
Raw = msgspec.Raw
"""JSON kept as bytes: the values of capabilities may be anything."""

if TYPE_CHECKING:
    Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
    Prefix: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
else:
    # msgspec takes one foreign class per field, so at run time each pair has a common face.
    Address = ABCMeta("Address", (), {})
    Prefix = ABCMeta("Prefix", (), {})
    Address.register(ipaddress.IPv4Address)
    Address.register(ipaddress.IPv6Address)
    Prefix.register(ipaddress.IPv4Network)
    Prefix.register(ipaddress.IPv6Network)


class AddrPort:
    """An address and a UDP or TCP port: ``1.2.3.4:41641`` or ``[2001:db8::1]:41641``."""

    __slots__ = ("_hash", "_text", "address", "port")
    address: Address
    port: int

    def __init__(self, address: Address, port: int) -> None:
        if not 0 <= port <= MAX_PORT:
            raise ProtocolError(f"port {port} is not in 0..{MAX_PORT}")
        self.address = address
        self.port = port
        self._hash = hash((address, port))
        self._text = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form. Raises ProtocolError for anything else."""
        host, colon, digits = text.rpartition(":")
        if not (colon and digits.isascii() and digits.isdigit() and len(digits) <= 5):
            raise ProtocolError("address and port: want address:port")
        bracketed = host.startswith("[") and host.endswith("]")
        address = parse_address(host[1:-1] if bracketed else host)
        if bracketed != (address.version == 6):
            raise ProtocolError("address and port: IPv6, and only that, stands in brackets")
        return cls(address, int(digits))

    def __str__(self) -> str:
        if not self._text:
            host = address_text(self.address)
            six = self.address.version == 6
            self._text = f"[{host}]:{self.port}" if six else f"{host}:{self.port}"
        return self._text

    def __repr__(self) -> str:
        return f"AddrPort({self})"

    def __eq__(self, other: object) -> bool:
        return type(other) is AddrPort and self.port == other.port and self.address == other.address

    def __hash__(self) -> int:
        return self._hash


@lru_cache(maxsize=TEXT_CACHE_ENTRIES)
def parse_address(text: str) -> Address:
    """Read an IP address, remembered; IPv6 may carry a zone. Raises ProtocolError for anything else."""
    try:
        if len(text) <= MAX_ADDRESS_CHARS:
            return ipaddress.ip_address(text)
    except ValueError:
        pass
    raise ProtocolError("not an IP address")


@lru_cache(maxsize=TEXT_CACHE_ENTRIES)
def parse_prefix(text: str) -> Prefix:
    """Read ``address/bits``, remembered. Raises ProtocolError for anything else.

    Bits behind the length are cleared, where Go would keep them.
    """
    host, _, bits = text.partition("/")
    well_formed = _PREFIX_BITS.fullmatch(bits) and "%" not in host
    try:
        if well_formed and len(text) <= MAX_ADDRESS_CHARS:
            return ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    raise ProtocolError("not an address prefix")


_unpack_groups = struct.Struct(">8H").unpack
_GROUPS = ":{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:{:x}:".format
_ZERO_RUNS = tuple(":" + "0:" * count for count in range(7, 1, -1))
"""Groups that ``::`` stands for, the longest first; one zero alone is written."""
_EMBEDDING = bytes(8)
"""What IPv6 addresses begin with whose text may show an IPv4 address, as the release of Python has it."""


@lru_cache(maxsize=TEXT_CACHE_ENTRIES)
def address_text(address: Address) -> str:
    """Return the text form of an address, remembered: making it costs 10 times a look-up.

    The same as ``str``, which takes three times as long for IPv6.
    Source: RFC 5952 section 4.
    """
    if not isinstance(address, ipaddress.IPv6Address) or address.scope_id:
        return str(address)
    packed = address.packed
    if packed.startswith(_EMBEDDING):
        return str(address)
    text = _GROUPS(*_unpack_groups(packed))
    for run in _ZERO_RUNS:
        at = text.find(run)
        if at >= 0:
            return f"{text[1:at]}::{text[at + len(run) : -1]}"
    return text[1:-1]


@lru_cache(maxsize=TEXT_CACHE_ENTRIES)
def prefix_text(prefix: Prefix) -> str:
    """Return the text form of a prefix, remembered."""
    return f"{address_text(prefix.network_address)}/{prefix.prefixlen}"
