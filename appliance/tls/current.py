"""The certificate in use: obtained from an issuer, renewed in time, swapped while connections run.

Whatever an issuer does, the certificate in memory is served on. Not for how certificates come to be
(``issuers``). A listener asks ``context`` at every new connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from appliance.loops import Loop
from appliance.tls.certificates import Certificate, CertificateError, Facts
from appliance.tls.issuers import Issuer, RemoteIssuer

log = logging.getLogger(__name__)

POLL_S = 10.0
"""How soon a changed file is noticed, and how often a failed renewal is tried again. Two stat calls;
certificates live for weeks."""
LITTLE_LEFT = 0.15
"""When less of a certificate's life is left, renewing it has failed for long, whoever does it."""
OBTAIN_S = 900.0
"""Bound on one attempt: a public authority may take minutes, and an issuer may have a bug."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _ignore() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Status:
    """How it is with the certificate, for people and their programs."""

    source: str
    """The issuer."""
    wanted: tuple[str, ...]
    facts: Facts
    is_provisional: bool
    """It only stands in for one that is still to come."""
    renew_at: datetime
    not_before: datetime
    """When the issuer may be asked again; in the past for most."""
    doing: str
    trouble: str
    advice: str
    attempts: int
    failures: int


def complaints(status: Status, now: datetime) -> tuple[str, ...]:
    """Say what an operator should look at; nothing when all is well. Pure."""
    facts = status.facts
    found: list[str] = []
    if status.is_provisional:
        found.append(f"no certificate from {status.source} yet, a self-signed one is served")
    if status.trouble:
        pause = f"; asked again at {status.not_before:%Y-%m-%d %H:%M} UTC"
        advice = f"; {status.advice}" if status.advice else ""
        found.append(f"{status.trouble}{advice}{pause if status.not_before > now else ''}")
    if facts.not_after <= now:
        found.append(f"it has expired on {facts.not_after:%Y-%m-%d}")
    elif facts.not_after - now < (facts.not_after - facts.not_before) * LITTLE_LEFT:
        found.append(f"it expires on {facts.not_after:%Y-%m-%d} and has not been renewed")
    if facts.not_before > now:
        told = f"it is valid from {facts.not_before:%Y-%m-%d %H:%M} UTC"
        found.append(f"{told}, which this machine's clock has not reached: set it")
    missing = [name for name in status.wanted if not _is_for(facts.names, name)]
    if missing and not status.is_provisional:
        found.append(f"it is not for {', '.join(missing)}")
    return tuple(found)


def _is_for(names: Sequence[str], wanted: str) -> bool:
    """Tell whether a certificate's names cover one; a wildcard covers one label."""
    covering = {wanted.lower(), f"*.{wanted.lower().partition('.')[2]}"}
    return any(name.lower() in covering for name in names)


class CurrentCertificate:
    """The certificate in use; its ``loops`` must run for it to be renewed."""

    def __init__(
        self,
        issuer: Issuer,
        names: Sequence[str],
        certificate: Certificate,
        *,
        is_provisional: bool = False,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.certificate = certificate
        self.reloads = 0
        """How often another certificate was put in use since the start."""
        self.attempts = 0
        """How often one was asked for since the start."""
        self.failures = 0
        """Attempts to obtain one that failed."""
        self.on_replaced: Callable[[], None] = _ignore
        """Called when another certificate is in use, for what depends on its pin."""
        self._issuer = issuer
        self._names = tuple(names)
        self.is_provisional = is_provisional
        """It only stands in for one that is still to come."""
        self._now = now
        self._failure = ""
        self._is_wished = False
        self._is_obtaining = False
        self._wish = asyncio.Event()
        self._renewing = asyncio.Lock()
        self._report("certificate in use")

    @classmethod
    async def open(
        cls,
        issuer: Issuer,
        names: Sequence[str],
        *,
        until_then: Issuer | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> CurrentCertificate:
        """Obtain the first certificate. Raises CertificateError or OSError.

        With ``until_then`` a server starts all the same: with a certificate of that issuer, until
        the other one has given its first. A remote issuer is not waited for at all.
        """
        if issuer.is_remote and until_then is not None:
            at_hand = await cast(RemoteIssuer, issuer).at_hand(names)
            if at_hand is not None:
                return cls(issuer, names, at_hand, now=now)
            reason = "it is asked for once the server listens"
        else:
            try:
                return cls(issuer, names, await issuer.obtain(names), now=now)
            except (CertificateError, OSError) as error:
                if until_then is None:
                    raise
                reason = str(error)
        log.warning(
            "no certificate yet, another one serves until then",
            extra={"source": issuer.name, "reason": reason},
        )
        first = await until_then.obtain(names)
        return cls(issuer, names, first, is_provisional=True, now=now)

    def context(self) -> ssl.SSLContext:
        """Return the TLS context in use (a ``TlsSource`` for listeners)."""
        return self.certificate.context

    @property
    def facts(self) -> Facts:
        """What the certificate in use says."""
        return self.certificate.facts

    @property
    def pin(self) -> str:
        """The pin for the relay map, if nothing but the certificate itself vouches for it."""
        return self.facts.pin if self.facts.is_self_signed else ""

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run for changed files to be noticed and certificates to be renewed."""
        return (Loop("certificate", self._look, max_backoff_s=POLL_S),)

    async def _look(self) -> None:
        """Renew if it is due, then wait for the next look or for somebody's wish."""
        await self.renew_if_due()
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self._wish.wait()
        self._wish.clear()

    @property
    def _remote(self) -> RemoteIssuer | None:
        return cast(RemoteIssuer, self._issuer) if self._issuer.is_remote else None

    def status(self) -> Status:
        """Tell how it is with the certificate."""
        remote = self._remote
        return Status(
            source=self._issuer.name,
            wanted=self._names,
            facts=self.facts,
            is_provisional=self.is_provisional,
            renew_at=self._issuer.renew_at(self.certificate),
            not_before=self._now() if remote is None else remote.not_before,
            doing=self._doing,
            trouble=self._failure or ("" if remote is None else remote.trouble),
            advice="" if remote is None else remote.advice,
            attempts=self.attempts,
            failures=self.failures,
        )

    @property
    def _doing(self) -> str:
        if not self._is_obtaining:
            return ""
        remote = self._remote
        return ("" if remote is None else remote.doing) or "asking the issuer"

    def hurry(self) -> datetime:
        """Obtain a new one soon, though none is due; return when at the earliest."""
        self._is_wished = True
        self._wish.set()
        remote = self._remote
        return self._now() if remote is None else max(remote.hurry(), self._now())

    async def check(self) -> None:
        """Do what ``renew_if_due`` does, at the wish of an operator: a failure is only logged.

        A remote issuer may take minutes, and its loop looks every few seconds: nobody waits for it.
        """
        if self._issuer.is_remote:
            return
        with suppress(CertificateError, OSError):
            await self.renew_if_due()

    async def renew_if_due(self) -> None:
        """Obtain a certificate if it is time, or if files have changed.

        Raises CertificateError or OSError; the one in use stays then, and so it does for any bug.
        """
        async with self._renewing:
            remote = self._remote
            if remote is not None and not self.is_provisional:
                await remote.attend(self.certificate)
            due_at = self._issuer.renew_at(self.certificate)
            is_due = self.is_provisional or self._is_wished or self._now() >= due_at
            if not (is_due or self._failure):
                return
            if remote is None or self._now() >= remote.not_before:
                await self._renew()
            elif self._failure:
                raise CertificateError(self._failure)  # for the health check: it goes on failing

    async def _renew(self) -> None:
        self._is_obtaining = True
        self.attempts += 1
        try:
            async with asyncio.timeout(OBTAIN_S):
                new = await self._issuer.obtain(self._names)
        except (CertificateError, OSError) as error:
            self.failures += 1
            failure = str(error) or "it took too long"
            if failure != self._failure:
                log.error(  # noqa: TRY400  # the operator needs the sentence, not our stack
                    "no new certificate, the one in use stays",
                    extra={"source": self._issuer.name, "reason": self._with_advice(failure)},
                )
            self._failure = failure
            raise
        finally:
            self._is_obtaining = False
        self._failure, self.is_provisional, self._is_wished = "", False, False
        if new.digest != self.certificate.digest:
            self.certificate = new
            self.reloads += 1
            self._report("certificate replaced")
            self.on_replaced()

    def _with_advice(self, failure: str) -> str:
        remote = self._remote
        if remote is None or not remote.advice:
            return failure
        return f"{failure}; {remote.advice}; asked again at {remote.not_before:%Y-%m-%d %H:%M} UTC"

    def _report(self, message: str) -> None:
        facts = self.facts
        fields = {
            "source": self._issuer.name,
            "path": str(self.certificate.chain),
            "reason": f"valid until {facts.not_after:%Y-%m-%d} for {', '.join(facts.names)}",
        }
        log.info(message, extra=fields)
        if facts.not_after < self._now():
            log.warning("certificate has expired", extra=fields)
