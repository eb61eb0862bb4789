"""The nouns: what a tailnet consists of, as frozen values.

Not for rules (``tailnet`` has the verbs) and not for the wire (``tailcfg.Node`` is what a node is
told, ``records.Node`` is what we know). Sits on ``wire``; everything above uses it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NewType, TypeAlias

from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, LockKey, MachineKey, NodeKey

TailnetID = NewType("TailnetID", int)
UserID = NewType("UserID", int)
NodeID = NewType("NodeID", int)
AuthKeyID = NewType("AuthKeyID", int)
PolicyTextID = NewType("PolicyTextID", int)
ApiKeyID = NewType("ApiKeyID", int)
OAuthClientID = NewType("OAuthClientID", int)
SessionID = NewType("SessionID", int)
CredentialID = NewType("CredentialID", int)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

AttributeValue: TypeAlias = "str | float | bool"
"""What a posture attribute may be; a whole number may be an int."""

TAGGED_USER_ID = UserID(2147455555)
"""The pseudo user that owns tagged nodes on the wire. Source: headscale, known to its API tools."""


class Role(StrEnum):
    """What a user may do in the tailnet, as ``autogroup:…`` names it."""

    OWNER = "owner"
    ADMIN = "admin"
    IT_ADMIN = "it-admin"
    NETWORK_ADMIN = "network-admin"
    BILLING_ADMIN = "billing-admin"
    AUDITOR = "auditor"
    MEMBER = "member"


class RegisterMethod(StrEnum):
    """How a node came in."""

    AUTH_KEY = "auth-key"
    CLI = "cli"
    OIDC = "oidc"
    SIGN_IN = "sign-in"
    """By somebody signed in without an identity provider."""


@dataclass(frozen=True, slots=True)
class Tailnet:
    """One private network. ``domain`` is its MagicDNS suffix, without dots at the ends."""

    id: TailnetID
    name: str
    domain: str
    created_at: datetime

    @property
    def stable_id(self) -> str:
        """The tailnet's id on the wire: opaque, never used again, unique on this server."""
        return f"T{self.id}"


@dataclass(frozen=True, slots=True)
class User:
    """A person (or a service account) who owns nodes.

    ``issuer`` and ``subject`` name the account at an identity provider with which this user logs in;
    both are empty if there is none. ``provider`` is the provider's name in the site file. ``groups``
    are those of the provider, as of the last login.
    """

    id: UserID
    name: str
    created_at: datetime
    display_name: str = ""
    email: str = ""
    profile_pic_url: str = ""
    provider: str = ""
    issuer: str = ""
    subject: str = ""
    groups: tuple[str, ...] = ()
    role: Role = Role.MEMBER

    @property
    def provider_id(self) -> str:
        """The account as Headscale writes it, for its API tools; not for telling accounts apart."""
        return f"{self.issuer}/{self.subject}" if self.issuer else ""

    @property
    def login_name(self) -> str:
        """The name that clients and SSH rules compare: the e-mail where there is one."""
        return self.email or self.name


@dataclass(frozen=True, slots=True)
class AuthKey:
    """A pre-auth key; the secret itself is never kept, only ``prefix`` and ``secret_hash``.

    ``user_id`` is None for a key that only gives tags. ``used_at`` is set by the first use.
    """

    id: AuthKeyID
    prefix: str
    secret_hash: str
    created_at: datetime
    user_id: UserID | None = None
    tags: tuple[str, ...] = ()
    reusable: bool = False
    ephemeral: bool = False
    expires_at: datetime | None = None
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key with which a program uses the API; of its secret only a hash is kept.

    ``user_id`` None: it belongs to nobody and may do what ``scopes`` say. A user's key may never do
    more than the user may; without ``scopes``, it may do the same. ``created_by`` is the principal.
    ``last_used_at`` may lag by some minutes.
    """

    id: ApiKeyID
    prefix: str
    secret_hash: str
    created_at: datetime
    scopes: tuple[str, ...] = ()
    user_id: UserID | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    created_by: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A program that gets short-lived tokens for its secret, of which only a hash is kept.

    ``tags`` are those that it may give to nodes and keys. The rest is as for an API key.
    """

    id: OAuthClientID
    prefix: str
    secret_hash: str
    created_at: datetime
    scopes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    user_id: UserID | None = None
    last_used_at: datetime | None = None
    created_by: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Attribute:
    """A posture attribute that somebody gave a node; ``expires_at`` None means that it stays."""

    name: str
    value: AttributeValue
    expires_at: datetime | None = None

    def __eq__(self, other: object) -> bool:
        """Tell true from 1, which Python takes for equal: an equal record is not written."""
        if not isinstance(other, Attribute):
            return NotImplemented
        return (
            self.name == other.name
            and self.value == other.value
            and isinstance(self.value, bool) == isinstance(other.value, bool)
            and self.expires_at == other.expires_at
        )

    def __hash__(self) -> int:
        """Go with what is compared."""
        return hash((self.name, self.value, self.expires_at))


@dataclass(frozen=True, slots=True)
class Node:
    """A device in the tailnet. Owned by a user or tagged, never both.

    ``name`` is its MagicDNS label (unique), ``hostname`` what the machine says of itself;
    ``name_pinned`` means that an administrator chose the name, so the machine cannot change it.
    ``home_derp`` 0 means unknown. ``expires_at`` None means never. ``hostinfo`` never carries
    NetInfo: that is ``net_info``, kept when a later message leaves it out. ``attributes`` are those
    that postures ask for and no client reports, in order of their names.
    """

    id: NodeID
    stable_id: str
    machine_key: MachineKey
    node_key: NodeKey
    name: str
    hostname: str
    created_at: datetime
    user_id: UserID | None = None
    tags: tuple[str, ...] = ()
    disco_key: DiscoKey | None = None
    ipv4: IPv4Address | None = None
    ipv6: IPv6Address | None = None
    hostinfo: tailcfg.Hostinfo = field(default_factory=tailcfg.Hostinfo)
    net_info: tailcfg.NetInfo | None = None
    endpoints: tuple[tailcfg.AddrPort, ...] = ()
    home_derp: int = 0
    capver: int = 0
    expires_at: datetime | None = None
    ephemeral: bool = False
    auth_key_id: AuthKeyID | None = None
    register_method: RegisterMethod = RegisterMethod.AUTH_KEY
    name_pinned: bool = False
    approved_routes: tuple[Network, ...] = ()
    lock_key: LockKey | None = None
    key_signature: bytes = b""
    attributes: tuple[Attribute, ...] = ()

    @property
    def is_tagged(self) -> bool:
        """Tell whether the node belongs to its tags rather than to a user."""
        return bool(self.tags)

    @property
    def owner_id(self) -> UserID:
        """The user that the wire names as owner: the pseudo user for tagged nodes."""
        return TAGGED_USER_ID if self.user_id is None else self.user_id

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The node's addresses, IPv4 first (clients expect exactly this order)."""
        return tuple(a for a in (self.ipv4, self.ipv6) if a is not None)

    def is_expired(self, now: datetime) -> bool:
        """Tell whether the node key has run out at ``now``."""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True)
class PolicyText:
    """A policy as it was written, and where it came from; the newest one is in force.

    ``source`` is "file", "settings" or "database" (what an administrator set at run time),
    ``created_by`` who or what set it.
    """

    id: PolicyTextID
    text: str
    created_at: datetime
    source: str = "database"
    created_by: str = ""


class SignInMethod(StrEnum):
    """How a person proved who they are."""

    LINK = "link"
    INVITATION = "invitation"
    PASSKEY = "passkey"
    RECOVERY_CODE = "recovery-code"
    OIDC = "oidc"


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which a person is signed in; its secret is not kept, only ``secret_hash``.

    ``expires_at`` is when it ends whatever happens; ``last_used_at`` is written now and then, and a
    session that is not used ends before. ``agent`` is what the browser says of itself, ``source`` the
    address that signed in.
    """

    id: SessionID
    user_id: UserID
    secret_hash: str
    method: SignInMethod
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    login_expires_at: datetime | None = None
    """When the identity provider wants the login to end: devices that it lets in end then, too."""
    agent: str = ""
    source: str = ""


class CredentialKind(StrEnum):
    """What a credential is; links and codes are good for one use, and dropped with it."""

    LINK = "link"
    INVITATION = "invitation"
    PASSKEY = "passkey"
    RECOVERY_CODE = "recovery-code"


@dataclass(frozen=True, slots=True)
class Credential:
    """What proves a person without an identity provider: a link, an invitation, a passkey, a code.

    ``lookup`` finds it, and is unique: the SHA-256 of the secret, or of the passkey's public id.
    ``public_key`` (COSE) and ``sign_count`` are a passkey's. ``expires_at`` None means never.
    """

    id: CredentialID
    user_id: UserID
    kind: CredentialKind
    lookup: str
    created_at: datetime
    name: str = ""
    public_id: bytes = b""
    public_key: bytes = b""
    sign_count: int = 0
    expires_at: datetime | None = None
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a node is connected: not a record of the database, but for ``last_seen``.

    ``sessions`` counts open map sessions; a node in its grace time has 0 and is still online.
    ``online_since`` is when it came online, and None while it is offline; ``last_seen`` is when its
    last session ended, also during the grace time. ``expired`` is set when the clock has passed ``Node.expires_at``, so that expiry is a change
    like any other and needs no clock in the netmap.
    """

    online: bool = False
    sessions: int = 0
    last_seen: datetime | None = None
    expired: bool = False
    online_since: datetime | None = None


OFFLINE = Presence()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the site's configuration says about a tailnet; changes to it are ordinary changes.

    ``prefix_v4`` or ``prefix_v6`` may be None, not both. ``key_expiry`` None means that keys of
    user-owned nodes do not run out. ``nameservers`` and ``split_dns`` hold resolver addresses in
    the forms that clients know (an IP, ``ip:port`` or a DoH URL).
    """

    prefix_v4: IPv4Network | None = IPv4Network("100.64.0.0/10")
    prefix_v6: IPv6Network | None = IPv6Network("fd7a:115c:a1e0::/48")
    random_addresses: bool = False
    magic_dns: bool = True
    override_local_dns: bool = False
    nameservers: tuple[str, ...] = ()
    split_dns: tuple[tuple[str, tuple[str, ...]], ...] = ()
    search_domains: tuple[str, ...] = ()
    extra_records: tuple[tailcfg.DNSRecord, ...] = ()
    derp_map: tailcfg.DERPMap = field(default_factory=tailcfg.DERPMap)
    key_expiry: timedelta | None = None
    ephemeral_timeout: timedelta = timedelta(minutes=30)
    file_sharing: bool = True
    disable_logs: bool = True
    email_domains: frozenset[str] = frozenset()
    """The e-mail domains that the tailnet owns: ``user:*@domain`` means their users."""
    providers: frozenset[str] = frozenset()
    """Names of the identity providers whose groups a policy may use."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change of one record: who, through which door, when, what, and what it was before.

    ``door`` is the kind of principal ("local", "node", "system", …), ``by`` its name. ``act`` is what
    was done ("node.rename"), ``kind`` and ``target`` the record ("node", 7) with the name that it has
    or had. ``before`` and ``after`` are JSON objects of what differs, "" for a record that was not
    there; bounded, and without secrets. ``reason`` is why, where somebody or something said it.
    """

    at: datetime
    door: str
    by: str
    act: str
    kind: str
    target: int
    name: str
    before: str = ""
    after: str = ""
    reason: str = ""


Kept = User | AuthKey | ApiKey | OAuthClient | Session | Credential
"""Records that need no rules of their own in a snapshot (``tailnet.kinds``)."""
Record = Tailnet | Node | PolicyText | Kept
"""What an ``Edit`` can put and the store can keep."""
