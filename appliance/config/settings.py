"""The settings tree: every key that a site file may have, its default, its meaning and its checks.

``load`` reads a file (TOML, YAML or JSON by its ending) and gives ``Settings`` or raises
``ConfigError`` with all mistakes at once. Pure but for reading the file: it is what Nix and Ansible
run before a deploy. Not for acting on the settings: ``server`` reads them and hands values on.

The text under each field is its entry in docs/configuration.md.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from appliance.config.reader import Endpoint, FileMode, Mistake, Reader

MAX_FILE_BYTES = 1 << 20
"""A site file is some kilobytes; a larger one is another file by mistake."""

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


class Tls(Struct, frozen=True, kw_only=True):
    """How the listeners are encrypted."""

    mode: Literal["files", "local_ca", "off"] = "files"
    """`files`: a certificate and its key, watched for change. `local_ca`: an authority of its own
    in the state directory, for development and closed sites. `off`: plain HTTP, for use behind a
    proxy that speaks TLS."""
    cert_file: Path | None = None
    """PEM file with the certificate and its chain (mode `files`)."""
    key_file: Path | None = None
    """PEM file with the private key (mode `files`)."""


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
    """The whole name, without a dot at its end."""
    type: Literal["A", "AAAA"] = "A"
    """Kind of record; clients answer only these two."""
    value: str
    """The address."""


class Nameservers(Struct, frozen=True, kw_only=True, rename={"global_": "global"}):
    """Which resolvers nodes ask for names outside the tailnet."""

    global_: tuple[str, ...] = ()
    """Resolvers for everything: an IP address, `ip:port`, or a DNS-over-HTTPS URL. NextDNS
    (`https://dns.nextdns.io/PROFILE`) is told which node asks; the policy can change that by node."""
    split: dict[str, tuple[str, ...]] = {}
    """Resolvers by domain suffix."""


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
    """How long a user's node may stay before it must log in again; null means for ever."""
    ephemeral_timeout: timedelta = timedelta(minutes=30)
    """How long an ephemeral node may be away before it is removed."""
    file_sharing: bool = True
    """Let nodes of one user send files to each other (Taildrop)."""
    client_logs: bool = False
    """Let clients send their logs to Tailscale's log service."""
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
    """Name or address that nodes dial; empty means the host of `server_url`."""
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
    mesh: Mesh = Mesh()


class RelayNode(Struct, frozen=True, kw_only=True):
    """One relay of a further region."""

    host: str
    """Name or address that nodes dial."""
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


class Metrics(Struct, frozen=True, kw_only=True):
    """Where metrics can be read, besides the local socket."""

    listen: Endpoint | None = None
    """Address of a plain HTTP listener for `/metrics`; null means none."""


class Settings(Struct, frozen=True, kw_only=True):
    """The whole site file."""

    server_url: str
    """The URL that clients are given: `https://host` or `https://host:port`, without a path."""
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
    """`sqlite:///PATH` or `postgresql://user@host/name`; empty means SQLite in `state_dir`."""
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
    metrics: Metrics = Metrics()
    http2: Literal["auto", "h2", "ngh2"] = "auto"
    """Library for HTTP/2 inside the Noise channel; `auto` takes h2, which is always there."""
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

_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
CGNAT = IPv4Network("100.64.0.0/10")
ULA = IPv6Network("fd7a:115c:a1e0::/48")


def load(path: Path) -> Settings:
    """Read and check a site file. Raises ConfigError."""
    return build(read_document(path), source=str(path))


def read_document(path: Path) -> object:
    """Read the plain content of a file. Raises ConfigError if it is no TOML, YAML or JSON."""
    source = str(path)
    parse = FORMATS.get(path.suffix.lower())
    if parse is None:
        endings = ", ".join(FORMATS)
        raise ConfigError(source, (Mistake("", f"the ending {path.suffix!r}", endings),))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        fix = "name the file with -c FILE"
        found = error.strerror or str(error)
        raise ConfigError(source, (Mistake("", found, "a readable file", fix),)) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(source, (Mistake("", "a file over 1 MiB", "a site file"),))
    try:
        return parse(data.decode())
    except ValueError as error:
        raise ConfigError(source, (Mistake("", str(error), f"valid {path.suffix[1:]}"),)) from error


def build(document: object, *, source: str = "settings") -> Settings:
    """Make settings from plain values. Raises ConfigError with all mistakes."""
    reader = Reader(RENAMED)
    settings = reader.struct(Settings, document)
    if settings is not None:
        for check in _CHECKS:
            check(settings, reader)
    if settings is None or reader.mistakes:
        raise ConfigError(source, tuple(reader.mistakes))
    return settings


def secret_place(path: Path) -> Path:
    """Say where a secret file is: a relative path means a credential that systemd handed over."""
    if path.is_absolute():
        return path
    return Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials/headwater")) / path


def read_secret(path: Path) -> str:
    """Read a secret file."""
    return secret_place(path).read_text().strip()


def _check_urls(settings: Settings, reader: Reader) -> None:
    try:
        parts = urlsplit(settings.server_url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fine = fine and parts.path in ("", "/") and not parts.query and parts.username is None
    except ValueError:
        fine = False
    if not fine:
        reader.refuse("server_url", settings.server_url, "https://HOST or https://HOST:PORT")
    if not settings.listen:
        reader.refuse("listen", [], "at least one HOST:PORT")
    if settings.listen_plain and settings.tls.mode == "off":
        fix = "without TLS every address of 'listen' is plain: put it there"
        reader.refuse("listen_plain", "[…]", "nothing when tls.mode is off", fix)
    scheme, _, rest = settings.database.partition(":")
    if scheme not in ("sqlite", "postgresql"):
        reader.refuse("database_url", f"({scheme} URL)", "sqlite:///PATH or postgresql://…")
    elif "@" in rest and ":" in rest.rpartition("@")[0].removeprefix("//"):
        fix = "put the password into 'database_password_file'"
        reader.refuse("database_url", "(a password in the URL)", "a URL without password", fix)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_tls(settings: Settings, reader: Reader) -> None:
    tls = settings.tls
    if tls.mode == "files":
        for name, path in (("cert_file", tls.cert_file), ("key_file", tls.key_file)):
            if path is None:
                fix = "or set tls.mode to 'off' behind a TLS proxy, 'local_ca' for development"
                reader.refuse(f"tls.{name}", None, "the path of a PEM file", fix)
    elif tls.cert_file or tls.key_file:
        fix = "set tls.mode to 'files' or remove the files"
        reader.refuse("tls.mode", tls.mode, "'files' when certificate files are named", fix)
    if tls.mode != "off" and settings.server_url.startswith("http:"):
        fix = "write https://, or set tls.mode to 'off'"
        reader.refuse("server_url", settings.server_url, "an https URL while TLS is on", fix)


def _check_proxies(settings: Settings, reader: Reader) -> None:
    for i, network in enumerate(settings.trusted_proxies):
        if network.prefixlen == 0:
            fix = "name the addresses of your proxies"
            reader.refuse(f"trusted_proxies[{i}]", str(network), "a prefix that is not all", fix)
    if settings.proxy_protocol and not settings.trusted_proxies:
        fix = "name the proxies, or turn proxy_protocol off"
        reader.refuse("trusted_proxies", [], "at least one proxy with proxy_protocol", fix)


def _check_tailnets(settings: Settings, reader: Reader) -> None:
    names: set[str] = set()
    domains: set[str] = set()
    for i, tailnet in enumerate(settings.all_tailnets):
        path = f"tailnets[{i - 1}]" if i else "tailnet"
        if tailnet.name in names:
            reader.refuse(f"{path}.name", tailnet.name, "a name that no other tailnet has")
        if tailnet.base_domain in domains:
            reader.refuse(f"{path}.base_domain", tailnet.base_domain, "a domain of its own")
        names.add(tailnet.name)
        domains.add(tailnet.base_domain)
        _check_domain(settings, tailnet, path, reader)
        _check_prefixes(tailnet.prefixes, f"{path}.prefixes", reader)
        _check_policy(tailnet.policy, f"{path}.policy", reader)
        for k, owned in enumerate(tailnet.email_domains):
            if not _DOMAIN.fullmatch(owned):
                reader.refuse(f"{path}.email_domains[{k}]", owned, "a lower-case domain")
        if tailnet.dns is not None:
            _check_dns(tailnet.dns, f"{path}.dns", reader)
    _check_dns(settings.dns, "dns", reader)


def _check_domain(settings: Settings, tailnet: Tailnet, path: str, reader: Reader) -> None:
    domain, host = tailnet.base_domain, settings.host
    if not domain or domain != domain.strip(".").lower() or len(domain) > 190:
        reader.refuse(f"{path}.base_domain", domain, "a lower-case domain without dots at the ends")
    elif host == domain or host.endswith("." + domain):
        fix = "nodes would ask MagicDNS for the server itself; choose another domain"
        reader.refuse(f"{path}.base_domain", domain, f"a domain that {host} is not in", fix)


def _check_prefixes(prefixes: Prefixes, path: str, reader: Reader) -> None:
    fix = "clients route and filter only this range"
    if prefixes.v4 is None and prefixes.v6 is None:
        reader.refuse(path, None, "an IPv4 or an IPv6 prefix")
    if prefixes.v4 is not None and not prefixes.v4.subnet_of(CGNAT):
        reader.refuse(f"{path}.v4", str(prefixes.v4), f"a prefix inside {CGNAT}", fix)
    if prefixes.v6 is not None and not prefixes.v6.subnet_of(ULA):
        reader.refuse(f"{path}.v6", str(prefixes.v6), f"a prefix inside {ULA}", fix)


def _check_policy(policy: Policy, path: str, reader: Reader) -> None:
    wanted = policy.mode
    if wanted == "file" and (policy.path is None or not policy.path.is_absolute()):
        found = None if policy.path is None else str(policy.path)
        reader.refuse(f"{path}.path", found, "the whole path of a file")
    if wanted == "settings" and (not policy.text) == (policy.document is None):
        reader.refuse(f"{path}.mode", wanted, "either 'text' or 'document' with it")
    for key, mode in (("path", "file"), ("text", "settings"), ("document", "settings")):
        if getattr(policy, key) not in (None, "") and wanted != mode:
            reader.refuse(f"{path}.mode", wanted, f"{mode!r} when '{key}' is given")


def _check_dns(dns: Dns, path: str, reader: Reader) -> None:
    if dns.override_local_dns and not dns.nameservers.global_:
        fix = "or turn override_local_dns off"
        reader.refuse(f"{path}.nameservers.global", [], "at least one resolver", fix)
    for i, record in enumerate(dns.extra_records):
        try:
            (IPv4Address if record.type == "A" else IPv6Address)(record.value)
        except ValueError:
            where = f"{path}.extra_records[{i}].value"
            reader.refuse(where, record.value, f"an address for a record of type {record.type}")


def _check_derp(settings: Settings, reader: Reader) -> None:
    server = settings.derp.server
    numbers: set[int] = set()
    codes = {server.region_code} if server.enabled else set()
    names = {f"{server.region_id}a"} if server.enabled else set()
    for i, region in enumerate(settings.derp.regions):
        path = f"derp.regions[{i}]"
        if region.id in numbers:
            reader.refuse(f"{path}.id", region.id, "a number that no other region has")
        if server.enabled and region.id == server.region_id:
            if region.code != server.region_code:
                wanted = f"{server.region_code!r}, the code of our own region {region.id}"
                reader.refuse(f"{path}.code", region.code, wanted)
        elif region.code in codes:
            reader.refuse(f"{path}.code", region.code, "a code that no other region has")
        numbers.add(region.id)
        codes.add(region.code)
        _check_relays(region, path, names, reader)


def _check_relay_server(settings: Settings, reader: Reader) -> None:
    server = settings.derp.server
    if server.separate and not server.listen:
        fix = "the addresses of the top level belong to the server"
        reader.refuse("derp.server.listen", [], "at least one HOST:PORT with 'separate'", fix)
    for i, url in enumerate(server.mesh.peers):
        if not _is_url(url):
            reader.refuse(f"derp.server.mesh.peers[{i}]", url, "https://HOST/derp")
    if server.mesh.peers and server.mesh.key_file is None:
        reader.refuse("derp.server.mesh.key_file", None, "a key file when there are peers")
    if server.can_port80 and not settings.listen_plain and not settings.trusted_proxies:
        reader.refuse("listen_plain", [], "an address with port 80 when can_port80 is set")
    if server.can_port80 and server.ipv4 is None:
        reader.refuse("derp.server.ipv4", None, "an address when can_port80 is set")


def _check_relays(region: Region, path: str, names: set[str], reader: Reader) -> None:
    if not region.nodes:
        reader.refuse(f"{path}.nodes", [], "at least one relay")
    for j, node in enumerate(region.nodes):
        if node.name and node.name in names:
            reader.refuse(f"{path}.nodes[{j}].name", node.name, "a name used only once")
        names.add(node.name)


_CHECKS = (
    _check_urls,
    _check_tls,
    _check_proxies,
    _check_tailnets,
    _check_derp,
    _check_relay_server,
)


def _parse_yaml(text: str) -> object:
    from appliance.config.yamlfile import parse  # YAML is slow to import, and TOML files need none

    return parse(text)


FORMATS: dict[str, Callable[[str], object]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".toml": tomllib.loads,
    ".json": json.loads,
}
