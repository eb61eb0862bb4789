"""One attempt at a certificate: account, order, challenges, key, certificate; resumed where it ended.

Every step is written down before the next one begins, so that an attempt that is cut off is taken up
by the next one. Not for when to try (``issuer``), and not for signing requests (``child``).
Source: RFC 8555 sections 7.1.6, 7.4, 7.5.1, 8.
"""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.files import write_whole
from appliance.tls.acme.advice import validation_failed
from appliance.tls.acme.dnsrecords import DnsError, DnsRecords
from appliance.tls.acme.ledger import Ledger, Order
from appliance.tls.acme.link import AuthorityError, Link, Reply, clean
from appliance.tls.challenges import Challenges

log = logging.getLogger(__name__)

Json = dict[str, Any]

TLS_ALPN, HTTP, DNS, DNS_PERSIST = "tls-alpn-01", "http-01", "dns-01", "dns-persist-01"

POLL_S = (1.0, 2.0, 3.0, 5.0, 10.0)
"""Pauses between two looks where the authority names none; the last one again and again."""
LONGEST_POLL_S = 300.0
"""A longer pause ends the attempt: the order is taken up when it is over."""
VALIDATION_S = 600.0
"""How long an authority may take to look, and then to issue."""
ORDER_TRIES = 2
"""Refusals of an order that are mended at once: another account, and nothing that it replaces."""
REMOVAL_S = 20.0
"""To remove a record of ours, also while the server stops."""
MAX_AUTHORIZATIONS = 100
"""Of one order: what public authorities allow."""

_TOKEN = re.compile(r"[0-9A-Za-z_-]{1,512}", re.ASCII)
"""Source: RFC 8555 section 8.1."""
_DOMAIN = re.compile(r"[0-9A-Za-z.-]{1,253}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be ordered, and by which means it may be proved."""

    names: tuple[str, ...]
    email: str = ""
    profile: str = ""
    eab_id: str = ""
    eab_key: Callable[[], str] = str
    kinds: tuple[str, ...] = (TLS_ALPN,)
    """Kinds of challenges that this machine can answer, the best first."""
    dns_wait_s: float = 0.0
    """How long the zone's other servers may need."""


@dataclass(slots=True)
class Attempt:
    """One attempt. ``doing`` says, for people, what is going on."""

    link: Link
    ledger: Ledger
    wanted: Wanted
    answers: Answers
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    replaces: str = ""
    directory: str = ""
    """Where the authority is."""
    doing: str = "asking the authority for its directory"
    _account: Json = field(default_factory=dict)

    async def run(self, directory: Json) -> str:
        """Return the chain in PEM form; its key is in ``ledger.order_key``.

        Raises AuthorityError, DnsError or OSError.
        """
        self.doing = "asking the authority for an account"
        wanted = self.wanted
        profile = self._profile(directory)
        self._account = await self._open_account(again=False)
        order, reply = await self._open_order(profile)
        try:
            reply = await self._authorize(order, reply)
            reply = await self._finalize(order, reply)
            self.doing = "downloading the certificate"
            url = urljoin(order.url, str(reply.body.get("certificate", "")))
            chain = await self.link.ask("certificate", url=url)
        except AuthorityError as error:
            if not error.keeps_order and error.retry_after_s is None:
                await asyncio.to_thread(self.ledger.forget_order)
            raise
        log.info("certificate issued", extra={"url": order.url, "reason": ", ".join(wanted.names)})
        return str(chain.values.get("text", ""))

    # ── account and order ────────────────────────────────────────────────────────────────────

    def _profile(self, directory: Json) -> str:
        """Choose the profile: the site's, or the short one without which no address is certified."""
        offered = directory.get("profiles")
        offered = offered if isinstance(offered, dict) else {}
        if self.wanted.profile:
            if self.wanted.profile not in offered:
                known = ", ".join(clean(each) for each in list(offered)[:20]) or "none"
                told = f"it has no profile {self.wanted.profile!r}; it has: {known}"
                raise AuthorityError(told, type="invalidProfile")
            return self.wanted.profile
        has_address = any(identifier(name)["type"] == "ip" for name in self.wanted.names)
        return "shortlived" if has_address and "shortlived" in offered else ""

    async def _open_account(self, *, again: bool) -> Json:
        wanted = self.wanted
        reply = await self.link.ask(
            "account",
            email=wanted.email,
            eab_id=wanted.eab_id,
            eab_key=wanted.eab_key() if wanted.eab_id else "",
            again=again,
        )
        return reply.values

    async def _open_order(self, profile: str) -> tuple[Order, Reply]:
        known = self.ledger.order(self.wanted.names, profile)
        if known is not None:
            self.doing = "taking up the order of the last attempt"
            try:
                reply = await self.link.ask("fetch", url=known.url)
            except AuthorityError as error:
                if error.keeps_order or error.type == "rateLimited":
                    raise
                log.info("the last order is gone", extra={"reason": str(error)})
            else:
                if reply.body.get("status") in ("pending", "ready", "processing", "valid"):
                    return known, reply
            await asyncio.to_thread(self.ledger.forget_order)
        self.doing = "ordering"
        reply = await self._new_order(profile)
        order = Order(url=reply.url, names=self.wanted.names, profile=profile)
        await asyncio.to_thread(self.ledger.keep_order, order)
        return order, reply

    async def _new_order(self, profile: str) -> Reply:
        identifiers = [identifier(name) for name in self.wanted.names]
        request: Json = {"identifiers": identifiers, "profile": profile, "replaces": self.replaces}
        for _ in range(ORDER_TRIES):
            try:
                return await self.link.ask("order", **request)
            except AuthorityError as error:
                if error.type == "accountDoesNotExist":
                    self._account = await self._open_account(again=True)
                elif self.replaces and error.type not in ("rateLimited", "network"):
                    request["replaces"] = self.replaces = ""  # it was only a courtesy
                else:
                    raise
        return await self.link.ask("order", **request)

    # ── challenges ───────────────────────────────────────────────────────────────────────────

    async def _authorize(self, order: Order, reply: Reply) -> Reply:
        """Prove every name; return the order as it is then."""
        urls = reply.body.get("authorizations")
        if reply.body.get("status") != "pending" or not isinstance(urls, list):
            return reply
        async with AsyncExitStack() as answered:
            waiting: list[tuple[str, str, Json]] = []
            for url in urls[:MAX_AUTHORIZATIONS]:
                place = urljoin(order.url, str(url))
                found = (await self.link.ask("fetch", url=place)).body
                if found.get("status") == "valid":
                    continue
                chosen, asked_as = await self._answer(found, answered)
                waiting.append((place, asked_as, chosen))
            if waiting and self.answers.has_records:
                self.doing = "waiting for the zone's name servers"
                await self.sleep(self.wanted.dns_wait_s)
            for _place, _asked_as, chosen in waiting:
                if chosen.get("status") in (None, "pending"):
                    await self.link.ask("respond", url=urljoin(order.url, str(chosen["url"])))
            for place, asked_as, chosen in waiting:
                await self._wait_for_validation(place, asked_as, str(chosen["type"]))
        self.doing = "waiting for the order"
        return await self._poll(order.url, lambda body: body.get("status") != "pending")

    async def _answer(self, found: Json, answered: AsyncExitStack) -> tuple[Json, str]:
        """Put up the answer to one of an authorisation's challenges; return the challenge."""
        about = found.get("identifier")
        name = str(about.get("value", "")) if isinstance(about, dict) else ""
        self._check_ordered(name)
        is_wildcard = bool(found.get("wildcard"))
        offered = found.get("challenges")
        by_kind = {
            str(each.get("type")): each
            for each in (offered if isinstance(offered, list) else ())
            if isinstance(each, dict) and "url" in each
        }
        possible = possible_kinds(self.wanted.kinds, name, is_wildcard=is_wildcard)
        chosen = next((by_kind[kind] for kind in possible if kind in by_kind), None)
        if chosen is None:
            told = (
                f"for {'*.' if is_wildcard else ''}{clean(name)} the authority offers"
                f" {clean(', '.join(by_kind)) or 'nothing'}, and this server may answer"
                f" {', '.join(possible) or 'none of its kinds'}: see tls.challenge"
            )
            raise AuthorityError(told, type="noChallenge")
        kind = str(chosen["type"])
        self.doing = f"answering {kind} for {clean(name)}"
        answer = self.answers.put_up(kind, name, self._key_authorization(chosen))
        asked_as = await answered.enter_async_context(answer)
        if kind == DNS_PERSIST:
            self._tell_persistent_record(name, chosen, is_wildcard=is_wildcard)
        return chosen, asked_as

    def _check_ordered(self, name: str) -> None:
        """Refuse to prove what was not ordered: an operator's program and zone are not the authority's."""
        about = _plain(name)
        if all(about != _plain(each.removeprefix("*.")) for each in self.wanted.names):
            told = f"the authority asks about {clean(name)!r}, which was not ordered"
            raise AuthorityError(told, type="protocol")

    def _key_authorization(self, challenge: Json) -> str:
        token = str(challenge.get("token", ""))
        if challenge["type"] != DNS_PERSIST and not _TOKEN.fullmatch(token):
            raise AuthorityError("the authority gave a token that is none", type="protocol")
        return f"{token}.{self._account['thumbprint']}"

    def _tell_persistent_record(self, name: str, challenge: Json, *, is_wildcard: bool) -> None:
        issuers = challenge.get("issuer-domain-names")
        issuer = str(issuers[0]) if isinstance(issuers, list) and issuers else "AUTHORITY"
        uri = str(self._account["uri"])
        if not _DOMAIN.fullmatch(issuer) or urlsplit(uri).netloc != urlsplit(self.directory).netloc:
            # With it another account, of another authority, could have certificates of this name.
            told = "the record that the authority wants names somebody else's account"
            raise AuthorityError(told, type="protocol")
        policy = "; policy=wildcard" if is_wildcard else ""
        record = f'"{issuer}; accounturi={uri}{policy}"'
        self.answers.persistent_record = clean(f"_validation-persist.{name}. TXT {record}")
        log.info("this record must stand", extra={"reason": self.answers.persistent_record})

    async def _wait_for_validation(self, url: str, asked_as: str, kind: str) -> None:
        self.doing = f"waiting for the authority to validate by {kind}"
        ended = await self._poll(
            url, lambda body: body.get("status") not in ("pending", "processing")
        )
        if ended.body.get("status") == "valid":
            return
        count = self.answers.asked(asked_as)
        raise validation_failed(ended.body, kind, count, self.answers.persistent_record)

    # ── key and certificate ──────────────────────────────────────────────────────────────────

    async def _finalize(self, order: Order, reply: Reply) -> Reply:
        status = reply.body.get("status")
        if status == "ready":
            self.doing = "asking for the certificate"
            csr = await asyncio.to_thread(request_for, self.ledger.order_key, order.names)
            url = urljoin(order.url, str(reply.body.get("finalize", "")))
            await self.link.ask("finalize", url=url, csr=csr)
        self.doing = "waiting for the authority to issue"
        done = await self._poll(
            order.url, lambda body: body.get("status") in ("valid", "invalid") or not body
        )
        if done.body.get("status") != "valid":
            problem = done.body.get("error")
            detail = clean(problem.get("detail", "")) if isinstance(problem, dict) else ""
            kind = clean(problem.get("type", "")) if isinstance(problem, dict) else ""
            told = f"the authority ended the order: {detail or 'no reason given'}"
            raise AuthorityError(told, type=kind.rpartition(":")[2])
        if not self.ledger.order_key.exists():
            raise AuthorityError("the key of the order is gone: the next attempt orders anew")
        return done

    async def _poll(self, url: str, is_over: Callable[[Json], bool]) -> Reply:
        """Look at a URL until something holds, as often as the authority likes."""
        loop = asyncio.get_running_loop()
        deadline, looks = loop.time() + VALIDATION_S, 0
        while True:
            reply = await self.link.ask("fetch", url=url)
            if is_over(reply.body):
                return reply
            pause_s = POLL_S[min(looks, len(POLL_S) - 1)]
            looks += 1
            if reply.retry_after_s is not None:
                pause_s = max(reply.retry_after_s, POLL_S[0])
            if pause_s > LONGEST_POLL_S or loop.time() + pause_s > deadline:
                told = "the authority has not come to an end yet; the order is taken up again"
                raise AuthorityError(told, retry_after_s=pause_s, keeps_order=True)
            await self.sleep(pause_s)


class Answers:
    """The means of answering: ``challenges`` of the listeners, and records of the DNS."""

    def __init__(self, challenges: Challenges, records: DnsRecords | None = None) -> None:
        self._challenges = challenges
        self._records = records
        self.has_records = False
        """A record was set in this attempt."""
        self.persistent_record = ""
        """The record that dns-persist-01 wants to find, as a zone file has it."""

    def asked(self, asked_as: str) -> int | None:
        """Tell how often somebody came for an answer; None where we do not see it."""
        return self._challenges.asked.get(asked_as, 0) if asked_as else None

    @asynccontextmanager
    async def put_up(self, kind: str, name: str, key_authorization: str) -> AsyncIterator[str]:
        """Answer while the block lasts; gives what ``asked`` wants. Raises DnsError."""
        if kind == TLS_ALPN:
            with self._challenges.by_certificate(name, key_authorization) as asked_as:
                yield asked_as
        elif kind == HTTP:
            token = key_authorization.partition(".")[0]
            with self._challenges.by_text(token, key_authorization) as asked_as:
                yield asked_as
        elif kind == DNS and self._records is not None:
            record = f"_acme-challenge.{name}"
            digest = sha256(key_authorization.encode()).digest()
            value = urlsafe_b64encode(digest).decode().rstrip("=")
            await self._records.add(record, value)
            self.has_records = True
            try:
                yield ""
            finally:
                try:
                    async with asyncio.timeout(REMOVAL_S):
                        await self._records.remove(record, value)
                except (DnsError, TimeoutError) as error:
                    log.warning("a record of ours is left behind", extra={"reason": str(error)})
        else:
            yield ""


def identifier(name: str) -> dict[str, str]:
    """Write a name as orders have it."""
    try:
        return {"type": "ip", "value": str(ip_address(name))}
    except ValueError:
        return {"type": "dns", "value": name}


def _plain(name: str) -> str:
    return identifier(name)["value"].lower()


def possible_kinds(kinds: Sequence[str], name: str, *, is_wildcard: bool) -> tuple[str, ...]:
    """Return the kinds of challenges by which a name can be proved at all.

    Source: RFC 8555 section 7.1.3 (wildcards by DNS only); RFC 8738 section 7 (addresses never).
    """
    of_dns = (DNS, DNS_PERSIST)
    if is_wildcard:
        return tuple(kind for kind in kinds if kind in of_dns)
    if identifier(name)["type"] == "ip":
        return tuple(kind for kind in kinds if kind not in of_dns)
    return tuple(kinds)


def request_for(key_file: Path, names: Sequence[str]) -> str:
    """Make a certificate request, with the key of the order; the key is on disk before. Blocking."""
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_whole(key_file, text)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{key_file} is no key of ours; remove it")
    general: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(each["value"]))
        if each["type"] == "ip"
        else x509.DNSName(each["value"])
        for each in map(identifier, names)
    ]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(serialization.Encoding.PEM).decode()
