"""``headwater deploy``: what a site puts on a machine, for provisioners and for the curious."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import click

from appliance.cli.client import CommandFailed
from appliance.cli.output import emit
from appliance.cli.root import Group, Invocation

if TYPE_CHECKING:
    from appliance.deploy.render import Rendered


@click.group(cls=Group)
def deploy() -> None:
    """Write what a site puts on a machine: units, sockets, firewall, user, kernel settings.

    \b
    Example:
      headwater deploy render site.yaml
      headwater deploy render site.yaml --out /tmp/box
    """


class _Options(TypedDict):
    """The options of ``render`` that say what the machine brings."""

    role: Literal["server", "relay"]
    secrets: tuple[str, ...]
    program: str | None
    config_path: str | None
    systemd: int
    groups: tuple[str, ...]
    tcp: tuple[int, ...]
    udp: tuple[int, ...]


PORT = click.IntRange(1, 65535)


@deploy.verb("render")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the files below a directory.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text")
@click.option(
    "--role",
    type=click.Choice(("server", "relay")),
    default="server",
    help="A whole server, or a relay on a host of its own.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=PATH",
    help="Where a credential lies, if not in /etc/headwater/secrets.",
)
@click.option("--program", metavar="PATH", help="Where the program is on the machine.")
@click.option("--config-path", metavar="PATH", help="Where the site file is on the machine.")
@click.option(
    "--systemd",
    type=click.IntRange(252),
    default=252,
    show_default=True,
    help="Version of systemd on the machine.",
)
@click.option("--group", "groups", multiple=True, help="Further group that the service is in.")
@click.option(
    "--tcp-port",
    "tcp",
    type=PORT,
    multiple=True,
    help="Further port that the firewall opens (default: 22).",
)
@click.option("--udp-port", "udp", type=PORT, multiple=True, help="The same for UDP.")
@click.pass_obj
def render(
    invocation: Invocation,
    file: Path | None,
    out: Path | None,
    form: str,
    **options: Unpack[_Options],
) -> None:
    """Write the files that the site FILE puts on a machine; nothing on this one is changed.

    \b
    Example:
      headwater deploy render site.yaml --format json
    """
    path = file or invocation.config_path
    if path is None:
        raise CommandFailed("no site file is named", "name it: headwater deploy render FILE")
    rendered = _rendered(path, options)
    if out is not None:
        rendered.write(out)
        click.echo("\n".join(str(out / name.lstrip("/")) for name in rendered.files))
        return
    emit(
        invocation.output or ("json" if form == "json" else ""),
        rendered.document(),
        lambda: "\n".join(f"# {name}\n{each.text}" for name, each in rendered.files.items()),
    )


@deploy.verb("facts")
def show_facts() -> None:
    """Print what is the same on every box, as JSON (the NixOS module reads it)."""
    from appliance.deploy.document import text

    click.echo(text(), nl=False)


def _rendered(path: Path, options: _Options) -> Rendered:
    from appliance.config import ConfigError, load
    from appliance.config.warnings import warnings
    from appliance.deploy import facts, plan
    from appliance.deploy import render as texts
    from appliance.deploy.units import Host

    secrets = _pairs(options["secrets"])
    try:
        settings = load(path)
        made = plan.make(settings, role=options["role"], secrets=secrets, source=str(path))
    except ConfigError as error:
        raise CommandFailed(str(error)) from error
    for warning in warnings(settings):
        click.echo(f"warning: {warning}", err=True)
    host = Host(
        program=options["program"] or facts.PROGRAM,
        config=options["config_path"] or f"{facts.CONFIG_DIR}/config{path.suffix}",
        systemd=options["systemd"],
        groups=options["groups"],
    )
    tcp = options["tcp"] or (facts.SSH_PORT,)
    return texts.render(made, host, tcp=tcp, udp=options["udp"])


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise click.BadParameter(f"{text!r} is not NAME=PATH", param_hint="--secret")
        found[name] = path
    return found
