"""``headwater relay``: a relay (DERP and STUN) alone, on another host or in a process of its own."""

from __future__ import annotations

import click

from appliance.cli.client import CommandFailed
from appliance.cli.root import Command, Invocation


@click.command(cls=Command)
@click.pass_obj
def relay(invocation: Invocation) -> None:
    """Run a relay (DERP and STUN) alone, from a site file.

    \b
    Example:
      headwater relay -c /etc/headwater/relay.yaml
    """
    if invocation.config_path is None:
        raise CommandFailed("no site file is named", "name it with -c FILE")
    raise CommandFailed("the relay does not run alone yet", "use 'headwater serve'")
