"""``/api/v1/certificate``: the certificate that is served, what is wrong with it, and a new one; see ``routes``."""

from __future__ import annotations

import logging

from msgspec import Struct

from appliance.api.routes import Context, Nothing, Route
from appliance.api.shapes import Moment
from appliance.errors import Conflict, Forbidden
from appliance.identity.scopes import Scope
from appliance.tls.current import CurrentCertificate, complaints

log = logging.getLogger(__name__)


class Certificate(Struct, frozen=True, kw_only=True, rename="camel"):
    """The certificate in use, and how its issuer is doing."""

    source: str
    names: tuple[str, ...]
    wanted: tuple[str, ...]
    """The names that it should be for."""
    not_before: Moment
    not_after: Moment
    fingerprint: str
    is_provisional: bool
    """It stands in until the issuer has given its first one."""
    renew_at: Moment | None
    """None where somebody else renews it."""
    asked_again_at: Moment | None
    """None if the issuer may be asked at any time."""
    doing: str
    trouble: str
    advice: str
    attempts: int
    failures: int
    problems: tuple[str, ...]
    """What an operator should look at, in sentences; empty when all is well."""


class Certificates(Struct, frozen=True, kw_only=True):
    """The certificates of the server."""

    certificates: tuple[Certificate, ...]


class Asked(Struct, frozen=True, kw_only=True, rename="camel"):
    """When the issuer will be asked, and how often it was so far."""

    asked_at: Moment
    attempts: int


async def list_certificates(ctx: Context, _: Nothing) -> Certificates:
    """List the certificates that are served, with what is wrong with them."""
    current = ctx.door.certificate
    return Certificates(certificates=() if current is None else (_shown(ctx, current),))


async def renew(ctx: Context, _: Nothing) -> Asked:
    """Ask for a new certificate though none is due, as soon as the authority's limits allow."""
    if not ctx.is_of_the_server:
        raise Forbidden(
            "certificate-of-server",
            "all tailnets share the certificate, and only administrators of the first ask for it",
        )
    current = ctx.door.certificate
    if current is None:
        raise Conflict("tls-off", "this server speaks no TLS: see tls.mode")
    attempts = current.attempts
    asked_at = current.hurry()
    log.info("a new certificate was asked for", extra={"by": str(ctx.principal)})
    return Asked(asked_at=asked_at, attempts=attempts)


def _shown(ctx: Context, current: CurrentCertificate) -> Certificate:
    status, now = current.status(), ctx.live.clock()
    facts = status.facts
    return Certificate(
        source=status.source,
        names=facts.names,
        wanted=status.wanted,
        not_before=facts.not_before,
        not_after=facts.not_after,
        fingerprint=facts.pin,
        is_provisional=status.is_provisional,
        renew_at=status.renew_at if 1 < status.renew_at.year < 9999 else None,
        asked_again_at=status.not_before if status.not_before > now else None,
        doing=status.doing,
        trouble=status.trouble,
        advice=status.advice,
        attempts=status.attempts,
        failures=status.failures,
        problems=complaints(status, now),
    )


_PATH = "/api/v1/certificate"
ROUTES = (
    Route("GET", _PATH, Scope.FEATURE_SETTINGS_READ, Nothing, Certificates, list_certificates),
    Route("POST", f"{_PATH}/renew", Scope.FEATURE_SETTINGS, Nothing, Asked, renew),
)
