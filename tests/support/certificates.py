"""Certificates for tests: a self-signed one for a name and an address, made in memory."""

from __future__ import annotations

import functools
import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed_pem(name: str = "localhost") -> bytes:
    """Give the certificate for ``name``, 127.0.0.1 and ::1; chain and key in one text."""
    return _made(name)


@functools.cache
def _made(name: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *addresses]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def server_context(name: str = "localhost") -> ssl.SSLContext:
    """Make a server's TLS context with a certificate of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(self_signed_pem(name))
        file.flush()
        context.load_cert_chain(Path(file.name))
    return context


def client_context(name: str = "localhost") -> ssl.SSLContext:
    """Make a client's TLS context that trusts the certificate of ``server_context``."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    pem = self_signed_pem(name)
    end = b"-----END CERTIFICATE-----\n"
    context.load_verify_locations(cadata=pem[: pem.index(end) + len(end)].decode())
    return context
