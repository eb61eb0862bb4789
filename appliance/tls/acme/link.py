"""The parent's end of the child that speaks with an authority: requests with deadlines, or it is killed.

Not for what is asked (``order``), and not for the account's key, which never comes here. An answer is
plain values of the authority's making: whoever reads them must expect anything in them.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from appliance.tls.certificates import CertificateError

REQUEST_S = 45.0
"""One request with all its repetitions; Let's Encrypt answers within two seconds, at worst in ten."""
END_S = 2.0
"""How long the child may take to end by itself once it has nothing to do."""
MAX_LINE_BYTES = 4 << 20
"""An answer of the authority has at most 1 MiB, and JSON may write a byte in six."""
MAX_DETAIL = 600
"""Characters of somebody else's sentence that are kept."""
MAX_RETRY_AFTER_S = 14 * 24 * 3600.0
"""The longest pause that is obeyed: the weekly limits of public authorities are half of it."""

Json = dict[str, Any]


class AuthorityError(CertificateError):
    """The authority refused, could not be reached, or spoke nonsense.

    ``type`` is the name of its problem, if it named one; ``retry_after_s`` when it wants to be asked
    again. With ``keeps_order`` the order at hand is as good as before.
    """

    def __init__(
        self,
        sentence: str,
        *,
        type: str = "",  # noqa: A002  # the field's name in RFC 7807
        retry_after_s: float | None = None,
        keeps_order: bool = False,
    ) -> None:
        super().__init__(sentence)
        self.type = type
        self.retry_after_s = retry_after_s
        self.keeps_order = keeps_order


@dataclass(frozen=True, slots=True)
class Reply:
    """What the child answered."""

    values: Json
    retry_after_s: float | None = None

    @property
    def body(self) -> Json:
        """The authority's object."""
        found = self.values.get("body")
        return found if isinstance(found, dict) else {}

    @property
    def url(self) -> str:
        """Where the object is."""
        return str(self.values.get("url", ""))


@dataclass(frozen=True, slots=True)
class Opening:
    """Which authority, and where its account is kept."""

    directory: str
    account_dir: Path
    ca_file: Path | None
    user_agent: str


class Link:
    """A child while it is needed; leaving the block ends it."""

    def __init__(self, opening: Opening, *, timeout_s: float = REQUEST_S) -> None:
        self._opening = opening
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Link:
        """Start the child."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"{__package__}.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=MAX_LINE_BYTES,
            env=environment(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child, by force if need be."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if kind is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()
        await _kill(process)

    async def open(self) -> Reply:
        """Read the authority's directory. Raises AuthorityError."""
        opening = self._opening
        return await self.ask(
            "open",
            directory=opening.directory,
            account_dir=str(opening.account_dir),
            ca_file="" if opening.ca_file is None else str(opening.ca_file),
            user_agent=opening.user_agent,
        )

    async def ask(self, do: str, **values: object) -> Reply:
        """Have one thing done. Raises AuthorityError; after a deadline the child is gone."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise AuthorityError("the process for the authority is gone", keeps_order=True)
        request = {"do": do, "timeout_s": self._timeout_s, **values}
        try:
            async with asyncio.timeout(self._timeout_s):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
        except TimeoutError:
            self._process = None
            await _kill(process)
            told = f"the authority did not finish its answer within {self._timeout_s:g} s"
            raise AuthorityError(told, keeps_order=True) from None
        except (OSError, ValueError) as error:
            raise AuthorityError(f"the authority's answer is lost: {error}") from error
        if not line:
            raise AuthorityError("the process for the authority ended early", keeps_order=True)
        return _read(json.loads(line))


def environment() -> dict[str, str]:
    """Give the child what it needs to find its modules and the system's certificates, no more.

    A program that is wrapped (as nixpkgs does it) knows its modules only in ``sys.path``.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}


def retry_after(text: str, now: datetime) -> float | None:
    """Read the header: seconds or a date. None for what is neither. Source: RFC 9110 section 10.2.3."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    pause_s = (at - now).total_seconds()
    return min(max(pause_s, 0.0), MAX_RETRY_AFTER_S) if math.isfinite(pause_s) else None


def clean(text: object) -> str:
    """Make somebody else's sentence fit for a log: one line, printable, short."""
    shown = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * MAX_DETAIL])
    shown = " ".join(shown.split())
    return shown if len(shown) <= MAX_DETAIL else shown[:MAX_DETAIL] + "…"


def _read(answer: Json) -> Reply:
    pause_s = retry_after(str(answer.get("retry_after", "")), datetime.now(UTC))
    if "ok" in answer:
        return Reply(answer["ok"], pause_s)
    error = answer["error"]
    detail = clean(error.get("detail", ""))
    if error["kind"] == "problem":
        more = "; ".join(_subproblem(each) for each in error.get("subproblems", ())[:4])
        kind = clean(error.get("type", ""))[:80]
        told = f"{detail or 'no reason given'} ({kind}{': ' if more else ''}{more})"
        raise AuthorityError(told, type=kind, retry_after_s=pause_s)
    if error["kind"] == "network":
        told = f"the authority cannot be reached: {detail}"
        raise AuthorityError(told, type="network", retry_after_s=pause_s, keeps_order=True)
    if error["kind"] == "local":
        raise AuthorityError(f"on this machine: {detail}", type="local", keeps_order=True)
    raise AuthorityError(f"the authority cannot be understood: {detail}", type="protocol")


def _subproblem(problem: object) -> str:
    if not isinstance(problem, dict):
        return ""
    identifier = problem.get("identifier")
    name = identifier.get("value", "") if isinstance(identifier, dict) else ""
    return clean(f"{name} {problem.get('detail', '')}")[:200]


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()
