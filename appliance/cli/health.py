"""``headwater health`` and ``headwater version``."""

from __future__ import annotations

import platform

import click

from appliance import __version__
from appliance.cli.client import CommandFailed
from appliance.cli.output import emit
from appliance.cli.root import Command, Invocation

WELL = "The server is well and reaches its database."
SERVES = "The server reaches its database."


@click.command(cls=Command)
@click.pass_obj
def health(invocation: Invocation) -> None:
    """Ask the server whether it is well; exit code 0 means yes.

    A policy that was refused is told on standard error; while the one before is in force, the
    server is well.
    """
    answer = invocation.client().get("/api/v1/health")
    troubles = answer.get("policyTrouble")
    emit(invocation.output, answer, SERVES if troubles else WELL)
    if isinstance(troubles, dict):
        for tailnet, trouble in troubles.items():
            said = f"the newest policy of tailnet {tailnet} is not in force: {trouble}"
            click.echo(said, err=True)
    if not answer.get("databaseConnectivity"):
        raise CommandFailed("the server does not reach its database", "look at the server's log")
    if answer.get("policyDeniesAll"):
        raise CommandFailed("no policy can be used, so everything is denied", "mend the policy")


@click.command(cls=Command)
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Print the version of this program."""
    about = {"version": __version__, "python": platform.python_version()}
    emit(invocation.output, about, f"headwater {__version__}")
