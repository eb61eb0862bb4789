"""``headwater dev``: a complete throw-away server in one command.

Embedded database, local CA (or one pinned certificate), relay, STUN, one user and one reusable key,
all under one directory; the same directory gives the same keys, the same CA and the same nodes.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.client import CommandFailed
from appliance.cli.root import Command, Invocation

if TYPE_CHECKING:
    from appliance.config import Settings
    from appliance.serve.server import Server

PROBE_S = 10.0
"""How long the server may take until it answers itself; it needs far less than a second."""
KEY_LIFETIME_DAYS = 365
"""A throw-away server does not live longer."""
USER = "dev"


@click.command(cls=Command)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept; the same directory continues. Default: a new one.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="TCP port; 0 takes a free one."
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="ADDR",
    help="Address to listen on, or 'any'; may be repeated. The first one is in the URL."
    " Default: 127.0.0.1 and ::1.",
)
@click.option("--name", default="", help="Host name for the URL, in place of the first address.")
@click.option(
    "--pinned", is_flag=True, help="One self-signed certificate, pinned in the relay map."
)
@click.option(
    "--http",
    "plain",
    is_flag=True,
    help="No TLS at all: the relay serves nobody, and only a private or loopback address will do.",
)
@click.option("--stun-port", type=click.IntRange(0, 65535), default=0, help="UDP port of STUN.")
@click.option("--log-level", default="", help="debug, info, warning… (default: info; -o: warning)")
@click.pass_obj
def dev(
    invocation: Invocation,
    directory: Path | None,
    port: int,
    hosts: tuple[str, ...],
    name: str,
    *,
    pinned: bool,
    plain: bool,
    stun_port: int,
    log_level: str,
) -> None:
    """Run a complete throw-away server, and print how a client joins it.

    \b
    Examples:
      headwater dev
      headwater dev --dir /tmp/hw --port 8443 --host 192.0.2.1
      headwater dev -o json        one line for programs, once clients are accepted
    """
    if pinned and plain:
        raise click.UsageError("--pinned and --http contradict each other")
    home = (directory or Path(tempfile.mkdtemp(prefix="headwater-dev-"))).absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    addresses = list(hosts) or [host for host in ("127.0.0.1", "::1") if _can_bind(host)]
    asked = _remembered(home, "ports", {"port": port, "stun": stun_port})
    level = log_level or ("warning" if invocation.output else "info")
    plan = _settings(home, addresses, name, asked, plain=plain, log_level=level)
    from appliance import config, log
    from appliance.cli.serve import run_loop
    from appliance.serve.server import Server

    try:
        settings = config.build(plan, source="headwater dev")
    except config.ConfigError as error:
        raise CommandFailed(str(error), "choose other --host, --name or ports") from error
    log.set_up(settings.log.level, settings.log.format)
    names = [name] if name else []
    names += [*(a for a in addresses if a != "any"), "localhost", "127.0.0.1", "::1"]

    async def main() -> None:
        server = Server(settings, certificate_names=list(dict.fromkeys(names)), self_signed=pinned)
        server.handle_signals()
        await server.run(lambda: _announce(server, home, invocation.output))

    run_loop(main, settings.event_loop)


def _settings(
    home: Path,
    addresses: list[str],
    name: str,
    ports: dict[str, int],
    *,
    plain: bool,
    log_level: str,
) -> dict[str, object]:
    """Give the plain settings of a throw-away server."""
    port = ports["port"] or _free_port(addresses)
    stun = ports["stun"] or port
    _remember(home, "ports", {"port": port, "stun": stun})
    binds = ["0.0.0.0", "::"] if "any" in addresses else addresses  # noqa: S104  # asked for
    # Nobody can dial the address that stands for all.
    host = name or {"any": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(  # noqa: S104
        addresses[0], addresses[0]
    )
    shown = f"[{host}]" if ":" in host else host
    literals = [ip_address(a) for a in addresses if _is_address(a)]
    by_version = {each.version: str(each) for each in literals if not each.is_unspecified}
    server: dict[str, object] = {
        "region_code": "dev",
        "region_name": "Headwater dev",
        "stun_listen": [_endpoint(bind, stun) for bind in binds],
    }
    if 4 in by_version:
        server["ipv4"] = by_version[4]
    if 6 in by_version:
        server["ipv6"] = by_version[6]
    return {
        "server_url": f"{'http' if plain else 'https'}://{shown}:{port}",
        "listen": [_endpoint(bind, port) for bind in binds],
        "state_dir": str(home / "state"),
        "socket": {"path": str(_socket_path(home)), "mode": "0600"},
        "tls": {"mode": "off" if plain else "local_ca"},
        "derp": {"server": server},
        "log": {"level": log_level},
    }


async def _announce(server: Server, home: Path, output: str) -> None:
    """Make user and key, see that clients are really accepted, and say how they join."""
    auth_key = await _auth_key(server, home)
    await _probe(server.settings, server.ca_file)
    url = server.settings.server_url
    about = {
        "url": url,
        "ca_file": str(server.ca_file) if server.ca_file else "",
        "auth_key": auth_key,
        "socket": str(server.settings.socket.path),
        "state_dir": str(server.settings.state_dir),
        "pid": os.getpid(),
    }
    if output:
        click.echo(json.dumps(about, separators=(",", ":")))
        return
    click.echo(words(url, server.ca_file, auth_key, home, server.settings.socket.path))


def words(url: str, ca_file: Path | None, auth_key: str, home: Path, socket_path: Path) -> str:
    """Write for people how a node joins, and what it cannot expect."""
    if url.startswith("http:"):
        how = "there is no TLS, so there is no certificate to trust"
        limits = (
            "Without TLS the relay serves nobody, as clients dial relays with TLS only: nodes that"
            " find no\ndirect way to each other are not connected. A public name or address will"
            " not do either: clients\ninsist on TLS there after the first interruption.\n\n"
        )
    else:
        how, limits = "tailscaled must trust the certificate, so start it like this", ""
    trust = f"SSL_CERT_FILE={ca_file} " if ca_file else ""
    return (
        f"Headwater is up at {url} and keeps its state in {home}.\n\n"
        f"Join a node ({how}):\n"
        f"  {trust}tailscaled\n"
        f"  tailscale up --login-server {url} --auth-key {auth_key}\n\n"
        f"{limits}"
        f"Look at it:\n  {program()} --socket {socket_path} nodes list\n\n"
        "Ctrl-C ends it."
    )


def program() -> str:
    """Give the words by which this program was started, for lines to be pasted."""
    name = Path(sys.argv[0])
    return f"{sys.executable} -m appliance" if name.name == "__main__.py" else str(name)


async def _auth_key(server: Server, home: Path) -> str:
    """Give the reusable key of this directory; make user and key the first time."""
    import secrets
    from datetime import timedelta

    from appliance.identity.principals import LOCAL
    from appliance.serve.statedir import write_secret
    from appliance.tailnet import keys, users

    path = home / "auth-key"
    live = server.tailnets.default
    if path.is_file():
        text = path.read_text().strip()
        key = keys.find(live.snapshot, text)
        if key is not None and not keys.is_expired(key, live.clock()):
            return text
    now = live.clock()
    async with live.edit(by=LOCAL, act="preauthkey.create") as edit:
        found = users.find(edit, name=USER)
        user = found[0] if found else users.create(edit, USER, now)
        _, text = keys.create_auth_key(
            edit,
            user_id=user.id,
            reusable=True,
            expires_at=now + timedelta(days=KEY_LIFETIME_DAYS),
            now=now,
            random_bytes=secrets.token_bytes,
        )
    write_secret(path, text + "\n")
    return text


async def _probe(settings: Settings, ca_file: Path | None) -> None:
    """Ask for the server's key as a client does. Raises CommandFailed."""
    context = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
    deadline = time.monotonic() + PROBE_S
    endpoint = settings.listen[0]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host)  # noqa: S104
    while True:
        try:
            async with asyncio.timeout(PROBE_S):
                reader, writer = await asyncio.open_connection(
                    host,
                    endpoint.port,
                    ssl=context,
                    server_hostname=settings.host if context else None,
                )
                writer.write(b"GET /key?v=130 HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")
                answer = await reader.read(4096)
                writer.close()
        except OSError as error:
            reason = str(error)
        else:
            if b"mkey:" in answer:
                return
            reason = answer[:100].decode("latin-1")
        if time.monotonic() > deadline:
            raise CommandFailed(f"the server does not answer itself: {reason}")
        await asyncio.sleep(0.05)


def _free_port(addresses: list[str]) -> int:
    """Find a free TCP port; the same number serves STUN over UDP."""
    first = addresses[0] if _is_address(addresses[0]) else "127.0.0.1"
    with socket.socket(_family(first), socket.SOCK_STREAM) as sock:
        sock.bind((first, 0))
        port: int = sock.getsockname()[1]
        return port


def _can_bind(host: str) -> bool:
    """Tell whether the machine has this address; many containers have no IPv6."""
    try:
        with socket.socket(_family(host), socket.SOCK_STREAM) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _socket_path(home: Path) -> Path:
    """Give a path that the kernel has room for, also under deep directories."""
    path = home / "headwater.sock"
    if len(os.fsencode(path)) < 100:
        return path
    import hashlib

    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"headwater-dev-{digest}.sock"


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _remembered(home: Path, name: str, asked: dict[str, int]) -> dict[str, int]:
    """Take what was not asked for from the last run in this directory."""
    path = home / f"{name}.json"
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = {}
    return {key: value or int(before.get(key, 0)) for key, value in asked.items()}


def _remember(home: Path, name: str, values: dict[str, int]) -> None:
    (home / f"{name}.json").write_text(json.dumps(values))
