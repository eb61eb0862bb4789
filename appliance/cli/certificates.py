"""``headwater certificates``: what is served, what is wrong with it, a new one."""

from __future__ import annotations

import time
from typing import cast

import click

from appliance.cli.client import Client, CommandFailed, Plain
from appliance.cli.output import emit, moment, table
from appliance.cli.root import Group, Invocation

_PATH = "/api/v1/certificate"
WAIT_S = 300.0
"""How long ``renew`` waits for an end; an authority usually needs some seconds."""
LOOK_S = 0.5


@click.group(cls=Group)
def certificates() -> None:
    """Look at the certificate of the server, and have it renewed.

    \b
    Example:
      headwater certificates list
      headwater certificates check && echo fine
      headwater certificates renew
    """


@certificates.verb("list", "ls", "show")
@click.pass_obj
def list_certificates(invocation: Invocation) -> None:
    """List the certificates that are served."""
    found = _found(invocation.client())
    emit(invocation.output, found, lambda: table(_COLUMNS, map(_row, found)))


@certificates.verb("check")
@click.pass_obj
def check(invocation: Invocation) -> None:
    """Say what is wrong with the certificate and what to do; exit code 0 means nothing is."""
    found = _found(invocation.client())
    problems = [str(each) for one in found for each in cast(list[object], one["problems"])]
    if problems and not invocation.output:
        raise CommandFailed(*_told(problems))
    emit(invocation.output, found, lambda: "\n".join(map(_fine, found)) or "no TLS, no certificate")
    if problems:
        raise CommandFailed(*_told(problems))


@certificates.verb("renew")
@click.option("--no-wait", is_flag=True, help="Do not wait for the new certificate.")
@click.pass_obj
def renew(invocation: Invocation, no_wait: bool) -> None:  # click's way
    """Ask for a new certificate though none is due.

    The server asks as soon as the authority's limits allow; what is served meanwhile stays.
    """
    client = invocation.client()
    answer = client.post(f"{_PATH}/renew")
    at = moment(answer["askedAt"])
    if no_wait:
        emit(invocation.output, answer, f"It is asked for at {at} UTC or soon after")
        return
    ended = _wait(client, cast(int, answer["attempts"]))
    if ended is None:
        told = f"no end yet; it is asked for at {at} UTC or soon after"
        raise CommandFailed(told, "look with: headwater certificates check")
    if ended["trouble"]:
        raise CommandFailed(str(ended["trouble"]), str(ended["advice"]))
    emit(invocation.output, ended, f"Certificate renewed, valid until {moment(ended['notAfter'])}")


def _wait(client: Client, attempts: int) -> Plain | None:
    """Look until one more attempt has ended; None if that takes too long."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = _found(client)
        if found and cast(int, found[0]["attempts"]) > attempts and not found[0]["doing"]:
            return found[0]
        asked_again_at = found[0]["askedAgainAt"] if found else None
        if asked_again_at is not None and not found[0]["doing"]:
            return None  # the authority's limits: that is hours and not seconds
        time.sleep(LOOK_S)
    return None


def _found(client: Client) -> list[Plain]:
    return cast(list[Plain], client.get(_PATH)["certificates"])


def _told(problems: list[str]) -> tuple[str, str]:
    return "; ".join(problems), "see docs/tls.md and the server's log"


def _fine(one: Plain) -> str:
    names = ", ".join(cast(list[str], one["names"]))
    return f"The certificate for {names} is valid until {moment(one['notAfter'])}."


_COLUMNS = ("Source", "Names", "Valid until", "Renewed at", "State")


def _row(one: Plain) -> tuple[object, ...]:
    problems = cast(list[str], one["problems"])
    state = one["doing"] or ("; ".join(problems) if problems else "well")
    names = ", ".join(cast(list[str], one["names"]))
    return one["source"], names, moment(one["notAfter"]), moment(one["renewAt"], "-"), state
