"""The issuer that asks an ACME authority: what is at hand, when to ask again, what to say about it.

Not for one attempt (``order``), and not for what is served meanwhile (``current``).
Source: RFC 8555; RFC 9773 sections 4 and 5 (when to renew, and what a certificate replaces).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from appliance import __version__
from appliance.files import write_whole
from appliance.tls.acme.advice import advice_for
from appliance.tls.acme.dnsrecords import DnsRecords
from appliance.tls.acme.ledger import OWN_AUTHORITY, Ledger, Limits, Window
from appliance.tls.acme.link import AuthorityError, Json, Link, Opening
from appliance.tls.acme.order import Answers, Attempt, Wanted
from appliance.tls.certificates import Certificate, CertificateError
from appliance.tls.challenges import Challenges

log = logging.getLogger(__name__)

ASK_WINDOW_AGAIN = timedelta(hours=6)
"""How often an authority is asked when to renew, if it names no pause. Source: RFC 9773 section 4.3."""
MAX_WINDOW_PAUSE = timedelta(days=1)
"""An authority that needs a certificate replaced is heard within a day."""
LONG = timedelta(days=10)
"""Certificates that live longer are renewed after two thirds of their life, shorter ones after half."""
CLOCK_DIFFERENCE = timedelta(minutes=10)
"""More between the authority's clock and ours is worth a word."""
ATTEMPT_S = 840.0
"""One attempt from its start to its end; what is not done by then is taken up by the next one."""


@dataclass(frozen=True, slots=True)
class Site:
    """What the settings say about the authority."""

    directory: str
    state_dir: Path
    wanted: Wanted
    ca_file: Path | None = None
    limits: Limits = OWN_AUTHORITY
    request_s: float | None = None


def _utc_now() -> datetime:
    return datetime.now(UTC)


class AcmeIssuer:
    """An authority that certifies names for whoever proves that they control them."""

    name = "acme"
    is_remote = True

    def __init__(
        self,
        site: Site,
        challenges: Challenges,
        records: DnsRecords | None = None,
        *,
        now: Callable[[], datetime] = _utc_now,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.site = site
        self._challenges = challenges
        self._records = records
        self._now = now
        self._jitter = jitter
        self._place = site.state_dir / "acme" / place_of(site.directory)
        self._ledger = Ledger(self._place, site.limits, now=now, jitter=jitter)
        self._attempt: Attempt | None = None
        self._clock_note = ""

    # ── for ``current`` ──────────────────────────────────────────────────────────────────────

    @property
    def not_before(self) -> datetime:
        """When the authority may be asked again, whatever else is due."""
        return self._ledger.not_before

    @property
    def trouble(self) -> str:
        """Why the last attempt failed; empty after a success."""
        return self._ledger.state.trouble

    @property
    def advice(self) -> str:
        """What to do about the trouble."""
        return " ".join(each for each in (self._ledger.state.advice, self._clock_note) if each)

    @property
    def doing(self) -> str:
        """What is going on now; empty while nothing is."""
        return "" if self._attempt is None else self._attempt.doing

    def hurry(self) -> datetime:
        """Ask as soon as the authority's limits allow; return when."""
        return self._ledger.hurry()

    async def at_hand(self, names: Sequence[str]) -> Certificate | None:
        """Return the certificate of an earlier run, if it is for these names."""

        def load() -> Certificate | None:
            try:
                found = Certificate.load(self._ledger.certificate)
            except (CertificateError, OSError):
                return None
            return found if covers(found, names) else None

        return await asyncio.to_thread(load)

    async def obtain(self, names: Sequence[str]) -> Certificate:
        """Order a certificate. Raises CertificateError or OSError; both are written down before."""
        await asyncio.to_thread(self._prepare)
        try:
            async with asyncio.timeout(ATTEMPT_S):
                return await self._obtain(tuple(names))
        except (CertificateError, OSError) as error:  # TimeoutError is one
            sentence = str(error) or "the authority did not come to an end in time"
            pause_s = error.retry_after_s if isinstance(error, AuthorityError) else None
            await asyncio.to_thread(self._ledger.failed, sentence, advice_for(error), pause_s)
            raise
        finally:
            self._attempt = None

    def renew_at(self, certificate: Certificate) -> datetime:
        """Return when the authority suggests, or when most of the certificate's life is over."""
        facts = certificate.facts
        life = facts.not_after - facts.not_before
        by_age = facts.not_before + (life * 2 / 3 if life > LONG else life / 2)
        window = self._window(certificate)
        if window is None or window.renew_at is None:
            return by_age
        latest = facts.not_after - life / 10  # whatever an authority suggests
        return min(window.renew_at, latest)

    async def attend(self, certificate: Certificate) -> None:
        """Ask when to renew, when it is time to ask that. Raises nothing that is worth a word."""
        window = self._window(certificate)
        if window is not None and self._now() < window.ask_at:
            return
        name = certificate.facts.renewal_id
        found = Window(
            certificate=name,
            renew_at=None if window is None else window.renew_at,
            ask_at=self._now() + ASK_WINDOW_AGAIN,
        )
        try:
            if name:
                await self._ask_window(name, found)
        except (CertificateError, OSError) as error:
            log.debug("no renewal information", extra={"reason": str(error)})
        with suppress(OSError):
            await asyncio.to_thread(self._ledger.keep_window, found)

    # ── inside ───────────────────────────────────────────────────────────────────────────────

    def _prepare(self) -> None:
        self._place.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._ledger.begin()

    async def _obtain(self, names: tuple[str, ...]) -> Certificate:
        before = await self.at_hand(names)
        answers = Answers(self._challenges, self._records)
        async with self._link() as link:
            attempt = self._attempt = Attempt(
                link,
                self._ledger,
                self._wanted(names),
                answers,
                replaces="" if before is None else before.facts.renewal_id,
                directory=self.site.directory,
            )
            opened = await link.open()
            self._compare_clocks(str(opened.values.get("date", "")))
            meta = opened.values.get("meta")
            chain = await attempt.run(meta if isinstance(meta, dict) else {})
        certificate = await asyncio.to_thread(self._store, chain, names)
        await asyncio.to_thread(self._ledger.succeeded)
        return certificate

    def _wanted(self, names: tuple[str, ...]) -> Wanted:
        """Order for these names; after failures the next kind of challenge has its turn."""
        wanted = self.site.wanted
        turn = max(self._ledger.state.failures - 1, 0) % max(len(wanted.kinds), 1)
        kinds = (*wanted.kinds[turn:], *wanted.kinds[:turn])
        return Wanted(
            names=names,
            email=wanted.email,
            profile=wanted.profile,
            eab_id=wanted.eab_id,
            eab_key=wanted.eab_key,
            kinds=kinds,
            dns_wait_s=wanted.dns_wait_s,
        )

    def _store(self, chain: str, names: tuple[str, ...]) -> Certificate:
        """Check a chain, put it on disk beside its key, forget the order. Blocking."""
        key = self._ledger.order_key.read_bytes()
        check(chain, key, names)
        write_whole(self._ledger.certificate, chain.strip().encode() + b"\n" + key)
        certificate = Certificate.load(self._ledger.certificate)
        self._ledger.forget_order()
        return certificate

    def _link(self) -> Link:
        opening = Opening(
            directory=self.site.directory,
            account_dir=self._place,
            ca_file=self.site.ca_file,
            user_agent=f"headwater/{__version__}",
        )
        if self.site.request_s is None:
            return Link(opening)
        return Link(opening, timeout_s=self.site.request_s)

    def _window(self, certificate: Certificate) -> Window | None:
        window = self._ledger.state.window
        return window if window and window.certificate == certificate.facts.renewal_id else None

    async def _ask_window(self, name: str, found: Window) -> None:
        async with self._link() as link:
            opened = await link.open()
            if not opened.values.get("has_renewal_info"):
                return
            reply = await link.ask("renewal_info", id=name)
        span = reply.body.get("suggestedWindow")
        start, end = read_window(span if isinstance(span, dict) else {})
        if start is None or end is None:
            return
        is_new = found.renew_at is None or not start <= found.renew_at <= end
        if is_new:
            found.renew_at = start + (end - start) * self._jitter()
        pause = timedelta(seconds=reply.retry_after_s or ASK_WINDOW_AGAIN.total_seconds())
        found.ask_at = self._now() + min(max(pause, timedelta(minutes=1)), MAX_WINDOW_PAUSE)

    def _compare_clocks(self, date: str) -> None:
        try:
            theirs = parsedate_to_datetime(date)
        except (ValueError, TypeError):
            return
        if theirs.tzinfo is None:
            return
        difference = self._now() - theirs
        self._clock_note = ""
        if abs(difference) > CLOCK_DIFFERENCE:
            side = "ahead of" if difference > timedelta() else "behind"
            told = timedelta(minutes=round(abs(difference).total_seconds() / 60))
            self._clock_note = f"this machine's clock is {told} {side} the authority's: set it"
            log.warning("the clock is wrong", extra={"reason": self._clock_note})


def place_of(directory: str) -> str:
    """Name the folder of an authority: its host for people, and what tells two of one host apart."""
    host = "".join(
        c if c.isalnum() or c in ".-" else "_" for c in urlsplit(directory).hostname or ""
    )
    return f"{host[:100]}-{sha256(directory.encode()).hexdigest()[:8]}"


def covers(certificate: Certificate, names: Sequence[str]) -> bool:
    """Return whether a certificate is for exactly these names."""
    return {each.lower() for each in certificate.facts.names} == {each.lower() for each in names}


def check(chain: str, key: bytes, names: Sequence[str]) -> None:
    """Check what an authority has given: its key, its names. Raises CertificateError."""
    try:
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        private = serialization.load_pem_private_key(key, None)
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound) as error:
        raise CertificateError(f"the authority gave no certificate: {error}") from error
    if leaf.public_key() != private.public_key():
        raise CertificateError("the authority gave a certificate for another key")
    given = {str(each.value).lower() for each in found}
    missing = [name for name in names if name.lower() not in given]
    if missing:
        raise CertificateError(f"the authority left out {', '.join(missing)}")


def read_window(span: Json) -> tuple[datetime | None, datetime | None]:
    """Read the start and the end of a suggestion; both None if it makes no sense."""
    try:
        start, end = (datetime.fromisoformat(str(span[each])) for each in ("start", "end"))
        if start.tzinfo is None or end.tzinfo is None or end < start:
            return None, None
        return start.astimezone(UTC), end.astimezone(UTC)
    except (KeyError, ValueError, OverflowError):
        return None, None
