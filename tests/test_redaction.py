"""What is shown again never holds a secret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.redaction import is_secret, redact, redact_all

SECRET = "hunter2"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://hs:{SECRET}@db/hs",
        f"postgresql://hs:{SECRET}@1:{SECRET}@db/hs",
        f"postgresql://hs:a/{SECRET}?x#@db/hs",
        f"postgresql://db/hs?password={SECRET}&user=x",
        f"postgresql://db/hs?user=x&sslpassword={SECRET}",
        f"postgresql://db/hs?p%61ssword={SECRET}",
        f"postgresql://db/hs?PASSWORD={SECRET}",
        f"postgresql://db/hs?oauth_client_secret={SECRET}",
        f"postgresql://db/hs?scram_client_key={SECRET}",
        f"host=db user=hs password={SECRET}",
        f"host=db user=hs password='{SECRET} {SECRET}'",
        f"https://u:{SECRET}@hw.example.com",
        f"u:{SECRET}@hw.example.com:443",
        f"https://:{SECRET}@hw.example.com",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    ],
)
def test_a_secret_is_hidden(text: str) -> None:
    """H12: passwords in URLs, in every place where libpq and browsers take one."""
    assert SECRET not in redact(text)
    assert SECRET not in str(redact_all({"a": [text, {"b": text}]}))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://hs@db:5433/hs?sslmode=require&host=/run/postgresql",
        "https://hw.example.com:8443/path?a=b",
        "alice@example.com",
        "[::]:443",
        "fd7a:115c:a1e0::/48",
        "a text with = and : and nothing else",
        "",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text(min_size=1).filter(lambda text: "@" not in text and not set(text) & set("&;\n ='")))
def test_no_password_comes_through(password: str) -> None:
    marked = f"<{password}>"
    assert marked not in redact(f"https://user:{marked}@host/")


def test_secret_keys_are_known_by_name() -> None:
    for name in ("password", "db_pass", "client_secret", "api_key", "database.postgres.pass"):
        assert is_secret(name), name
    for name in ("passfile", "sslmode", "user", "host", "listen_addr"):
        assert not is_secret(name), name
