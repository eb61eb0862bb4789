"""The model of the Go client against the Go client itself, message by message."""

from typing import Any

import msgspec
import pytest

from appliance.wire import tailcfg
from tests.support.fakeclient import ClientState, Netmap, apply, settle
from tests.vectors import load

SESSIONS = list(zip(load("inputs_mapsession.json"), load("go_mapsession.json"), strict=True))
json = msgspec.json.Encoder()


def seen_by_go(text: dict[str, Any]) -> tailcfg.MapResponse:
    """Read the netmap that Go gave; its names are near enough to those of a map response."""
    return tailcfg.decode_map_response(
        json.encode(
            {
                "Node": text["SelfNode"],
                "Peers": text["Peers"],
                "PacketFilters": {"base": text["PacketFilter"] or []},
                "DNSConfig": text["DNS"],
                "DERPMap": text["DERPMap"],
                "UserProfiles": list(text["UserProfiles"].values()),
                "Domain": text["Domain"],
                "DisplayMessages": text["DisplayMessages"],
                "SSHPolicy": text["SSHPolicy"],
            }
        )
    )


def texts_of(messages: Any) -> list[str]:
    # What Health becomes has another name and more words in Go.
    return sorted(message.text.rpartition(": ")[2] for message in (messages or {}).values())


def no_empty(derp_map: tailcfg.DERPMap | None) -> tailcfg.DERPMap:
    # Go can read an empty RegionScore but not write it.
    if derp_map is None:
        return tailcfg.DERPMap()
    home = derp_map.home_params
    if home is not None and not home.region_score:
        home = tailcfg.DERPHomeParams()
    return msgspec.structs.replace(derp_map, home_params=home)


def check(ours: Netmap, text: dict[str, Any]) -> None:
    theirs = seen_by_go(text)
    assert theirs.node is not None
    assert ours.node == settle(theirs.node)
    assert list(ours.peers.values()) == [settle(peer) for peer in theirs.peers or ()]
    assert {"base": ours.packet_filter} == theirs.packet_filters
    assert ours.dns_config == theirs.dns_config
    assert tailcfg.encode(no_empty(ours.derp_map)) == tailcfg.encode(no_empty(theirs.derp_map))
    assert set(ours.user_profiles.values()) == set(theirs.user_profiles or ())
    assert ours.domain == theirs.domain
    assert texts_of(ours.messages) == texts_of(theirs.display_messages)
    assert ours.ssh_policy == theirs.ssh_policy
    assert bool(ours.collect_services) == text["CollectServices"]
    assert ours.tka_enabled == text["TKAEnabled"]


def modern(message: dict[str, Any]) -> dict[str, Any]:
    """Put what servers said to clients of before 1.80 into the fields of today.

    The recorded sessions have both forms; Go reads them alike, our messages have only the new one.
    """
    found = dict(message)
    rules, named = found.pop("PacketFilter", None), found.get("PacketFilters", {})
    if rules is not None and named.get("*", ()) is not None:
        found["PacketFilters"] = {"base": rules, **named}
    if "Node" in found:
        found["Node"] = modern_node(found["Node"])
    for name in ("Peers", "PeersChanged"):
        if name in found:
            found[name] = [modern_node(node) for node in found[name]]
    return found


def modern_node(node: dict[str, Any]) -> dict[str, Any]:
    found = dict(node)
    address, _, port = found.pop("DERP", "").partition(":")
    if address == "127.3.3.40":
        found.setdefault("HomeDERP", int(port))
    return found


@pytest.mark.parametrize("number", range(len(SESSIONS)))
def test_model_keeps_what_the_client_keeps(number: int) -> None:
    state = ClientState()
    for message, netmap in zip(*SESSIONS[number], strict=True):
        response = tailcfg.decode_map_response(json.encode(modern(message)))
        state = apply(state, response, distrusts_old_disco=False)
        check(state.netmap(), netmap)
