"""``headwater serve``: the server, from a site file until a signal ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING

import click

from appliance.cli import container
from appliance.cli.client import CommandFailed
from appliance.cli.root import Command, Invocation
from appliance.errors import Fatal

if TYPE_CHECKING:
    from appliance.config import Settings

NO_FILE_ADVICE = (
    "write one (docs/configuration.md), name it with -c FILE, or try 'headwater dev' without any"
)


@click.command(cls=Command)
@click.option(
    "--take-over",
    is_flag=True,
    help="End the session of another server that holds the PostgreSQL database, and serve.",
)
@click.pass_obj
def serve(invocation: Invocation, *, take_over: bool) -> None:
    """Run the server until SIGTERM or SIGINT; SIGHUP reloads settings and certificates.

    With --take-over a server takes a PostgreSQL database from one that is dead or cut off, whose
    session is still open there. Should the other one live, it writes nothing more and ends.

    \b
    Example:
      headwater serve -c /etc/headwater/config.yaml
    """
    heed_sigterm()
    path = invocation.config_path
    if path is None:
        raise CommandFailed(
            "no site file is named, and none that you may read is in /etc/headwater",
            container.advice_on_missing_file(NO_FILE_ADVICE),
        )
    settings = load_settings(path)
    from appliance import log
    from appliance.serve import systemd
    from appliance.serve.server import Server  # the whole program

    log.set_up(settings.log.level, settings.log.format)

    async def main() -> None:
        server = Server(
            settings,
            reload=lambda: load_settings(path, strict=True),
            inherited=systemd.inherited(),
            take_over=take_over,
        )
        server.handle_signals()
        await server.run()

    run_loop(main, settings.event_loop)


def heed_sigterm() -> None:
    """End at SIGTERM also while nothing runs yet; the server takes the signal over.

    The first process of a container has no default for it: the kernel would drop the signal, and the
    engine wait for its limit.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def load_settings(path: Path, *, strict: bool = False) -> Settings:
    """Read a site file. Raises CommandFailed, or with ``strict`` the ConfigError itself."""
    from appliance.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        if strict:
            raise
        advice = f"check it with 'headwater config check {path}'"
        if path.is_dir():
            advice = container.advice_on_folder(advice)
        raise CommandFailed(str(error), advice) from error


def run_loop(main: Callable[[], Coroutine[None, None, None]], event_loop: str) -> None:
    """Run until ``main`` returns; failures that people can mend become CommandFailed."""
    try:
        with asyncio.Runner(loop_factory=loop_factory(event_loop)) as runner:
            runner.run(main())
    except Exception as failure:
        refusal = _refusal(_first(failure))
        if refusal is None:
            raise
        raise refusal from None


def _refusal(error: BaseException) -> CommandFailed | None:
    """Give what people are told about a failure that is not a bug."""
    from appliance.serve.statedir import ForeignDirectory, StateError
    from appliance.store.errors import StoreError
    from appliance.tls.certificates import CertificateError

    match error:
        case CommandFailed():
            return error
        case ForeignDirectory():
            return CommandFailed(str(error), container.advice_on_volume())
        case StateError() | StoreError() | CertificateError():
            return CommandFailed(str(error))
        case PermissionError():
            return CommandFailed(_sentence(error), _advice_on_sockets())
        case OSError():
            return CommandFailed(_sentence(error))
    return None


def _advice_on_sockets() -> str:
    """Say what to do about a socket that we may not make; a service of systemd's makes none."""
    if "INVOCATION_ID" in os.environ:
        return (
            "its socket unit is missing: 'headwater deploy render' writes all that the file needs"
        )
    return container.advice_on_ports(
        "allow ports below 1024 (CAP_NET_BIND_SERVICE), or choose another one"
    )


def _sentence(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Give uvloop's factory where it is wanted and there; None means asyncio's own loop."""
    if name == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if name == "uvloop":
            advice = "install it, or set event_loop to 'auto'"
            raise CommandFailed("uvloop is asked for and not installed", advice) from None
        return None
    return uvloop.new_event_loop


def _first(error: BaseException) -> BaseException:
    """Give the first failure inside groups of them, or the one that had to end the server."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    failures = [_first(each) for each in error.exceptions]
    return next((each for each in failures if isinstance(each, Fatal)), failures[0])
