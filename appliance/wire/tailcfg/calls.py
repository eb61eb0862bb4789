"""The small calls of a node besides register and map: set-dns, id-token, health, tailnet lock, ….

Not for answering them (``control.calls``). Source: tailscale tailcfg/{tailcfg,tka}.go.
"""

from typing import TypeAlias

import msgspec
from msgspec import field

from appliance.wire.keys import NodeKey
from appliance.wire.tailcfg.message import Int64, Message, Time

AttrValue: TypeAlias = str | int | float | bool | None


class SetDNSRequest(Message, frozen=True, kw_only=True):
    """Publish a DNS record (TXT for ACME); answer once it is visible."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    name: str = field(default_factory=str)
    type: str = field(default_factory=str)
    value: str = field(default_factory=str)


class SetDNSResponse(Message, frozen=True, kw_only=True):
    """Done: ``{}``."""


class HealthChangeRequest(Message, frozen=True, kw_only=True):
    """A subsystem of an older client (1.88 and below) is ill, or well again: ``error`` empty."""

    subsys: str = field(default_factory=str)
    error: str = field(default_factory=str)
    node_key: NodeKey = field(default_factory=NodeKey.zero)


def _no_update() -> dict[str, AttrValue]:
    # A factory of our own is always written; ``dict`` itself would be left out when empty.
    return {}


class SetDeviceAttributesRequest(Message, frozen=True, kw_only=True):
    """Set attributes of the node's own device; None deletes one."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    update: dict[str, AttrValue] = field(default_factory=_no_update)


class QueryFeatureRequest(Message, frozen=True, kw_only=True):
    """The ``serve`` or ``funnel`` command asks whether it may go on."""

    feature: str = ""
    node_key: NodeKey | None = None


class QueryFeatureResponse(Message, frozen=True, kw_only=True):
    """May it? If not: what to tell the user, where to go, whether to wait."""

    complete: bool = False
    text: str = ""
    url: str = ""
    should_wait: bool = False


class WebClientAuthResponse(Message, frozen=True, kw_only=True):
    """A check of the node's web client: where the user confirms, and whether that is done."""

    id: str = ""
    url: str = ""
    complete: bool = False


class TokenRequest(Message, frozen=True, kw_only=True):
    """A node asks for an OIDC token about itself for an audience."""

    cap_version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    audience: str = field(default_factory=str)


class TokenResponse(Message, frozen=True, kw_only=True):
    """The signed token."""

    id_token: str = field(name="id_token", default_factory=str)


class AuditLogRequest(Message, frozen=True, kw_only=True):
    """A user's deed on a node, ``DISCONNECT_NODE`` so far."""

    version: Int64 = 0
    node_key: NodeKey | None = None
    action: str = ""
    details: str = ""
    timestamp: Time | None = None

    def __post_init__(self) -> None:
        if self.timestamp is not None and self.timestamp.year == 1:
            msgspec.structs.force_setattr(self, "timestamp", None)


class TKAInitBeginRequest(Message, frozen=True, kw_only=True):
    """Begin to lock the tailnet, with this genesis AUM."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    genesis_aum: bytes = field(default_factory=bytes)


class TKASignInfo(Message, frozen=True, kw_only=True):
    """A node whose key the initiator must sign."""

    node_id: Int64 = field(default_factory=int)
    node_public: NodeKey = field(default_factory=NodeKey.zero)
    rotation_pubkey: bytes = field(default_factory=bytes)


class TKAInitBeginResponse(Message, frozen=True, kw_only=True):
    """All nodes that need a signature."""

    need_signatures: tuple[TKASignInfo, ...] = field(default_factory=tuple)


def _no_signatures() -> dict[int, bytes]:
    # As above: written also when empty.
    return {}


class TKAInitFinishRequest(Message, frozen=True, kw_only=True):
    """The signatures by node ID; the lock is then on."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    signatures: dict[int, bytes] = field(default_factory=_no_signatures)
    support_disablement: bytes = b""


class TKAInitFinishResponse(Message, frozen=True, kw_only=True):
    """Done: ``{}``."""


class TKABootstrapRequest(Message, frozen=True, kw_only=True):
    """A node that has no lock state, or must shed it, asks for the proof."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    head: str = field(default_factory=str)


class TKABootstrapResponse(Message, frozen=True, kw_only=True):
    """Either the genesis AUM or the secret that disables the lock."""

    genesis_aum: bytes = b""
    disablement_secret: bytes = b""


class TKASyncOfferRequest(Message, frozen=True, kw_only=True):
    """Where the node's chain stands; heads are base32 text."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    head: str = field(default_factory=str)
    ancestors: tuple[str, ...] = field(default_factory=tuple)


class TKASyncOfferResponse(Message, frozen=True, kw_only=True):
    """Where control's chain stands, and the AUMs that the node misses."""

    head: str = field(default_factory=str)
    ancestors: tuple[str, ...] = field(default_factory=tuple)
    missing_aums: tuple[bytes, ...] = field(default_factory=tuple)


class TKASyncSendRequest(Message, frozen=True, kw_only=True):
    """The AUMs that control misses; ``interactive`` when a user waits."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    head: str = field(default_factory=str)
    missing_aums: tuple[bytes, ...] = field(default_factory=tuple)
    interactive: bool = field(default_factory=bool)


class TKASyncSendResponse(Message, frozen=True, kw_only=True):
    """Control's head after the AUMs were applied."""

    head: str = field(default_factory=str)


class TKADisableRequest(Message, frozen=True, kw_only=True):
    """Switch the lock off with one of its disablement secrets."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    head: str = field(default_factory=str)
    disablement_secret: bytes = field(default_factory=bytes)


class TKADisableResponse(Message, frozen=True, kw_only=True):
    """Done: ``{}``."""


class TKASubmitSignatureRequest(Message, frozen=True, kw_only=True):
    """A signature of some node's key."""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    signature: bytes = field(default_factory=bytes)


class TKASubmitSignatureResponse(Message, frozen=True, kw_only=True):
    """Done: ``{}``."""


class TKASignaturesUsingKeyRequest(Message, frozen=True, kw_only=True):
    """Which signatures hang on this lock key?"""

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    key_id: bytes = field(default_factory=bytes)


class TKASignaturesUsingKeyResponse(Message, frozen=True, kw_only=True):
    """These."""

    signatures: tuple[bytes, ...] = field(default_factory=tuple)
