"""The authority's open questions, and what answers them: certificates on 443, texts on 80.

Who asks for a certificate puts answers here for as long as the authority may look; the listeners read
them. Not for the DNS (``acme.dns``).
Source: RFC 8555 section 8.3 (HTTP-01); RFC 8737 and RFC 8738 (TLS-ALPN-01, for addresses too).
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HTTP_PREFIX = "/.well-known/acme-challenge/"
ALPN_PROTOCOL = "acme-tls/1"

_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTETS_32 = b"\x04\x20"
"""The head of an OCTET STRING of 32 bytes in DER."""


class Challenges:
    """Answers to questions that are open now."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._texts: dict[str, bytes] = {}
        self.asked: dict[str, int] = {}
        """How often somebody came for the answer about a name."""

    @property
    def is_pending(self) -> bool:
        """Whether a question is open that a certificate answers."""
        return bool(self._contexts)

    def context_for(self, server_name: str | None) -> ssl.SSLContext | None:
        """Return the certificate that answers the question about a name; None if there is none."""
        found = self._contexts.get(server_name or "")
        if found is not None and server_name is not None:
            self.asked[server_name] = self.asked.get(server_name, 0) + 1
        return found

    def text_for(self, path: str) -> bytes | None:
        """Return the text that answers the question at a path; None if there is none."""
        if not path.startswith(HTTP_PREFIX):
            return None
        token = path.removeprefix(HTTP_PREFIX)
        found = self._texts.get(token)
        if found is not None:
            self.asked[token] = self.asked.get(token, 0) + 1
        return found

    @contextmanager
    def by_certificate(self, name: str, key_authorization: str) -> Iterator[str]:
        """Answer on 443 while the block lasts; gives the key under which ``asked`` counts."""
        asked_as = server_name(name)
        self.asked.pop(asked_as, None)
        self._contexts[asked_as] = challenge_context(name, key_authorization)
        try:
            yield asked_as
        finally:
            self._contexts.pop(asked_as, None)

    @contextmanager
    def by_text(self, token: str, key_authorization: str) -> Iterator[str]:
        """Answer on 80 while the block lasts; gives the key under which ``asked`` counts."""
        self.asked.pop(token, None)
        self._texts[token] = key_authorization.encode()
        try:
            yield token
        finally:
            self._texts.pop(token, None)
            self.asked.pop(token, None)


def server_name(name: str) -> str:
    """Return the server name by which a validator asks: of an address, that of its reverse look-up."""
    try:
        return ip_address(name).reverse_pointer
    except ValueError:
        return name.lower()


def challenge_context(name: str, key_authorization: str) -> ssl.SSLContext:
    """Make the certificate that answers a question, and the context that serves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    general: x509.GeneralName
    try:
        general = x509.IPAddress(ip_address(name))
    except ValueError:
        general = x509.DNSName(name)
    digest = sha256(key_authorization.encode()).digest()
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(x509.SubjectAlternativeName([general]), critical=False)
        .add_extension(
            x509.UnrecognizedExtension(_ACME_IDENTIFIER, _OCTETS_32 + digest), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    context.set_alpn_protocols([ALPN_PROTOCOL])
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # ssl reads files only; mode 0600
        file.write(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.flush()
        context.load_cert_chain(Path(file.name))
    return context
