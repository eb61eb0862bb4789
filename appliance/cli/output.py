"""How the command line says things: tables for people, JSON and YAML for programs.

Not for asking the server (``client``). The columns and the machine forms are Headscale's, so that
scripts move over.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import click

FORMATS = ("json", "json-line", "yaml")


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
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return "\n".join(
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def moment(text: object, never: str = "N/A") -> str:
    """Show a time of the API in local time; null is ``never``."""
    if not isinstance(text, str) or text.startswith("0001-"):
        return never
    return parse_time(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time; without a zone it is UTC. Raises ValueError."""
    value = datetime.fromisoformat(text)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def complain(output: str, sentence: str, advice: str = "") -> None:
    """Say on standard error what went wrong, and what to do next."""
    if output.startswith("json"):
        text = f"{sentence} ({advice})" if advice else sentence
        click.echo(json.dumps({"error": text}, ensure_ascii=False), err=True)
        return
    click.echo(f"Error: {sentence}", err=True)
    if advice:
        click.echo(f"Next: {advice}", err=True)


def confirm(question: str, *, force: bool) -> bool:
    """Ask before something that cannot be undone; nobody at a terminal means no."""
    if force:
        return True
    if not sys.stdin.isatty():
        click.echo(f"{question} Not confirmed: use --force to do it without asking.", err=True)
        return False
    return click.confirm(question, err=True)
