"""What follows from the settings: the map of relays that nodes are given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance import config
from appliance.config import Settings, resolved
from appliance.live.policy import PolicySource
from appliance.wire import tailcfg

RELAY = {"host": "two.example.com", "ipv4": "192.0.2.2"}


def test_region_of_our_own_number_adds_the_other_relays_behind_ours() -> None:
    settings = config.build(
        {
            "server_url": "https://one.example.com",
            "tls": {"mode": "off"},
            "derp": {
                "server": {"region_id": 901, "region_code": "here"},
                "regions": [{"id": 901, "code": "here", "nodes": [RELAY]}],
            },
        }
    )
    regions = resolved.derp_map(settings, resolved.Ports()).regions or {}
    region = regions[901]
    assert [node.host_name for node in region.nodes] == ["one.example.com", "two.example.com"]
    assert len({node.name for node in region.nodes}) == 2


def test_region_of_another_number_stands_beside_ours() -> None:
    settings = config.build(
        {
            "server_url": "https://one.example.com",
            "tls": {"mode": "off"},
            "derp": {"regions": [{"id": 901, "code": "there", "nodes": [RELAY]}]},
        }
    )
    regions = resolved.derp_map(settings, resolved.Ports()).regions or {}
    assert sorted(regions) == [901, 999]


def site(**changes: Any) -> Settings:
    return config.build(
        {"server_url": "https://hw.example.com", "tls": {"mode": "local_ca"}, **changes}
    )


def test_a_policy_in_the_settings_becomes_a_text_that_reads_the_same() -> None:
    document = {"groups": {"group:ä": ["a@example.com"]}, "acls": []}
    policy = {"mode": "settings", "document": document}
    source = resolved.policy_source(site(tailnet={"policy": policy}).tailnet)
    assert (source.mode, source.path) == ("settings", None)
    assert json.loads(source.text) == document
    assert "ä" in source.text
    assert source == resolved.policy_source(site(tailnet={"policy": policy}).tailnet)
    written = {"mode": "settings", "text": "// mine\n{}"}
    assert resolved.policy_source(site(tailnet={"policy": written}).tailnet).text == "// mine\n{}"
    assert resolved.policy_source(site().tailnet) == PolicySource("database")


def test_a_tailnet_owns_the_domains_of_its_settings() -> None:
    settings = site(tailnet={"email_domains": ["example.com", "example.org"]})
    values = resolved.tailnet_settings(settings, settings.tailnet, tailcfg.DERPMap())
    assert values.email_domains == {"example.com", "example.org"}


@pytest.mark.parametrize(
    ("changes", "changed", "waiting"),
    [
        ({}, (), ()),
        ({"log": {"level": "debug"}}, ("log.level",), ()),
        ({"dns": {"magic_dns": False}}, ("dns.magic_dns",), ()),
        ({"tailnet": {"key_expiry": "1d"}}, ("tailnet.key_expiry",), ()),
        (
            {"tailnet": {"policy": {"mode": "file", "path": "/p"}, "email_domains": ["a.example"]}},
            ("tailnet.policy.mode", "tailnet.policy.path", "tailnet.email_domains"),
            (),
        ),
        ({"tailnet": {"name": "other"}}, (), ("tailnet.name",)),
        ({"listen": ["127.0.0.1:1"]}, (), ("listen",)),
        ({"derp": {"server": {"host": "r"}}}, ("derp.server.host",), ()),
        (
            {
                "derp": {
                    "server": {"enabled": False},
                    "regions": [{"id": 901, "code": "there", "nodes": [RELAY]}],
                }
            },
            ("derp.regions",),
            ("derp.server.enabled",),
        ),
        ({"tailnets": [{"name": "b", "base_domain": "b.c"}]}, (), ("tailnets",)),
        (
            {"server_url": "https://new.example.com", "log": {"format": "json"}},
            ("log.format",),
            ("server_url",),
        ),
    ],
)
def test_reload_divides_what_is_hot_from_what_waits(
    changes: dict[str, Any], changed: tuple[str, ...], waiting: tuple[str, ...]
) -> None:
    plan = resolved.reload(site(), site(**changes))
    assert plan.changed == changed
    assert plan.waiting == waiting


def test_reload_keeps_a_tailnet_that_left_the_file() -> None:
    more = [{"name": "lab", "base_domain": "lab.c"}]
    plan = resolved.reload(site(tailnets=more), site())
    assert [each.name for each in plan.settings.tailnets] == ["lab"]
    more[0]["base_domain"] = "other.c"
    plan = resolved.reload(
        site(tailnets=[{"name": "lab", "base_domain": "lab.c"}]), site(tailnets=more)
    )
    assert [each.base_domain for each in plan.settings.tailnets] == ["other.c"]


@pytest.mark.parametrize(
    ("server_url", "server", "expected"),
    [
        ("https://hw.example.com", {}, ("hw.example.com", "", "", 0, 0)),
        ("https://hw.example.com:8443", {}, ("hw.example.com", "", "", 8443, 0)),
        ("https://192.0.2.1", {}, ("192.0.2.1", "192.0.2.1", "none", 0, 0)),
        ("https://[2001:db8::1]", {}, ("2001:db8::1", "none", "2001:db8::1", 0, 0)),
        (
            "https://hw.example.com",
            {"host": "relay.example.com", "port": 444, "ipv4": "192.0.2.2", "stun_port": 99},
            ("relay.example.com", "192.0.2.2", "", 444, 99),
        ),
        ("https://hw.example.com", {"stun_listen": []}, ("hw.example.com", "", "", 0, -1)),
        (
            "https://hw.example.com",
            {"separate": True, "listen": [":8443"]},
            ("hw.example.com", "", "", 8443, 0),
        ),
    ],
)
def test_own_relay_is_described_to_nodes(
    server_url: str, server: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    settings = site(server_url=server_url, derp={"server": server})
    (region,) = (resolved.derp_map(settings, resolved.Ports()).regions or {}).values()
    (node,) = region.nodes
    assert node.region_id == region.region_id == 999
    assert (node.host_name, node.ipv4, node.ipv6, node.derp_port, node.stun_port) == expected


def test_settings_reach_the_tailnet() -> None:
    settings = site(
        tailnet={"prefixes": {"v6": None, "allocation": "random"}, "file_sharing": False},
        dns={
            "nameservers": {"global": ["9.9.9.9"], "split": {"corp": ["10.0.0.1"]}},
            "extra_records": [{"name": "a.b", "value": "100.64.0.9"}],
        },
        tailnets=[{"name": "b", "base_domain": "b.c", "dns": {"magic_dns": False}}],
    )
    first, second = (
        resolved.tailnet_settings(settings, each, resolved.derp_map(settings, resolved.Ports()))
        for each in settings.all_tailnets
    )
    assert (first.prefix_v6, first.random_addresses, first.file_sharing) == (None, True, False)
    assert first.nameservers == ("9.9.9.9",)
    assert first.split_dns == (("corp", ("10.0.0.1",)),)
    assert first.extra_records[0].value == "100.64.0.9"
    assert (first.magic_dns, second.magic_dns) == (True, False)
    assert second.nameservers == ()
