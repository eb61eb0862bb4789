"""Which issuer gives the certificate of this process: the settings choose it.

Not for issuing or renewing (``tls``). The same for the server and for a relay that runs alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.config import Settings, secret_place
from appliance.tls.current import CurrentCertificate
from appliance.tls.issuers import FileIssuer, Issuer, LocalAuthority, SelfSigned


def issuer_of(settings: Settings, *, self_signed: bool = False) -> Issuer | None:
    """Return the issuer that ``tls.mode`` asks for; None without TLS."""
    tls, directory = settings.tls, settings.state_dir / "tls"
    if tls.mode == "off":
        return None
    if tls.cert_file is not None and tls.key_file is not None:
        return FileIssuer(secret_place(tls.cert_file), secret_place(tls.key_file))
    return SelfSigned(directory) if self_signed else LocalAuthority(directory)


async def open_certificate(
    settings: Settings, names: Sequence[str], *, self_signed: bool = False
) -> CurrentCertificate | None:
    """Obtain the first certificate; None without TLS. Raises CertificateError or OSError."""
    issuer = issuer_of(settings, self_signed=self_signed)
    return None if issuer is None else await CurrentCertificate.open(issuer, names)
