"""A real name server for tests: BIND with one zone that a key may change, on loopback."""

from __future__ import annotations

import asyncio
import base64
import secrets
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.pace import patience

KEY_NAME = "headwater"
ZONE = """$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 127.0.0.1
* A 127.0.0.1
"""
CONFIG = """options {{
  directory "{place}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
  pid-file none; session-keyfile none; recursion no; dnssec-validation no; empty-zones-enable no;
}};
controls {{ }};
key "{key}" {{ algorithm {algorithm}; secret "{secret}"; }};
zone "hw.test" {{ type primary; file "hw.db"; update-policy {{ grant {key} zonesub TXT; }}; }};
zone "closed.test" {{ type primary; file "closed.db"; }};
"""


def program() -> Path | None:
    """Find BIND; None if it is not installed."""
    found = shutil.which("named") or shutil.which("named", path="/usr/sbin")
    return Path(found) if found else None


@dataclass
class Bind:
    """One name server."""

    place: Path
    port: int
    algorithm: str = "hmac-sha256"
    secret: str = field(default_factory=lambda: base64.b64encode(secrets.token_bytes(32)).decode())

    @property
    def key_file(self) -> Path:
        return self.place / "key"


@asynccontextmanager
async def running(bind: Bind) -> AsyncIterator[Bind]:
    """Run BIND while the block lasts."""
    named = program()
    assert named is not None, "look for the program first"
    place = bind.place
    place.mkdir(parents=True)
    (place / "key").write_text(bind.secret + "\n")
    for name in ("hw.db", "closed.db"):
        (place / name).write_text(ZONE)
    text = CONFIG.format(
        place=place, port=bind.port, key=KEY_NAME, algorithm=bind.algorithm, secret=bind.secret
    )
    (place / "named.conf").write_text(text)
    with (place / "named.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(named, "-g", "-n", "1", "-c", str(place / "named.conf")), stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(patience(30)):
            while True:
                assert process.returncode is None, (place / "named.log").read_text()
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", bind.port)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    break
        yield bind
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
