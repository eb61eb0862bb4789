"""What makes settings wrong together, though each key by itself is right.

Each check notes mistakes in the reader; what passes them all starts, and a client comes up on it.
Names and addresses inside a tailnet are in ``namechecks``, relays in ``relaychecks``, certificates in
``tlschecks``. Not for types and limits of single values (``reader``), nor for what only deserves a word (``warnings``).
"""

from __future__ import annotations

from appliance.config import databaseurl, hosts, sockets
from appliance.config.namechecks import check_dns, check_tailnet
from appliance.config.oidcchecks import check_oidc
from appliance.config.reader import Mistake, Reader
from appliance.config.relaychecks import check_regions, check_relay_server, check_some_relay
from appliance.config.settings import Settings
from appliance.config.tlschecks import check_acme, check_tls

MAX_SOCKET_PATH = 107
"""Linux's ``sun_path`` without its NUL."""


def _check_urls(settings: Settings, reader: Reader) -> None:
    found = hosts.url(settings.server_url)
    if found is None or found.path not in ("", "/"):
        fix = "a host that clients can dial; no login, path or question mark"
        reader.refuse("server_url", settings.server_url, "https://HOST or https://HOST:PORT", fix)
    elif settings.tls.mode != "off" and found.scheme == "http":
        fix = "write https://, or set tls.mode to 'off'"
        reader.refuse("server_url", settings.server_url, "an https URL while TLS is on", fix)
    elif found.scheme == "http" and not hosts.is_private(found.host):
        fix = (
            "clients speak plain HTTP for good only with a private or loopback address or"
            " localhost; elsewhere they insist on TLS after an interruption, and stay away: write"
            " https:// and let this server or a proxy speak TLS"
        )
        reader.refuse("server_url", settings.server_url, "an https URL for this host", fix)


def _check_listen(settings: Settings, reader: Reader) -> None:
    if not settings.listen:
        reader.refuse("listen", [], "at least one HOST:PORT")
    if settings.listen_plain and settings.tls.mode == "off":
        fix = "without TLS every address of 'listen' is plain: put it there"
        reader.refuse("listen_plain", "[…]", "nothing when tls.mode is off", fix)
    for claim in sockets.claims(settings):
        if claim.endpoint.host not in ("", "localhost") and not sockets.is_place(claim.endpoint):
            reader.refuse(claim.key, str(claim.endpoint), "an address or a host name, and a port")
    for claim, other in sockets.clashes(settings):
        fix = "give one of them another port or address; a wildcard takes them all"
        told = f"an address that {other.key} ({other.endpoint}) does not use"
        reader.refuse(claim.key, str(claim.endpoint), told, fix)


def _check_database(settings: Settings, reader: Reader) -> None:
    wrong = databaseurl.wrong(settings.database_url or "sqlite://")
    if "?" in str(settings.state_dir) and not settings.database_url:
        reader.refuse("state_dir", str(settings.state_dir), "a path without a question mark")
    if wrong is not None:
        reader.refuse("database_url", wrong.found, wrong.allowed, wrong.fix)
    elif settings.database_password_file and not databaseurl.is_password_for(settings.database):
        fix = "leave it out, or name the PostgreSQL database in 'database_url'"
        reader.refuse("database_password_file", "a file", "nothing with SQLite", fix)


def _check_places(settings: Settings, reader: Reader) -> None:
    for key, path in (("state_dir", settings.state_dir), ("socket.path", settings.socket.path)):
        if not path.is_absolute():
            reader.refuse(key, str(path), "a path that begins with /")
    if len(str(settings.socket.path).encode()) > MAX_SOCKET_PATH:
        told = f"a path of at most {MAX_SOCKET_PATH} bytes: the kernel has no room for more"
        reader.refuse("socket.path", str(settings.socket.path), told)


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
        check_tailnet(settings, tailnet, path, reader)
    check_dns(settings.dns, "dns", reader)


CHECKS = (
    _check_urls,
    _check_listen,
    _check_database,
    _check_places,
    check_tls,
    check_acme,
    _check_proxies,
    _check_tailnets,
    check_some_relay,
    check_regions,
    check_relay_server,
    check_oidc,
)


def mistakes(settings: Settings) -> tuple[Mistake, ...]:
    """Return what is wrong with settings that were put together, not read."""
    reader = Reader()
    for check in CHECKS:
        check(settings, reader)
    return tuple(reader.mistakes)
