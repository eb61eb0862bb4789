"""How the command line says things: tables for people, JSON and YAML for programs.

Not for asking the server (``client``). The columns and the machine forms are Headscale's, so that
scripts move over.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import click

from appliance.cli.client import CommandFailed

FORMATS = ("json", "json-line", "yaml")
RELEASES = ("0.29", "0.30")
"""Releases of Headscale whose machine forms differ (``peerforms``)."""
_YES = frozenset({"y", "yes", "sure"})


def emit(output: str, value: object, text: str | Callable[[], str]) -> None:
    """Print ``value`` in the machine form that was asked for, or else ``text``."""
    if output:
        click.echo(render(output, value))
    else:
        click.echo(text() if callable(text) else text)


def render(output: str, value: object) -> str:
    """Give ``value`` as JSON (tab-indented), one line of JSON, or YAML."""
    if output == "json":
        return json.dumps(value, indent="\t", ensure_ascii=False)
    if output == "json-line":
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    from appliance.config.yamlfile import dump  # slow to import; few ask for it

    return dump(value).rstrip()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out rows under their column names, separated by bars."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(width_of(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join(
        " | ".join(
            cell + " " * (width - width_of(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in cells
    )


def width_of(text: str) -> int:
    """Count the cells that a terminal needs for a text. Source: Unicode annex 11."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def moment(text: object, never: str = "N/A") -> str:
    """Show a time of the API in UTC, as Headscale does; null is ``never``."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return never
    return parse_time(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time; without a zone it is UTC. Raises ValueError."""
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def complain(output: str, sentence: str, advice: str = "") -> None:
    """Say on standard error what went wrong, and what to do next."""
    if output:
        text = f"{sentence} ({advice})" if advice else sentence
        click.echo(render(output, {"error": text}), err=True)
        return
    click.echo(f"Error: {sentence}", err=True)
    if advice:
        click.echo(f"Next: {advice}", err=True)


def confirm(question: str, *, force: bool) -> bool:
    """Ask before something that cannot be undone; the answer may come from a pipe.

    Raises CommandFailed where there is nobody to ask: a script must not take that for done.
    """
    if force:
        return True
    click.echo(f"{question} [y/n] ", err=True, nl=False)
    answer = sys.stdin.readline()
    if not sys.stdin.isatty():
        click.echo(err=True)
    if not answer:
        raise CommandFailed(
            "not confirmed: nobody answered", "answer y, or use --force to do it without asking"
        )
    return answer.strip().lower() in _YES
