"""Canaille (of pytest-iam) as a provider: signs RS512 and shows no ``iss`` in its answer.

Not a test of ours: pytest-iam serves by a fixture only, so its own pytest runs this file. PORT and
REDIRECT are in the environment; it serves until its standard input is closed. Alice is signed in.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest


@pytest.fixture(scope="session")
def iam_server_port() -> int:
    """Use the port that was asked for."""
    return int(os.environ["PORT"])


def test_serve(iam_server: Any) -> None:
    """Serve alice, who is in two groups, to one client."""
    alice = iam_server.random_user(
        user_name="alice", emails=["alice@example.com"], formatted_name="Alice"
    )
    for name in ("engineers", "staff"):
        iam_server.random_group(display_name=name, members=[alice])
    client = iam_server.models.Client(
        client_id="headwater",
        client_secret="s3cret",  # a test's
        client_name="headwater",
        redirect_uris=[os.environ["REDIRECT"]],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope=["openid", "email", "profile", "groups"],
        token_endpoint_auth_method="client_secret_basic",  # a method
    )
    iam_server.backend.save(client)
    client.audience = [client]
    iam_server.backend.save(client)
    iam_server.login(alice)
    iam_server.consent(alice, client)
    print("ready", flush=True)  # who started us waits for it
    sys.stdin.read()
