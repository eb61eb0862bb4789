"""Where DNS-01's records are put: the interface, and a program of the operator's that does it.

``rfc2136`` has the other way. Not for which records (``order``).
Source: RFC 8555 section 8.4; lego's documentation of its ``exec`` provider.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from appliance.tls.acme.link import clean
from appliance.tls.certificates import CertificateError

HOOK_S = 180.0
"""One run of the operator's program: interfaces of registrars are slow."""
HOOK_OUTPUT_BYTES = 64 * 1024


class DnsError(CertificateError):
    """A record could not be set; the text says by whom not, and why."""


class DnsRecords(Protocol):
    """Sets and removes TXT records."""

    async def add(self, name: str, value: str) -> None:
        """Add a value beside others of the name. Raises DnsError."""

    async def remove(self, name: str, value: str) -> None:
        """Remove a value. Raises DnsError."""


class Hook:
    """A program of the operator's: ``PROGRAM present NAME VALUE`` and ``PROGRAM cleanup NAME VALUE``.

    The name ends in a dot. Programs for lego's ``exec`` provider are called the same way.
    """

    def __init__(self, program: Path, *, timeout_s: float = HOOK_S) -> None:
        self._program = program
        self._timeout_s = timeout_s

    async def add(self, name: str, value: str) -> None:
        """Have a record set. Raises DnsError."""
        await self._run("present", name, value)

    async def remove(self, name: str, value: str) -> None:
        """Have a record removed. Raises DnsError."""
        await self._run("cleanup", name, value)

    async def _run(self, verb: str, name: str, value: str) -> None:
        kept = {each: os.environ[each] for each in ("PATH", "LANG", "TZ") if each in os.environ}
        for each in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"):  # where its own secrets may be
            if each in os.environ:
                kept[each] = os.environ[each]
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                verb,
                f"{name}.",
                value,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=kept,
                start_new_session=True,
            )
        except OSError as error:
            told = f"tls.dns.hook: {self._program} cannot be run: {error.strerror}"
            raise DnsError(told) from error
        try:
            async with asyncio.timeout(self._timeout_s):
                said = await _last_words(process)
                code = await process.wait()
        except TimeoutError:
            told = f"tls.dns.hook: {self._program} {verb} took longer than {self._timeout_s:g} s"
            raise DnsError(told) from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if code:
            told = f"tls.dns.hook: {self._program} {verb} {name}. ended with {code}: {said}"
            raise DnsError(told)


async def _last_words(process: asyncio.subprocess.Process) -> str:
    """Read what a program says to its end; keep the last of it."""
    assert process.stdout is not None  # noqa: S101  # a pipe was asked for
    kept = b""
    while piece := await process.stdout.read(HOOK_OUTPUT_BYTES):
        kept = (kept + piece)[-HOOK_OUTPUT_BYTES:]
    lines = kept.decode(errors="replace").strip().splitlines()
    return clean(lines[-1]) if lines else "it said nothing"
