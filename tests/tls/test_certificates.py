"""Certificates made here, and PEM files loaded into TLS contexts."""

from __future__ import annotations

import hashlib
import shutil
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from appliance.files import write_whole
from appliance.tls.certificates import Certificate, CertificateError, read_facts, server_context
from appliance.tls.localca import LocalCa, ensure_self_signed


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> ssl.SSLObject:
    """Let the two shake hands in memory; gives the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    done = set[ssl.SSLObject]()
    for _ in range(10):
        for side in (theirs, ours):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                continue
        if len(done) == 2:
            return theirs
    raise AssertionError("the handshake does not come to an end")


def trusting(ca_file: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca_file))


def test_local_ca_serves_names_and_addresses(tmp_path: Path) -> None:
    ca = LocalCa(tmp_path / "ca")
    pair = ca.ensure(["control.test", "127.0.0.1", "::1"])
    context = server_context(pair.path)
    for name in ("control.test", "127.0.0.1", "::1"):
        assert handshake(context, trusting(ca.ca_file), name).version() == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, trusting(ca.ca_file), "other.test")


def test_local_ca_keeps_its_files_private(tmp_path: Path) -> None:
    ca = LocalCa(tmp_path / "ca")
    pair = ca.ensure(["control.test"])
    assert stat.S_IMODE(pair.path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca" / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "ca").iterdir()) == [
        "ca.key",
        "ca.pem",
        "server.pem",
    ]


def test_local_ca_is_made_once_and_its_leaf_when_needed(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ca = LocalCa(tmp_path, now=lambda: now)
    first = ca.ensure(["a.test"])
    authority = ca.ca_file.read_bytes()
    assert ca.ensure(["a.test"]) == first
    other = ca.ensure(["a.test", "b.test"])
    assert other.pin != first.pin
    now += timedelta(days=390)
    renewed = ca.ensure(["a.test", "b.test"])
    assert renewed.pin != other.pin
    assert ca.ca_file.read_bytes() == authority


def test_local_ca_replaces_a_leaf_of_another_ca(tmp_path: Path) -> None:
    ca = LocalCa(tmp_path / "one")
    first = ca.ensure(["a.test"])
    stranger = LocalCa(tmp_path / "two").ensure(["a.test"])
    shutil.copy(stranger.path, first.path)
    assert ca.ensure(["a.test"]).pin not in (first.pin, stranger.pin)


def test_damaged_leaf_is_made_again(tmp_path: Path) -> None:
    ca = LocalCa(tmp_path)
    pair = ca.ensure(["a.test"])
    pair.path.write_bytes(pair.path.read_bytes()[:200])
    assert handshake(server_context(ca.ensure(["a.test"]).path), trusting(ca.ca_file), "a.test")


def test_self_signed_certificate_is_kept_for_its_pin(tmp_path: Path) -> None:
    path = tmp_path / "relay" / "pinned.pem"
    pair = ensure_self_signed(path, ["192.0.2.7"])
    assert ensure_self_signed(path, ["192.0.2.7"]) == pair
    assert path.read_bytes().count(b"BEGIN CERTIFICATE") == 1
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    shown = handshake(server_context(path), client, None).getpeercert(binary_form=True)
    assert shown is not None
    assert pair.pin == "sha256-raw:" + hashlib.sha256(shown).hexdigest()
    assert ensure_self_signed(path, ["192.0.2.8"]).pin != pair.pin
    assert read_facts(path).names == ("192.0.2.8",)


def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    context = server_context(LocalCa(tmp_path).ensure(["a.test"]).path)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_a_damaged_authority_keeps_its_good_leaf(tmp_path: Path) -> None:
    """D2: the key of the authority is needed for a new certificate, not for the one at hand."""
    ca = LocalCa(tmp_path)
    pair = ca.ensure(["a.test"])
    (tmp_path / "ca.key").write_text("garbage")
    assert ca.ensure(["a.test"]) == pair
    with pytest.raises(CertificateError, match="remove both"):
        ca.ensure(["b.test"])
    with pytest.raises(ValueError, match="needs a name"):
        ca.ensure([])


def test_missing_and_encrypted_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match=r"nowhere\.pem"):
        Certificate.load(tmp_path / "nowhere.pem")
    text = LocalCa(tmp_path).ensure(["a.test"]).path.read_bytes()
    key = serialization.load_pem_private_key(text[text.index(b"-----BEGIN PRIVATE") :], None)
    secret = tmp_path / "secret.pem"
    secret.write_bytes(
        x509.load_pem_x509_certificate(text).public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"open sesame"),
        )
    )
    with pytest.raises(CertificateError, match="encrypted"):
        Certificate.load(secret)


def test_private_files_are_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "there" / "file"
    with pytest.raises(FileNotFoundError):
        write_whole(target, b"x")
    target.parent.mkdir()
    write_whole(target, b"old")
    target.chmod(0o644)
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["file"]
