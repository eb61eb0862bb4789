"""Certificates for the lab: an authority, what it issues, and self-signed ones with their pins.

For: servers and relays of the interop tests. Not for: the program's own local authority
(`appliance/tls`), which these tests must not depend on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=30)
# Clients' clocks are the machine's; the margin is for a clock that steps back during the tests.
MARGIN = timedelta(hours=1)


_SIGNS = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(
    subject: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - MARGIN)
        .not_valid_after(now + LIFETIME)
    )


def _leaf(
    hosts: Sequence[str],
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    return (
        _builder(hosts[0], issuer, key)
        .add_extension(
            x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # Python from 3.13 on wants to be told whose signature it is, and which key the signer has.
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )


def _write(
    path: Path, key_path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.touch(mode=0o600)
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


class Authority:
    """A certificate authority of one lab; clients trust it through SSL_CERT_FILE."""

    def __init__(self, directory: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issuer = _name("Headwater interop authority")
        certificate = (
            _builder("Headwater interop authority", self._issuer, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .add_extension(_SIGNS, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / "authority.crt"
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, path: Path, key_path: Path, hosts: Sequence[str]) -> None:
        """Write a certificate for these names and addresses, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, key_path, _leaf(hosts, self._issuer, key.public_key(), self._key), key)


def self_signed(path: Path, key_path: Path, hosts: Sequence[str]) -> str:
    """Write a self-signed certificate and its key; return the pin for a DERP map."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _leaf(hosts, _name(hosts[0]), key.public_key(), key)
    _write(path, key_path, certificate, key)
    return "sha256-raw:" + hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
