"""A certificate and its key, from PEM files to a TLS context; the facts that operators ask for.

Not for where certificates come from (``issuers``) nor for which one is in use (``current``).
"""

from __future__ import annotations

import ssl
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path
    from typing import Self

PIN_PREFIX = "sha256-raw:"


class CertificateError(Exception):
    """A certificate or key cannot be used; the text names the file and the fix."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What operators want to know about the certificate in use."""

    subject: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    pin: str
    """SHA-256 of the leaf's DER, as the DERP map's ``CertName`` wants it."""
    is_self_signed: bool
    """It stands alone and vouches for itself: clients can only trust it by its pin."""
    renewal_id: str
    """How its authority calls it; empty if it does not say which key signed it."""


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
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        pin=pin(leaf),
        is_self_signed=len(certificates) == 1 and leaf.issuer == leaf.subject,
        renewal_id=_renewal_id(leaf),
    )


def _renewal_id(leaf: x509.Certificate) -> str:
    """Name a certificate as authorities do. Source: RFC 9773 section 4.1."""
    try:
        signer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (ValueError, x509.ExtensionNotFound):
        return ""
    serial = leaf.serial_number
    # One bit more than the number needs: in DER its sign has room, too.
    number = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    parts = (signer.key_identifier or b"", number)
    return ".".join(urlsafe_b64encode(each).decode().rstrip("=") for each in parts)


def pin(leaf: x509.Certificate) -> str:
    """Give the pin for a DERP node's ``CertName``: ``sha256-raw:`` and the hash of the DER.

    Clients accept it only while exactly this one certificate is presented.
    Source: tailscale net/tlsdial (SetConfigExpectedCertHash).
    """
    return PIN_PREFIX + leaf.fingerprint(hashes.SHA256()).hex()


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, loaded: ready for listeners."""

    chain: Path
    context: ssl.SSLContext
    facts: Facts
    digest: bytes
    """Of the files; equal ones are the same certificate and key."""
    ca_file: Path | None = None
    """The file that clients must trust, if no public authority vouches for the certificate."""

    @classmethod
    def load(cls, chain: Path, key: Path | None = None, *, ca_file: Path | None = None) -> Self:
        """Load a PEM chain and its key, which may be one file. Blocking. Raises CertificateError."""
        context, facts = server_context(chain, key), read_facts(chain)
        digest = sha256(chain.read_bytes() + (key or chain).read_bytes()).digest()
        return cls(chain, context, facts, digest, ca_file)


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
