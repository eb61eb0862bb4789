"""Where each metric is read: the parts have the numbers, the exporter asks when it is asked.

Not for declaring metrics (``metrics``) nor for counting (the parts do).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from appliance import __version__
from appliance.api.gate import GateCounters
from appliance.console.attempts import Attempts
from appliance.control.machine import MachineDoor
from appliance.control.ts2021 import Ts2021
from appliance.live.logins import LiveLogins
from appliance.live.policy import PolicyKeeper, PolicyStatus
from appliance.metrics import Exporter, integers
from appliance.relay.admission import Verifier
from appliance.relay.counters import Drop, Refusal, RelayCounters
from appliance.serve.process import Process
from appliance.serve.relay import Relay
from appliance.serve.runtime import TailnetRuntime
from appliance.serve.supervise import Supervisor


def observe_process(export: Exporter, process: Process) -> None:
    """Name the sources that every process has."""
    started_at = time.time()
    export.source("headwater_build_info", lambda: {__version__: 1.0})
    export.source("headwater_server_start_seconds", lambda: started_at)
    _observe_loops(export, process.supervisor)
    _observe_front(export, process)


def observe_server(
    export: Exporter,
    runtimes: Sequence[TailnetRuntime],
    ts2021: Ts2021,
    machines: MachineDoor,
) -> None:
    """Name the sources of the control server."""
    _observe_tailnets(export, runtimes)
    _observe_policies(export, runtimes)
    _observe_control(export, runtimes, ts2021)
    valves = {"register": machines.registering, "map": machines.opening}
    export.source(
        "headwater_control_deferred_total",
        lambda: {kind: float(valve.deferred) for kind, valve in valves.items()},
    )


def observe_logins(export: Exporter, logins: LiveLogins, attempts: Attempts) -> None:
    """Name the sources of what people decide, and of what strangers try."""
    export.source("headwater_logins_waiting", lambda: float(len(logins.pending())))
    export.source("headwater_logins_held", lambda: float(logins.waiting))
    export.source(
        "headwater_logins_decided_total",
        lambda: {"approved": float(logins.approved), "rejected": float(logins.rejected)},
    )
    export.source(
        "headwater_console_attempts_total",
        lambda: {"failed": float(attempts.failed), "refused": float(attempts.refused)},
    )


def observe_relay(export: Exporter, relay: Relay) -> None:
    """Name the sources of a relay with its STUN server and its mesh."""
    _observe_door(export, relay.door.counters)
    stun = relay.stun.counters
    export.source("headwater_stun_requests_total", lambda: integers(stun))
    if relay.mesh is None:
        return
    mesh = relay.mesh.counters
    export.source("headwater_relay_mesh_links", lambda: float(mesh.connected))
    export.source(
        "headwater_relay_mesh_total",
        lambda: {
            "dials": float(mesh.dials),
            "broken": float(mesh.broken),
            "packets_sent": float(mesh.sent),
        },
    )


def observe_admission(export: Exporter, verifier: Verifier) -> None:
    """Name the sources of a relay that asks whom to admit."""
    export.source("headwater_relay_admission_total", lambda: integers(verifier.counters))


def observe_api(export: Exporter, counters: GateCounters) -> None:
    """Name the sources of the API over the network."""
    export.source("headwater_api_requests_total", lambda: integers(counters))


def _observe_loops(export: Exporter, supervisor: Supervisor) -> None:
    def failing() -> dict[str, float]:
        found = dict.fromkeys(supervisor.failures, 0.0)
        for each in supervisor.failing:
            found[each.name] += 1
        return found

    export.source(
        "headwater_loop_failures_total",
        lambda: {name: float(count) for name, count in supervisor.failures.items()},
    )
    export.source("headwater_loop_failing", failing)


def _observe_tailnets(export: Exporter, runtimes: Sequence[TailnetRuntime]) -> None:
    def total(count: Callable[..., int]) -> Callable[[], float]:
        return lambda: float(sum(count(each.live.snapshot) for each in runtimes))

    export.source("headwater_tailnet_nodes", total(lambda s: len(s.nodes)))
    export.source("headwater_tailnet_users", total(lambda s: len(s.users)))
    export.source("headwater_tailnet_auth_keys", total(lambda s: len(s.auth_keys)))
    export.source("headwater_tailnet_version_total", total(lambda s: int(s.version)))
    export.source(
        "headwater_tailnet_nodes_online",
        total(lambda s: sum(presence.online for presence in s.presence.values())),
    )


def _observe_policies(export: Exporter, runtimes: Sequence[TailnetRuntime]) -> None:
    def each(read: Callable[[PolicyKeeper], float]) -> Callable[[], dict[str, float]]:
        return lambda: {runtime.name: read(runtime.policy) for runtime in runtimes}

    def trouble(status: PolicyStatus) -> float:
        return 2.0 if status.denies_all else float(bool(status.trouble))

    export.source(
        "headwater_policy_since_seconds",
        each(lambda keeper: since.timestamp() if (since := keeper.status.since) else 0.0),
    )
    export.source("headwater_policy_refused_total", each(lambda keeper: float(keeper.refused)))
    export.source("headwater_policy_trouble", each(lambda keeper: trouble(keeper.status)))


def _observe_front(export: Exporter, process: Process) -> None:
    listeners, fronts = process.listeners, process.fronts
    export.source("headwater_front_streams", lambda: _sum(len(each.streams) for each in listeners))
    export.source("headwater_front_accepted_total", lambda: _sum(x.accepted for x in listeners))
    export.source("headwater_front_refused_total", lambda: _sum(x.refused for x in listeners))
    export.source("headwater_front_stalled_total", lambda: _sum(x.stalled for x in listeners))
    export.source("headwater_front_waiting", lambda: _sum(x.waiting for x in fronts))
    export.source("headwater_front_requests_total", lambda: _added(x.counters for x in fronts))
    export.source(
        "headwater_tls_handshakes_total",
        lambda: {
            "finished": _sum(each.gate.counters.finished for each in listeners),
            "failed": _sum(each.gate.counters.failed for each in listeners),
            "timed_out": _sum(each.gate.counters.timed_out for each in listeners),
            "refused": _sum(each.gate.counters.refused for each in listeners),
            "evicted": _sum(each.gate.counters.evicted for each in listeners),
        },
    )
    certificate = process.certificate
    if certificate is None:
        return
    export.source("headwater_tls_reloads_total", lambda: float(certificate.reloads))
    export.source("headwater_tls_reload_failures_total", lambda: float(certificate.failures))

    def expires_at() -> float:
        return certificate.facts.not_after.timestamp()  # another certificate after a renewal

    export.source("headwater_tls_expiry_seconds", expires_at)
    export.source("headwater_tls_attempts_total", lambda: float(certificate.attempts))
    export.source("headwater_tls_provisional", lambda: float(certificate.is_provisional))


def _observe_control(export: Exporter, runtimes: Sequence[TailnetRuntime], door: Ts2021) -> None:
    sessions = tuple(runtime.sessions for runtime in runtimes)
    export.source("headwater_control_links", lambda: float(len(door.links)))
    export.source("headwater_control_handshakes_total", lambda: integers(door.counters))
    export.source(
        "headwater_control_closed_total",
        lambda: {reason: float(count) for reason, count in door.counters.closed.items()},
    )
    export.source("headwater_control_map_sessions", lambda: _sum(len(each) for each in sessions))
    for name, field in (
        ("headwater_control_map_sessions_total", "sessions"),
        ("headwater_control_map_replaced_total", "replaced"),
        ("headwater_control_map_stalled_total", "stalled"),
        ("headwater_control_map_failed_total", "failed"),
        ("headwater_control_map_rounds_total", "rounds"),
    ):
        export.source(name, lambda f=field: _sum(getattr(s.counters, f) for s in sessions))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    kinds = {"full": "full_maps", "delta": "deltas", "keep_alive": "keep_alives"}
    export.source(
        "headwater_control_map_messages_total",
        lambda: {
            kind: _sum(getattr(each.counters, field) for each in sessions)
            for kind, field in kinds.items()
        },
    )


_RELAY_EVENTS = (
    "pings",
    "pongs",
    "keep_alives",
    "peer_gone_disconnected",
    "peer_gone_not_here",
    "home_moves_in",
    "home_moves_out",
    "unknown_frames",
    "rate_limited",
    "fast_starts",
    "websockets",
)


def _observe_door(export: Exporter, counters: RelayCounters) -> None:
    export.source(
        "headwater_relay_clients",
        lambda: {
            "all": counters.clients,
            "home": counters.home_clients,
            "mesh": counters.mesh_clients,
            "not_ideal": counters.not_ideal_clients,
            "watching": counters.watchers,
            "keys_twice": counters.duplicate_keys,
        },
    )
    export.source("headwater_relay_logins_total", lambda: counters.accepted)
    export.source(
        "headwater_relay_packets_total",
        lambda: {
            "received": counters.packets_received,
            "received_disco": counters.disco_received,
            "sent": counters.packets_sent,
            "forwarded_in": counters.forwarded_in,
            "forwarded_out": counters.forwarded_out,
        },
    )
    export.source(
        "headwater_relay_bytes_total",
        lambda: {"received": counters.bytes_received, "sent": counters.bytes_sent},
    )
    export.source("headwater_relay_refused_total", lambda: _by_name(counters.refused))
    export.source("headwater_relay_dropped_packets_total", lambda: _by_name(counters.dropped))
    export.source("headwater_relay_dropped_bytes_total", lambda: _by_name(counters.dropped_bytes))
    export.source(
        "headwater_relay_events_total",
        lambda: {name: float(getattr(counters, name)) for name in _RELAY_EVENTS},
    )


def _by_name(counts: Mapping[Refusal, int] | Mapping[Drop, int]) -> dict[str, float]:
    return {str(reason): float(count) for reason, count in counts.items()}


def _added(counters: Iterable[object]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in counters:
        for name, value in integers(each).items():
            total[name] = total.get(name, 0.0) + value
    return total


def _sum(numbers: Iterable[int]) -> float:
    return float(sum(numbers))
