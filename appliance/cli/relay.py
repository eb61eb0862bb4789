"""``headwater relay``: a relay (DERP and STUN) alone, on another host or in a process of its own."""

from __future__ import annotations

import click

from appliance.cli import container
from appliance.cli.client import CommandFailed
from appliance.cli.root import Command, Invocation


@click.command(cls=Command)
@click.pass_obj
def relay(invocation: Invocation) -> None:
    """Run a relay (DERP and STUN) alone until SIGTERM or SIGINT; SIGHUP reloads as with 'serve'.

    Beside the server, with the same file and derp.server.separate set; or on a host of its own: then
    server_url is the control server's, which is asked whom to admit.

    \b
    Example:
      headwater relay -c /etc/headwater/config.yaml
    """
    from appliance.cli.serve import heed_sigterm, load_settings, run_loop

    heed_sigterm()
    path = invocation.config_path
    if path is None:
        raise CommandFailed(
            "no site file is named, and none that you may read is in /etc/headwater",
            container.advice_on_missing_file("-c FILE names it"),
        )
    settings = load_settings(path)
    from appliance import log
    from appliance.serve import systemd
    from appliance.serve.relayhost import RelayHost  # no part of the control server

    log.set_up(settings.log.level, settings.log.format)

    async def main() -> None:
        host = RelayHost(
            settings,
            reload=lambda: load_settings(path, strict=True),
            inherited=systemd.inherited(),
        )
        host.handle_signals()
        await host.run()

    run_loop(main, settings.event_loop)
