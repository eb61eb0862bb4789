"""``headwater config convert``: Headscale's identity provider is one of ours afterwards."""

from __future__ import annotations

from datetime import timedelta

from tests.cli.test_convert import SECRET, converted, remarks


def test_an_identity_provider_comes_over_whole() -> None:
    theirs = {
        "oidc": {
            "issuer": "https://id.example.com",
            "client_id": "hs",
            "client_secret_path": "/run/secret",
            "expiry": "180d",
            "scope": ["profile", "email", "groups"],
            "extra_params": {"prompt": "select_account", "max_age": 7},
            "allowed_domains": ["example.com"],
            "allowed_users": ["a@example.com"],
            "allowed_groups": ["/staff"],
            "pkce": {"enabled": True, "method": "plain"},
        }
    }
    (provider,) = converted(theirs).oidc
    assert (provider.name, provider.issuer, provider.client_id) == (
        "oidc",
        "https://id.example.com",
        "hs",
    )
    assert str(provider.client_secret_file) == "/run/secret"
    assert provider.scopes == ("openid", "profile", "email", "groups")
    assert provider.extra_params == {"prompt": "select_account", "max_age": "7"}
    assert provider.allowed_domains == ("example.com",)
    assert provider.allowed_users == ("a@example.com",)
    assert provider.allowed_groups == ("/staff",)
    assert provider.key_expiry == timedelta(days=180)
    assert (provider.pkce, provider.email_verified_required) == (True, True)
    assert "S256 is used" in remarks(theirs)


def test_a_secret_in_the_file_goes_into_one_of_its_own() -> None:
    theirs = {
        "oidc": {"issuer": "https://id.example.com", "client_id": "hs", "client_secret": SECRET}
    }
    (provider,) = converted(theirs).oidc
    assert str(provider.client_secret_file) == "oidc-client-secret"
    assert "/etc/headwater/secrets/oidc-client-secret" in remarks(theirs)


def test_expiry_from_the_token_counts_more_than_a_period() -> None:
    oidc = {"issuer": "https://id.example.com", "client_id": "hs", "use_expiry_from_token": True}
    (provider,) = converted({"oidc": {**oidc, "expiry": "180d"}}).oidc
    assert (provider.use_expiry_from_token, provider.key_expiry) == (True, None)


def test_without_an_issuer_there_is_no_provider() -> None:
    assert converted({"oidc": {"only_start_if_oidc_is_available": True}}).oidc == ()
