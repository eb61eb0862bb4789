"""``headwater health`` and ``headwater version``."""

from __future__ import annotations

import platform
from typing import Any

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

    Standard error has what is only worth a warning: a policy that was refused while the one before
    is in force, background work that fails and is tried again, doubtful settings.
    """
    answer = invocation.client().get("/api/v1/health")
    troubles = answer.get("policyTrouble")
    failing, warnings = _list(answer, "failing"), _list(answer, "warnings")
    emit(invocation.output, answer, SERVES if troubles or failing else WELL)
    if isinstance(troubles, dict):
        for tailnet, trouble in troubles.items():
            said = f"the newest policy of tailnet {tailnet} is not in force: {trouble}"
            click.echo(said, err=True)
    for each in failing:
        about = f" ({each['about']})" if each["about"] else ""
        said = f"{each['name']}{about} fails since {each['since']}: {each['reason']}"
        click.echo(said, err=True)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if not answer.get("databaseConnectivity"):
        raise CommandFailed("the server does not reach its database", "look at the server's log")
    if answer.get("policyDeniesAll"):
        raise CommandFailed("no policy can be used, so everything is denied", "mend the policy")


def _list(answer: dict[str, object], name: str) -> list[Any]:
    found = answer.get(name)
    return found if isinstance(found, list) else []


@click.command(cls=Command)
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Print the version of this program."""
    about = {"version": __version__, "python": platform.python_version()}
    emit(invocation.output, about, f"headwater {__version__}")
