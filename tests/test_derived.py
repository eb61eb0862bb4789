"""What follows from the settings: the map of relays that nodes are given."""

from __future__ import annotations

from appliance import config, derived

RELAY = {"host": "two.example.com", "ipv4": "192.0.2.2"}


def test_region_of_our_own_number_adds_the_other_relays_behind_ours() -> None:
    settings = config.build(
        {
            "server_url": "http://one.example.com",
            "tls": {"mode": "off"},
            "derp": {
                "server": {"region_id": 901, "region_code": "here"},
                "regions": [{"id": 901, "code": "here", "nodes": [RELAY]}],
            },
        }
    )
    regions = derived.derp_map(settings, derived.Ports()).regions or {}
    region = regions[901]
    assert [node.host_name for node in region.nodes] == ["one.example.com", "two.example.com"]
    assert len({node.name for node in region.nodes}) == 2


def test_region_of_another_number_stands_beside_ours() -> None:
    settings = config.build(
        {
            "server_url": "http://one.example.com",
            "tls": {"mode": "off"},
            "derp": {"regions": [{"id": 901, "code": "there", "nodes": [RELAY]}]},
        }
    )
    regions = derived.derp_map(settings, derived.Ports()).regions or {}
    assert sorted(regions) == [901, 999]
