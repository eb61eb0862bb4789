"""The SSH policy of a node and its notices. Field names are lower camel case here.

Not for deciding (``policy.ssh``). Source: tailscale tailcfg/tailcfg.go.
"""

from msgspec import field

from appliance.wire.keys import NodeKey
from appliance.wire.tailcfg.message import AddrPort, Int64, Message, Time


class SSHRecorderFailureAction(Message, frozen=True, kw_only=True):
    """What to do when recording fails; empty messages let the session go on."""

    reject_session_with_message: str = ""
    terminate_session_with_message: str = ""
    notify_url: str = ""


class SSHAction(Message, frozen=True, kw_only=True, rename="camel"):
    """What happens to a session. ``session_duration`` in nanoseconds, 0 is unlimited."""

    message: str = ""
    reject: bool = False
    accept: bool = False
    session_duration: Int64 = 0
    allow_agent_forwarding: bool = False
    hold_and_delegate: str = ""
    allow_local_port_forwarding: bool = False
    allow_remote_port_forwarding: bool = False
    recorders: tuple[AddrPort, ...] = ()
    on_recording_failure: SSHRecorderFailureAction | None = None


class SSHPrincipal(Message, frozen=True, kw_only=True, rename="camel"):
    """Who: the fields are alternatives; ``user_login`` is compared with UserProfile.LoginName."""

    node: str = ""
    node_ip: str = field(name="nodeIP", default="")
    user_login: str = ""
    any: bool = False


def _no_users() -> dict[str, str]:
    # A factory of our own is always written; ``dict`` itself would be left out when empty.
    return {}


class SSHRule(Message, frozen=True, kw_only=True, rename="camel"):
    """One rule; any principal must match. ``ssh_users`` maps wanted to local user.

    A local user ``=`` means the same name, an empty one means no match.
    """

    rule_expires: Time | None = None
    principals: tuple[SSHPrincipal, ...] = field(default_factory=tuple)
    ssh_users: dict[str, str] = field(name="sshUsers", default_factory=_no_users)
    action: SSHAction | None = None
    accept_env: tuple[str, ...] = ()


class SSHPolicy(Message, frozen=True, kw_only=True, rename="camel"):
    """All rules, the first match wins."""

    rules: tuple[SSHRule, ...] = field(default_factory=tuple)


class SSHRecordingAttempt(Message, frozen=True, kw_only=True):
    """A recorder that was tried and why it failed."""

    recorder: AddrPort | None = None
    failure_message: str = field(default_factory=str)


class SSHEventNotifyRequest(Message, frozen=True, kw_only=True):
    """A node reports a session: ``event_type`` 1 rejected, 2 terminated, 3 recording failed."""

    event_type: Int64 = field(default_factory=int)
    connection_id: str = field(default_factory=str)
    cap_version: Int64 = field(default_factory=int)
    node_key: NodeKey = field(default_factory=NodeKey.zero)
    src_node: Int64 = field(default_factory=int)
    ssh_user: str = field(default_factory=str)
    local_user: str = field(default_factory=str)
    recording_attempts: tuple[SSHRecordingAttempt, ...] = field(default_factory=tuple)
