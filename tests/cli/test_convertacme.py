"""``headwater config convert``: certificates that Headscale got are asked for here as they were there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cli.test_convert import converted


@pytest.mark.parametrize(
    ("theirs", "challenge", "plain"),
    [
        ({}, "http-01", [":80"]),
        ({"tls_letsencrypt_listen": ":http"}, "http-01", [":80"]),
        ({"tls_letsencrypt_listen": ":8081"}, "auto", [":8081"]),
        (
            {"tls_letsencrypt_challenge_type": "TLS-ALPN-01", "listen_addr": "0.0.0.0:443"},
            "tls-alpn-01",
            [],
        ),
    ],
)
def test_certificates_are_asked_for_as_before(
    theirs: dict[str, Any], challenge: str, plain: list[str]
) -> None:
    settings = converted(
        {
            "listen_addr": "0.0.0.0:443",
            "tls_letsencrypt_hostname": "hs.example.com",
            "acme_email": "ops@example.com",
            "acme_url": "https://acme-v02.api.letsencrypt.org/directory",
            **theirs,
        }
    )
    assert (settings.tls.mode, settings.tls.challenge) == ("acme", challenge)
    assert (settings.tls.email, settings.tls.directory) == ("ops@example.com", "")
    assert [str(each) for each in settings.listen_plain] == plain


def test_another_authority_and_another_name_come_over() -> None:
    theirs = {
        "listen_addr": "0.0.0.0:443",
        "tls_letsencrypt_hostname": "other.example.com",
        "acme_url": "https://acme.example.net/directory",
    }
    settings = converted(theirs)
    assert settings.tls.names == ("other.example.com",)
    assert settings.tls.directory == "https://acme.example.net/directory"
    staging = {**theirs, "acme_url": "https://acme-staging-v02.api.letsencrypt.org/directory"}
    assert converted(staging).tls.staging
