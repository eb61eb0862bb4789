"""The only place where parts are made and joined: start, reload and stop of the whole server.

Not for what any part does. Start: state directory and keys, database, certificates, sockets bound,
tailnets with their settings, doors; then every listener accepts, "ready". Stop: the same backwards. Every
background loop runs under one supervisor: a failing one is retried and ends nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import random
import resource
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from appliance import config, records
from appliance import log as logs
from appliance.api import app as api
from appliance.api import public
from appliance.api.door import Door
from appliance.config import ConfigError, Settings, Tailnet, resolved
from appliance.config import warnings as site_warnings
from appliance.control.http2 import engine
from appliance.control.machine import MachineDoor
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front, Route, redirect_to_https
from appliance.front.http import start_web, trust_proxies
from appliance.front.stream import Listener, TlsSource
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnets
from appliance.loops import Loop
from appliance.metrics import Exporter
from appliance.relay import pages
from appliance.relay.door import RelayDoor
from appliance.relay.stun import StunServer
from appliance.serve import exporter, localsocket, statedir, systemd
from appliance.serve import relay as relaying
from appliance.serve.certificates import open_certificate
from appliance.serve.listeners import Sockets, accept, bind, bind_stun, tls_streams
from appliance.serve.runtime import TailnetRuntime, Wanted
from appliance.serve.statedir import StateError
from appliance.serve.supervise import Supervisor
from appliance.store.errors import StoreError
from appliance.store.store import Database
from appliance.tailnet.snapshot import Sequences, Snapshot
from appliance.tls.certificates import CertificateError
from appliance.tls.current import CurrentCertificate
from appliance.wire.keys import MachineKey, PrivateKey

log = logging.getLogger(__name__)

GC_THRESHOLDS = (10_000, 20, 50)
"""Hardly anything here is cyclic, and every look at all that lives costs as many ms as there are
thousands of nodes: a quarter of a registration's time with Python's own (700, 10, 10)."""
PLAIN_PATHS = frozenset({"/ts2021", pages.CAPTIVE_PATH})
"""What a plain listener beside TLS serves itself: both are made for being asked in the clear."""


class Server:
    """One server, from its settings to its end.

    ``run`` does everything; ``stop`` may be called from a signal handler. The addresses that it
    listens on are known once ``started`` has been called.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        reload: Callable[[], Settings] | None = None,
        certificate_names: Sequence[str] = (),
        self_signed: bool = False,
        inherited: systemd.Inherited | None = None,
        take_over: bool = False,
        supervisor: Supervisor | None = None,
    ) -> None:
        self.settings = settings
        self.runtimes: tuple[TailnetRuntime, ...] = ()
        self.ports = resolved.Ports()
        self.database: Database | None = None
        self.listeners: list[Listener] = []
        self.certificate: CurrentCertificate | None = None
        self.relay: RelayDoor | None = None
        self.stun: StunServer | None = None
        self.ssh_checks = SSHChecks(secrets.token_bytes)
        self._read_again = reload
        self._certificate_names = tuple(certificate_names) or (settings.host,)
        self._self_signed = self_signed
        self._inherited = inherited or {}
        self._take_over_database = take_over
        self.supervisor = supervisor or Supervisor(
            expected=(OSError, CertificateError, StateError, StoreError)
        )
        self._stop = asyncio.Event()
        self._wake_reload = asyncio.Event()
        self._is_reload_asked = False

    async def run(self, started: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start, call ``started``, serve until ``stop``, end. Raises what made it fail."""
        began = time.monotonic()
        async with self.supervisor, AsyncExitStack() as ending:
            await self._start(ending)
            ending.callback(systemd.stopping)
            systemd.ready(f"serving {self.settings.server_url}")
            self.supervisor.start(*systemd.loops(), Loop("reload", self._reload_when_asked))
            log.info("started", extra={"duration_ms": round(1000 * (time.monotonic() - began))})
            if started is not None:
                await started()
            await self._stop.wait()
            log.info("stopping")
        log.info("stopped")

    @property
    def tailnets(self) -> LiveTailnets:
        """All tailnets, once they are loaded; the default one first."""
        return LiveTailnets([runtime.live for runtime in self.runtimes])

    def stop(self) -> None:
        """End the server soon."""
        self._stop.set()

    def reload(self) -> None:
        """Read certificates and settings again, and take over what can change while running."""
        self._is_reload_asked = True
        self._wake_reload.set()

    def handle_signals(self) -> None:
        """Stop at SIGTERM and SIGINT, reload at SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    # ── start, in order ──────────────────────────────────────────────────────────────────────

    async def _start(self, ending: AsyncExitStack) -> None:
        settings = self.settings
        tell_warnings(settings)
        raise_file_limit()
        statedir.prepare(settings.state_dir)
        noise_key = statedir.private_key(settings.state_dir / "noise.key", secrets.token_bytes)
        database = await self._open_database(ending)
        tls = await self._open_certificate()
        sockets = await self._bind(ending)
        await self._make_runtimes(database)
        self.supervisor.start(Loop("database", database.guard))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        tailnets, metrics = self.tailnets, Exporter()
        ts2021 = self._make_control(tailnets, noise_key, ending)
        routes: dict[str, Route] = {"/ts2021": ts2021.open}
        if self._has_relay:
            routes |= self._make_relay(tailnets, ending)
        door = Door(
            tailnets=tailnets,
            policies={runtime.id: runtime.policy for runtime in self.runtimes},
            database_trouble=database.health,
            random_bytes=secrets.token_bytes,
            rng=random.SystemRandom(),
            metrics=metrics.render,
            ssh_checks=self.ssh_checks,
            release=self.settings.api.release,
            failing=lambda: self.supervisor.failing,
        )
        # Nobody was accepted so far, and all that a connection may meet is complete.
        front = await self._open_front(routes, door, MachineKey(noise_key.public_raw), ending)
        await self._accept(sockets, front, tls, ending)
        exporter.observe_server(metrics, self, front, ts2021)
        await self._open_local_socket(door, ending)
        await self._open_metrics(sockets, door, ending)

    async def _open_database(self, ending: AsyncExitStack) -> Database:
        database = self.database = Database.open(
            database_url(self.settings), take_over=self._take_over_database
        )
        ending.push_async_callback(self._close_database, database)
        async with systemd.extend_start_timeout("bringing the database to a new form"):
            await database.migrate()
        return database

    async def _close_database(self, database: Database) -> None:
        for runtime in self.runtimes:
            snapshot, now = runtime.live.snapshot, runtime.live.clock()
            online = [(i, now) for i, p in snapshot.presence.items() if p.online]
            database.note_last_seen(online)
        await database.close()

    async def _open_certificate(self) -> TlsSource | None:
        opened = self.certificate = await open_certificate(
            self.settings, self._certificate_names, self_signed=self._self_signed
        )
        if opened is None:
            return None
        opened.on_replaced = self._wake_reload.set  # the relay map names the pin
        self.supervisor.start(*opened.loops())
        return opened.context

    @property
    def ca_file(self) -> Path | None:
        """The file that clients must trust, if no public authority vouches for us."""
        return None if self.certificate is None else self.certificate.certificate.ca_file

    @property
    def _has_relay(self) -> bool:
        """Whether relay and STUN are on, and in this process."""
        server = self.settings.derp.server
        return server.enabled and not server.separate

    async def _bind(self, ending: AsyncExitStack) -> Sockets:
        settings, given = self.settings, self._inherited
        metrics = settings.metrics.listen
        stun_listen = settings.derp.server.stun_listen
        sockets = Sockets(
            listen=await bind("listen", settings.listen, given.get("listen", ()), ending),
            plain=await bind("plain", settings.listen_plain, given.get("plain", ()), ending),
            metrics=await bind(
                "metrics", [metrics] if metrics else [], given.get("metrics", ()), ending
            ),
            stun=bind_stun(stun_listen, given.get("stun", ()), ending) if self._has_relay else (),
        )
        if not sockets.listen:
            raise OSError(errno.EADDRNOTAVAIL, "none of the addresses of 'listen' is there")
        self.ports = resolved.Ports(
            https=None if settings.listen[0].port else sockets.listen[0].port,
            stun=sockets.stun[0].getsockname()[1] if sockets.stun else None,
        )
        return sockets

    async def _make_runtimes(self, database: Database) -> None:
        """Make the tailnets of the settings and of the database, and wait until all can serve."""
        snapshots, ids = await database.load()
        known = {snapshot.tailnet.name: snapshot for snapshot in snapshots}
        names = [tailnet.name for tailnet in self.settings.all_tailnets]
        for name in names:
            if name not in known:
                known[name] = await self._new_tailnet(database, ids, name)
        for name in known:
            if name not in names:
                log.warning(
                    "tailnet is not in the settings; it is served with the defaults",
                    extra={"tailnet": name},
                )
                names.append(name)
        self.runtimes = tuple(
            TailnetRuntime(known[name], database, ids, self._wanted(known[name].tailnet))
            for name in names
        )
        for runtime in self.runtimes:
            await runtime.start(self.supervisor)
        await self.tailnets.part_node_keys()

    async def _new_tailnet(self, database: Database, ids: Sequences, name: str) -> Snapshot:
        domain = self._tailnet_named(name).base_domain
        record = await database.create_tailnet(
            ids, name=name, domain=domain, created_at=datetime.now(UTC)
        )
        log.info("tailnet made", extra={"tailnet": name})
        return Snapshot(tailnet=record)

    def _wanted(self, record: records.Tailnet) -> Wanted:
        """Resolve the settings of a tailnet; one that the file does not name has the defaults."""
        tailnet = self._tailnet_named(record.name, Tailnet(base_domain=record.domain))
        pin = "" if self.certificate is None else self.certificate.pin
        return Wanted.of(self.settings, tailnet, replace(self.ports, cert_name=pin))

    def _tailnet_named(self, name: str, default: Tailnet | None = None) -> Tailnet:
        found = (each for each in self.settings.all_tailnets if each.name == name)
        return next(found, default or Tailnet())

    def _make_control(
        self, tailnets: LiveTailnets, noise_key: PrivateKey, ending: AsyncExitStack
    ) -> Ts2021:
        machines = MachineDoor(
            tailnets,
            {runtime.id: runtime.sessions for runtime in self.runtimes},
            {runtime.id: runtime.encoder for runtime in self.runtimes},
            self.ssh_checks,
            rng=random.SystemRandom(),
        )
        name = self.settings.http2
        ts2021 = Ts2021(
            noise_key,
            machines.handle,
            http2=engine("h2" if name == "auto" else name),
            is_known=lambda key: tailnets.find_machine(key) is not None,
        )
        self.supervisor.start(*ts2021.loops())
        ending.push_async_callback(ts2021.close)
        for runtime in self.runtimes:
            ending.push_async_callback(runtime.sessions.close)
        return ts2021

    def _make_relay(self, tailnets: LiveTailnets, ending: AsyncExitStack) -> dict[str, Route]:
        """Make relay, mesh and STUN inside this process."""
        door = self.relay = relaying.make(self.settings, tailnets)
        door.start()
        ending.callback(door.close)
        if self.settings.derp.server.verify_clients:
            for runtime in self.runtimes:
                self.supervisor.start(*relaying.Revocation(runtime.live, door).loops())
        mesh = relaying.make_mesh(self.settings, door)
        if mesh is not None:
            self.supervisor.start(*mesh.loops())
        self.stun = StunServer()
        ending.callback(self.stun.close)
        return {"/derp": door.route, **pages.routes(relaying.own_names(self.settings))}

    # ── accepting, last of all ───────────────────────────────────────────────────────────────

    async def _open_front(
        self,
        routes: dict[str, Route],
        door: Door,
        machine_key: MachineKey,
        ending: AsyncExitStack,
    ) -> Front:
        settings = self.settings
        app = public.build(door, machine_key)
        app.middlewares.insert(0, trust_proxies(settings.trusted_proxies))
        runner = await start_web(app)
        ending.push_async_callback(runner.cleanup)
        return Front(
            routes,
            web=runner.server,
            trusted=settings.trusted_proxies,
            # With TLS it comes before the handshake, so the stream has read it.
            proxy_protocol=settings.proxy_protocol and self.certificate is None,
        )

    async def _accept(
        self, sockets: Sockets, front: Front, tls: TlsSource | None, ending: AsyncExitStack
    ) -> None:
        settings, make_tls = self.settings, tls_streams(self.settings)
        for bound in sockets.listen:
            listener = await accept(bound, front, ending, tls=tls, make_tls=make_tls)
            self.listeners.append(listener)
        # Behind those with TLS, so that the first listener is the one that nodes are told.
        plain = Front(
            {path: front.routes[path] for path in PLAIN_PATHS & front.routes.keys()},
            fallback=redirect_to_https(settings.host, settings.port),
            trusted=settings.trusted_proxies,
            proxy_protocol=settings.proxy_protocol,
        )
        for bound in sockets.plain:
            self.listeners.append(await accept(bound, plain, ending))
        if self.stun is not None:
            for sock in sockets.stun:
                self.stun.serve(sock)

    async def _open_local_socket(self, door: Door, ending: AsyncExitStack) -> None:
        place = self.settings.socket
        runner = await start_web(api.build(door), shutdown_s=1.0)
        ending.push_async_callback(runner.cleanup)
        given = self._inherited.get("local")
        if not given:
            given = (localsocket.bind(place.path, place.mode),)
            ending.callback(place.path.unlink, missing_ok=True)
        for sock in given:
            await web.SockSite(runner, sock).start()

    async def _open_metrics(self, sockets: Sockets, door: Door, ending: AsyncExitStack) -> None:
        if not sockets.metrics:
            return
        runner = await start_web(api.build_metrics(door), shutdown_s=1.0)
        ending.push_async_callback(runner.cleanup)
        front = Front({}, web=runner.server)
        for bound in sockets.metrics:
            await accept(bound, front, ending)

    # ── while it runs ────────────────────────────────────────────────────────────────────────

    async def _apply_settings(self) -> None:
        """Apply the settings to the tailnets; nodes are told of what changes for them."""
        for runtime in self.runtimes:
            await runtime.reload(self._wanted(runtime.live.snapshot.tailnet))

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
            if self._read_again is not None:
                await self._take_over(self._read_again())
            else:
                await self._look_for_policies()
        except ConfigError as error:
            log.error(  # noqa: TRY400  # the sentences are for people, our stack is not
                "new settings are wrong, the old ones stay", extra={"reason": str(error)}
            )
        except Exception:
            log.exception("reload failed; what it had not reached stays as it was")
        finally:
            systemd.ready(f"serving {self.settings.server_url}")

    async def _take_over(self, new: Settings) -> None:
        plan = resolved.reload(self.settings, new)
        if plan.settings.log != self.settings.log:
            logs.set_up(plan.settings.log.level, plan.settings.log.format)
        self.settings = plan.settings
        tell_warnings(plan.settings)
        await self._apply_settings()
        await self._look_for_policies()
        log.info("settings reloaded", extra={"reason": ", ".join(plan.changed) or "no change"})
        if plan.waiting:
            log.warning("settings wait for a restart", extra={"reason": ", ".join(plan.waiting)})

    async def _look_for_policies(self) -> None:
        for runtime in self.runtimes:
            await runtime.reload_policy()


def tell_warnings(settings: Settings) -> None:
    """Log what ``config check`` would print of settings that work, but not as one may think."""
    for each in site_warnings.warnings(settings):
        log.warning("the settings deserve a look", extra={"reason": str(each)})


def raise_file_limit() -> None:
    """Let the process open as many files as its hard limit allows: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with suppress(OSError, ValueError):  # a sandbox may forbid it; then the soft limit stays
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def database_url(settings: Settings) -> str:
    """Give the URL with the password from its file."""
    url = settings.database
    if settings.database_password_file is None:
        return url
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    password = quote(config.read_secret(settings.database_password_file), safe="")
    return f"{scheme}://{user}:{password}{at}{place}"
