"""``headwater relay``: a relay in a process of its own, beside the server or on another host.

It asks the server whom to admit. Everything that it shares with the server is in ``process`` and
``relay``. Not for tailnets: it knows none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from appliance.config import Settings, resolved
from appliance.front.dispatch import Front, Route
from appliance.front.stream import Listener, Stream
from appliance.metrics import CONTENT_TYPE, Exporter
from appliance.relay.admission import Verifier
from appliance.serve import exporter, systemd
from appliance.serve.listeners import accept
from appliance.serve.process import Process
from appliance.serve.relay import Relay
from appliance.serve.supervise import Supervisor
from appliance.wire.http1 import Answer, Head


class RelayHost(Process):
    """One relay, from its settings to its end."""

    def __init__(
        self,
        settings: Settings,
        *,
        reload: Callable[[], Settings] | None = None,
        inherited: systemd.Inherited | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        super().__init__(settings, reload=reload, inherited=inherited, supervisor=supervisor)
        self.relay: Relay | None = None
        """Its parts, once it has started."""
        self.metrics_listeners: list[Listener] = []
        self._routes: dict[str, Route] = {}
        self._verifier = _verifier(settings)

    @property
    def _status(self) -> str:
        return f"relaying for {self.settings.derp.server.region_name}"

    async def _start(self, ending: AsyncExitStack) -> None:
        settings, server = self.settings, self.settings.derp.server
        host = server.host or settings.host
        names: tuple[str, ...] = (host, settings.host)
        if settings.tls.mode == "acme" and not server.separate:
            names = (host, *settings.tls.names)  # the server's name is for the server to prove
        tls = await self._open_certificate(
            tuple(dict.fromkeys(names)), is_beside_server=server.separate
        )
        sockets = await self._bind(resolved.relay_places(settings), ending)
        ending.push_async_callback(self._verifier.close)
        relay = self.relay = Relay(settings, self._verifier.admit)
        ending.callback(relay.close)
        relay.put_routes(self._routes, settings)
        https = (host, server.port or settings.port)
        await self._accept(sockets, self._routes, tls, ending, https=https)
        relay.start(sockets.stun)
        self.supervisor.start(*relay.loops())
        metrics = Exporter()
        exporter.observe_process(metrics, self)
        exporter.observe_relay(metrics, relay)
        exporter.observe_admission(metrics, self._verifier)
        front = Front({"/metrics": _metrics(metrics), "/health": self._health})
        for bound in sockets.metrics:
            self.metrics_listeners.append(await accept(bound, front, ending))

    async def _apply_settings(self) -> None:
        if self.relay is not None:
            self.relay.put_routes(self._routes, self.settings)

    async def _read_sources_again(self) -> None:
        """Do nothing: a relay has no policy."""

    def _about(self) -> dict[str, object]:
        return {**super()._about(), "region": self.settings.derp.server.region_name}

    def _health(self, _head: Head, _stream: Stream) -> Answer:
        """Answer in the form of health checks (draft-inadarei-api-health-check).

        A loop that fails is a warning, and so is a server that does not say whom to admit.
        """
        is_silent = self._verifier.silent_for_s is not None
        grade = b"warn" if self.supervisor.failing or is_silent else b"pass"
        return Answer(200, b'{"status":"%s"}' % grade, content_type="application/health+json")


def _metrics(metrics: Exporter) -> Route:
    def route(_head: Head, _stream: Stream) -> Answer:
        return Answer(200, metrics.render(), content_type=CONTENT_TYPE)

    return route


def _verifier(settings: Settings) -> Verifier:
    server = settings.derp.server
    return Verifier(
        verify_url(settings),
        socket_path=str(settings.socket.path) if server.separate else None,
        fail_open=server.verify_fail_open,
    )


def verify_url(settings: Settings) -> str:
    """Return the URL that says whom to admit: the server's own socket, or the server's address."""
    if settings.derp.server.separate:
        return "http://headwater/verify"
    return settings.server_url.rstrip("/") + "/verify"
