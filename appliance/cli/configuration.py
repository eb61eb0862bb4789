"""``headwater config``: check, show and convert site files, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli.client import CommandFailed
from appliance.cli.output import emit
from appliance.cli.root import Command, Group, Invocation

if TYPE_CHECKING:
    from appliance.config import Settings

OURS_ALONE = frozenset({"database_url", "listen", "socket", "state_dir", "tailnet", "tailnets"})
"""Keys of a site file that no configuration of Headscale's has."""


@click.group(cls=Group)
def config() -> None:
    """Check, show and convert site files.

    \b
    Example:
      headwater config check site.yaml
      headwater config convert /etc/headscale/config.yaml > site.yaml
    """


@click.command("check", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def check(invocation: Invocation, file: Path | None) -> None:
    """Say every mistake in a site file; exit code 0 means that there is none.

    Warnings are printed too: what works, but not as one may think. Reads nothing but FILE: it works
    on machines that are not the server.
    """
    from appliance.config import ConfigError, load
    from appliance.config.warnings import hidden_files, warnings

    path = _file(invocation, file)
    try:
        settings = load(path)
        _check_policies(settings, str(path))
    except ConfigError as error:
        if invocation.output:
            found = [
                {"path": m.path, "found": m.found, "allowed": m.allowed, "fix": m.fix}
                for m in error.mistakes
            ]
            emit(invocation.output, {"ok": False, "mistakes": found, "warnings": []}, "")
            raise click.exceptions.Exit(1) from error
        raise CommandFailed(str(error)) from error
    told = (*warnings(settings), *hidden_files(settings))
    plain = [{"path": each.path, "what": each.what, "fix": each.fix} for each in told]
    lines = "".join(f"\n  {each}" for each in told)
    count = f", with {len(told)} warning(s)" if told else ""
    emit(
        invocation.output,
        {"ok": True, "mistakes": [], "warnings": plain},
        f"{path}: fine{count}{lines}",
    )


@click.command("show", cls=Command)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.pass_obj
def show(invocation: Invocation, file: Path | None) -> None:
    """Print a site file with every default filled in."""
    from appliance.config import ConfigError, load
    from appliance.config.reader import to_plain
    from appliance.config.yamlfile import dump

    try:
        plain = to_plain(load(_file(invocation, file)))
    except ConfigError as error:
        raise CommandFailed(str(error)) from error
    emit(invocation.output, plain, lambda: dump(plain).rstrip())


@click.command("convert", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def convert(invocation: Invocation, file: Path) -> None:
    """Turn Headscale's configuration FILE into a site file on standard output.

    What could not be carried over is listed on standard error, and so is what 'config check' says
    of the result; exit code 0 means that a server starts with it.
    """
    from appliance.cli.convert import from_headscale
    from appliance.cli.headscale import Theirs
    from appliance.config import ConfigError, build, read_document
    from appliance.config.warnings import warnings
    from appliance.config.yamlfile import dump
    from appliance.redaction import redact_all

    try:
        document = read_document(file)
    except ConfigError as error:
        raise CommandFailed(str(error)) from error
    if not isinstance(document, dict):
        raise CommandFailed(f"{file}: no mapping, so no configuration of Headscale")
    if not OURS_ALONE.isdisjoint(document):
        raise CommandFailed(f"{file}: a site file of Headwater's already; there is nothing to do")
    if not Theirs(document).is_headscale:
        raise CommandFailed(
            f"{file}: none of Headscale's configurations: no key of its is there",
            "convert takes the file that 'headscale serve' reads, config.yaml",
        )
    settings, remarks = from_headscale(document, file.absolute().parent)
    for remark in remarks:
        click.echo(f"not carried over: {remark}", err=True)
    emit(invocation.output, redact_all(settings), lambda: dump(redact_all(settings)).rstrip())
    try:
        checked = build(settings, source="the site file that came out")
    except ConfigError as error:
        raise CommandFailed(str(error), "put that right in the site file") from error
    for warning in warnings(checked):
        click.echo(f"warning: {warning}", err=True)


def _check_policies(settings: Settings, source: str) -> None:
    """Read the policies that the settings hold themselves. Raises ConfigError.

    Not a part of reading the settings: a server that is running, or starts with a policy that its
    release no longer takes, keeps the last good one.
    """
    from appliance.config import ConfigError
    from appliance.config.reader import Mistake
    from appliance.config.resolved import policy_source, provider_names
    from appliance.policy.text.document import decode
    from appliance.policy.text.mistakes import PolicyError

    found = []
    for i, tailnet in enumerate(settings.all_tailnets):
        if tailnet.policy.mode != "settings":
            continue
        place = f"tailnets[{i - 1}]" if i else "tailnet"
        try:
            decode(
                policy_source(tailnet).text,
                domains=frozenset(tailnet.email_domains),
                providers=frozenset(provider_names(settings, tailnet)),
            )
        except PolicyError as error:
            found += [Mistake(f"{place}.policy", str(each), "a policy") for each in error.mistakes]
    if found:
        raise ConfigError(source, tuple(found))


config.add_command(check)
config.add_command(show)
config.add_command(convert)


def _file(invocation: Invocation, named: Path | None) -> Path:
    path = named or invocation.config_path
    if path is None:
        raise CommandFailed(
            "no site file is named, and none that you may read is in /etc/headwater",
            "name it: headwater config check FILE",
        )
    return path
