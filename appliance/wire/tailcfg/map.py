"""The map poll: MapRequest, MapResponse and the small objects in it.

Not for filling it (``netmap``), nor for its framing (``control.mapsession``).
Source: tailscale tailcfg/tailcfg.go, control/controlclient/map.go.
"""

import msgspec
from msgspec import field

from appliance.wire.keys import DiscoKey, HardwareKey, NodeKey
from appliance.wire.tailcfg.derpmap import DERPMap
from appliance.wire.tailcfg.dns import DNSConfig
from appliance.wire.tailcfg.filter import FilterRule
from appliance.wire.tailcfg.hostinfo import Hostinfo
from appliance.wire.tailcfg.message import Address, AddrPort, Int64, Message, Time
from appliance.wire.tailcfg.node import Node, PeerChange, UserProfile
from appliance.wire.tailcfg.ssh import SSHPolicy


class MapRequest(Message, frozen=True, kw_only=True):
    """A node tells how it is, or asks for its netmap, or both.

    ``endpoint_types`` runs parallel to ``endpoints``: 0 unknown, 1 local, 2 STUN, 3 port-mapped,
    4 STUN IPv4 with the local port, 5 configured. ``compress`` is ``zstd`` or empty.
    ``disco_key`` may be zero, ``hostinfo.net_info`` absent: then keep what is stored.
    """

    version: Int64 = field(default_factory=int)
    compress: str = ""
    keep_alive: bool = False
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    disco_key: DiscoKey = field(default_factory=DiscoKey.zero)
    hardware_attestation_key: HardwareKey | None = None
    hardware_attestation_key_signature: bytes = b""
    hardware_attestation_key_signature_timestamp: Time | None = None
    stream: bool = False
    hostinfo: Hostinfo | None = None
    map_session_handle: str = ""
    map_session_seq: Int64 = 0
    endpoints: tuple[AddrPort, ...] = ()
    endpoint_types: tuple[Int64, ...] = ()
    tka_head: str = ""
    read_only: bool = False
    omit_peers: bool = False
    debug_flags: tuple[str, ...] = ()
    connection_handle_for_test: str = ""

    def __post_init__(self) -> None:
        signed_at = self.hardware_attestation_key_signature_timestamp
        if signed_at is not None and signed_at.year == 1:
            msgspec.structs.force_setattr(
                self, "hardware_attestation_key_signature_timestamp", None
            )


class PingRequest(Message, frozen=True, kw_only=True):
    """Control asks the node to answer at ``url``, which must differ from the last one.

    ``types`` is a comma list of ``disco TSMP ICMP peerapi``, or ``c2n``, or empty for a HEAD.
    """

    url: str = field(default_factory=str)
    url_is_noise: bool = field(name="URLIsNoise", default_factory=bool)
    log: bool = False
    types: str = field(default_factory=str)
    ip: Address | None = None
    payload: bytes = b""


class PingResponse(Message, frozen=True, kw_only=True):
    """How a ping went; ``err`` empty is success."""

    type: str = field(default_factory=str)
    ip: str = ""
    node_ip: str = ""
    node_name: str = ""
    err: str = ""
    latency_seconds: float = 0.0
    endpoint: str = ""
    peer_relay: str = ""
    derp_region_id: Int64 = 0
    derp_region_code: str = ""
    peer_api_port: Int64 = 0
    is_local_ip: bool = False


class DisplayMessageAction(Message, frozen=True, kw_only=True):
    """A button of a message."""

    url: str = field(default_factory=str)
    label: str = field(default_factory=str)


class DisplayMessage(Message, frozen=True, kw_only=True):
    """A health message for the user; ``severity`` is ``high``, ``medium`` or ``low``."""

    title: str = field(default_factory=str)
    text: str = field(default_factory=str)
    severity: str = field(default_factory=str)
    impacts_connectivity: bool = False
    primary_action: DisplayMessageAction | None = None


class ClientVersion(Message, frozen=True, kw_only=True):
    """Return whether the client's software is current."""

    running_latest: bool = False
    latest_version: str = ""
    urgent_security_update: bool = False
    notify: bool = False
    notify_url: str = ""
    notify_text: str = ""


class ControlIPCandidate(Message, frozen=True, kw_only=True):
    """One way to dial control. ``dial_timeout_sec`` 0 fails at once, so always give one."""

    ip: Address | None = None
    ace_host: str = ""
    dial_start_delay_sec: float = 0.0
    dial_timeout_sec: float = 0.0
    priority: Int64 = 0


class ControlDialPlan(Message, frozen=True, kw_only=True):
    """How to dial control; replaces the plan that the client holds."""

    candidates: tuple[ControlIPCandidate, ...] = field(default_factory=tuple)


class Debug(Message, frozen=True, kw_only=True):
    """Orders to a client: sleep (at most 300 s), stop uploading logs, end with this exit code."""

    sleep_seconds: float = 0.0
    disable_log_tail: bool = False
    exit: Int64 | None = None


class TKAInfo(Message, frozen=True, kw_only=True):
    """The tailnet lock's head (base32), or the news that it is off."""

    head: str = ""
    disabled: bool = False


class MapResponse(Message, frozen=True, kw_only=True):
    """One step of a node's netmap.

    A field that is None (for text: empty) changes nothing. An empty value says something:
    an empty filter blocks all, ``health`` () is healthy, an empty DNSConfig, SSHPolicy replaces.
    Exceptions: empty ``peers`` is never to be sent (clients differ), an empty map or list of
    changes does nothing, ``domain`` cannot be cleared. Left out: ``PacketFilter``, the one filter
    that clients before capver 81 read; they file it as ``base``.
    In ``packet_filters`` and ``display_messages`` a None value deletes that entry, and the entry
    ``*`` with None deletes all others first; these are the only ``null`` we write.
    """

    map_session_handle: str = ""
    seq: Int64 = 0
    keep_alive: bool = False
    ping_request: PingRequest | None = None
    pop_browser_url: str = field(name="PopBrowserURL", default="")
    node: Node | None = None
    derp_map: DERPMap | None = None
    peers: tuple[Node, ...] | None = None
    peers_changed: tuple[Node, ...] | None = None
    peers_removed: tuple[Int64, ...] | None = None
    peers_changed_patch: tuple[PeerChange, ...] | None = None
    peer_seen_change: dict[int, bool] | None = None
    online_change: dict[int, bool] | None = None
    dns_config: DNSConfig | None = None
    domain: str = ""
    collect_services: bool | None = None
    packet_filters: dict[str, tuple[FilterRule, ...] | None] | None = None
    user_profiles: tuple[UserProfile, ...] | None = None
    health: tuple[str, ...] | None = None
    display_messages: dict[str, DisplayMessage | None] | None = None
    ssh_policy: SSHPolicy | None = None
    control_time: Time | None = None
    tka_info: TKAInfo | None = None
    domain_data_plane_audit_log_id: str = ""
    debug: Debug | None = None
    control_dial_plan: ControlDialPlan | None = None
    client_version: ClientVersion | None = None
    default_auto_update: bool | None = None

    def __post_init__(self) -> None:
        if self.control_time is not None and self.control_time.year == 1:
            msgspec.structs.force_setattr(self, "control_time", None)
