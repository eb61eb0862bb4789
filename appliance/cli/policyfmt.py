"""``headwater policy fmt``: policies in one style, printed, checked or written into their files.

Not for what a policy means: nothing is checked but that the text is HuJSON.
"""

from __future__ import annotations

from pathlib import Path

import click

from appliance.cli.client import CommandFailed
from appliance.cli.output import emit
from appliance.cli.policydesk import lay_out
from appliance.cli.policyfile import PATHS, STDIN, PolicyFile, PolicyRefused, complain, read
from appliance.cli.root import Command, Invocation
from appliance.files import write_whole


@click.command("fmt", cls=Command)
@click.argument("files", type=PATHS, nargs=-1)
@click.option("--write", "-w", is_flag=True, help="Write the files anew.")
@click.option("--check", "only_check", is_flag=True, help="Name the files that are not formatted.")
@click.pass_obj
def fmt(invocation: Invocation, files: tuple[str, ...], *, write: bool, only_check: bool) -> None:
    """Lay out policies in one style; words and comments stay. Reads standard input without FILES.

    \b
    Example:
      headwater policy fmt policy.hujson
      headwater policy fmt --write policy.hujson
      headwater policy fmt --check *.hujson
    """
    if write and (only_check or not files or STDIN in files):
        raise click.UsageError("--write needs files, and goes without --check and -")
    if len(files) > 1 and not (write or only_check):
        raise click.UsageError("several files need --write or --check")
    changed = []
    for name in files or (STDIN,):
        file = read(name)
        text = _laid_out(file, invocation.output)
        if not (write or only_check):
            click.echo(text, nl=False)
        elif text != file.text:
            changed.append(file.name)
            if write:
                _rewrite(Path(name), text)
    if write or only_check:
        _report(invocation, changed, is_write=write)


def _laid_out(file: PolicyFile, output: str) -> str:
    try:
        return lay_out(file)
    except PolicyRefused as refusal:
        complain(file, refusal, output)


def _rewrite(path: Path, text: str) -> None:
    """Replace a file at once, so that no reader finds half of it."""
    path = path.resolve()
    try:
        write_whole(path, text.encode(), mode=path.stat().st_mode & 0o777)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from error


def _report(invocation: Invocation, changed: list[str], *, is_write: bool) -> None:
    value = {"ok": is_write or not changed, "changed": changed}
    if invocation.output or changed:
        word = "formatted" if is_write else "not formatted"
        emit(invocation.output, value, "\n".join(f"{name}: {word}" for name in changed))
    if changed and not is_write:
        raise click.exceptions.Exit(1)
