"""Which server the command line speaks to from elsewhere: options, environment, and a file of servers.

Not for speaking (``client``). A key is read from a file, or from the variable that Headscale's command
line reads; never from the command line, which every process of the machine can see. The file is
``~/.config/headwater/servers.toml``; see docs/operations.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from appliance.cli.client import CommandFailed

MAX_FILE_BYTES = 64 * 1024
"""Of a key file, or of the file of servers: a larger one is not what it should be."""
GRPC_PORT = 50443
"""Where Headscale up to 0.29 was administered from elsewhere, in a way that is not offered here."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Server:
    """A server and how to prove oneself there. ``ca_file`` None: the system's authorities vouch."""

    url: str
    key: str = field(default="", repr=False)
    ca_file: Path | None = None
    tailnet: str = ""

    @property
    def is_plain(self) -> bool:
        """Return whether it is spoken to without TLS."""
        return self.url.startswith("http://")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say; empty where nothing was said."""

    url: str = ""
    name: str = ""
    key_file: Path | None = None
    ca_file: Path | None = None


def find(asked: Asked, environ: Mapping[str, str] = os.environ) -> Server | None:
    """Find the server that is meant; None: the local one. Raises CommandFailed."""
    if asked.url and asked.name:
        raise CommandFailed("--url and --server name two servers", "give one of them")
    url = asked.url or ("" if asked.name else environ.get("HEADWATER_URL", ""))
    if url:
        return _named_by_url(url, asked, environ)
    name = asked.name or environ.get("HEADWATER_SERVER", "")
    if not name and (address := environ.get("HEADSCALE_CLI_ADDRESS", "")):
        return _headscales(address, asked, environ)
    return _of_file(name, asked, environ)


def place_of(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the file of servers is looked for."""
    home = environ.get("XDG_CONFIG_HOME", "")
    base = Path(home) if home else Path(environ.get("HOME", "~")).expanduser() / ".config"
    return base / "headwater" / "servers.toml"


def _named_by_url(url: str, asked: Asked, environ: Mapping[str, str]) -> Server:
    key_file = asked.key_file or _path(environ.get("HEADWATER_API_KEY_FILE", ""))
    ca_file = asked.ca_file or _path(environ.get("HEADWATER_CA_FILE", ""))
    key = read_key(key_file) if key_file else environ.get("HEADSCALE_CLI_API_KEY", "")
    return Server(check_url(url), _some(key), ca_file)


def _headscales(address: str, asked: Asked, environ: Mapping[str, str]) -> Server:
    """Obey the variables that Headscale's command line reads."""
    if environ.get("HEADSCALE_CLI_INSECURE", "").lower() in ("1", "t", "true"):
        raise CommandFailed(
            "HEADSCALE_CLI_INSECURE asks to trust any certificate, which gives the key to anybody",
            "unset it, and name the authority of the server's certificate with --ca-file FILE",
        )
    url = address if "://" in address else f"https://{address}"
    return _named_by_url(url, asked, environ)


def _of_file(name: str, asked: Asked, environ: Mapping[str, str]) -> Server | None:
    place = place_of(environ)
    if not place.exists():
        if name:
            raise CommandFailed(f"there is no {place}, where servers are named", _EXAMPLE)
        return None
    document = _read(place)
    name = name or str(document.get("default", ""))
    if not name:
        return None
    servers = document.get("servers")
    entry = servers.get(name) if isinstance(servers, dict) else None
    if not isinstance(entry, dict):
        known = ", ".join(servers) if isinstance(servers, dict) else "none"
        raise CommandFailed(f"{place} names no server {name!r}", f"it has: {known}")
    wrong = [key for key in entry if key not in ("url", "api_key_file", "ca_file", "tailnet")]
    if wrong or not all(isinstance(value, str) for value in entry.values()):
        raise CommandFailed(
            f"{place}, servers.{name}: {', '.join(wrong) or 'a value that is no text'}", _EXAMPLE
        )
    texts = cast(dict[str, str], entry)
    key_file = asked.key_file or _path(texts.get("api_key_file", ""), beside=place)
    if key_file is None:
        raise CommandFailed(f"{place}, servers.{name}: api_key_file is missing", _EXAMPLE)
    return Server(
        check_url(texts.get("url", "")),
        _some(read_key(key_file)),
        asked.ca_file or _path(texts.get("ca_file", ""), beside=place),
        texts.get("tailnet", ""),
    )


_EXAMPLE = (
    '[servers.home] url = "https://headwater.example.com" api_key_file = "home.key"'
    ' (and above it, if you like: default = "home")'
)


def check_url(text: str) -> str:
    """Read the address of a server. Raises CommandFailed."""
    text = text.strip()
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = -1
    is_url = parts.scheme in ("http", "https") and parts.hostname and not parts.query
    if not is_url or port == -1 or parts.path.rstrip("/") or parts.username or parts.fragment:
        raise CommandFailed(
            f"{text[:200]!r} is no address of a server",
            "write it like https://headwater.example.com",
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise CommandFailed(
            f"{text}: without TLS the key would go over the network for anybody to read",
            "use https://, or the local socket on the server's own machine",
        )
    return text.rstrip("/")


def read_key(path: Path) -> str:
    """Read a key from its file. Raises CommandFailed."""
    try:
        with path.open("rb") as file:
            is_open = os.fstat(file.fileno()).st_mode & 0o077
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CommandFailed(
            f"the key file {path} cannot be read: {error.strerror}",
            "name the file with your API key by --api-key-file FILE",
        ) from error
    if is_open:
        import click

        click.echo(f"Warning: others may read {path}: chmod 600 {path}", err=True)
    text = data.decode(errors="replace").strip()
    if not text or len(data) > MAX_FILE_BYTES or not text.isascii() or not text.isprintable():
        raise CommandFailed(f"{path} does not hold an API key: one line, like hskey-api-…")
    return text


def _some(key: str) -> str:
    if not key:
        raise CommandFailed(
            "there is no API key for this server",
            "name its file with --api-key-file FILE or HEADWATER_API_KEY_FILE; 'headwater apikeys"
            " create' on the server makes one",
        )
    key = key.strip()
    if not key.isascii() or not key.isprintable():  # it would end in a traceback, with the key
        raise CommandFailed("HEADSCALE_CLI_API_KEY does not hold an API key, like hskey-api-…")
    return key


def _read(place: Path) -> dict[str, object]:
    import tomllib

    try:
        data = place.read_bytes()[:MAX_FILE_BYTES]
        return tomllib.loads(data.decode())
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{place} cannot be read: {error}", _EXAMPLE) from error


def _path(text: str, beside: Path | None = None) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser()
    return beside.parent / path if beside is not None and not path.is_absolute() else path
