"""``headwater health`` and ``headwater version``."""

from __future__ import annotations

import platform
import sys
from typing import cast

import click

from appliance import __version__
from appliance.cli.client import CommandFailed, Plain
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
    client = invocation.client()
    try:
        answer = client.get("/api/v1/health")
    except CommandFailed as failure:
        if failure.answer.get("databaseConnectivity") is not False:
            raise
        trouble = failure.answer.get("databaseTrouble") or "the database does not answer"
        raise CommandFailed(str(trouble), "the server's log says more") from failure
    troubles = _troubles(answer)
    invocation.tell(client, answer, SERVES if troubles else WELL)
    warnings = (f"warning: {each}" for each in cast(list[str], answer.get("warnings") or []))
    for said in (*troubles, *warnings):
        click.echo(said, err=True)
    if answer.get("policyDeniesAll"):
        raise CommandFailed("no policy can be used, so everything is denied", "mend the policy")


def _troubles(answer: Plain) -> list[str]:
    """Say what does not work now."""
    refused = cast(dict[str, str], answer.get("policyTrouble") or {})
    told = [
        f"the newest policy of tailnet {tailnet} is not in force: {trouble}"
        for tailnet, trouble in refused.items()
    ]
    if answer.get("certificateTrouble"):
        told.append(f"certificate: {answer['certificateTrouble']}")
    for each in cast(list[Plain], answer.get("failing") or []):
        about = f" ({each['about']})" if each["about"] else ""
        told.append(f"{each['name']}{about} fails since {each['since']}: {each['reason']}")
    return told


@click.command(cls=Command)
@click.pass_obj
def version(invocation: Invocation) -> None:
    """Print the version of this program."""
    about = {
        "version": __version__,
        "commit": "",
        "buildTime": "",
        "go": {"version": "", "os": sys.platform, "arch": platform.machine()},
        "dirty": False,
        "python": platform.python_version(),
    }
    emit(invocation.output, about, f"headwater {__version__}")
