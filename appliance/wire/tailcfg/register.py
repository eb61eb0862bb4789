"""Keys of the server, registration of a node.

Not for deciding (``tailnet.enrolment``). Source: tailscale tailcfg/tailcfg.go,
control/controlclient/direct.go.
"""

import msgspec
from msgspec import field

from appliance.wire.keys import ChallengeKey, LockKey, MachineKey, NodeKey
from appliance.wire.tailcfg.hostinfo import Hostinfo
from appliance.wire.tailcfg.message import Int64, Message, Time
from appliance.wire.tailcfg.node import Login, User


class OverTLSPublicKeyResponse(Message, frozen=True, kw_only=True, rename="camel"):
    """The answer of ``GET /key``; both fields must be there, the legacy key may be zero."""

    legacy_public_key: MachineKey = field(default_factory=MachineKey.zero)
    public_key: MachineKey = field(default_factory=MachineKey.zero)


class EarlyNoise(Message, frozen=True, kw_only=True, rename="camel"):
    """The JSON of the early Noise payload."""

    node_key_challenge: ChallengeKey = field(default_factory=ChallengeKey.zero)


class RegisterResponseAuth(Message, frozen=True, kw_only=True):
    """What proves the right to register (an Oauth2Token of 2024 is ignored)."""

    auth_key: str = ""


class RegisterRequest(Message, frozen=True, kw_only=True):
    """A machine asks to be a node.

    ``old_node_key`` stays set after a node's first rotation. ``expiry`` in the past is a log-out.
    ``auth`` is repeated at every request of the same process, at a log-out too.
    ``signature_type`` is empty, ``signature-v1`` or ``signature-v2``.
    """

    version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    old_node_key: NodeKey = field(default_factory=NodeKey.zero)
    nl_key: LockKey = field(default_factory=LockKey.zero)
    auth: RegisterResponseAuth | None = None
    expiry: Time | None = None
    followup: str = field(default_factory=str)
    hostinfo: Hostinfo | None = None
    ephemeral: bool = False
    node_key_signature: bytes = b""
    signature_type: str = ""
    timestamp: Time | None = None
    device_cert: bytes = b""
    signature: bytes = b""
    tailnet: str = ""

    def __post_init__(self) -> None:
        for name, value in (("expiry", self.expiry), ("timestamp", self.timestamp)):
            if value is not None and value.year == 1:
                msgspec.structs.force_setattr(self, name, None)


class RegisterResponse(Message, frozen=True, kw_only=True):
    """The answer. Neither ``auth_url`` nor ``error`` nor ``node_key_expired``: the node is in."""

    user: User = field(default_factory=User)
    login: Login = field(default_factory=Login)
    node_key_expired: bool = field(default_factory=bool)
    machine_authorized: bool = field(default_factory=bool)
    auth_url: str = field(default_factory=str)
    node_key_signature: bytes = b""
    error: str = field(default_factory=str)
