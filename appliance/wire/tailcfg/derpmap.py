"""The map of relays (DERP regions), and the question of a relay whether to admit a client.

Not for the relay protocol (``wire.derp``). Source: tailscale tailcfg/derpmap.go.
"""

from msgspec import field

from appliance.wire.keys import NodeKey
from appliance.wire.tailcfg.message import Address, Int64, Message


class DERPHomeParams(Message, frozen=True, kw_only=True):
    """How nodes choose their home: below 1 prefers a region. None keeps, {} resets to 1."""

    region_score: dict[int, float] | None = None


class DERPNode(Message, frozen=True, kw_only=True):
    """One relay. Ports 0 mean 443 and 3478; ``stun_port`` -1 means no STUN.

    ``ipv4`` and ``ipv6`` empty mean "ask DNS", ``none`` means off.
    ``cert_name`` may be ``sha256-raw:`` and the hex digest of a self-signed certificate.
    """

    name: str = field(default_factory=str)
    region_id: Int64 = field(default_factory=int)
    host_name: str = field(default_factory=str)
    cert_name: str = ""
    ipv4: str = ""
    ipv6: str = ""
    stun_port: Int64 = 0
    stun_only: bool = False
    derp_port: Int64 = 0
    insecure_for_tests: bool = False
    stun_test_ip: str = ""
    can_port80: bool = False


class DERPRegion(Message, frozen=True, kw_only=True):
    """A region: relays that are meshed, in order of preference."""

    region_id: Int64 = field(default_factory=int)
    region_code: str = field(default_factory=str)
    region_name: str = field(default_factory=str)
    latitude: float | None = None
    longitude: float | None = None
    avoid: bool = False
    no_measure_no_home: bool = False
    nodes: tuple[DERPNode, ...] = field(default_factory=tuple)


class DERPMap(Message, frozen=True, kw_only=True):
    """All regions. ``regions`` None keeps what the client has, else it replaces the whole map."""

    home_params: DERPHomeParams | None = None
    regions: dict[int, DERPRegion] | None = None
    omit_default_regions: bool = field(name="omitDefaultRegions", default=False)


class DERPAdmitClientRequest(Message, frozen=True, kw_only=True):
    """A relay asks (``POST /verify``) whether this client may use it."""

    node_public: NodeKey = field(default_factory=NodeKey.zero)
    source: Address | None = None


class DERPAdmitClientResponse(Message, frozen=True, kw_only=True):
    """The answer to a relay."""

    allow: bool = field(default_factory=bool)
