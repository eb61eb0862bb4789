"""Every metric, declared: name, kind, meaning, bounded labels.

Parts keep plain integers; ``server`` tells an ``Exporter`` where to read them, and they are read
when somebody asks. Not for counting. Names are ``headwater_<room>_<thing>_<unit>``; node and user
names are never labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of what ``Exporter.render`` returns. Source: prometheus.io exposition formats, text format."""

Reading = float | Mapping[str, float]
"""One number, or a number for each value of the metric's one label."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A declaration. ``label`` is empty, or the one label whose values are a closed set."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    label: str = ""


METRICS: tuple[Metric, ...] = (
    Metric("headwater_build_info", "gauge", "Always 1; the version is the label.", "version"),
    Metric("headwater_server_start_seconds", "gauge", "Unix time of the start."),
    Metric(
        "headwater_loop_failures_total",
        "counter",
        "Steps of background loops that failed and were tried again.",
        "loop",
    ),
    Metric("headwater_loop_failing", "gauge", "Background loops that fail now.", "loop"),
    Metric("headwater_tailnet_nodes", "gauge", "Nodes of all tailnets."),
    Metric(
        "headwater_tailnet_nodes_online", "gauge", "Nodes that are connected, or were just now."
    ),
    Metric("headwater_tailnet_users", "gauge", "Users of all tailnets."),
    Metric("headwater_tailnet_auth_keys", "gauge", "Auth keys, used and expired ones too."),
    Metric("headwater_tailnet_version_total", "counter", "Published snapshots of all tailnets."),
    Metric(
        "headwater_policy_since_seconds",
        "gauge",
        "Unix time at which the policy in force was set; 0 without one.",
        "tailnet",
    ),
    Metric("headwater_policy_refused_total", "counter", "Texts that did not become it.", "tailnet"),
    Metric(
        "headwater_policy_trouble",
        "gauge",
        "1 while the newest text that was offered is not in force, 2 while everything is denied.",
        "tailnet",
    ),
    Metric("headwater_front_streams", "gauge", "Open connections of all listeners."),
    Metric("headwater_front_accepted_total", "counter", "Accepted connections."),
    Metric("headwater_front_refused_total", "counter", "Connections refused for lack of room."),
    Metric("headwater_front_stalled_total", "counter", "Peers closed because they did not read."),
    Metric("headwater_front_waiting", "gauge", "Connections without a complete request head."),
    Metric(
        "headwater_front_requests_total", "counter", "Request heads by what became of them.", "fate"
    ),
    Metric("headwater_tls_handshakes_total", "counter", "TLS handshakes by outcome.", "outcome"),
    Metric("headwater_tls_reloads_total", "counter", "Certificates taken over while running."),
    Metric(
        "headwater_tls_reload_failures_total", "counter", "New certificates that were unusable."
    ),
    Metric(
        "headwater_tls_provisional",
        "gauge",
        "1 while a self-signed certificate serves until an authority has given the first one.",
    ),
    Metric("headwater_tls_attempts_total", "counter", "Certificates that were asked for."),
    Metric("headwater_tls_expiry_seconds", "gauge", "Unix time at which the certificate expires."),
    Metric("headwater_control_links", "gauge", "Open Noise links."),
    Metric(
        "headwater_control_handshakes_total", "counter", "Noise handshakes by outcome.", "outcome"
    ),
    Metric("headwater_control_closed_total", "counter", "Ended links by reason.", "reason"),
    Metric(
        "headwater_control_deferred_total",
        "counter",
        "Requests that were told to come again later, because too many waited.",
        "kind",
    ),
    Metric("headwater_logins_waiting", "gauge", "Devices without a key that wait to be let in."),
    Metric(
        "headwater_logins_held", "gauge", "Requests of such devices that are held for a decision."
    ),
    Metric(
        "headwater_logins_decided_total",
        "counter",
        "Devices without a key that were let in or refused.",
        "outcome",
    ),
    Metric(
        "headwater_console_attempts_total",
        "counter",
        "Codes, links and passkeys that were wrong, or not looked at because there were too many.",
        "outcome",
    ),
    Metric("headwater_control_map_sessions", "gauge", "Open map polls."),
    Metric("headwater_control_map_sessions_total", "counter", "Map polls since the start."),
    Metric("headwater_control_map_messages_total", "counter", "Messages sent in polls.", "kind"),
    Metric("headwater_control_map_replaced_total", "counter", "Polls ended by a newer one."),
    Metric("headwater_control_map_stalled_total", "counter", "Polls ended because nobody read."),
    Metric("headwater_control_map_failed_total", "counter", "Polls ended by a fault of ours."),
    Metric("headwater_control_map_rounds_total", "counter", "Distributions of a publication."),
    Metric(
        "headwater_api_requests_total",
        "counter",
        "Requests to the API over the network, by what became of their key.",
        "outcome",
    ),
    Metric("headwater_relay_clients", "gauge", "Relay connections by kind; kinds overlap.", "kind"),
    Metric("headwater_relay_logins_total", "counter", "Logins that went well."),
    Metric("headwater_relay_refused_total", "counter", "Connections refused or ended.", "reason"),
    Metric("headwater_relay_packets_total", "counter", "Packets by what became of them.", "fate"),
    Metric("headwater_relay_bytes_total", "counter", "Bytes inside packets.", "fate"),
    Metric("headwater_relay_dropped_packets_total", "counter", "Packets dropped.", "reason"),
    Metric("headwater_relay_dropped_bytes_total", "counter", "Bytes of those.", "reason"),
    Metric("headwater_relay_events_total", "counter", "Other things that happened.", "event"),
    Metric(
        "headwater_relay_mesh_links", "gauge", "Links to other relays of the region that are up."
    ),
    Metric("headwater_relay_mesh_total", "counter", "What the mesh did.", "event"),
    Metric(
        "headwater_relay_admission_total",
        "counter",
        "Questions of a relay by itself whom to admit, by what was answered.",
        "outcome",
    ),
    Metric("headwater_stun_requests_total", "counter", "STUN packets by outcome.", "outcome"),
)

_BY_NAME = {metric.name: metric for metric in METRICS}


class Exporter(Collector):
    """Reads every metric that has a source, in the order of the declarations."""

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], Reading]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def source(self, name: str, read: Callable[[], Reading]) -> None:
        """Say where a declared metric is read. Raises KeyError for an undeclared one."""
        if name not in _BY_NAME:
            raise KeyError(f"the metric {name} is not declared")
        self._sources[name] = read

    def collect(self) -> Iterator[Family]:
        """Read all sources (called by the registry)."""
        for metric in METRICS:
            read = self._sources.get(metric.name)
            if read is not None:
                yield _family(metric, read())

    def describe(self) -> Iterator[Family]:
        """Say nothing ahead: sources are read only when asked."""
        return iter(())

    def render(self) -> bytes:
        """Give everything in Prometheus' text form."""
        return generate_latest(self._registry)


def integers(counters: object) -> dict[str, float]:
    """Read every plain number of a counter object by its name."""
    names = getattr(counters, "__slots__", None) or vars(counters)
    found = {name: getattr(counters, name) for name in names}
    return {name: float(value) for name, value in found.items() if isinstance(value, int)}


def _family(metric: Metric, reading: Reading) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    if isinstance(reading, Mapping):
        family = kind(metric.name, metric.help, labels=[metric.label])
        for value, number in sorted(reading.items()):
            family.add_metric([value], number)
        return family
    return kind(metric.name, metric.help, value=reading)
