"""``headwater serve``: where the parts of the control server are made and joined.

Not for what any part does, nor for what every process does (``process``). Start: keys, database,
certificate, sockets bound, tailnets with their settings, doors; then every listener accepts, "ready".
Stop: the same backwards.
"""

from __future__ import annotations

import gc
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import quote

from aiohttp import web

from appliance import config, records, redaction
from appliance.api import app as api
from appliance.api import keyuses, public
from appliance.api.door import Door, no_provider
from appliance.api.gate import Gate
from appliance.config import Settings, Tailnet, resolved
from appliance.console import app as console
from appliance.console.door import Console
from appliance.control.http2 import engine
from appliance.control.machine import MachineDoor
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front, Route
from appliance.front.http import start_web, trust_proxies
from appliance.identity import tokens
from appliance.identity.passkeys import Passkeys
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnets
from appliance.live.logins import LiveLogins
from appliance.loops import Loop
from appliance.metrics import Exporter
from appliance.serve import exporter, localsocket, openid, statedir, systemd
from appliance.serve.listeners import Sockets, accept
from appliance.serve.openid import OpenId
from appliance.serve.process import Process
from appliance.serve.relay import Relay, Revocation
from appliance.serve.runtime import TailnetRuntime, Wanted
from appliance.serve.supervise import Supervisor
from appliance.store.auditlog import Retention
from appliance.store.store import Database
from appliance.tailnet.snapshot import Sequences, Snapshot
from appliance.wire.keys import MachineKey, NodeKey, PrivateKey

log = logging.getLogger(__name__)

GC_THRESHOLDS = (10_000, 20, 50)
"""Hardly anything here is cyclic, and every look at all that lives costs as many ms as there are
thousands of nodes: a quarter of a registration's time with Python's own (700, 10, 10)."""


class Server(Process):
    """One server, from its settings to its end."""

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
        super().__init__(
            settings,
            reload=reload,
            certificate_names=certificate_names or settings.certificate_names,
            self_signed=self_signed,
            inherited=inherited,
            supervisor=supervisor,
        )
        self.runtimes: tuple[TailnetRuntime, ...] = ()
        self.ports = resolved.Ports()
        self.database: Database | None = None
        self.relay: Relay | None = None
        self.openid: OpenId | None = None
        self.ssh_checks = SSHChecks(secrets.token_bytes, url=settings.server_url.rstrip("/"))
        self._routes: dict[str, Route] = {}
        self._take_over_database = take_over

    @property
    def tailnets(self) -> LiveTailnets:
        """All tailnets, once they are loaded; the default one first."""
        return LiveTailnets([runtime.live for runtime in self.runtimes])

    @property
    def _status(self) -> str:
        return f"serving {self.settings.server_url}"

    def _about(self) -> dict[str, object]:
        server = self.settings.derp.server
        place = "separate" if server.separate else "on" if server.enabled else "off"
        return {
            **super()._about(),
            "database": redaction.redact(self.settings.database),
            "relay": place,
            "tailnets": ", ".join(runtime.name for runtime in self.runtimes),
        }

    # ── start, in order ──────────────────────────────────────────────────────────────────────

    async def _start(self, ending: AsyncExitStack) -> None:
        settings = self.settings
        key_path = settings.state_dir / "noise.key"
        known = statedir.known_key(key_path)
        database = await self._open_database(ending, may_be_new=known is None)
        # Made under the database's lock: else one of two servers may overwrite the other's.
        noise_key = known or statedir.private_key(key_path, secrets.token_bytes)
        if known is None and not database.is_new:
            log.warning(
                "the server's key was missing, and a new one is made: every node must log in again",
                extra={"path": str(key_path)},
            )
        tls = await self._open_certificate(self._certificate_names)
        sockets = await self._bind(resolved.server_places(settings), ending)
        self.ports = resolved.Ports(
            https=None if settings.listen[0].port else sockets.listen[0].port,
            stun=sockets.stun[0].getsockname()[1] if sockets.stun else None,
        )
        await self._make_runtimes(database)
        self.supervisor.start(Loop("database", database.guard))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        tailnets, metrics = self.tailnets, Exporter()
        logins = LiveLogins(
            tailnets,
            settings.server_url,
            random_bytes=secrets.token_bytes,
            rng=random.SystemRandom(),
        )
        machines = self._make_machines(tailnets, logins)
        ts2021 = self._make_control(tailnets, machines, noise_key, ending)
        self._routes["/ts2021"] = ts2021.open
        self._make_relay(tailnets, ending)
        self.openid = openid.of_site(settings)
        door = self._make_door(tailnets, logins, database, metrics)
        app = public.build(door, MachineKey(noise_key.public_raw))
        seal = tokens.Seal(noise_key.derive(tokens.Seal.PURPOSE))
        gate = Gate(door, seal)
        api.add_remote(app, door, gate, seal)
        self.supervisor.start(*keyuses.loops(door))
        pages = self._make_console(tailnets, logins)
        console.add_to(app, pages)
        if self.openid is not None:
            self.openid.add_to(app, pages, self.supervisor, ending)
        app.middlewares.insert(0, trust_proxies(settings.trusted_proxies))
        runner = await start_web(app)
        ending.push_async_callback(runner.cleanup)
        # Nobody was accepted so far, and all that a connection may meet is complete.
        https = (settings.host, settings.port)
        await self._accept(sockets, self._routes, tls, ending, web=runner.server, https=https)
        exporter.observe_process(metrics, self)
        exporter.observe_server(metrics, self.runtimes, ts2021, machines)
        exporter.observe_api(metrics, gate.counters)
        exporter.observe_logins(metrics, logins, pages.attempts)
        if self.relay is not None:
            self.relay.start(sockets.stun)
            exporter.observe_relay(metrics, self.relay)
        await self._open_local_socket(door, ending)
        await self._open_metrics(sockets, door, ending)

    async def _open_database(self, ending: AsyncExitStack, *, may_be_new: bool) -> Database:
        database = self.database = Database.open(
            database_url(self.settings), take_over=self._take_over_database
        )
        ending.push_async_callback(self._close_database, database)
        kept = self.settings.audit
        database.retention = Retention(max_age=kept.max_age, max_entries=kept.max_entries)
        async with systemd.extend_start_timeout("bringing the database to a new form"):
            await database.migrate(may_be_new=may_be_new)
        return database

    async def _close_database(self, database: Database) -> None:
        for runtime in self.runtimes:
            snapshot, now = runtime.live.snapshot, runtime.live.clock()
            online = [(i, now) for i, p in snapshot.presence.items() if p.online]
            database.note_last_seen(online)
        await database.close()

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

    def _make_machines(self, tailnets: LiveTailnets, logins: LiveLogins) -> MachineDoor:
        return MachineDoor(
            tailnets,
            {runtime.id: runtime.sessions for runtime in self.runtimes},
            {runtime.id: runtime.encoder for runtime in self.runtimes},
            self.ssh_checks,
            logins,
            rng=random.SystemRandom(),
        )

    def _make_control(
        self,
        tailnets: LiveTailnets,
        machines: MachineDoor,
        noise_key: PrivateKey,
        ending: AsyncExitStack,
    ) -> Ts2021:
        ts2021 = Ts2021(
            noise_key,
            machines.handle,
            http2=engine(self.settings.http2),
            is_known=lambda key: tailnets.find_machine(key) is not None,
        )
        self.supervisor.start(*ts2021.loops())
        ending.push_async_callback(ts2021.close)
        for runtime in self.runtimes:
            ending.push_async_callback(runtime.sessions.close)
        return ts2021

    def _make_relay(self, tailnets: LiveTailnets, ending: AsyncExitStack) -> None:
        """Make the relay inside this process, unless it is off or runs by itself."""
        settings, server = self.settings, self.settings.derp.server
        if not server.enabled or server.separate:
            return

        def admit(key: NodeKey, _source: str) -> bool:
            return public.may_relay(tailnets, key)

        relay = self.relay = Relay(settings, admit)
        ending.callback(relay.close)
        relay.put_routes(self._routes, settings)
        self.supervisor.start(*relay.loops())
        if server.verify_clients:
            for runtime in self.runtimes:
                self.supervisor.start(*Revocation(runtime.live, relay.door).loops())

    def _make_door(
        self, tailnets: LiveTailnets, logins: LiveLogins, database: Database, metrics: Exporter
    ) -> Door:
        return Door(
            tailnets=tailnets,
            policies={runtime.id: runtime.policy for runtime in self.runtimes},
            database_trouble=database.health,
            random_bytes=secrets.token_bytes,
            rng=random.SystemRandom(),
            metrics=metrics.render,
            ssh_checks=self.ssh_checks,
            audit=database.audit,
            logins=logins,
            base_url=self.settings.server_url.rstrip("/"),
            release=self.settings.api.release,
            certificate=self.certificate,
            failing=lambda: self.supervisor.failing,
            issuer_of=no_provider if self.openid is None else self.openid.issuer_of,
            warnings=self._warnings,
        )

    def _warnings(self) -> Sequence[str]:
        found = () if self.openid is None else self.openid.warnings
        return (*self.site_warnings(), *found)

    def _make_console(self, tailnets: LiveTailnets, logins: LiveLogins) -> Console:
        base_url = self.settings.server_url.rstrip("/")
        return Console(
            tailnets=tailnets,
            base_url=base_url,
            random_bytes=secrets.token_bytes,
            rng=random.SystemRandom(),
            logins=logins,
            ssh_checks=self.ssh_checks,
            passkeys=Passkeys(base_url, secrets.token_bytes),
        )

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
        if self.relay is not None:
            self.relay.put_routes(self._routes, self.settings)

    async def _read_sources_again(self) -> None:
        """Read the policies again; also those that were refused before."""
        for runtime in self.runtimes:
            await runtime.reload_policy()


def database_url(settings: Settings) -> str:
    """Give the URL with the password from its file."""
    url = settings.database
    if settings.database_password_file is None:
        return url
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    password = quote(config.read_secret(settings.database_password_file), safe="")
    return f"{scheme}://{user}:{password}{at}{place}"
