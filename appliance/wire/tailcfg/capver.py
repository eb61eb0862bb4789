"""Capability versions: what a client can do, by the number that it sends.

Only numbers and names; who gets what is decided in ``netmap.capver``.
Source: tailscale tailcfg/tailcfg.go (history of CapabilityVersion), its release tags.
"""

NEWEST_KNOWN = 148
"""The newest version whose meaning we know (1.104)."""
OLDEST_SUPPORTED = 113
"""1.80. Older clients lack things that we rely on; the peers draw the line here as well."""

# The protocol's own gates: the first version that understands each thing.
CAPVER_HEALTH = 24
CAPVER_NOISE = 28
CAPVER_POP_BROWSER_URL = 29
CAPVER_CAP_GRANTS = 32
CAPVER_PEERS_CHANGED_PATCH = 33
CAPVER_PING_OVER_NOISE = 38
CAPVER_KEY_SIGNATURE = 40
CAPVER_CONTROL_DIAL_PLAN = 44
CAPVER_EARLY_NOISE = 49
CAPVER_MASQUERADE_IPV4 = 59
CAPVER_WIREGUARD_ONLY = 60
CAPVER_INCREMENTAL_DERP_MAP = 65
CAPVER_SEPARATE_UPDATES = 68
CAPVER_CLIENT_VERSION = 73
CAPVER_CAP_MAP = 74
CAPVER_EXIT_NODE_DNS_RESOLVERS = 76
CAPVER_PACKET_FILTERS = 81
CAPVER_JAILED_PEERS = 94
CAPVER_MASQUERADE_IPV6 = 104
CAPVER_VIP_SERVICES = 108
CAPVER_CAP_SOURCES = 109
CAPVER_NO_SSH_PUBLIC_KEYS = 110
CAPVER_HOME_DERP = 111
CAPVER_ABSENT_ALLOWED_IPS = 112
CAPVER_INGRESS_ENABLED = 113
CAPVER_NO_MEASURE_NO_HOME = 115
CAPVER_MAGICDNS_AAAA = 116
CAPVER_DISPLAY_MESSAGES = 117
CAPVER_PEER_RELAY = 120
CAPVER_PEER_RELAY_NEWER_ALLOCATION = 121
CAPVER_RESOLVER_WITH_EXIT_NODE = 125
CAPVER_SEAMLESS_KEY_RENEWAL = 126
CAPVER_C2N_NETMAP = 127
CAPVER_C2N_HEALTH = 128
CAPVER_HARDWARE_ATTESTATION = 130
CAPVER_DEFAULT_AUTO_UPDATE_ATTRIBUTE = 131
CAPVER_REGISTER_RETRY_AFTER = 137
CAPVER_C2N_TKA_LOG = 138
CAPVER_C2N_LOCAL_API = 142
CAPVER_IGNORES_EXPERIMENTAL_CONNECTORS = 143
CAPVER_RETRY_AFTER = 147
CAPVER_STABLE_TAILNET_ID = 148

RELEASES: tuple[tuple[str, int], ...] = (
    ("1.48", 68),
    ("1.50", 74),
    ("1.52", 79),
    ("1.54", 79),
    ("1.56", 82),
    ("1.58", 85),
    ("1.60", 87),
    ("1.62", 88),
    ("1.64", 90),
    ("1.66", 95),
    ("1.68", 97),
    ("1.70", 102),
    ("1.72", 104),
    ("1.74", 106),
    ("1.76", 106),
    ("1.78", 109),
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
    """Name the first stable release that has at least this version; None if there is none yet."""
    return next((release for release, has in RELEASES if has >= capver), None)


def release_of(capver: int) -> str | None:
    """Name the newest stable release that a client of this version can be; None if too old."""
    return next((release for release, has in reversed(RELEASES) if has <= capver), None)
