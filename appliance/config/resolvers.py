"""Which DNS resolvers clients can use, as the text that the map carries.

A client asks an address on port 53 (or another port), a peer over its PeerAPI, or one of the
DNS-over-HTTPS services whose addresses it knows by heart; for every other URL, and for a name, it
answers SERVFAIL. Not for what nodes are told (``netmap``). Pure.
Source: tailscale net/dns/resolver/forwarder.go send, net/dns/publicdns/publicdns.go,
types/dnstype/dnstype.go IPPort (1.102).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

KNOWN_DOH = frozenset(
    {
        "https://dns.google/dns-query",
        "https://wikimedia-dns.org/dns-query",
        *(f"https://{each}cloudflare-dns.com/dns-query" for each in ("", "security.", "family.")),
        *(f"https://dns{each}.quad9.net/dns-query" for each in ("", "10", "11")),
        *(
            f"https://{each}dns.mullvad.net/dns-query"
            for each in ("", "adblock.", "base.", "extended.", "family.", "all.")
        ),
        *(f"https://freedns.controld.com/{each}" for each in ("p0", "p1", "p2", "p3", "family")),
        *(
            f"https://{each}.canadianshield.cira.ca/dns-query"
            for each in ("private", "protected", "family")
        ),
    }
)
"""The services whose URL must be written just so."""
NEXTDNS = "https://dns.nextdns.io/"
"""Followed by a profile, and then by anything."""
CONTROLD = "https://dns.controld.com/"
"""Followed by anything."""
MAGIC = frozenset({IPv4Address("100.100.100.100"), IPv6Address("fd7a:115c:a1e0::53")})
"""Where the client itself answers: it would ask itself, and again."""

FORMS = "an IP address, IP:PORT, or the URL of a DNS-over-HTTPS service that clients know"

_CGNAT, _ULA = IPv4Network("100.64.0.0/10"), IPv6Network("fd7a:115c:a1e0::/48")
# Up to 12 bytes in hex: the client makes an address of them.
_PROFILE = re.compile(r"(?:[0-9a-fA-F]{2}){1,12}(?:[/?].*)?")
_PORT = re.compile(r"(.*):([0-9]{1,5})")


def refusal(text: str) -> str:
    """Say why clients cannot use this resolver, and what to write; empty if they can."""
    if "://" in text:
        return _refused_url(text)
    host, port = text, 53
    found = _PORT.fullmatch(text)
    if found and (found[1].startswith("[") or ":" not in found[1]):
        host, port = found[1].removeprefix("[").removesuffix("]"), int(found[2])
    try:
        address = ip_address(host)
    except ValueError:
        return f"clients look up no name before they can ask: write {FORMS}"
    if not 0 < port < 65536:
        return "ports go from 1 to 65535"
    return _refused_address(address)


def _refused_address(address: IPv4Address | IPv6Address) -> str:
    if address in MAGIC:
        return "that is MagicDNS on the node itself, which would ask itself"
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "an address with a zone means something on one machine only"
    if address.is_unspecified or address.is_multicast:
        return "that is nobody's address"
    return ""


def _refused_url(text: str) -> str:
    scheme = text.partition(":")[0].lower()
    if scheme == "tls":
        return f"clients do not speak DNS over TLS: write {FORMS}"
    if scheme == "http":
        return _refused_peer(text)
    if scheme != "https":
        return f"clients do not know {scheme}://: write {FORMS}"
    if text in KNOWN_DOH or (text.startswith(CONTROLD) and len(text) > len(CONTROLD)):
        return ""
    if text.startswith(NEXTDNS):
        if _PROFILE.fullmatch(text.removeprefix(NEXTDNS)):
            return ""
        return f"write {NEXTDNS}PROFILE with the hexadecimal name of a profile"
    return (
        "clients know the addresses of some DNS-over-HTTPS services and ask no other: write the IP"
        " address of the resolver (they use HTTPS with the known ones by themselves)"
    )


def _refused_peer(text: str) -> str:
    """Check the URL of a peer's own resolver, as an app connector or an exit node has one."""
    try:
        host = urlsplit(text).hostname or ""
        address = ip_address(host)
    except ValueError:
        return f"plain http:// is only for the address of a node: write {FORMS}"
    inside = address in _CGNAT if isinstance(address, IPv4Address) else address in _ULA
    return "" if inside else f"plain http:// is only for the address of a node: write {FORMS}"
