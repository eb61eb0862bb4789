"""What a node says about itself: Hostinfo and NetInfo, sent by nodes, in part shown to peers.

Not for what control says about a node (``node``). Source: tailscale tailcfg/tailcfg.go.
"""

from msgspec import field

from appliance.wire.tailcfg.message import Int64, Message, Prefix, Uint16


class Service(Message, frozen=True, kw_only=True):
    """A listening port: ``tcp``, ``udp``, ``peerapi4``, ``peerapi6`` or ``peerapi-dns-proxy``."""

    proto: str = field(default_factory=str)
    port: Uint16 = field(default_factory=int)
    description: str = ""


class Location(Message, frozen=True, kw_only=True):
    """Where a node stands; latitude and longitude in degrees, None when not told."""

    country: str = ""
    country_code: str = ""
    city: str = ""
    city_code: str = ""
    latitude: float | None = None
    longitude: float | None = None
    priority: Int64 = 0


class TPMInfo(Message, frozen=True, kw_only=True):
    """The node's TPM 2.0 device."""

    manufacturer: str = ""
    vendor: str = ""
    model: Int64 = 0
    firmware_version: int = 0
    spec_revision: Int64 = 0
    family_indicator: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.firmware_version < 2**64:  # more than msgspec's own bounds can say
            raise ValueError("FirmwareVersion is not an unsigned number of 64 bits")


class NetInfo(Message, frozen=True, kw_only=True):
    """The node's view of its network. The bool-or-None fields are tri-state: None is unknown.

    ``preferred_derp`` is the home region, 0 when the node knows none;
    ``derp_latency`` maps ``{region}-v4`` and ``{region}-v6`` to seconds.
    """

    mapping_varies_by_dest_ip: bool | None = None
    working_ipv6: bool | None = None
    os_has_ipv6: bool | None = None
    working_udp: bool | None = None
    working_icmpv4: bool | None = None
    have_port_map: bool = False
    upnp: bool | None = None
    pmp: bool | None = None
    pcp: bool | None = None
    preferred_derp: Int64 = 0
    link_type: str = ""
    derp_latency: dict[str, float] = field(default_factory=dict)
    firewall_mode: str = ""


class Hostinfo(Message, frozen=True, kw_only=True):
    """The node's own description. ``net_info`` None means "nothing new", not "nothing"."""

    ipn_version: str = ""
    frontend_log_id: str = ""
    backend_log_id: str = ""
    os: str = ""
    os_version: str = ""
    container: bool | None = None
    env: str = ""
    distro: str = ""
    distro_version: str = ""
    distro_code_name: str = ""
    app: str = ""
    desktop: bool | None = None
    package: str = ""
    device_model: str = ""
    push_device_token: str = ""
    hostname: str = ""
    shields_up: bool = False
    sharee_node: bool = False
    no_logs_no_support: bool = False
    remote_config: bool = False
    wire_ingress: bool = False
    ingress_enabled: bool = False
    allows_update: bool = False
    machine: str = ""
    go_arch: str = ""
    go_arch_var: str = ""
    go_version: str = ""
    routable_ips: tuple[Prefix, ...] = ()
    request_tags: tuple[str, ...] = ()
    wol_macs: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    net_info: NetInfo | None = None
    ssh_host_keys: tuple[str, ...] = field(name="sshHostKeys", default=())
    cloud: str = ""
    userspace: bool | None = None
    userspace_router: bool | None = None
    app_connector: bool | None = None
    services_hash: str = ""
    peer_relay: bool = False
    exit_node_id: str = ""
    location: Location | None = None
    tpm: TPMInfo | None = None
    state_encrypted: bool | None = None
