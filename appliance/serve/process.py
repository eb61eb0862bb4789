"""What both roles have in common: one process from its settings to its end.

``server.Server`` and ``relayhost.RelayHost`` are the two. Here are the order of start and stop,
signals, reload, the certificate, the sockets and the fronts, so that what one role obeys the other
obeys by the same code. Not for what a role serves.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from appliance import __version__
from appliance import log as logs
from appliance.config import ConfigError, Settings, resolved
from appliance.config import warnings as site_warnings
from appliance.front.dispatch import Front, Route, redirect_to_https
from appliance.front.stream import Listener, TlsSource
from appliance.loops import Loop
from appliance.relay import pages
from appliance.serve import statedir, systemd
from appliance.serve.certificates import answer_challenges, open_certificate
from appliance.serve.listeners import Sockets, accept, bind_all, tls_streams
from appliance.serve.statedir import StateError
from appliance.serve.supervise import Supervisor
from appliance.store.errors import StoreError
from appliance.tls.certificates import CertificateError
from appliance.tls.challenges import Challenges
from appliance.tls.current import CurrentCertificate

log = logging.getLogger(__name__)

PLAIN_PATHS = frozenset({"/ts2021", pages.CAPTIVE_PATH})
"""What a plain listener beside TLS serves itself: both are made for being asked in the clear."""


class Process(ABC):
    """One process. ``run`` does everything; ``stop`` may be called from a signal handler.

    The addresses that it listens on are known once ``started`` has been called.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reload: Callable[[], Settings] | None = None,
        certificate_names: Sequence[str] = (),
        self_signed: bool = False,
        inherited: systemd.Inherited | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.settings = settings
        self.supervisor = supervisor or Supervisor(
            expected=(OSError, CertificateError, StateError, StoreError)
        )
        self.certificate: CurrentCertificate | None = None
        self.challenges = Challenges()
        self.listeners: list[Listener] = []
        self.fronts: list[Front] = []
        self._read_settings = reload
        self._certificate_names = tuple(certificate_names)
        self._self_signed = self_signed
        self._inherited = inherited or {}
        self._stop = asyncio.Event()
        self._wake_reload = asyncio.Event()
        self._is_reload_asked = False

    async def run(self, started: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start, call ``started``, serve until ``stop``, end. Raises what made it fail."""
        began = time.monotonic()
        async with self.supervisor, AsyncExitStack() as ending:
            self._log_site_warnings()
            raise_file_limit()
            statedir.prepare(self.settings.state_dir)
            await self._start(ending)
            ending.callback(systemd.stopping)
            systemd.ready(self._status)
            self.supervisor.start(*systemd.loops(), Loop("reload", self._reload_when_asked))
            duration_ms = round(1000 * (time.monotonic() - began))
            log.info("started", extra={**self._about(), "duration_ms": duration_ms})
            if started is not None:
                await started()
            await self._stop.wait()
            log.info("stopping")
        log.info("stopped")

    def stop(self) -> None:
        """End the process soon."""
        self._stop.set()

    def reload(self) -> None:
        """Read certificates and settings again, and apply what can change while running."""
        self._is_reload_asked = True
        self._wake_reload.set()

    def handle_signals(self) -> None:
        """Stop at SIGTERM and SIGINT, reload at SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    @property
    def ca_file(self) -> Path | None:
        """The file that clients must trust, if no public authority vouches for us."""
        return None if self.certificate is None else self.certificate.certificate.ca_file

    def site_warnings(self) -> list[str]:
        """Return what ``config check`` would print of settings that work, but may not be meant."""
        return [str(each) for each in site_warnings.warnings(self.settings)]

    def _log_site_warnings(self) -> None:
        for each in self.site_warnings():
            log.warning("the settings deserve a look", extra={"reason": each})

    # ── what a role does its own way ─────────────────────────────────────────────────────────

    @property
    @abstractmethod
    def _status(self) -> str:
        """What systemd shows as the status."""

    @abstractmethod
    async def _start(self, ending: AsyncExitStack) -> None:
        """Make everything, then accept. ``ending`` runs what was registered backwards."""

    @abstractmethod
    async def _apply_settings(self) -> None:
        """Hand the settings, which may be new, to the parts that take them while running."""

    @abstractmethod
    async def _read_sources_again(self) -> None:
        """Read again, at a reload, what the settings name and the site file does not contain."""

    def _about(self) -> dict[str, object]:
        """Return the fields of the line that says that the process has started."""
        return {
            "version": __version__,
            "url": self.settings.server_url,
            "addresses": ", ".join(
                f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
                for listener in self.listeners
                for host, port in listener.addresses
            ),
        }

    # ── parts of a start ─────────────────────────────────────────────────────────────────────

    async def _open_certificate(
        self, names: Sequence[str], *, is_beside_server: bool = False
    ) -> TlsSource | None:
        opened = self.certificate = await open_certificate(
            self.settings,
            names,
            self.challenges,
            self_signed=self._self_signed,
            is_beside_server=is_beside_server,
        )
        if opened is None:
            return None
        opened.on_replaced = self._wake_reload.set  # the relay map may name the pin
        return opened.context

    async def _bind(self, places: resolved.Places, ending: AsyncExitStack) -> Sockets:
        sockets = await bind_all(places, self._inherited, ending)
        if not sockets.listen:
            raise OSError(errno.EADDRNOTAVAIL, "none of the addresses of 'listen' is there")
        return sockets

    async def _accept(
        self,
        sockets: Sockets,
        routes: Mapping[str, Route],
        tls: TlsSource | None,
        ending: AsyncExitStack,
        *,
        web: Callable[[], asyncio.Protocol] | None = None,
        https: tuple[str, int],
    ) -> None:
        """Accept on all TCP sockets but those for metrics.

        ``web`` takes what no route does; plain listeners send browsers on to ``https``.
        """
        settings, make_tls = self.settings, tls_streams(self.settings, self.challenges)
        front = Front(
            routes,
            web=web,
            trusted=settings.trusted_proxies,
            # With TLS it comes before the handshake, so the stream has read it.
            proxy_protocol=settings.proxy_protocol and tls is None,
        )
        # Behind those with TLS, so that the first listener is the one that nodes are told.
        plain = Front(
            {path: routes[path] for path in PLAIN_PATHS & routes.keys()},
            fallback=answer_challenges(self.challenges, redirect_to_https(*https)),
            trusted=settings.trusted_proxies,
            proxy_protocol=settings.proxy_protocol,
        )
        self.fronts += [front, plain]
        for bound in sockets.listen:
            self.listeners.append(await accept(bound, front, ending, tls=tls, make_tls=make_tls))
        for bound in sockets.plain:
            self.listeners.append(await accept(bound, plain, ending))
        if self.certificate is not None:
            # Not sooner: an authority asks the listeners before it gives a certificate.
            self.supervisor.start(*self.certificate.loops())

    # ── reload ───────────────────────────────────────────────────────────────────────────────

    async def _reload_when_asked(self) -> None:
        await self._wake_reload.wait()
        self._wake_reload.clear()
        is_asked, self._is_reload_asked = self._is_reload_asked, False
        await (self._reload() if is_asked else self._apply_settings())

    async def _reload(self) -> None:
        systemd.reloading()
        try:
            if self.certificate is not None:
                await self.certificate.check()
            if self._read_settings is not None:
                await self._take_over(self._read_settings())
            await self._read_sources_again()
        except ConfigError as error:
            log.error(  # noqa: TRY400  # the sentences are for people, our stack is not
                "new settings are wrong, the old ones stay", extra={"reason": str(error)}
            )
        except Exception:
            log.exception("reload failed; what it had not reached stays as it was")
        finally:
            systemd.ready(self._status)

    async def _take_over(self, new: Settings) -> None:
        plan = resolved.reload(self.settings, new)
        if plan.settings.log != self.settings.log:
            logs.set_up(plan.settings.log.level, plan.settings.log.format)
        self.settings = plan.settings
        self._log_site_warnings()
        await self._apply_settings()
        log.info("settings reloaded", extra={"reason": ", ".join(plan.changed) or "no change"})
        if plan.waiting:
            log.warning("settings wait for a restart", extra={"reason": ", ".join(plan.waiting)})


def raise_file_limit() -> None:
    """Let the process open as many files as its hard limit allows: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(OSError, ValueError):  # a sandbox may forbid it; then the soft limit stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
