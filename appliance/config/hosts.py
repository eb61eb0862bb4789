"""Hosts, names of DNS and URLs, as clients read them.

A name is checked for what every client can look up and every certificate can hold: lower-case ASCII
labels, no dot at the end. Not for resolving them. Pure.
Source: RFC 1123 2.1; Go net.isDomainName; tailscale util/dnsname ToFQDN.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

MAX_NAME = 253
"""RFC 1035 2.3.4, without the dot at the end."""

_PRIVATE: tuple[IPv4Network | IPv6Network, ...] = (
    *(IPv4Network(each) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")),
    IPv6Network("fc00::/7"),
)
"""Go's net/netip Addr.IsPrivate; Python's is_private means more."""
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def is_domain(text: str) -> bool:
    """Tell whether a text is a name of DNS in lower case, without dots at its ends."""
    labels = text.split(".")
    return len(text) <= MAX_NAME and all(_LABEL.fullmatch(label) for label in labels)


def address(text: str) -> Address | None:
    """Read an address that somebody elsewhere can use; None if it is none, or has a zone."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(found, IPv6Address) and found.scope_id is not None else found


def is_host(text: str) -> bool:
    """Tell whether others can dial this: an address of somebody's, or a name of DNS."""
    literal = address(text)
    if literal is not None:
        return not (literal.is_unspecified or literal.is_multicast)
    # What ends in a number is taken for an address, by Go and by browsers alike.
    last = text.rpartition(".")[2]
    return is_domain(text.lower()) and not last.isdecimal()


def is_private(host: str) -> bool:
    """Tell whether clients speak plain HTTP to a host and go on doing so.

    Source: tailscale control/ts2021/client.go NewClient: Go's IsPrivate and IsLoopback, localhost.
    """
    literal = address(host)
    if literal is None:
        return host == "localhost"
    return literal.is_loopback or any(
        literal in network for network in _PRIVATE if network.version == literal.version
    )


def is_loopback(host: str) -> bool:
    """Tell whether a host is this very machine."""
    literal = address(host)
    return host == "localhost" if literal is None else literal.is_loopback


@dataclass(frozen=True, slots=True)
class Url:
    """A URL of HTTP, in its parts."""

    scheme: str
    host: str
    port: int
    path: str


def url(text: str) -> Url | None:
    """Read an http or https URL without login, query and fragment; None if it is none."""
    if any(c.isspace() or not c.isprintable() or not c.isascii() for c in text):
        return None
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return None
    plain = not (parts.query or parts.fragment or "@" in parts.netloc or text.endswith(("?", "#")))
    if parts.scheme not in ("http", "https") or not plain or port == 0 or not is_host(host):
        return None
    return Url(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path)
