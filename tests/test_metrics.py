"""Metrics: declared once, well named, read when asked; every declared one has a source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.metrics import METRICS, Exporter, Metric, integers
from tests.serve.test_relay_alone import get, relaying
from tests.serve.test_server import over_socket, plan, running
from tests.support.ports import free_port


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_declaration_is_well_formed(metric: Metric) -> None:

    name, kind, text = metric.name, metric.kind, metric.help
    assert re.fullmatch(r"headwater_[a-z]+(_[a-z]+)+", name)
    assert (kind == "counter") == name.endswith("_total")
    assert text.endswith(".")


def test_names_are_declared_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


def test_undeclared_metric_is_refused() -> None:
    with pytest.raises(KeyError, match="headwater_no_such"):
        Exporter().source("headwater_no_such", lambda: 1)


def test_sources_are_read_when_asked() -> None:
    export = Exporter()
    count = [1]
    export.source("headwater_tailnet_nodes", lambda: count[-1])
    export.source("headwater_relay_refused_total", lambda: {"late": 2, "login": 3})
    count.append(7)
    text = export.render().decode()
    assert "headwater_tailnet_nodes 7.0" in text
    assert 'headwater_relay_refused_total{reason="late"} 2.0' in text
    assert "_created" not in text


def test_integers_reads_plain_numbers_only() -> None:
    class Counters:
        __slots__ = ("accepted", "by_reason", "closed")

        def __init__(self) -> None:
            self.accepted = 3
            self.closed = 0
            self.by_reason = {"x": 1}

    assert integers(Counters()) == {"accepted": 3.0, "closed": 0.0}


async def test_every_declared_metric_has_a_source(tmp_path: Path) -> None:
    key, port = tmp_path / "mesh.key", free_port()
    key.write_text("ab" * 32)
    mesh = {"key_file": str(key), "peers": ["https://127.0.0.1:1/derp"]}
    settings = plan(
        tmp_path,
        server_url="https://127.0.0.1",
        tls={"mode": "local_ca"},
        metrics={"listen": f"127.0.0.1:{port}"},
        derp={"server": {"stun_listen": ["127.0.0.1:0"], "mesh": mesh}},
    )
    async with running(settings) as server:
        text = await over_socket(server.settings.socket.path, "/metrics")
    async with relaying(settings):
        text += await get(port, "GET /metrics")
    missing = [metric.name for metric in METRICS if f"# TYPE {metric.name}" not in text]
    assert not missing
