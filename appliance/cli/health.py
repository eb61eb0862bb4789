"""``headwater health`` and ``headwater version``."""

from __future__ import annotations

import platform

import click

from appliance import __version__
from appliance.cli.client import CommandFailed
from appliance.cli.output import emit
from appliance.cli.root import Command, Invocation

WELL = "The server is well and reaches its database."


@click.command(cls=Command)
@click.pass_obj
def health(invocation: Invocation) -> None:
    """Ask the server whether it is well; exit code 0 means yes."""
    answer = invocation.client().get("/api/v1/health")
    troubles = answer.get("policyTrouble")
    said = "The server reaches its database." if troubles else WELL
    emit(invocation.output, answer, said)
    if not answer.get("databaseConnectivity"):
        raise CommandFailed("the server does not reach its database", "look at the server's log")
    if isinstance(troubles, dict):
        told = "\n".join(f"{tailnet}: {trouble}" for tailnet, trouble in troubles.items())
        raise CommandFailed(
            f"the newest policy is not in force\n{told}",
            "mend the policy; the one before stays in force until then",
        )


@click.command(cls=Command)
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Print the version of this program."""
    about = {"version": __version__, "python": platform.python_version()}
    emit(invocation.output, about, f"headwater {__version__}")
