"""``headwater oauth-clients``."""

from __future__ import annotations

from tests.cli.conftest import Terminal


def test_clients_are_made_listed_and_deleted(terminal: Terminal) -> None:
    secret = terminal.ok(
        "oauth-clients", "create", "--scope", "auth_keys", "--tags", "tag:ci"
    ).strip()
    assert secret.startswith("tskey-client-")
    client_id = secret.split("-")[2]
    listing = terminal.ok("oauth-clients", "list")
    assert client_id in listing
    assert secret not in listing
    assert "tag:ci" in listing
    assert "Client deleted" in terminal.ok("oauth-clients", "delete", "-i", client_id)
    assert terminal.json("oauth-clients", "list") == []
    assert "no key" in terminal.fails("oauth-clients", "delete", "-i", client_id)
    assert "needs tags" in terminal.fails("oauth-clients", "create", "--scope", "auth_keys")
