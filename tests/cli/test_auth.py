"""``headwater auth``, ``nodes register``, ``sign-in-link`` and ``users invite``."""

from __future__ import annotations

import pytest

from tests.api.conftest import House
from tests.api.test_logins import waiting
from tests.cli.conftest import Terminal


def ask(terminal: Terminal) -> str:
    async def inside(house: House) -> str:
        return waiting(house).url

    return str(terminal.inside(inside))


@pytest.mark.parametrize(
    "words",
    [
        ("auth", "register", "--user", "alice", "--auth-id"),
        ("nodes", "register", "-u", "alice", "-k"),
    ],
)
def test_device_is_let_in(terminal: Terminal, words: tuple[str, ...]) -> None:
    terminal.ok("users", "create", "alice")
    url = ask(terminal)
    assert url.rpartition("/")[2] in terminal.ok("auth", "pending")
    assert "laptop registered" in terminal.ok(*words, url)
    assert "laptop" in terminal.ok("nodes", "list")
    assert "no login with this id" in terminal.fails(*words, url)


def test_device_is_turned_away(terminal: Terminal) -> None:
    assert "Login rejected" in terminal.ok("auth", "reject", "--auth-id", ask(terminal))


def test_links_are_printed_with_their_end(terminal: Terminal) -> None:
    assert "/invite/" in terminal.ok("users", "invite", "bob")
    if terminal.is_remote:
        assert "Not Found" in terminal.fails("sign-in-link", "--user", "alice"), (
            "only on the server"
        )
        return
    assert "--user NAME" in terminal.fails("sign-in-link")
    said = terminal.ok("sign-in-link", "--user", "alice")
    assert said.startswith("https://control.example/signin/link/")
    assert "Good once, until" in said
