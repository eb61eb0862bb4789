"""Which issuer gives the certificate of this process: the settings choose it.

Not for issuing or renewing (``tls``). The same for the server and for a relay that runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from appliance.config import Settings, read_secret, secret_place, tlschecks
from appliance.front.dispatch import Answer, Head, Route
from appliance.front.stream import Sink, Stream
from appliance.tls.acme.dnsrecords import DnsRecords, Hook
from appliance.tls.acme.issuer import AcmeIssuer, Site, place_of
from appliance.tls.acme.ledger import OWN_AUTHORITY, Limits
from appliance.tls.acme.order import Wanted
from appliance.tls.challenges import HTTP_PREFIX, Challenges
from appliance.tls.current import CurrentCertificate
from appliance.tls.issuers import FileIssuer, Issuer, LocalAuthority, SelfSigned

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


def issuer_of(
    settings: Settings, challenges: Challenges, *, self_signed: bool = False
) -> Issuer | None:
    """Return the issuer that ``tls.mode`` asks for; None without TLS."""
    tls, directory = settings.tls, settings.state_dir / "tls"
    if tls.mode == "off":
        return None
    if tls.mode == "acme":
        return acme_issuer(settings, challenges)
    if tls.cert_file is not None and tls.key_file is not None:
        return FileIssuer(secret_place(tls.cert_file), secret_place(tls.key_file))
    return SelfSigned(directory) if self_signed else LocalAuthority(directory)


async def open_certificate(
    settings: Settings,
    names: Sequence[str],
    challenges: Challenges,
    *,
    self_signed: bool = False,
    is_beside_server: bool = False,
) -> CurrentCertificate | None:
    """Obtain the first certificate; None without TLS. Raises CertificateError or OSError.

    Before an authority has given one, a self-signed one serves. A relay beside the server does not
    ask the authority: it reads what the server has got.
    """
    issuer = issuer_of(settings, challenges, self_signed=self_signed)
    if issuer is None:
        return None
    if settings.tls.mode != "acme":
        return await CurrentCertificate.open(issuer, names)
    if is_beside_server:
        place = acme_place(settings) / "certificate.pem"
        issuer, until_then = FileIssuer(place, place), settings.state_dir / "tls" / "relay"
    else:
        until_then = settings.state_dir / "tls"
    return await CurrentCertificate.open(issuer, names, until_then=SelfSigned(until_then))


def acme_issuer(settings: Settings, challenges: Challenges) -> AcmeIssuer:
    """Make the issuer that asks the authority of the settings."""
    tls = settings.tls
    is_lets_encrypt = not (tls.directory or tls.staging)
    eab = tls.eab
    wanted = Wanted(
        names=(),
        email=tls.email,
        profile=tls.profile,
        eab_id="" if eab is None else eab.key_id,
        eab_key=str if eab is None else partial(read_secret, eab.key_file),
        kinds=tlschecks.kinds(settings),
        dns_wait_s=tls.dns.wait.total_seconds(),
    )
    site = Site(
        directory=directory_of(settings),
        state_dir=settings.state_dir,
        wanted=wanted,
        ca_file=tls.ca_file,
        limits=Limits() if is_lets_encrypt else OWN_AUTHORITY,
    )
    return AcmeIssuer(site, challenges, _records(settings))


def directory_of(settings: Settings) -> str:
    """Return the URL of the authority."""
    standard = LETS_ENCRYPT_STAGING if settings.tls.staging else LETS_ENCRYPT
    return settings.tls.directory or standard


def acme_place(settings: Settings) -> Path:
    """Return the folder that has the account and the certificate of the authority."""
    return settings.state_dir / "acme" / place_of(directory_of(settings))


def answer_challenges(challenges: Challenges, otherwise: Route) -> Route:
    """Answer an authority that asks on a plain listener; everybody else gets the other route."""

    def route(head: Head, stream: Stream) -> Sink | Answer | None:
        if not head.path.startswith(HTTP_PREFIX) or head.method not in ("GET", "HEAD"):
            return otherwise(head, stream)
        text = challenges.text_for(head.path)
        if text is None:
            return Answer(404, b"no authority was told to look here\n")
        return Answer(200, text, content_type="application/octet-stream")

    return route


def _records(settings: Settings) -> DnsRecords | None:
    dns = settings.tls.dns
    if dns.hook is not None:
        return Hook(dns.hook)
    updates = dns.rfc2136
    if updates is None:
        return None
    # Here and not above: a library of its own, which few sites need.
    from appliance.tls.acme.rfc2136 import Rfc2136, UpdateKey

    key = None
    if updates.key_file is not None:
        secret: Callable[[], str] = partial(read_secret, updates.key_file)
        key = UpdateKey(updates.key_name, updates.key_algorithm, secret)
    return Rfc2136(updates.server.host, updates.server.port, key, updates.zone)
