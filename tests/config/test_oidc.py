"""Identity providers in a site file: what cannot work, or is dangerous, is refused with the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from appliance import config
from appliance.config import ConfigError

GOOD = {"issuer": "https://id.example.com", "client_id": "hw", "client_secret_file": "/s"}


def site(*providers: dict[str, Any], **more: Any) -> config.Settings:
    base: dict[str, Any] = {"server_url": "https://hw.example.com", "tls": {"mode": "off"}}
    return config.build({**base, "oidc": list(providers), **more})


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"issuer": "id.example.com"}, "issuer"),
        ({"issuer": "http://id.example.com"}, "issuer"),
        ({"issuer": "https://id.example.com/.well-known/openid-configuration"}, "issuer"),
        ({"issuer": "https://id.example.com/?x=1"}, "issuer"),
        ({"issuer": "https://u:p@id.example.com"}, "issuer"),
        ({"issuer": "https://[::1"}, "issuer"),
        ({"issuer": "javascript:alert(1)"}, "issuer"),
        ({"client_id": " "}, "client_id"),
        ({"scopes": ["profile"]}, "scopes"),
        ({"client_secret_file": None, "pkce": False}, "pkce"),
        ({"client_secret_file": None, "client_auth": "client_secret_post"}, "client_secret_file"),
        ({"client_auth": "none"}, "client_auth"),
        ({"extra_params": {"state": "x"}}, "extra_params.state"),
        ({"extra_params": {"redirect_uri": "x"}}, "extra_params.redirect_uri"),
        ({"allowed_domains": ["@example.com"]}, "allowed_domains[0]"),
        ({"allowed_users": ["alice"]}, "allowed_users[0]"),
        ({"use_expiry_from_token": True, "key_expiry": "1h"}, "key_expiry"),
        ({"roles": {"boss": "owner"}}, "roles.boss"),
        ({"tailnet": "other"}, "tailnet"),
        ({"name": "Company"}, "name"),
        ({"client_secret": "x"}, "client_secret"),
    ],
)
def test_providers_that_are_refused(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        site({**GOOD, **changes})
    assert f"oidc[0].{key}" in {mistake.path for mistake in caught.value.mistakes}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"issuer": "https://id.example.com/"},
        {"issuer": "https://id.example.com/realms/main"},
        {"issuer": "http://127.0.0.1:8080"},
        {"client_secret_file": None},
        {"roles": {"/admins": "admin"}, "allowed_users": ["a@example.com"]},
        {"extra_params": {"prompt": "select_account"}},
    ],
)
def test_providers_that_are_fine(changes: dict[str, Any]) -> None:
    assert len(site({**GOOD, **changes}).oidc) == 1


def test_names_are_unique() -> None:
    with pytest.raises(ConfigError, match=r"oidc\[1\].name"):
        site(GOOD, GOOD)
    assert len(site(GOOD, {**GOOD, "name": "other"}).oidc) == 2


def test_browsers_are_sent_back_over_tls_only() -> None:
    with pytest.raises(ConfigError, match="server_url"):
        site(GOOD, server_url="http://10.0.0.1:8080")
    site(GOOD, server_url="http://127.0.0.1:8080")
