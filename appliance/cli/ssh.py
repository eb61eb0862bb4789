"""``headwater ssh``: SSH logins that the policy wants somebody to vouch for.

Headscale's spelling of the same is in ``auth``.
"""

from __future__ import annotations

from typing import cast
from urllib.parse import quote

import click

from appliance.cli.client import Plain
from appliance.cli.output import emit, moment, table
from appliance.cli.root import Group, Invocation


@click.group(cls=Group)
def ssh() -> None:
    """Approve or deny SSH logins that the policy has checked.

    \b
    Example:
      headwater ssh pending
      headwater ssh approve k7m2p9xq4t
    """


@ssh.verb("pending", "list", "ls", "show")
@click.pass_obj
def pending(invocation: Invocation) -> None:
    """List the logins that wait."""
    found = cast(list[Plain], invocation.client().get("/api/v1/ssh/check")["checks"])
    emit(invocation.output, found, lambda: table(_COLUMNS, map(_row, found)))


@ssh.verb("approve", "accept")
@click.argument("check_id", metavar="ID")
@click.pass_obj
def approve(invocation: Invocation, check_id: str) -> None:
    """Let the login ID in; the policy says for how long that holds."""
    _decide(invocation, check_id, "approve", "Login approved")


@ssh.verb("deny", "reject")
@click.argument("check_id", metavar="ID")
@click.pass_obj
def deny(invocation: Invocation, check_id: str) -> None:
    """Turn the login ID away."""
    _decide(invocation, check_id, "deny", "Login denied")


def _decide(invocation: Invocation, check_id: str, verb: str, done: str) -> None:
    path = f"/api/v1/ssh/check/{quote(check_id, safe='')}/{verb}"
    emit(invocation.output, invocation.client().post(path)["check"], done)


_COLUMNS = ("ID", "From", "Owner", "To", "As", "Asked", "Until")


def _row(check: Plain) -> tuple[object, ...]:
    return (
        check["id"],
        check["source"],
        check["owner"],
        check["destination"],
        check["localUser"],
        moment(check["askedAt"]),
        moment(check["expiresAt"]),
    )
