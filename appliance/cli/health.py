"""``headwater health`` and ``headwater version``."""

from __future__ import annotations

import platform

import click

from appliance import __version__
from appliance.cli.client import CommandFailed
from appliance.cli.output import emit
from appliance.cli.root import Command, Invocation


@click.command(cls=Command)
@click.pass_obj
def health(invocation: Invocation) -> None:
    """Ask the server whether it is well; exit code 0 means yes."""
    answer = invocation.client().get("/api/v1/health")
    emit(invocation.output, answer, "The server is well and reaches its database.")
    if not answer.get("databaseConnectivity"):
        raise CommandFailed("the server does not reach its database", "look at the server's log")


@click.command(cls=Command)
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Print the version of this program."""
    about = {"version": __version__, "python": platform.python_version()}
    emit(invocation.output, about, f"headwater {__version__}")
