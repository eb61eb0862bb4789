"""Certificates without a public CA: a small CA for development, and a self-signed one to be pinned.

Not for the public internet, and not for when to renew (``current``). Keys are written once, mode 0600,
whole or not at all; leaf and key share one file, so that a reader never sees half a pair.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.files import write_whole
from appliance.tls.certificates import CertificateError, pin

Clock = Callable[[], datetime]

CA_DAYS = 3650
"""People install this file by hand; they should not have to twice."""
LEAF_DAYS = 397
"""What browsers accept at most."""
RENEW_BEFORE = timedelta(days=30)
PINNED_DAYS = 1825
"""A new certificate changes the pin, and with it every client's relay map."""
BACKDATE = timedelta(hours=1)
"""Machines whose clock is a little slow shall join too."""
MAX_COMMON_NAME = 64


@dataclass(frozen=True, slots=True)
class Pair:
    """A PEM file with chain and key, and the pin of its leaf."""

    path: Path
    pin: str


def _utc_now() -> datetime:
    return datetime.now(UTC)


class LocalCa:
    """A CA of this machine in one directory: ``ca.pem`` to be trusted, ``ca.key``, ``server.pem``."""

    def __init__(self, directory: Path, *, now: Clock = _utc_now) -> None:
        self.directory = directory
        self.ca_file = directory / "ca.pem"
        self._key_file = directory / "ca.key"
        self.leaf_file = directory / "server.pem"
        self._now = now

    def ensure(self, names: Sequence[str]) -> Pair:
        """Give a certificate for these host names and addresses, made or renewed as needed.

        The authority's key is needed only for a new one, so damage to it harms nothing before
        ``RENEW_BEFORE`` runs out. Raises CertificateError when what is in the directory cannot be read.
        """
        if not names:
            raise ValueError("a certificate needs a name or an address")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        leaf, known = _read_leaf(self.leaf_file), _read_certificate(self.ca_file)
        if leaf is None or known is None or not self._is_good(leaf, known, names):
            leaf = self._make_leaf(*self._ensure_ca(), names)
        return Pair(self.leaf_file, pin(leaf))

    def _ensure_ca(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        with _alone(self.directory):  # a relay of its own process may share the directory
            if self.ca_file.exists() and self._key_file.exists():
                return _read_ca(self.ca_file, self._key_file)
            return self._make_ca()

    def _make_ca(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headwater local CA")])
        certificate = (
            self._builder(name, name, key.public_key(), CA_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, hashes.SHA256())
        )
        write_whole(self._key_file, _key_pem(key))
        write_whole(self.ca_file, _pem(certificate), mode=0o644)
        return certificate, key

    def _make_leaf(
        self, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, names: Sequence[str]
    ) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
        leaf = (
            _for_names(
                self._builder(_common_name(names), ca.subject, key.public_key(), LEAF_DAYS), names
            )
            .add_extension(issuer_id, critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        write_whole(self.leaf_file, _pem(leaf) + _pem(ca) + _key_pem(key))
        return leaf

    def _is_good(self, leaf: x509.Certificate, ca: x509.Certificate, names: Sequence[str]) -> bool:
        if leaf.not_valid_after_utc - RENEW_BEFORE < self._now():
            return False
        if leaf.issuer != ca.subject or _names_of(leaf) != _wanted(names):
            return False
        try:
            leaf.verify_directly_issued_by(ca)
        except Exception:  # noqa: BLE001 - the library lets several kinds out; all mean "no"
            return False
        return True

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
    ) -> x509.CertificateBuilder:
        return _builder(subject, issuer, key, self._now(), days)


def ensure_self_signed(path: Path, names: Sequence[str], *, now: Clock = _utc_now) -> Pair:
    """Give a self-signed certificate to be pinned: for relays on a bare address.

    It is kept until it expires or the names change, because the pin is in every client's relay
    map. Exactly one certificate is presented, which is what clients with a pin insist on.
    Source: tailscale cmd/derper (manual certificate mode), reference relay-lock-funnel 2.3, 2.7.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    leaf = _read_leaf(path)
    good = leaf is not None and leaf.not_valid_after_utc - RENEW_BEFORE > now()
    if leaf is None or not good or _names_of(leaf) != _wanted(names):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _common_name(names)
        leaf = _for_names(
            _builder(subject, subject, key.public_key(), now(), PINNED_DAYS), names
        ).sign(key, hashes.SHA256())
        write_whole(path, _pem(leaf) + _key_pem(key))
    return Pair(path, pin(leaf))


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other processes from making the same keys at the same time."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    days: int,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + timedelta(days=days))
    )


def _for_names(builder: x509.CertificateBuilder, names: Sequence[str]) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(names: Sequence[str]) -> x509.Name:
    fitting = next((name for name in names if len(name) <= MAX_COMMON_NAME), "headwater")
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, fitting)])


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _wanted(names: Sequence[str]) -> frozenset[str]:
    return frozenset(str(name.value) for name in _general_names(names))


def _names_of(leaf: x509.Certificate) -> frozenset[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return frozenset()
    return frozenset(str(name.value) for name in found)


def _read_leaf(path: Path) -> x509.Certificate | None:
    """Read the leaf of one of our files; None if it must be made (again)."""
    try:
        text = path.read_bytes()
        serialization.load_pem_private_key(text[text.index(b"-----BEGIN PRIVATE KEY") :], None)
        return x509.load_pem_x509_certificate(text)
    except (OSError, ValueError, TypeError):
        return None


def _read_certificate(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _read_ca(path: Path, key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise CertificateError(
            f"{path} with {key_path} cannot be read ({error}); remove both to make a new CA"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{key_path} is not a key of ours; remove it to make a new CA")
    return certificate, key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
