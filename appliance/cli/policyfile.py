"""Policy files on the command line: read from a name or standard input, mistakes shown in place.

Not for what a policy means. Mistakes are shown as FILE:LINE:COLUMN, which editors and CI jobs read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from appliance.cli.client import CommandFailed, Plain
from appliance.cli.output import render

STDIN = "-"
PATHS = click.Path(allow_dash=True)
"""Names of files: shells complete them. Whether they are there is seen when they are opened."""
MAX_BYTES = 4 << 20
"""The server takes 1 MiB; a larger file is another one by mistake."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A text and what to call it."""

    name: str
    text: str


def read(path: str) -> PolicyFile:
    """Read a policy file, or standard input for ``-``. Raises CommandFailed."""
    name = "<stdin>" if path == STDIN else path
    try:
        if path == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise CommandFailed(f"{name} is longer than {MAX_BYTES} bytes: is it a policy?")
    try:
        return PolicyFile(name, data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CommandFailed(f"{name}:{line}: a policy is UTF-8 text, this is not") from error


class PolicyRefused(CommandFailed):
    """A policy that was refused; ``mistakes`` have line, column and message.

    ``file`` is the one that they are in where it is not the one that the command is about.
    """

    def __init__(
        self, sentence: str, mistakes: Sequence[Plain], file: PolicyFile | None = None
    ) -> None:
        super().__init__(sentence)
        self.mistakes = tuple(mistakes)
        self.file = file


def placed(file: PolicyFile, mistakes: Sequence[Plain], what: str = "") -> list[str]:
    """Give one line for each mistake, with its place."""
    return [f"{file.name}:{m['line']}:{m['column']}: {what}{m['message']}" for m in mistakes]


def told(file: PolicyFile, refusal: PolicyRefused) -> list[str]:
    """Give what people are told of a policy that was refused."""
    file = refusal.file or file
    lines = placed(file, refusal.mistakes)
    # Scripts made for other servers look for these words.
    head = refusal.sentence.partition("\n")[0]
    return [f"{file.name}: {head}", *lines] if "test(s) failed" in head else lines


def complain(file: PolicyFile, refusal: PolicyRefused, output: str) -> NoReturn:
    """Say on standard error what is wrong with a file, and end with exit code 1."""
    lines = told(file, refusal)
    if output.startswith("json"):
        problem = {"error": "\n".join(lines), "mistakes": list(refusal.mistakes)}
        click.echo(render("json-line", problem), err=True)
    else:
        click.echo("\n".join(lines), err=True)
    raise click.exceptions.Exit(1)
