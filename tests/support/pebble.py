"""A real authority for tests: Let's Encrypt's Pebble and its DNS server, on loopback.

Both are built once from their Go module, as the stock clients are. Not for authorities that
misbehave (``faultyca``). Everything is started with its pid and ended by it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.interop.build import CACHE, BuildFailed, Unavailable, _go_env, find_go
from tests.support.pace import patience
from tests.support.polling import until
from tests.support.ports import free_ports

VERSION = "2.10.3"
MODULE = "github.com/letsencrypt/pebble/v2/cmd"
PROGRAMS = ("pebble", "pebble-challtestsrv")
BUILD_S = 600
EAB_ID, EAB_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
SHORTEST = 6 * 86400


def programs() -> Path:
    """Return the folder with both programs; build them once. Raises Unavailable."""
    place = CACHE / f"pebble-{VERSION}"
    if all((place / each).exists() for each in PROGRAMS):
        return place
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "pebble.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if all((place / each).exists() for each in PROGRAMS):
            return place
        go = find_go((1, 25))
        wanted = [f"{MODULE}/{each}@v{VERSION}" for each in PROGRAMS]
        env = {**_go_env(), "GOBIN": str(place)}
        done = subprocess.run(
            [go, "install", *wanted],
            env=env,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        if done.returncode:
            raise Unavailable(f"Pebble: {done.stderr.strip().splitlines()[-1:]}")
        if not all((place / each).exists() for each in PROGRAMS):
            raise BuildFailed("Pebble was built somewhere else")
    return place


@dataclass
class Pebble:
    """One authority: where it is, and how it is told to behave."""

    directory: Path
    http_port: int
    tls_port: int
    dns_server: str = ""
    """Another name server than Pebble's own."""
    nonce_reject: int = 5
    needs_eab: bool = False
    sleeps: bool = False
    profiles: Mapping[str, int] = field(default_factory=lambda: {"default": 90 * 86400})
    host: str = "127.0.0.1"
    address: str = "127.0.0.1"
    """Where every name leads."""
    prefix: Sequence[str] = ()
    ports: list[int] = field(default_factory=lambda: free_ports(4))
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.ports[0]}/dir"

    @property
    def ca_file(self) -> Path:
        return self.directory / "ca.pem"

    async def start(self) -> None:
        """Start the authority, and its name server if there is no other."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write()
        place = await asyncio.to_thread(programs)
        if not self.dns_server and "dns" not in self._processes:
            await self._run("dns", place / PROGRAMS[1], *self._dns_arguments())
        env = {
            "PEBBLE_VA_NOSLEEP": "" if self.sleeps else "1",
            "PEBBLE_WFE_NONCEREJECT": str(self.nonce_reject),
            "PEBBLE_AUTHZREUSE": "0",
        }
        config = self.directory / "pebble.json"
        dns = self.dns_server or f"{self.host}:{self.ports[2]}"
        arguments = ("-config", str(config), "-dnsserver", dns)
        await self._run("acme", place / PROGRAMS[0], *arguments, env=env)
        await self._listens(self.ports[0])

    async def stop(self, *which: str) -> None:
        """End what was started; with names only those of ``acme`` and ``dns``."""
        for name in which or tuple(self._processes):
            process = self._processes.pop(name, None)
            if process is None:
                continue
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _dns_arguments(self) -> tuple[str, ...]:
        # Without an IPv6 address for everything, else ::1 is asked first.
        return (
            *("-http01", "", "-https01", "", "-doh", "", "-tlsalpn01", "", "-defaultIPv6", ""),
            *("-dnsserver", f"{self.host}:{self.ports[2]}", "-defaultIPv4", self.address),
            *("-management", f"{self.host}:{self.ports[3]}"),
        )

    async def root(self) -> str:
        """Return the root of what it issues, which is another one at every start."""
        fetch = "import ssl, sys, urllib.request as u; print(u.urlopen(sys.argv[1], context=ssl._create_unverified_context()).read().decode())"
        process = await asyncio.create_subprocess_exec(
            *self.prefix,
            *(sys.executable, "-c", fetch, f"https://{self.host}:{self.ports[1]}/roots/0"),
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        return out.decode()

    async def set_txt(self, host: str, value: str) -> None:
        """Set a record in Pebble's own name server."""
        await self._manage("set-txt", {"host": host, "value": value})

    async def clear_txt(self, host: str) -> None:
        """Remove a record from Pebble's own name server."""
        await self._manage("clear-txt", {"host": host})

    async def _manage(self, verb: str, body: dict[str, str]) -> None:
        reader, writer = await asyncio.open_connection(self.host, self.ports[3])
        text = json.dumps(body).encode()
        head = f"POST /{verb} HTTP/1.0\r\nContent-Length: {len(text)}\r\n\r\n"
        writer.write(head.encode() + text)
        answer = await reader.read()
        writer.close()
        assert b" 200 " in answer.partition(b"\r\n")[0], answer

    async def _run(
        self, name: str, program: Path, *arguments: str, env: Mapping[str, str] | None = None
    ) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = await asyncio.create_subprocess_exec(
                *self.prefix,
                program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )

    async def _listens(self, port: int) -> None:
        if self.prefix:  # in a network of its own, which this process does not reach
            log = self.directory / "acme.log"
            await until(lambda: b"Listening on" in log.read_bytes(), patience(30))
            return
        async with asyncio.timeout(patience(30)):
            while True:
                try:
                    _, writer = await asyncio.open_connection(self.host, port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    def _write(self) -> None:
        authority(self.directory, self.host)
        place = self.directory
        config: dict[str, Any] = {
            "listenAddress": f"{self.host}:{self.ports[0]}",
            "managementListenAddress": f"{self.host}:{self.ports[1]}",
            "certificate": str(place / "server.pem"),
            "privateKey": str(place / "server.key"),
            "httpPort": self.http_port,
            "tlsPort": self.tls_port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": self.needs_eab,
            "externalAccountMACKeys": {EAB_ID: EAB_KEY},
            "retryAfter": {"authz": 1, "order": 1},
            "keyAlgorithm": "ecdsa",
            "caaIdentities": ["pebble.letsencrypt.org"],
            "domainBlocklist": ["blocked.example"],
            "profiles": {
                name: {"description": name, "validityPeriod": seconds}
                for name, seconds in self.profiles.items()
            },
        }
        (place / "pebble.json").write_text(json.dumps({"pebble": config}))

    def log_tail(self) -> str:
        """Return the last words of the authority."""
        path = self.directory / "acme.log"
        return "\n".join(path.read_text().splitlines()[-40:]) if path.exists() else ""


@asynccontextmanager
async def running(pebble: Pebble) -> AsyncIterator[Pebble]:
    """Run an authority while the block lasts."""
    try:
        await pebble.start()
        yield pebble
    finally:
        await pebble.stop()


def authority(place: Path, host: str = "127.0.0.1") -> None:
    """Make what vouches for an authority's own server: ``ca.pem``, ``server.pem``, ``server.key``."""
    if (place / "ca.pem").exists():
        return
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority's own CA")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
    general = [x509.DNSName("localhost"), x509.IPAddress(ip_address(host))]
    now = datetime.now(UTC)
    # From Python 3.13 on chains are checked to the letter of RFC 5280.
    key_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    signer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=30))
        )

    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_id, critical=False)
        .add_extension(usage, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        builder(name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(signer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    (place / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (place / "server.pem").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (place / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
