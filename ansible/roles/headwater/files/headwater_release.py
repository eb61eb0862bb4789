#!/usr/bin/python3 -B
"""Change what runs on this host as one step that succeeds or is taken back.

``apply VERSION`` reads on standard input what a deploy wants: files, units, firewall, secrets. It
compares that with the host as it is, not with what was once written; puts it there together with a
release under /opt/headwater/releases; restarts or reloads what is concerned and waits until the service
is well. If it does not become well, all of it is put back, secrets and, where the schema moved, the
database too; after a first deploy, that is the host as it was. All of that happens here, so it also
ends well when whoever deploys is cut off. A firewall that is loaded must be proved: unless ``confirm``
comes in through it, a timer takes the deploy back.

The generation that ran well last is kept in good.json, its secrets beside it, for root alone. Needs
only the system's own Python, because a broken release must not break the way back. Not for writing
units or settings: the release's own renderer makes them.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headwater_host import BASE, Host
from headwater_state import REFUSED, Given, Outcome, Refused
from headwater_system import System

POLL_S = 0.25
NEEDS_NO_LOCK = ("look", "plan", "list")


@contextmanager
def alone(base: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Let only one at a time change this host; wait for another one to end. Raises Refused."""
    deadline = time.monotonic() + patience_s
    with (base / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Refused("another deploy is under way on this host") from None
            time.sleep(POLL_S)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    options = _parse(arguments)
    os.umask(0o022)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whoever deploys may be cut off
    host = Host(
        options.base,
        manager=System(options.came),
        timeout_s=options.timeout,
        settle_s=options.settle,
        prove_s=options.prove,
    )
    try:
        if options.command in NEEDS_NO_LOCK:
            answer = _ask(host, options)
        else:
            # A deploy that was cut off ends by itself, within about this time.
            with alone(host.base, options.timeout):
                answer = _change(host, options)
    except Refused as refusal:
        answer = Outcome("refused", host.current, reason=str(refusal))
        print(json.dumps(asdict(answer)))
        return REFUSED
    print(json.dumps(asdict(answer) if isinstance(answer, Outcome) else answer))
    return answer.exit_code if isinstance(answer, Outcome) else 0


def _ask(host: Host, options: argparse.Namespace) -> Outcome | dict[str, Any]:
    match options.command:
        case "look":
            return host.look()
        case "plan":
            return host.plan(options.version, Given.parse(sys.stdin.read()))
    good = host.read("good.json")
    previous = good.previous if good else ""
    return {"current": host.current, "previous": previous, "releases": host.releases}


def _change(host: Host, options: argparse.Namespace) -> Outcome | dict[str, Any]:
    match options.command:
        case "apply":
            return host.apply(options.version, Given.parse(sys.stdin.read()))
        case "confirm":
            return host.confirm()
        case "undo":
            return host.undo(options.reason)
        case "rollback":
            return host.rollback(options.version, restore_database=options.restore_database)
    return {"removed": host.prune(options.keep)}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="headwater-release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", type=Path, default=BASE, help=argparse.SUPPRESS)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to become well")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds to stay well")
    parser.add_argument(
        "--prove",
        type=float,
        default=0.0,
        help="seconds within which somebody must come in through a firewall that is loaded and say"
        " confirm, or it is taken back; 0: nobody must",
    )
    parser.add_argument(
        "--came", default="", help="SSH_CONNECTION of who asks, where root cannot read it"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("plan", "say what apply would change; standard input as there"),
        ("apply", "make what is on standard input, and a release, the ones that run"),
    ):
        commands.add_parser(name, help=words).add_argument("version")
    commands.add_parser("confirm", help="keep the firewall through which you have come in")
    undo = commands.add_parser("undo", help="take the last apply back")
    undo.add_argument("--reason", default="asked for")
    rollback = commands.add_parser("rollback", help="go back to an earlier release")
    rollback.add_argument("version", nargs="?", default="")
    rollback.add_argument("--restore-database", action="store_true")
    prune = commands.add_parser("prune", help="remove old releases")
    prune.add_argument("keep", type=int)
    commands.add_parser("look", help="who listens on this host, and how you have come in")
    commands.add_parser("list", help="name the releases")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
