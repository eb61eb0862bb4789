"""Capability versions: what a client can do, by the number that it sends.

Only numbers and their meaning; who gets what is decided in ``netmap.capver``.
Source: tailscale v1.104.5 tailcfg/tailcfg.go (history of CapabilityVersion), its release tags.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

OLDEST_SUPPORTED = 113
"""1.80. Older clients lack things that we rely on; the peers draw the line here as well."""
NEWEST_KNOWN = 148
"""The newest version whose meaning we know (1.104)."""

# Versions that decide what a client is told or answered.
CAPVER_NO_MEASURE_NO_HOME = 115
CAPVER_PEER_RELAY = 120
CAPVER_DEFAULT_AUTO_UPDATE_ATTRIBUTE = 131
CAPVER_REGISTER_RETRY_AFTER = 137
CAPVER_RETRY_AFTER = 147


class Version(NamedTuple):
    """One step of the history: the first client that has it, and what it can do."""

    number: int
    since: date
    meaning: str


HISTORY: tuple[Version, ...] = (
    Version(113, date(2025, 1, 20), "sends Hostinfo.IngressEnabled: whether Funnel is on"),
    Version(114, date(2025, 1, 30), "knows the attribute tailnet.maxKeyDuration"),
    Version(115, date(2025, 3, 7), "knows DERPRegion.NoMeasureNoHome"),
    Version(116, date(2025, 5, 5), "MagicDNS answers AAAA with the attribute magicdns-aaaa"),
    Version(117, date(2025, 5, 28), "knows DisplayMessages; Health before"),
    Version(118, date(2025, 7, 1), "sends Hostinfo.StateEncrypted"),
    Version(119, date(2025, 7, 10), "prefers routes by Hostinfo.Location.Priority"),
    Version(120, date(2025, 7, 15), "is a peer relay, and uses others"),
    Version(121, date(2025, 7, 19), "asks a peer relay for an endpoint by the newer messages"),
    Version(122, date(2025, 7, 21), "sends Hostinfo.ExitNodeID: the exit node in use"),
    Version(123, date(2025, 7, 28), "a deadlock mended"),
    Version(124, date(2025, 8, 8), "ignores disable-magicsock-crypto-routing"),
    Version(125, date(2025, 8, 11), "knows Resolver.UseWithExitNode"),
    Version(126, date(2025, 9, 17), "keeps its old node key in use while it logs in again"),
    Version(127, date(2025, 9, 19), "answers c2n /debug/netmap"),
    Version(128, date(2025, 10, 2), "answers c2n /debug/health"),
    Version(129, date(2025, 10, 4), "a deadlock with peer relays mended"),
    Version(130, date(2025, 10, 6), "sends a hardware attestation key with its map request"),
    Version(131, date(2025, 11, 25), "knows the attribute default-auto-update; a field before"),
    Version(132, date(2026, 2, 13), "knows the attribute disable-hosts-file-updates"),
    Version(133, date(2026, 2, 17), "gives its system the IPv6 address of MagicDNS"),
    Version(134, date(2026, 3, 9), "knows disable-android-bind-to-active-network"),
    Version(135, date(2026, 3, 30), "knows the attribute cache-network-maps"),
    Version(136, date(2026, 4, 9), "knows the attribute disable-linux-cgnat-drop-rule"),
    Version(137, date(2026, 4, 15), "obeys 429 with Retry-After on /machine/register"),
    Version(138, date(2026, 3, 31), "answers c2n /debug/tka"),
    Version(139, date(2026, 5, 22), "knows the attribute emit-runtime-metrics"),
    Version(140, date(2026, 5, 27), "knows attributes that turn offloading of UDP and TUN off"),
    Version(141, date(2026, 5, 28), "knows the attribute never-gso-equal-tail"),
    Version(142, date(2026, 7, 6), "answers c2n /remoteapi/localapi/ if its user allows it"),
    Version(143, date(2026, 7, 22), "ignores the attributes of experimental app connectors"),
    Version(144, date(2026, 7, 31), "tells peers its disco key around WireGuard handshakes"),
    Version(145, date(2026, 8, 4), "knows the attribute scope-quad100-macos"),
    Version(146, date(2026, 9, 2), "counts refused connections; answers c2n /debug/rejects"),
    Version(147, date(2026, 9, 9), "obeys 429, and 503 with Retry-After, on all of /machine/"),
    Version(148, date(2026, 9, 15), "knows Node.StableTailnetID"),
)
"""What each version since the oldest supported one brought."""

RELEASES: tuple[tuple[str, int], ...] = (
    ("1.80", 113),
    ("1.82", 115),
    ("1.84", 116),
    ("1.86", 122),
    ("1.88", 125),
    ("1.90", 130),
    ("1.92", 131),
    ("1.94", 131),
    ("1.96", 133),
    ("1.98", 138),
    ("1.100", 141),
    ("1.102", 142),
    ("1.104", 148),
)
"""Stable releases and the version that their first build carries (1.86.2 went on to 123)."""


def first_release(capver: int) -> str | None:
    """Name the first served stable release with at least this version; None if there is none."""
    return next((release for release, has in RELEASES if has >= capver), None)
