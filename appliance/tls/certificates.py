"""The certificate that is served: files on disk, watched, swapped while connections run.

Not for how certificates come to be (``localca``, later ACME, or the operator). A listener asks
``CertificateFiles.context`` at every new connection; a broken new pair keeps the old one in use.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

POLL_S = 10.0
"""How soon a renewed certificate is noticed. Two stat calls; certificates live for weeks."""
PIN_PREFIX = "sha256-raw:"

Signature = tuple[tuple[int, int, int], ...]


class CertificateError(Exception):
    """A certificate or key cannot be used; the text names the file and the fix."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What operators want to know about the certificate in use."""

    subject: str
    names: tuple[str, ...]
    not_after: datetime
    pin: str
    """SHA-256 of the leaf's DER, as the DERP map's ``CertName`` wants it."""
    is_self_signed: bool
    """It stands alone and vouches for itself: clients can only trust it by its pin."""


def server_context(chain: Path, key: Path | None = None) -> ssl.SSLContext:
    """Make a server's TLS context: TLS 1.2 and newer, the client's order of ciphers.

    No ALPN: stock clients offer none, and browsers take HTTP/1.1 when nothing is chosen. Raises
    CertificateError for a pair that cannot be read or does not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    key = key or chain
    try:
        context.load_cert_chain(chain, key, password=_no_password)
    except ssl.SSLError as error:
        raise CertificateError(_explain(chain, key, error)) from error
    except OSError as error:
        path = error.filename or (chain if not chain.exists() else key)
        raise CertificateError(
            f"{path}: {error.strerror}; the server must be able to read it"
        ) from (error)
    return context


def read_facts(chain: Path) -> Facts:
    """Read what the first certificate of a chain says. Raises CertificateError."""
    try:
        certificates = x509.load_pem_x509_certificates(chain.read_bytes())
    except (OSError, ValueError) as error:
        raise CertificateError(f"{chain}: no certificate in PEM form: {error}") from error
    leaf = certificates[0]
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in found]
    except (x509.ExtensionNotFound, ValueError):
        names = []
    return Facts(
        subject=leaf.subject.rfc4514_string(),
        names=tuple(names),
        not_after=leaf.not_valid_after_utc,
        pin=pin(leaf),
        is_self_signed=len(certificates) == 1 and leaf.issuer == leaf.subject,
    )


def pin(leaf: x509.Certificate) -> str:
    """Give the pin for a DERP node's ``CertName``: ``sha256-raw:`` and the hash of the DER.

    Clients accept it only while exactly this one certificate is presented.
    Source: tailscale net/tlsdial (SetConfigExpectedCertHash).
    """
    return PIN_PREFIX + leaf.fingerprint(hashes.SHA256()).hex()


class CertificateFiles:
    """A PEM chain and its key (which may be one file), kept loaded and watched."""

    def __init__(self, chain: Path, key: Path | None = None, *, poll_s: float = POLL_S) -> None:
        self.chain = chain
        self.key = key or chain
        self.reloads = 0
        self.failures = 0
        self._poll_s = poll_s
        self._signature = self._look()
        self._context = server_context(self.chain, self.key)
        self.facts = read_facts(self.chain)
        self._warn_if_expired()

    def context(self) -> ssl.SSLContext:
        """Give the context in use (a ``TlsSource`` for listeners)."""
        return self._context

    def check(self) -> bool:
        """Load the files again if they have changed; tell whether a new pair is in use now.

        A pair that cannot be used is logged once and leaves the old one serving: renewal tools
        replace two files one after the other, and the next look finds both.
        """
        signature = self._look()
        if signature == self._signature:
            return False
        self._signature = signature
        try:
            context, facts = server_context(self.chain, self.key), read_facts(self.chain)
        except CertificateError as error:
            self.failures += 1
            log.error(  # noqa: TRY400 - the operator needs the sentence, not our stack
                "new certificate cannot be used, the old one stays",
                extra={"reason": str(error), "path": str(self.chain)},
            )
            return False
        self._context, self.facts = context, facts
        self.reloads += 1
        log.info(
            "certificate replaced",
            extra={"path": str(self.chain), "reason": f"valid until {facts.not_after:%Y-%m-%d}"},
        )
        self._warn_if_expired()
        return True

    async def watch(self) -> None:
        """Look for changed files for ever; a long task of the server."""
        while True:
            await asyncio.sleep(self._poll_s)
            self.check()

    def _look(self) -> Signature:
        """Say which files are there: modification time, inode and size, through links."""
        found = []
        for path in (self.chain, self.key):
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        return tuple(found)

    def _warn_if_expired(self) -> None:
        if self.facts.not_after < datetime.now(UTC):
            log.warning(
                "certificate has expired",
                extra={"path": str(self.chain), "reason": f"{self.facts.not_after:%Y-%m-%d}"},
            )


def _no_password() -> str:
    """Refuse encrypted keys: without this OpenSSL would ask at the terminal and wait."""
    return ""


def _explain(chain: Path, key: Path, error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if reason == "KEY_VALUES_MISMATCH":
        return f"{key} is not the key of the first certificate in {chain}"
    if reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ", "PROBLEMS_GETTING_PASSWORD"):
        return f"{key} is encrypted; store it without a passphrase, readable by the server only"
    return f"{chain} with {key}: {reason}; want a PEM chain, leaf first, and its PEM key"
