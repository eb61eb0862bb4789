"""``headwater relay``: a relay (DERP and STUN) alone, on another host or in a process of its own."""

from __future__ import annotations

import asyncio
import signal

import click

from appliance.cli.client import CommandFailed
from appliance.cli.root import Command, Invocation


@click.command(cls=Command)
@click.pass_obj
def relay(invocation: Invocation) -> None:
    """Run a relay (DERP and STUN) alone, from a site file.

    Beside the server, with the same file and derp.server.separate set; or on a host of its own: then
    server_url is the control server's, which is asked whom to admit.

    \b
    Example:
      headwater relay -c /etc/headwater/config.yaml
    """
    path = invocation.config_path
    if path is None:
        raise CommandFailed(
            "no site file is named, and none that you may read is in /etc/headwater",
            "-c FILE names it",
        )
    from appliance.cli.serve import load_settings, run_loop

    settings = load_settings(path)
    from appliance import log
    from appliance.serve import relay as relaying
    from appliance.serve import systemd

    log.set_up(settings.log.level, settings.log.format)

    async def main() -> None:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()

        def stop() -> None:
            stopping.set()
            systemd.stopping()
            if task is not None:
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            await relaying.run_alone(
                settings,
                lambda: _is_up(settings.derp.server.region_name),
                systemd.inherited(),
            )
        except asyncio.CancelledError:
            if not stopping.is_set():
                raise

    run_loop(main, settings.event_loop)


def _is_up(region: str) -> None:
    from appliance.serve import systemd

    systemd.ready(f"relaying for {region}")
