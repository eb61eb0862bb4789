"""``headwater ssh`` and ``headwater auth``."""

from __future__ import annotations

import pytest

from tests.api.conftest import House
from tests.api.test_ssh import waiting
from tests.cli.conftest import Terminal


def wait(terminal: Terminal) -> str:
    async def work(house: House) -> str:
        return (await waiting(house)).id

    return str(terminal.inside(work))


def test_pending_is_a_table_and_json(terminal: Terminal) -> None:
    check_id = wait(terminal)
    head, row = terminal.ok("ssh", "pending").splitlines()
    assert [cell.strip() for cell in head.split("|")] == [
        "ID", "From", "Owner", "To", "As", "Asked", "Until",
    ]  # fmt: skip
    assert [cell.strip() for cell in row.split("|")][:5] == [
        check_id, "laptop", "alice", "srv", "root",
    ]  # fmt: skip
    assert [each["id"] for each in terminal.json("ssh", "list")] == [check_id]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["ssh", "approve", "{}"], "Login approved"),
        (["ssh", "deny", "{}"], "Login denied"),
        (["auth", "approve", "--auth-id", "{}"], "Login approved"),
        (["auth", "reject", "--auth-id", "{}"], "Login rejected"),
    ],
)
def test_decisions(terminal: Terminal, line: list[str], said: str) -> None:
    words = [word.format(wait(terminal)) for word in line]
    assert terminal.ok(*words).strip() == said
    assert terminal.json("ssh", "pending") == []
    assert "no SSH login waits" in terminal.fails(*words)


def test_an_id_that_is_none_is_refused_in_words(terminal: Terminal) -> None:
    assert "no SSH login waits" in terminal.fails("ssh", "approve", "../../x?y")
