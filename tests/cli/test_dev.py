"""``headwater dev``: what it tells people (its running is tested in ``tests/serve``)."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.cli.dev import _settings, words
from appliance.cli.root import run
from appliance.config import build


def said(url: str, ca_file: Path | None) -> str:
    return words(url, ca_file, "hskey-auth-x", Path("/d"), Path("/d/s"))


def test_without_tls_it_says_what_does_not_work() -> None:
    """Real clients 1: the relay is dead, and there is no certificate to trust."""
    plain = said("http://127.0.0.1:8080", None)
    assert "the relay serves nobody" in plain
    assert "public name or address" in plain
    assert "no certificate to trust" in plain
    assert "must trust the certificate" not in plain
    assert "SSL_CERT_FILE" not in plain


def test_with_tls_it_says_what_to_trust() -> None:
    text = said("https://127.0.0.1:8443", Path("/d/ca.pem"))
    assert "SSL_CERT_FILE=/d/ca.pem tailscaled" in text
    assert "relay" not in text


def test_a_public_address_without_tls_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real clients 1: nodes would be lost at the first interruption."""
    line = ["dev", "--http", "--host", "127.0.0.1", "--name", "hw.example.com"]
    assert run([*line, "--dir", str(tmp_path)]) == 1
    complaint = capsys.readouterr().err
    assert "insist on TLS" in complaint
    assert "Traceback" not in complaint


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "any"])  # noqa: S104  # named, not bound
def test_the_address_of_all_is_none_to_dial(tmp_path: Path, host: str) -> None:
    plan = _settings(tmp_path, [host], "", {"port": 8443, "stun": 0}, plain=False, log_level="info")
    settings = build(plan)
    assert settings.host in ("127.0.0.1", "::1")
    assert settings.derp.server.ipv4 is None
