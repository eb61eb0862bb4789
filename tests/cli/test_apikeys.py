"""``headwater apikeys``, with Headscale's verbs and flags."""

from __future__ import annotations

import json
import re
from typing import cast

from tests.cli.conftest import Terminal

OWN = "1000"
"""The id of the key with which the tests themselves ask, over the network."""


def others(keys: list[dict[str, object]]) -> list[dict[str, object]]:
    return [key for key in keys if str(key["id"]) != OWN]


def test_keys_are_made_listed_expired_and_deleted(terminal: Terminal) -> None:
    """D01."""
    text = terminal.ok("apikeys", "create", "-e", "30d").strip()
    assert re.fullmatch(r"hskey-api-[0-9a-f]{12}-[0-9a-f]{64}", text)
    assert json.loads(terminal.ok("apikey", "c", "-o", "json")).startswith("hskey-api-")
    prefix = text.split("-")[2]
    listing = terminal.ok("apikeys", "list")
    assert listing.split()[:3] == ["ID", "|", "Prefix"]
    assert f"hskey-api-{prefix}-***" in listing
    assert text not in listing
    assert "Key expired" in terminal.ok("apikeys", "expire", "--prefix", f"hskey-api-{prefix}-***")
    assert "Key expired" in terminal.ok("api", "revoke", "-i", "2")
    assert "Key deleted" in terminal.ok("apikeys", "delete", "-p", prefix)
    assert "Key deleted" in terminal.ok("apikeys", "remove", "-i", "2")
    assert others(terminal.json("apikeys", "list")) == []


def test_machine_forms_are_those_of_the_releases(terminal: Terminal) -> None:
    terminal.ok("apikeys", "create", "-e", "1d")
    (new,) = others(terminal.json("apikeys", "list", compat="0.30"))
    new.pop("createdBy", None)  # ours, where it is not the local socket
    assert set(new) == {"id", "prefix", "expiration", "createdAt", "lastSeen"}
    (old,) = others(terminal.json("apikeys", "list", compat="0.29"))
    old.pop("created_by", None)
    assert (old["id"], set(old)) == (1, {"id", "prefix", "expiration", "created_at"})
    assert set(cast(dict[str, int], old["expiration"])) >= {"seconds"}


def test_wrong_calls_are_told(terminal: Terminal) -> None:
    """D02."""
    for verb in ("expire", "delete", "rotate"):
        assert "--id" in terminal.fails("apikeys", verb)
        assert "not both" in terminal.fails("apikeys", verb, "-i", "1", "-p", "x")
        assert "no API key" in terminal.fails("apikeys", verb, "-p", "unknown")
    assert "duration" in terminal.fails("apikeys", "create", "-e", "soon")
    assert "no scope" in terminal.fails("apikeys", "create", "--scope", "everything")
    assert "alice" in terminal.fails("apikeys", "create", "-u", "alice")


def test_scopes_users_and_rotation(terminal: Terminal) -> None:
    terminal.ok("users", "create", "alice")
    terminal.ok("apikeys", "create", "--scope", "users:read,devices:core:read", "-u", "alice")
    listing = terminal.ok("apikeys", "list")
    assert "alice" in listing
    assert "devices:core:read, users:read" in listing
    text = terminal.ok("apikeys", "rotate", "-i", "1", "--grace", "0s").strip()
    assert text.startswith("hskey-api-")
    assert len(others(terminal.json("apikeys", "list"))) == 2
