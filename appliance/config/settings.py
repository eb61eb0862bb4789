"""The settings tree: every key that a site file may have, its default and its meaning.

Not for what makes values wrong together (``checks``), nor for acting on the settings: ``serve``
reads them and hands values on. The text under each field is its entry in docs/configuration.md.
"""

from __future__ import annotations

import os
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from appliance.config.reader import Endpoint, FileMode, Mistake

Prefix = IPv4Network | IPv6Network
Port = Annotated[int, Meta(ge=1, le=65535)]
Label = Annotated[
    str,
    Meta(
        pattern="[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        description="of up to 63 lower-case letters, digits and inner hyphens",
    ),
]
RegionNumber = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=0)]


class ConfigError(Exception):
    """The file cannot be used; ``mistakes`` names each one with its place and its remedy."""

    def __init__(self, source: str, mistakes: tuple[Mistake, ...]) -> None:
        lines = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"{source}: {len(mistakes)} mistake(s){lines}")
        self.source = source
        self.mistakes = mistakes


class Rfc2136(Struct, frozen=True, kw_only=True):
    """A name server that takes updates, like BIND, Knot or PowerDNS."""

    server: Endpoint
    """Its address and port, like `192.0.2.53:53`; updates go over TCP."""
    zone: str = ""
    """The zone that is changed; empty means ask the server for it."""
    key_name: str = ""
    """Name of the key that the server knows (TSIG)."""
    key_algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    """Its algorithm."""
    key_file: Path | None = None
    """File with the key in base64."""


class AcmeDns(Struct, frozen=True, kw_only=True):
    """How records for the challenge dns-01 are set; one of the two."""

    rfc2136: Rfc2136 | None = None
    """A name server that takes updates."""
    hook: Path | None = None
    """A program that is called as `PROGRAM present NAME VALUE` and `PROGRAM cleanup NAME VALUE`, as
    lego's `exec` provider does it; it sets the TXT record NAME and ends with 0."""
    wait: timedelta = timedelta(seconds=10)
    """How long the zone's other name servers may need until they have a new record; at most 5m."""


class Eab(Struct, frozen=True, kw_only=True):
    """An account that exists with the authority already (external account binding)."""

    key_id: str
    """Its name, as the authority gave it."""
    key_file: Path
    """File with its key in base64url, as the authority gave it."""


class Tls(Struct, frozen=True, kw_only=True):
    """How the listeners are encrypted."""

    mode: Literal["files", "acme", "local_ca", "off"] = "files"
    """`files`: a certificate and its key, watched for change. `acme`: a certificate of Let's Encrypt
    or another authority, asked for and renewed by this server, which agrees to the authority's terms
    for you (see tls.md). `local_ca`: an authority of its own in the state directory, for development
    and closed sites. `off`: plain HTTP, for use behind a proxy that speaks TLS."""
    cert_file: Path | None = None
    """PEM file with the certificate and its chain (mode `files`)."""
    key_file: Path | None = None
    """PEM file with the private key (mode `files`)."""
    email: str = ""
    """Where the authority may write to (mode `acme`); Let's Encrypt does not."""
    staging: bool = False
    """Let's Encrypt's other authority, for trying: its limits are wide, and no client trusts it."""
    directory: str = ""
    """URL of another authority's ACME directory; empty means Let's Encrypt."""
    ca_file: Path | None = None
    """PEM file with what vouches for the authority itself; null means the usual public ones."""
    challenge: Literal["auto", "tls-alpn-01", "http-01", "dns-01", "dns-persist-01"] = "auto"
    """How the names are proved. `auto` takes what this file allows, and another way after a failure:
    `tls-alpn-01` needs port 443 only, `http-01` port 80 in `listen_plain`, `dns-01` the section `dns`.
    `dns-persist-01` needs one record, which stays; the log and `certificates check` say which."""
    names: tuple[str, ...] = ()
    """Further names and addresses of the certificate, beside the host of `server_url`; `*.example.com`
    by `dns-01` and `dns-persist-01` only."""
    profile: str = ""
    """One of the authority's profiles, like `tlsserver` or `shortlived`; empty means its default, or
    `shortlived` where an address is certified."""
    eab: Eab | None = None
    """An account that exists with the authority already; null means a new one."""
    dns: AcmeDns = AcmeDns()


class Socket(Struct, frozen=True, kw_only=True):
    """The local socket that the command line uses; whoever may open it may do everything."""

    path: Path = Path("/run/headwater/headwater.sock")
    """Where the socket is made."""
    mode: FileMode = FileMode(0o770)
    """Its permissions."""


class Prefixes(Struct, frozen=True, kw_only=True):
    """Where node addresses come from. At least one family must be there."""

    v4: IPv4Network | None = IPv4Network("100.64.0.0/10")
    """IPv4 prefix, inside 100.64.0.0/10, or null for none."""
    v6: IPv6Network | None = IPv6Network("fd7a:115c:a1e0::/48")
    """IPv6 prefix, inside fd7a:115c:a1e0::/48, or null for none."""
    allocation: Literal["sequential", "random"] = "sequential"
    """The next free address, or a random free one."""


class ExtraRecord(Struct, frozen=True, kw_only=True):
    """One static DNS record that every node's MagicDNS answers."""

    name: str
    """The whole name in lower case, without a dot at its end; clients know no wildcards."""
    type: Literal["A", "AAAA"] = "A"
    """Kind of record; clients answer only these two."""
    value: str
    """The address."""


class Nameservers(Struct, frozen=True, kw_only=True, rename={"global_": "global"}):
    """Which resolvers nodes ask for names outside the tailnet."""

    global_: tuple[str, ...] = ()
    """Resolvers for everything: an IP address, `ip:port`, or the URL of a DNS-over-HTTPS service
    whose addresses clients know by heart (Cloudflare, Google, Quad9, Mullvad, Wikimedia, Control D,
    CIRA, NextDNS); they ask no other service, no name and nothing over TLS (`tls://`). For a known
    address they use HTTPS by themselves. NextDNS (`https://dns.nextdns.io/PROFILE`) is told which
    node asks; the policy can change that by node."""
    split: dict[str, tuple[str, ...]] = {}
    """Resolvers by domain suffix, at least one for each."""


class Dns(Struct, frozen=True, kw_only=True):
    """What nodes are told about DNS."""

    magic_dns: bool = True
    """Let nodes be reached by name."""
    override_local_dns: bool = False
    """Use the global nameservers in place of those of the node's own network."""
    nameservers: Nameservers = Nameservers()
    search_domains: tuple[str, ...] = ()
    """Further suffixes that are tried for short names."""
    extra_records: tuple[ExtraRecord, ...] = ()
    """Static records."""


class Policy(Struct, frozen=True, kw_only=True):
    """Where the policy comes from, which says who may reach whom (see policy.md)."""

    mode: Literal["database", "file", "settings"] = "database"
    """`database`: set by command line and API. `file`: the file `path`, watched for change.
    `settings`: written here. Only one of them is asked."""
    path: Path | None = None
    """File with the policy in HuJSON (mode `file`); the whole path."""
    text: str = ""
    """The policy in HuJSON (mode `settings`)."""
    document: dict[str, object] | None = None
    """The policy as values of this file's own form, in place of `text` (mode `settings`)."""


class Tailnet(Struct, frozen=True, kw_only=True):
    """One private network."""

    name: Label = "default"
    """How the tailnet is told from others; it never changes."""
    base_domain: str = "tailnet.internal"
    """MagicDNS suffix: a node is reached as `<node>.<base_domain>`."""
    prefixes: Prefixes = Prefixes()
    key_expiry: timedelta | None = None
    """How long a user's node may stay before it must log in again; null means never."""
    ephemeral_timeout: timedelta = timedelta(minutes=30)
    """How long an ephemeral node may be away before it is removed; at least 2s, a minute is safe."""
    file_sharing: bool = True
    """Let nodes of one user send files to each other (Taildrop)."""
    client_logs: bool = False
    """Let clients send their logs to Tailscale's log service. They are told so with their first
    map and go on trying to send what they noted before it, for some minutes; only
    `tailscaled --no-logs-no-support` keeps a client from that, too."""
    policy: Policy = Policy()
    email_domains: tuple[str, ...] = ()
    """The e-mail domains that the tailnet owns: `user:*@example.com` in a policy means their users."""
    dns: Dns | None = None
    """DNS of this tailnet; null means the settings of the `dns` section."""


class Mesh(Struct, frozen=True, kw_only=True):
    """Other relays of the same region, which exchange packets with this one."""

    key_file: Path | None = None
    """File with the key that the relays of the region share (64 hex digits)."""
    peers: tuple[str, ...] = ()
    """URLs of the other relays, like `https://relay2.example.com/derp`."""
    ca_file: Path | None = None
    """PEM file with the authorities that vouch for the other relays; null means the system's."""


class RelayServer(Struct, frozen=True, kw_only=True):
    """The relay (DERP) and STUN server inside this program."""

    enabled: bool = True
    """Run the relay and offer it to nodes."""
    region_id: RegionNumber = 999
    """Number of its region; 900 to 999 are kept free for private ones."""
    region_code: Label = "headwater"
    """Short name of its region."""
    region_name: str = "Headwater"
    """Name of its region for people."""
    host: str = ""
    """Name or address that nodes dial, without port; empty means the host of `server_url`."""
    port: Port | None = None
    """Port that nodes dial; null means the port of `server_url`."""
    ipv4: IPv4Address | None = None
    """Address to dial, so that a node needs no DNS for it."""
    ipv6: IPv6Address | None = None
    """Address to dial, so that a node needs no DNS for it."""
    stun_listen: tuple[Endpoint, ...] = (Endpoint("0.0.0.0", 3478), Endpoint("::", 3478))  # noqa: S104  # a public server
    """UDP addresses of the STUN server; an empty list turns it off."""
    stun_port: Port | None = None
    """STUN port that nodes are told; null means the one of `stun_listen`."""
    can_port80: bool = False
    """Tell nodes that `/generate_204` answers on port 80 of `ipv4` (captive portal test)."""
    verify_clients: bool = True
    """Admit only nodes of our tailnets."""
    verify_fail_open: bool = True
    """What a relay that runs by itself does while it cannot ask the server. Nodes that are connected
    stay in any case, and strangers are refused in any case; with true, a node that was admitted in
    the last 24 hours may also come back."""
    bytes_per_second: Count = 0
    """Limit on what one node may send through the relay; 0 means none."""
    separate: bool = False
    """Run the relay as a process of its own: `headwater relay` beside `headwater serve`, with the
    same file. It asks the server over the local socket whom to admit."""
    listen: tuple[Endpoint, ...] = ()
    """Addresses of a relay that runs by itself; empty means those of the top level, for a relay on a
    host of its own."""
    metrics_listen: Endpoint | None = None
    """With `separate`: address of the relay's own listener for `/metrics` and `/health`; null means
    none. A relay on a host of its own takes `metrics.listen`."""
    mesh: Mesh = Mesh()


class RelayNode(Struct, frozen=True, kw_only=True):
    """One relay of a further region."""

    host: str
    """Name or address that nodes dial, always with TLS; without `https://` and port."""
    name: str = ""
    """Unique over all regions; empty means made from the region's code and the position."""
    cert_name: str = ""
    """Other name in its certificate, or `sha256-raw:` and the digest of a self-signed one."""
    ipv4: str = ""
    """IPv4 address; empty means ask DNS, `none` means no IPv4."""
    ipv6: str = ""
    """IPv6 address; empty means ask DNS, `none` means no IPv6."""
    port: Port = 443
    """TLS port."""
    stun_port: Annotated[int, Meta(ge=-1, le=65535)] = 3478
    """STUN port; -1 means that it has none."""
    stun_only: bool = False
    """It answers STUN but does not relay."""
    can_port80: bool = False
    """`/generate_204` answers on port 80 of `ipv4`."""


class Region(Struct, frozen=True, kw_only=True):
    """A further relay region, run by someone else or on another host."""

    id: RegionNumber
    """Number of the region."""
    code: Label
    """Short name."""
    name: str = ""
    """Name for people; empty means the code."""
    latitude: float | None = None
    """Degrees; only for suggestions of exit nodes."""
    longitude: float | None = None
    """Degrees; only for suggestions of exit nodes."""
    nodes: tuple[RelayNode, ...] = ()
    """Its relays in order of preference."""


class Derp(Struct, frozen=True, kw_only=True):
    """Relays: our own, and others."""

    server: RelayServer = RelayServer()
    regions: tuple[Region, ...] = ()
    """Further regions. One with the number of our own region names the other relays in it, the
    ones that ours is meshed with; nodes try ours first."""


class Log(Struct, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least serious kind of line that is written."""
    format: Literal["text", "json"] = "text"
    """`text` is `key=value`; `json` is one object a line."""


class Audit(Struct, frozen=True, kw_only=True):
    """How long the audit log is kept: who changed what, in the database."""

    max_age: timedelta = timedelta(days=400)
    """Older entries are forgotten, within the hour."""
    max_entries: Annotated[int, Meta(ge=1000)] = 200_000
    """Of more the oldest are forgotten. An entry takes about 500 bytes of the database."""


class Api(Struct, frozen=True, kw_only=True):
    """How the API answers programs that were made for Headscale."""

    release: Literal["0.27", "0.28", "0.29", "0.30"] = "0.29"
    """Release of Headscale that `/version` names, by which consoles choose what they do, and whose
    forms answers and `-o json` have. Requests of all four are understood anyway."""


class OidcClaims(Struct, frozen=True, kw_only=True):
    """Which claims of the provider hold what; a dotted name leads into objects."""

    username: str = "preferred_username"
    """What a new user is called; a part behind `@` is left out."""
    email: str = "email"
    """E-mail address, which policies name people by."""
    email_verified: str = "email_verified"
    """Whether the provider has verified the address."""
    display_name: str = "name"
    """Name for people."""
    picture: str = "picture"
    """Address of a picture."""
    groups: str = "groups"
    """List of groups, like `groups` or `realm_access.roles`."""


class Oidc(Struct, frozen=True, kw_only=True):
    """An identity provider (OpenID Connect) with which people sign in."""

    issuer: str
    """Its own name, an https URL, as its discovery document has it."""
    client_id: str
    """What the provider calls this server."""
    client_secret_file: Path | None = None
    """File with the secret that the provider gave; null for a public client, which needs PKCE."""
    name: Label = "oidc"
    """Short word for it, in addresses and in policies (`group:staff@NAME`); unique."""
    title: str = ""
    """What the sign-in page calls it; empty means the name."""
    tailnet: str = ""
    """Name of the tailnet that people sign in to; empty means the first."""
    client_auth: Literal["auto", "client_secret_basic", "client_secret_post", "none"] = "auto"
    """How the secret is shown; `auto` does what the provider announces."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    """What is asked for; many providers want `groups` too before they tell them, and
    `offline_access` before they give a refresh token, with which groups stay up to date."""
    extra_params: dict[str, str] = {}
    """Further parameters of the address where people sign in, like `prompt: select_account`."""
    pkce: bool = True
    """Proof Key for Code Exchange; turn it off only for a provider that refuses it."""
    claims: OidcClaims = OidcClaims()
    allowed_domains: tuple[str, ...] = ()
    """Let in only addresses of these domains."""
    allowed_users: tuple[str, ...] = ()
    """Let in only these addresses."""
    allowed_groups: tuple[str, ...] = ()
    """Let in only members of one of these groups. Of several conditions all must hold."""
    email_verified_required: bool = True
    """Take no address that the provider has not verified: with a condition on addresses nobody gets
    in with one, and without one the user has none."""
    roles: dict[
        str, Literal["admin", "network-admin", "it-admin", "billing-admin", "auditor", "member"]
    ] = {}
    """Role by group, set at every login; who is in none of them becomes a member. Empty leaves roles
    to administrators. The owner stays owner."""
    use_expiry_from_token: bool = False
    """Let the keys of nodes end with the provider's token, which is often an hour."""
    key_expiry: timedelta | None = None
    """How long the keys of nodes live that join by this provider; null means `tailnet.key_expiry`."""
    logout_expires_nodes: bool = False
    """When the provider says that somebody was logged out, expire the keys of their nodes too."""
    ca_file: Path | None = None
    """PEM file with the authorities that vouch for the provider; null means the system's."""


class Metrics(Struct, frozen=True, kw_only=True):
    """Where metrics can be read, besides the local socket."""

    listen: Endpoint | None = None
    """Address of a plain HTTP listener for `/metrics`; null means none."""


class Settings(Struct, frozen=True, kw_only=True):
    """The whole site file."""

    server_url: str
    """The URL that clients are given: `https://host` or `https://host:port`, without a path.
    `http://` only with a private or loopback address or `localhost`, for trying things out: elsewhere
    clients insist on TLS after an interruption, and a relay is always dialled with TLS."""
    listen: tuple[Endpoint, ...] = (Endpoint("0.0.0.0", 443), Endpoint("::", 443))  # noqa: S104  # a public server
    """Addresses for clients: control, relay and API share them."""
    listen_plain: tuple[Endpoint, ...] = ()
    """Addresses for plain HTTP beside TLS, like `0.0.0.0:80`: sends browsers to https, answers the
    captive portal test, and takes nodes, which bring their own encryption and ask here first."""
    trusted_proxies: tuple[Prefix, ...] = ()
    """Addresses of proxies in front; only they are believed when they name the client."""
    proxy_protocol: bool = False
    """Expect the PROXY protocol (version 1 or 2) from `trusted_proxies`."""
    state_dir: Path = Path("/var/lib/headwater")
    """Keys and the embedded database; mode 0700."""
    database_url: str = ""
    """`sqlite:///PATH` or `postgresql://user@host/name` as libpq reads it, with its parameters behind
    `?` (a socket: `postgresql:///name?host=/run/postgresql`); empty means SQLite in `state_dir`."""
    database_password_file: Path | None = None
    """File with the password of a PostgreSQL database."""
    tls: Tls = Tls()
    socket: Socket = Socket()
    tailnet: Tailnet = Tailnet()
    tailnets: tuple[Tailnet, ...] = ()
    """Further tailnets, each of the form of `tailnet`, with names of their own."""
    dns: Dns = Dns()
    derp: Derp = Derp()
    log: Log = Log()
    audit: Audit = Audit()
    metrics: Metrics = Metrics()
    api: Api = Api()
    oidc: tuple[Oidc, ...] = ()
    """Identity providers, in the order in which the sign-in page shows them."""
    http2: Literal["auto", "h2", "ngh2"] = "auto"
    """Library for HTTP/2 inside the Noise channel; `auto` takes ngh2 where it is installed and works,
    which costs less CPU, and h2 elsewhere."""
    event_loop: Literal["auto", "uvloop", "asyncio"] = "auto"
    """`auto` takes uvloop where it is installed."""

    @property
    def host(self) -> str:
        """The host of ``server_url``; empty if that is no URL."""
        try:
            return urlsplit(self.server_url).hostname or ""
        except ValueError:
            return ""

    @property
    def certificate_names(self) -> tuple[str, ...]:
        """What a certificate of an authority is for: the host of ``server_url``, and further names."""
        return tuple(dict.fromkeys((self.host, *self.tls.names)))

    @property
    def port(self) -> int:
        """The port of ``server_url``, with its default filled in."""
        parts = urlsplit(self.server_url)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def database(self) -> str:
        """The URL of the database, with its default filled in."""
        return self.database_url or f"sqlite:///{self.state_dir / 'headwater.db'}"

    @property
    def all_tailnets(self) -> tuple[Tailnet, ...]:
        """Every tailnet; the default one first."""
        return (self.tailnet, *self.tailnets)


RENAMED: dict[str, str] = {
    "listen_addr": "write it as a list under 'listen' (Headscale's files: headwater config convert)",
    "metrics_listen_addr": "write it as 'metrics.listen'",
    "unix_socket": "write it as 'socket.path'",
    "unix_socket_permission": "write it as 'socket.mode'",
    "tls_cert_path": "write it as 'tls.cert_file', with tls.mode 'files'",
    "tls_key_path": "write it as 'tls.key_file', with tls.mode 'files'",
    "prefixes": "write it as 'tailnet.prefixes'",
    "noise": "leave it out: the key lives in 'state_dir'",
    "database": "write 'database_url'",
    "database_password": "put it into a file and name that in 'database_password_file'",
    "node": "write 'tailnet.key_expiry' and 'tailnet.ephemeral_timeout'",
    "policy": "write it as 'tailnet.policy'",
    "dns.base_domain": "write it as 'tailnet.base_domain'",
    "derp.server.stun_listen_addr": "write it as a list under 'derp.server.stun_listen'",
    "derp.server.private_key_path": "leave it out: the key lives in 'state_dir'",
}
"""Keys of other names that people bring along, and our own former ones (kept for a year)."""


def secret_place(path: Path) -> Path:
    """Say where a secret file is: a relative path means a credential that systemd handed over."""
    if path.is_absolute():
        return path
    return Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/headwater")) / path


def read_secret(path: Path) -> str:
    """Read a secret file."""
    return secret_place(path).read_text().strip()
