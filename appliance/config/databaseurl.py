"""The URL of the database: which forms there are, and what is wrong with one.

SQLite as ``sqlite:///PATH``; PostgreSQL as libpq reads it: several hosts, IPv6 in brackets, sockets
as ``%2F…`` or ``?host=/…``. Not for opening it (``store``), and no passwords: they are files. Pure.
Source: PostgreSQL documentation, libpq, "Connection URIs".
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import parse_qsl, unquote, urlsplit

from appliance.config.hosts import is_host
from appliance.redaction import HIDDEN, redact

FORMS = "sqlite:///PATH or postgresql://USER@HOST/NAME"
POSTGRESQL = frozenset({"postgresql", "postgres"})
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
FOR_READING = frozenset({"read-only", "standby", "prefer-standby"})
"""What ``target_session_attrs`` must not ask for: nothing can be written there."""
FILE_PARAMETERS = ("passfile", "sslcert", "sslcrl", "sslkey", "sslrootcert", "servicefile")
"""Parameters of libpq's that name files."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a URL; ``found`` holds no secret."""

    found: str
    allowed: str = FORMS
    fix: str = ""


def wrong(url: str) -> Wrong | None:
    """Return what is wrong with a URL, or None."""
    scheme, separator, rest = url.partition("://")
    if redact(url) != url or HIDDEN in url:
        fix = "put the password into 'database_password_file'"
        return Wrong("(a password in the URL)", "a URL without password", fix)
    if not separator or scheme not in {"sqlite", *POSTGRESQL}:
        return Wrong(f"({scheme if separator else 'no'} URL)")
    if any(c.isspace() or not c.isprintable() for c in url):
        return Wrong(url, fix="write a blank as %20")
    if scheme == "sqlite":
        if (rest and not rest.startswith("/")) or "?" in rest or "#" in rest:
            return Wrong(url, "sqlite:///PATH", "an absolute path has four slashes")
        return None
    if "#" in rest:
        return Wrong(url, fix="write # as %23")
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return Wrong(url)
    user, _, places = parts.netloc.rpartition("@")
    found = _wrong_place(url, user, places, parts.path) or _wrong_parameters(dict(query))
    return found or _unread(url)


def is_password_for(url: str) -> bool:
    """Tell whether a password means something for the database."""
    return url.partition("://")[0] in POSTGRESQL


def sockets_and_files(url: str) -> dict[str, str]:
    """Return the paths that a PostgreSQL URL names, by what names them."""
    if not is_password_for(url):
        return {}
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
    except ValueError:
        return {}
    places = parts.netloc.rpartition("@")[2].split(",") + query.get("host", "").split(",")
    sockets = [path for path in map(unquote, places) if path.startswith("/")]
    files = {name: query[name] for name in FILE_PARAMETERS if name in query}
    return files | ({"host": sockets[0]} if sockets else {})


def _wrong_place(url: str, user: str, places: str, path: str) -> Wrong | None:
    if "@" in user:
        return Wrong(url, fix="write an @ of the user's name as %40")
    for place in places.split(",") if places else ():
        host, port = _host_and_port(place)
        if place.count(":") > 1 and not place.startswith("["):
            return Wrong(url, fix="write an IPv6 address in brackets: [fd00::5]:5432")
        if not host.startswith("/") and host and not _is_host(host):
            return Wrong(url, fix="write the host as a name, an address or %2Fpath%2Fof%2Fsocket")
        if not _is_port(port):
            return Wrong(url, fix="ports go from 1 to 65535")
    if "/" in path.removeprefix("/"):
        fix = "a socket is named behind the database: postgresql://USER@/NAME?host=/run/postgresql"
        return Wrong(url, fix=fix)
    return None


def _wrong_parameters(query: dict[str, str]) -> Wrong | None:
    for port in query.get("port", "").split(","):
        if not _is_port(port):
            return Wrong(f"port={port}", "ports from 1 to 65535")
    mode = query.get("sslmode", "prefer")
    if mode not in SSL_MODES:
        return Wrong(f"sslmode={mode}", " or ".join(SSL_MODES))
    attributes = query.get("target_session_attrs", "any")
    if attributes in FOR_READING:
        fix = "the server writes: 'read-write' or 'primary'"
        return Wrong(f"target_session_attrs={attributes}", "a server to write to", fix)
    return None


def _unread(url: str) -> Wrong | None:
    """Read the URL with the very function that opens the database."""
    from appliance.store.errors import StoreError  # psycopg with it; few sites have PostgreSQL
    from appliance.store.postgresql import parameters

    try:
        parameters(url)
    except StoreError as error:
        return Wrong("(an unreadable URL)", FORMS, redact(str(error)))
    return None


def _host_and_port(place: str) -> tuple[str, str]:
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = place.partition(":")
    return unquote(host), port


def _is_host(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return is_host(host)
    return True


def _is_port(port: str) -> bool:
    return not port or (port.isascii() and port.isdecimal() and 0 < int(port[:9]) < 65536)
