"""The only place where parts are made and joined: start, reload and stop of the whole server.

Not for what any part does. Start: state directory and keys, database, tailnets, certificates,
doors, listeners, "ready". Stop: the same backwards. Every long task is a child of one task group:
if one fails, everything stops, and the service manager starts it again.
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
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from aiohttp import web

from appliance import config
from appliance import log as logs
from appliance.api import app as api
from appliance.api import public
from appliance.api.door import Door
from appliance.config import ConfigError, Settings, Tailnet, resolved
from appliance.config.reader import Endpoint
from appliance.control.http2 import engine
from appliance.control.machine import MachineDoor
from appliance.control.mapsession import MapSessions
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front, Route, redirect_to_https
from appliance.front.http import start_web, trust_proxies
from appliance.front.proxystream import ProxiedTlsStream
from appliance.front.stream import Listener, MakeTls, TlsSource, TlsStream, listen
from appliance.identity.principals import SYSTEM
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.policy import PolicyKeeper, PolicySource, restore
from appliance.netmap.encoded import Encoder
from appliance.records import TailnetID
from appliance.relay import pages
from appliance.relay.door import RelayDoor
from appliance.relay.stun import StunServer
from appliance.serve import exporter as observed
from appliance.serve import localsocket, statedir, systemd
from appliance.serve import relay as relaying
from appliance.serve.certificates import Certificates, open_certificates
from appliance.store.store import Database
from appliance.tailnet import settings as tailnet_settings
from appliance.tailnet.snapshot import Sequences, Snapshot
from appliance.wire.keys import MachineKey, PrivateKey

log = logging.getLogger(__name__)

GC_THRESHOLDS = (10_000, 20, 50)
"""Hardly anything here is cyclic, and every look at all that lives costs as many ms as there are
thousands of nodes: a quarter of a registration's time with Python's own (700, 10, 10)."""
PLAIN_PATHS = frozenset({"/ts2021", pages.CAPTIVE_PATH})
"""What a plain listener beside TLS serves itself: both are made for being asked in the clear."""
DATABASE_PING_S = 1.0
"""A health check must answer soon, also when the database does not."""


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
    ) -> None:
        self.settings = settings
        self.listeners: list[Listener] = []
        self.certificates: Certificates | None = None
        self.ca_file: Path | None = None
        self.relay: RelayDoor | None = None
        self.stun: StunServer | None = None
        self.ssh_checks = SSHChecks(secrets.token_bytes)
        self._read_again = reload
        self._certificate_names = tuple(certificate_names) or (settings.host,)
        self._self_signed = self_signed
        self._inherited = inherited or {}
        self._stun_ports: tuple[int, ...] = ()
        self._stop = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, started: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start, call ``started``, serve until ``stop``, end. Raises what made it fail."""
        began = time.monotonic()
        async with self._group, AsyncExitStack() as ending:
            ending.callback(self._cancel_tasks)
            await self._start(ending)
            ending.callback(systemd.stopping)
            systemd.ready(f"serving {self.settings.server_url}")
            self._begin(systemd.stay_alive(), "watchdog")
            log.info("started", extra={"duration_ms": round(1000 * (time.monotonic() - began))})
            if started is not None:
                await started()
            await self._stop.wait()
            log.info("stopping")
        log.info("stopped")

    def stop(self) -> None:
        """End the server soon."""
        self._stop.set()

    def reload(self) -> None:
        """Read certificates and settings again, and take over what can change while running."""
        self._begin(self._reload(), "reload")

    def handle_signals(self) -> None:
        """Stop at SIGTERM and SIGINT, reload at SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    # ── start, in order ──────────────────────────────────────────────────────────────────────

    async def _start(self, ending: AsyncExitStack) -> None:
        settings = self.settings
        raise_file_limit()
        statedir.prepare(settings.state_dir)
        noise_key = statedir.private_key(settings.state_dir / "noise.key", secrets.token_bytes)
        await self._open_database(ending)
        await self._load_tailnets()
        for live in self.tailnets:
            # The first map would otherwise hold up everybody: 0.3 s for 5,000 nodes.
            self.encoders[live.id].warm(live.snapshot)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        tls = self._open_certificates()
        self._make_control(noise_key, ending)
        self._make_relay(ending)
        door = Door(
            tailnets=self.tailnets,
            policies=self.policies,
            is_database_well=self._is_database_well,
            random_bytes=secrets.token_bytes,
            rng=random.SystemRandom(),
            metrics=self._render_metrics,
            ssh_checks=self.ssh_checks,
        )
        await self._open_front(door, MachineKey(noise_key.public_raw), tls, ending)
        self._exporter = observed.exporter(self)
        await self._apply_settings()
        await self._open_local_socket(door, ending)
        await self._open_metrics(door, ending)

    async def _open_database(self, ending: AsyncExitStack) -> None:
        self._database = Database.open(database_url(self.settings))
        ending.push_async_callback(self._close_database)
        async with systemd.patience("bringing the database to a new form"):
            await self._database.migrate()

    async def _close_database(self) -> None:
        for live in self.tailnets if hasattr(self, "tailnets") else ():
            snapshot, now = live.snapshot, live.clock()
            online = [(i, now) for i, p in snapshot.presence.items() if p.online]
            self._database.note_last_seen(online)
        await self._database.close()

    async def _load_tailnets(self) -> None:
        snapshots, ids = await self._database.load()
        by_name = {snapshot.tailnet.name: snapshot for snapshot in snapshots}
        wanted = [
            await self._snapshot_of(each, by_name, ids) for each in self.settings.all_tailnets
        ]
        for name, snapshot in by_name.items():
            if snapshot not in wanted:
                log.warning(
                    "tailnet is not in the settings; its nodes are served as they are",
                    extra={"tailnet": name},
                )
                wanted.append(snapshot)
        self.policies: dict[TailnetID, PolicyKeeper] = {}
        lives = [self._govern(snapshot, ids) for snapshot in wanted]
        self.tailnets = LiveTailnets(lives)
        self.encoders: dict[TailnetID, Encoder] = {}
        self.sessions: dict[TailnetID, MapSessions] = {}
        for live in lives:
            encoder = self.encoders[live.id] = Encoder()
            sessions = MapSessions(live, encoder, clock=time.monotonic, jitter=random.random)
            self.sessions[live.id] = sessions
            self._begin(live.run(), f"tailnet {live.id}")
            self._begin(sessions.run(), f"map sessions {live.id}")
        for keeper in self.policies.values():
            # Before any door opens, so that no node hears of an outdated policy, nor of what it
            # let through until a time that has passed meanwhile.
            await keeper.live.tick()
            await keeper.look()
            self._begin(keeper.keep(), f"policy {keeper.live.id}")

    def _govern(self, snapshot: Snapshot, ids: Sequences) -> LiveTailnet:
        """Make a tailnet live, with its stored policy in force."""
        name = snapshot.tailnet.name
        wanted = next((each for each in self.settings.all_tailnets if each.name == name), None)
        source = PolicySource() if wanted is None else resolved.policy_source(wanted)
        domains = () if wanted is None else wanted.email_domains
        restored, trouble = restore(snapshot, source, domains)
        live = LiveTailnet(restored, self._database, ids)
        self.policies[live.id] = PolicyKeeper(live, source, trouble=trouble)
        return live

    async def _snapshot_of(
        self, wanted: Tailnet, known: dict[str, Snapshot], ids: Sequences
    ) -> Snapshot:
        if wanted.name in known:
            return known[wanted.name]
        record = await self._database.create_tailnet(
            ids, name=wanted.name, domain=wanted.base_domain, created_at=datetime.now(UTC)
        )
        log.info("tailnet made", extra={"tailnet": wanted.name})
        return Snapshot(tailnet=record)

    def _open_certificates(self) -> TlsSource | None:
        opened = open_certificates(
            self.settings, self._certificate_names, self_signed=self._self_signed
        )
        if opened is None:
            return None
        self.certificates, self.ca_file = opened, opened.ca_file
        self._begin(opened.keep(), "certificates")
        return opened.files.context

    def _make_control(self, noise_key: PrivateKey, ending: AsyncExitStack) -> None:
        machines = MachineDoor(
            self.tailnets,
            self.sessions,
            self.encoders,
            self.ssh_checks,
            rng=random.SystemRandom(),
        )
        name = self.settings.http2
        self.ts2021 = Ts2021(
            noise_key,
            machines.handle,
            http2=engine("h2" if name == "auto" else name),
            is_known=lambda key: self.tailnets.find_machine(key) is not None,
        )
        self._begin(self.ts2021.run(), "ts2021")
        ending.push_async_callback(self.ts2021.close)
        for sessions in self.sessions.values():
            ending.push_async_callback(sessions.close)

    def _make_relay(self, ending: AsyncExitStack) -> None:
        """Make relay, mesh and STUN inside this process, unless they are off or run by themselves."""
        server = self.settings.derp.server
        if not server.enabled or server.separate:
            return
        self.relay = relaying.make(self.settings, self.tailnets)
        self.relay.start()
        ending.callback(self.relay.close)
        if server.verify_clients:
            for live in self.tailnets:
                self._begin(relaying.revoke(live, self.relay), f"relay admission {live.id}")
        mesh = relaying.make_mesh(self.settings, self.relay)
        if mesh is not None:
            self._begin(mesh.run(), "mesh")
        self.stun = StunServer()
        ending.callback(self.stun.close)
        given = self._inherited.get("stun", ())
        self._stun_ports = relaying.listen_stun(self.stun, given or server.stun_listen)

    async def _open_front(
        self, door: Door, machine_key: MachineKey, tls: TlsSource | None, ending: AsyncExitStack
    ) -> None:
        settings = self.settings
        app = public.build(door, machine_key)
        app.middlewares.insert(0, trust_proxies(settings.trusted_proxies))
        runner = await start_web(app)
        ending.push_async_callback(runner.cleanup)
        routes: dict[str, Route] = {"/ts2021": self.ts2021.open}
        if self.relay is not None:
            routes |= {"/derp": self.relay.route, **pages.routes(relaying.own_names(settings))}
        self.front = Front(
            routes,
            web=runner.server,
            trusted=settings.trusted_proxies,
            proxy_protocol=settings.proxy_protocol and tls is None,  # else it comes before TLS
        )
        self._compare("listen", settings.listen)
        self._compare("plain", settings.listen_plain)
        for place in self._inherited.get("listen") or settings.listen:
            await self._listen(self.front, place, tls, ending)
        if not self.listeners:
            raise OSError(errno.EADDRNOTAVAIL, "none of the addresses of 'listen' is there")
        # Behind those with TLS, so that the first listener is the one that nodes are told.
        plain = Front(
            {path: routes[path] for path in PLAIN_PATHS & routes.keys()},
            fallback=redirect_to_https(settings.host, settings.port),
            trusted=settings.trusted_proxies,
            proxy_protocol=settings.proxy_protocol,
        )
        for place in self._inherited.get("plain") or settings.listen_plain:
            await self._listen(plain, place, None, ending)

    def _compare(self, purpose: str, wanted: Sequence[Endpoint]) -> None:
        """Warn of sockets of systemd's that are not those of the settings."""
        given = self._inherited.get(purpose)
        other = resolved.other_addresses(wanted, [s.getsockname()[:2] for s in given or ()])
        if given and other:
            log.warning(
                "systemd's sockets are not those of the settings; renew and restart their units",
                extra={"reason": ", ".join(other)},
            )

    async def _listen(
        self,
        front: Front,
        place: Endpoint | socket.socket,
        tls: TlsSource | None,
        ending: AsyncExitStack,
    ) -> None:
        sock = place if isinstance(place, socket.socket) else None
        host, port = (
            (None, 0) if isinstance(place, socket.socket) else (place.host or None, place.port)
        )
        make_tls: MakeTls = TlsStream
        if self.settings.proxy_protocol:
            make_tls = partial(ProxiedTlsStream, trusted=self.settings.trusted_proxies)
        try:
            listener = await listen(front.sink, host, port, sock=sock, tls=tls, make_tls=make_tls)
        except OSError as error:
            if host == "::" and error.errno in relaying.NO_IPV6:
                log.warning("this machine has no IPv6", extra={"remote": str(place)})
                return
            raise OSError(error.errno, f"cannot listen on {place}: {error.strerror}") from error
        self.listeners.append(listener)
        ending.callback(listener.abort_streams)
        ending.callback(listener.close)

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

    async def _open_metrics(self, door: Door, ending: AsyncExitStack) -> None:
        place, given = self.settings.metrics.listen, self._inherited.get("metrics", ())
        if place is None and not given:
            return
        runner = await start_web(api.build_metrics(door), shutdown_s=1.0)
        ending.push_async_callback(runner.cleanup)
        for sock in given:
            await web.SockSite(runner, sock).start()
        if place is not None and not given:
            await web.TCPSite(runner, place.host or None, place.port).start()

    # ── while it runs ────────────────────────────────────────────────────────────────────────

    async def _apply_settings(self) -> None:
        """Take the settings over into the tailnets; nodes hear what it changes for them."""
        derp_map = resolved.derp_map(self.settings, self._ports())
        for wanted in self.settings.all_tailnets:
            live = self._live_named(wanted.name)
            if live is None:
                continue
            values = resolved.tailnet_settings(self.settings, wanted, derp_map)
            async with live.edit(by=SYSTEM) as edit:
                renamed = tailnet_settings.take_over(edit, values, domain=wanted.base_domain)
            for old, node in renamed:
                why = f"{old} is reserved, or a static record of the site file"
                log.warning("node renamed", extra={"node": node.name, "reason": why})

    def _ports(self) -> resolved.Ports:
        """Say what is only known while listening: ports, and the pin of a lonely certificate."""
        return resolved.Ports(
            https=None if self.settings.listen[0].port else self.listeners[0].port,
            stun=self._stun_ports[0] if self._stun_ports else None,
            cert_name="" if self.certificates is None else self.certificates.pin,
        )

    def _live_named(self, name: str) -> LiveTailnet | None:
        return next((each for each in self.tailnets if each.snapshot.tailnet.name == name), None)

    async def _reload(self) -> None:
        systemd.reloading()
        try:
            if self.certificates is not None:
                self.certificates.files.check()
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
        await self._apply_settings()
        await self._look_for_policies()
        log.info("settings reloaded", extra={"reason": ", ".join(plan.changed) or "no change"})
        if plan.waiting:
            log.warning("settings wait for a restart", extra={"reason": ", ".join(plan.waiting)})

    async def _look_for_policies(self) -> None:
        """Take the policies from where the settings say now; also those that were refused."""
        for wanted in self.settings.all_tailnets:
            live = self._live_named(wanted.name)
            if live is not None:
                await self.policies[live.id].take_over(resolved.policy_source(wanted))

    def _render_metrics(self) -> bytes:
        return self._exporter.render()

    async def _is_database_well(self) -> bool:
        try:
            async with asyncio.timeout(DATABASE_PING_S):
                await self._database.ping()
        except Exception:
            log.exception("database does not answer")
            return False
        return True

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _cancel_tasks(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()


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
    from urllib.parse import quote

    password = quote(config.read_secret(settings.database_password_file), safe="")
    return f"{scheme}://{user}:{password}{at}{place}"
