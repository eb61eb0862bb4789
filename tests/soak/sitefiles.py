"""What the check calls fine, works: random site files of a grammar with nasty values.

Each file is written as YAML, JSON or TOML and checked. A refusal must be a sentence; a file that is
fine must start a server in this process that answers ``/health``, before and after a reload with
another file. ``python -m tests.soak.sitefiles --count 3000 --seed 1``
"""

# ruff: noqa: S104, S108  # texts of site files: nothing is bound, and no file is made

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from appliance.config import ConfigError, Settings, databaseurl, load, resolved, yamlfile
from appliance.config.warnings import hidden_files, warnings
from appliance.deploy import plan
from appliance.serve.server import Server
from appliance.store.postgresql import parameters
from tests.support.certificates import self_signed_pem
from tests.support.pace import patience

START_S = 60.0
"""What a start may take on a machine that is busy with other things."""
MAX_REFUSAL = 100_000
"""Characters; a hundred mistakes of a thousand."""
MISTAKES = 0.35
"""Share of the files that get a wrong value on purpose."""

RESOLVERS = (
    "9.9.9.9", "2620:fe::fe", "10.0.0.53:5353", "[fd00::1]:53", "127.0.0.1", "255.255.255.255",
    "https://dns.quad9.net/dns-query", "https://dns.nextdns.io/abc123",
    "https://dns.controld.com/x", "http://100.64.0.9:8080/dns-query",
)  # fmt: skip
POSTGRESQL = (
    "postgresql://u@%2Frun%2Fpostgresql/db",
    "postgresql://a%40b@[fd00::5]:5433/hs?sslmode=require",
    "postgresql:///hs?host=/run/postgresql",
    "postgres://a:5432,b:5433/x",
)

Tree = dict[str, Any]


@dataclass
class Place:
    """Where a file's server keeps things, and the addresses that are its own."""

    home: Path
    number: int

    def address(self, rng: random.Random) -> str:
        """Choose an address to listen on that no other file's server has."""
        own = f"127.{16 + self.number // 250 % 200}.{self.number % 250}.{rng.randrange(1, 255)}"
        return rng.choice((f"{own}:{rng.randrange(1024, 65536)}", f"{own}:0", "[::1]:0", ":0"))

    def file(self, name: str) -> str:
        """Name one of the files that are there."""
        return str(self.home.parent / "files" / name)


def label(rng: random.Random) -> str:
    """Choose a label of DNS, also the longest and the oddest."""
    return rng.choice(("a", "x" * 63, "xn--bcher-kva", "9", "a-b", f"n{rng.randrange(1000)}"))


def domain(rng: random.Random) -> str:
    """Choose a name of DNS in lower case, up to the longest that a tailnet may have."""
    labels = [label(rng) for _ in range(rng.randrange(1, 4))]
    return ".".join([*labels, rng.choice(("example", "internal", "test", "local", "corp"))])[
        -180:
    ].strip(".-")


def duration(rng: random.Random) -> str:
    """Choose a period from the shortest that is allowed to the longest."""
    return rng.choice(("2s", "1m", "61s", "90.5s", "1h30m", "30d", "1y", "100y", "2000ms", "0.5h"))


def resolver(rng: random.Random) -> str:
    """Choose a resolver that clients can use."""
    return rng.choice(RESOLVERS)


def dns(rng: random.Random) -> Tree:
    """Make a ``dns`` section."""
    servers = [resolver(rng) for _ in range(rng.randrange(3))]
    split = {domain(rng): [resolver(rng)] for _ in range(rng.randrange(3))}
    records = [
        {"name": domain(rng), "type": "A", "value": "100.64.0.9"},
        {"name": "_x." + domain(rng), "type": "AAAA", "value": "fd7a:115c:a1e0::9"},
    ]
    return {
        "magic_dns": rng.random() < 0.8,
        "override_local_dns": bool(servers) and rng.random() < 0.5,
        "nameservers": {"global": servers, "split": split},
        "search_domains": [domain(rng) for _ in range(rng.randrange(3))],
        "extra_records": rng.sample(records, rng.randrange(3)),
    }


def policy(rng: random.Random, place: Place) -> Tree:
    """Make a policy of each kind."""
    text = '// all may reach all\n{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}'
    document = {"groups": {"group:a": ["b@example.com"]}, "acls": [], "randomizeClientPort": True}
    return rng.choice(
        [
            {},
            {"mode": "database"},
            {"mode": "file", "path": place.file("acl.hujson")},
            {"mode": "settings", "text": text},
            {"mode": "settings", "document": document},
        ]
    )


def tailnet(rng: random.Random, place: Place, number: int) -> Tree:
    """Make a tailnet; the first one has the default name."""
    v4 = rng.choice(
        ("100.64.0.0/10", "100.127.255.254/32", "100.80.0.0/30", "100.115.0.0/16", None)
    )
    v6 = rng.choice(("fd7a:115c:a1e0::/48", "fd7a:115c:a1e0::/126", "fd7a:115c:a1e0:1::5/128"))
    made: Tree = {
        "base_domain": f"t{number}.{domain(rng)}",
        "prefixes": {"v4": v4, "v6": v6, "allocation": rng.choice(("sequential", "random"))},
        "key_expiry": rng.choice(
            (None, duration(rng).replace("2s", "60s").replace("2000ms", "1m"))
        ),
        "ephemeral_timeout": duration(rng),
        "file_sharing": rng.random() < 0.5,
        "client_logs": rng.random() < 0.5,
        "policy": policy(rng, place),
        "email_domains": rng.sample(["example.com", "b.example.org"], rng.randrange(3)),
    }
    if number or rng.random() < 0.3:
        made["name"] = f"t{number}-{label(rng)}"[:63].strip("-")
    if rng.random() < 0.3:
        made["dns"] = dns(rng)
    return made


def region(rng: random.Random, number: int) -> Tree:
    """Make a region of others."""
    node: Tree = {
        "host": rng.choice(("relay.example.org", "203.0.113.7", "2001:db8::7", "R_1.Example.org")),
        "cert_name": rng.choice(("", "other.example.org", "sha256-raw:" + "ab" * 32)),
        "ipv4": rng.choice(("", "none", "203.0.113.7")),
        "ipv6": rng.choice(("", "2001:db8::7")),
        "port": rng.choice((1, 443, 65535)),
        "stun_port": rng.choice((-1, 0, 3478, 65535)),
    }
    made: Tree = {"id": number, "code": f"r{number}", "nodes": [node]}
    if rng.random() < 0.5:
        made |= {
            "latitude": rng.choice((-90, 0.0, 89.99)),
            "longitude": rng.choice((-180, 1e-9, 180)),
        }
        made["nodes"] = [
            node,
            {"host": "stun.example.org", "stun_only": True, "name": f"n{number}"},
        ]
    return made


def relays(rng: random.Random, place: Place) -> Tree:
    """Make a ``derp`` section."""
    server: Tree = {
        "region_id": rng.choice((1, 900, 999, 65535)),
        "region_code": label(rng)[:60],
        "region_name": rng.choice(("Home", "Ünïcode ☃", "x" * 500, "a\tb")),
        "stun_listen": [place.address(rng) for _ in range(rng.randrange(2))],
        "stun_port": rng.choice((None, 1, 65535)),
        "verify_clients": rng.random() < 0.8,
        "bytes_per_second": rng.choice((0, 1, 10**12)),
        "ipv4": rng.choice((None, "203.0.113.1", "127.0.0.1")),
        "ipv6": rng.choice((None, "2001:db8::1")),
    }
    if rng.random() < 0.2:
        server |= {"separate": True, "listen": [place.address(rng)]}
    if rng.random() < 0.2:
        peers = ["https://r2.example.org/derp", "https://[2001:db8::9]:8443/derp"]
        server["mesh"] = {"key_file": place.file("mesh.key"), "peers": peers[: rng.randrange(3)]}
    regions = [region(rng, 100 + i) for i in range(rng.randrange(3))]
    if regions and rng.random() < 0.2:
        server["enabled"] = False
    return {"server": server, "regions": regions}


def transport(rng: random.Random, place: Place) -> Tree:
    """Choose the URL, and how TLS is spoken."""
    host = rng.choice(("hw.example.net", "198.51.100.7", "[2001:db8::2]", "HW_1.Example.NET", "h"))
    port = rng.choice(("", ":443", ":8443", ":65535"))
    pem = place.file("pair.pem")
    return rng.choice(
        [
            {"server_url": f"https://{host}{port}", "tls": {"mode": "local_ca"}},
            {"server_url": f"https://{host}{port}/", "tls": {"cert_file": pem, "key_file": pem}},
            {"server_url": f"https://{host}{port}", "tls": {"mode": "off"}},
            {"server_url": f"http://127.0.0.1{port}", "tls": {"mode": "off"}},
            {"server_url": "http://[fd00::1]", "tls": {"mode": "off"}},
        ]
    )


def database(rng: random.Random, place: Place) -> str:
    """Choose a database of each form."""
    files = [
        f"sqlite:///{place.home}/own.db",
        f"sqlite:///{place.home}/ä b.db",
        "sqlite://",
        "",
        "",
    ]
    return rng.choice([*files, *POSTGRESQL])


def site(rng: random.Random, place: Place) -> Tree:
    """Make a whole file."""
    made: Tree = {
        **transport(rng, place),
        "listen": [place.address(rng) for _ in range(rng.randrange(1, 4))],
        "state_dir": str(place.home / rng.choice(("state", "s p a c e", "ünï", "a/b/c"))),
        "socket": {"path": str(place.home / "s"), "mode": rng.choice(("0600", "0777", "0660"))},
        "tailnet": tailnet(rng, place, 0),
        "derp": relays(rng, place),
        "log": {
            "level": rng.choice(("debug", "info", "error")),
            "format": rng.choice(("text", "json")),
        },
        "event_loop": rng.choice(("auto", "asyncio")),
    }
    options: list[Callable[[], Tree]] = [
        lambda: {"dns": dns(rng)},
        lambda: {"tailnets": [tailnet(rng, place, i + 1) for i in range(rng.randrange(4))]},
        lambda: {"database_url": database(rng, place)},
        lambda: {"metrics": {"listen": place.address(rng)}},
        lambda: {"listen_plain": [] if made["tls"].get("mode") == "off" else [place.address(rng)]},
        lambda: {"trusted_proxies": ["127.0.0.1/32", "::1/128", "10.0.0.0/8"]},
        lambda: {"trusted_proxies": ["2001:db8::/32"], "proxy_protocol": True},
    ]
    for option in rng.sample(options, rng.randrange(len(options) + 1)):
        made |= option()
    if rng.random() < MISTAKES:
        _spoil(rng, made)
    return made


NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 1.5, "", " ", "x", "x" * 5000, "*", ".", "..", "a..b", "%", "::",
    "0.0.0.0", "none", "off", "127.0.0.1:1", ":443", "[::]:443", "0s", "-1h", "1e9y", "https://", "http://x",
    "https://a:b@c", "tls://9.9.9.9", "/", "/tmp", "/root/x", "../x", "a/b", "100.115.92.0/29", "::/0",
    "fd7a:115c:a1e0:b1a::/64", "0.0.0.0/0", "postgresql://u:p@h/d", "\u202e", "é", "A", "a\nb", [], {}, [None],
    ["a", "a"], {"a": 1}, [[]], "100.100.100.100", "224.0.0.1", "localhost", "localhost:0", "*.corp",
]  # fmt: skip


def _spoil(rng: random.Random, tree: Tree) -> None:
    """Put a nasty value somewhere, repeat a value elsewhere, or drop a key."""
    for _ in range(rng.randrange(1, 3)):
        place: Any = tree
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
                place = place[key]
                continue
            if rng.random() < 0.1 and isinstance(place, dict):
                del place[key]
            else:
                place[key] = rng.choice(NASTY)
            break


# ── one file ─────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Tally:
    """What came of the files."""

    refused: int = 0
    started: int = 0
    reloaded: int = 0
    reload_refused: int = 0
    warned: int = 0
    not_for_a_box: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.refused} refused in words, {self.started} started and answered, "
            f"{self.reloaded} reloaded ({self.reload_refused} refused), {self.warned} with warnings, "
            f"{self.not_for_a_box} not for a box; {len(self.failures)} failures"
        )


class Complaints(logging.Handler):
    """Keeps every record with a traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.exc_info and record.exc_info[0] is not None:
            self.found.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


def write(rng: random.Random, tree: Tree, place: Path, name: str) -> Path:
    """Write a file in one of the three forms."""
    form = rng.choice(sorted(WRITERS))
    path = place / f"{name}.{form}"
    path.write_text(WRITERS[form](tree))
    return path


def toml(tree: Tree) -> str:
    """Write TOML: one line a key, sections inside one another as inline tables; it has no null."""
    return "".join(
        f"{json.dumps(key)} = {_toml(value)}\n" for key, value in tree.items() if value is not None
    )


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = (f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(each) for each in value if each is not None) + "]"
    return json.dumps(value)


WRITERS: dict[str, Callable[[Tree], str]] = {
    "yaml": yamlfile.dump,
    "json": json.dumps,
    "toml": toml,
}


def read(path: Path) -> Settings | None:
    """Read a file and all that follows from it; None if it is refused, in words."""
    try:
        settings = load(path)
    except ConfigError as error:
        said = str(error)
        if not error.mistakes or len(said) > MAX_REFUSAL or "Traceback" in said:
            raise AssertionError(f"no sentence: {said[:500]}") from error
        return None
    told = [*warnings(settings), *hidden_files(settings)]
    if not all(str(each) for each in told):
        raise AssertionError("an empty warning")
    if databaseurl.is_password_for(settings.database):
        parameters(settings.database)
        settings = replace(settings, database_url="", database_password_file=None)
    resolved.derp_map(settings, resolved.Ports())
    return settings


async def serve(settings: Settings, reload: Callable[[], Settings], tally: Tally) -> None:
    """Start a server, ask it, reload it, ask again, stop it."""
    server = Server(settings, reload=reload)
    ready = asyncio.Event()

    async def started() -> None:
        ready.set()

    async with asyncio.timeout(patience(START_S)):
        task = asyncio.create_task(server.run(started))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not ready.is_set():
            await task
            raise AssertionError("ended before it was ready")
        try:
            await ask(settings.socket.path)
            tally.started += 1
            await server._reload()  # as SIGHUP begins it, awaited
            await ask(settings.socket.path)
            tally.reloaded += 1
        finally:
            server.stop()
            await task


async def ask(path: Path) -> None:
    """Ask for /health over the local socket. Raises AssertionError unless all is well."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    if b" 200 " not in answer.partition(b"\r\n")[0]:
        raise AssertionError(answer[:300])


def one(seed: str, number: int, home: Path, tally: Tally, *, start: bool = True) -> None:
    """Make, check and start the file of a seed; what is wrong is noted in the tally."""
    rng = random.Random(f"{seed}-{number}")
    place = Place(home / str(number), number)
    place.home.mkdir()
    complaints = Complaints()
    logging.getLogger().addHandler(complaints)
    try:
        path = write(rng, site(rng, place), place.home, "site")
        settings = read(path)
        if settings is None:
            tally.refused += 1
            return
        try:
            plan.make(settings)
        except ConfigError:
            tally.not_for_a_box += 1
        tally.warned += bool(warnings(settings))
        if not start:
            return
        other = write(rng, site(rng, place), place.home, "other")

        def again() -> Settings:
            try:
                return load(other)
            except ConfigError:
                tally.reload_refused += 1
                raise

        asyncio.run(serve(settings, again, tally))
        if complaints.found:
            tally.failures.append(f"{number}: a traceback in the log: {complaints.found[0]}")
    except Exception as error:  # noqa: BLE001  # every failure is what is looked for
        tally.failures.append(f"{number}: {type(error).__name__}: {str(error)[:1000]}")
    finally:
        logging.getLogger().removeHandler(complaints)
        shutil.rmtree(place.home, ignore_errors=True)


def prepare(home: Path) -> None:
    """Make the files that site files name."""
    files = home / "files"
    files.mkdir()
    (files / "pair.pem").write_bytes(self_signed_pem())
    (files / "mesh.key").write_text("ab" * 32 + "\n")
    (files / "acl.hujson").write_text('{"acls": []} // nothing\n')


def run(count: int, seed: str, *, first: int = 0, verbose: bool = False) -> Tally:
    """Try a number of files."""
    tally = Tally()
    logging.getLogger().setLevel(logging.ERROR)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hw") as name:
        home = Path(name)
        prepare(home)
        for number in range(first, first + count):
            before = len(tally.failures)
            one(seed, number, home, tally)
            for failure in tally.failures[before:]:
                if verbose:
                    print(failure, flush=True)
            if verbose and number % 100 == 99:
                print(f"{number + 1}: {tally}; {time.monotonic() - began:.0f} s", flush=True)
    return tally


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", default="1")
    arguments = parser.parse_args()
    tally = run(arguments.count, arguments.seed, first=arguments.first, verbose=True)
    print(tally)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
