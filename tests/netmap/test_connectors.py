"""App connectors: who is told to ask them, for what and where."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest

from appliance.netmap.encoded import Encoder
from appliance.policy.answers.admission import admit
from appliance.policy.text.language import Background
from appliance.records import NodeID, Presence, Settings, User, UserID
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.netmap.messages import read_messages
from tests.netmap.tailnets import START, empty_tailnet, make_node
from tests.policy.worlds import Document

LAPTOP, CONNECTOR, OTHER, SERVER = map(NodeID, (1, 2, 3, 4))
PEER_API = (tailcfg.Service(proto="peerapi4", port=4001), tailcfg.Service(proto="peerapi6", port=6))
SERVES = tailcfg.Hostinfo(app_connector=True, services=PEER_API)
APP = {"domains": ["wiki.example.com", "*.corp.example"], "connectors": ["tag:connector"]}
TO_ALL = {"src": ["*"], "dst": ["*"], "ip": ["*"]}
AT_CONNECTOR = (tailcfg.Resolver(addr="http://100.64.0.2:4001/dns-query"),)


def policy(*grants: Document, apps: tuple[Document, ...] = (APP,)) -> str:
    return json.dumps(
        {
            "tagOwners": {"tag:connector": [], "tag:srv": []},
            "grants": list(grants),
            "nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors": list(apps)}}],
        }
    )


def tailnet(text: str, hostinfo: tailcfg.Hostinfo = SERVES) -> Snapshot:
    """A laptop, two connectors of which one offers itself, and a server, under a policy."""
    edit = Edit(empty_tailnet(), Sequences())
    edit.put(User(UserID(1), "ada", START, email="ada@example.com"))
    edit.put(make_node(LAPTOP, Random(1), user_id=UserID(1)))
    edit.put(make_node(CONNECTOR, Random(2), tags=("tag:connector",), hostinfo=hostinfo))
    edit.put(make_node(OTHER, Random(3), tags=("tag:connector",)))
    edit.put(make_node(SERVER, Random(4), tags=("tag:srv",)))
    return under(text, edit.finish()[0])


def under(text: str, old: Snapshot) -> Snapshot:
    edit = Edit(old, Sequences())
    admitted = admit(text, edit.users, edit.nodes, Background(), with_tests=False)
    edit.set_policy(admitted.policy, admitted.compiled)
    return policies.settle(old, edit.finish()[0])


def routes(snapshot: Snapshot, viewer: NodeID) -> dict[str, tuple[tailcfg.Resolver, ...]]:
    """What a client is told, but for the route of MagicDNS itself."""
    (message,) = read_messages(Encoder().full(snapshot, viewer, 148, zstd=False), zstd=False)
    assert message.dns_config is not None
    return {name: to for name, to in message.dns_config.routes.items() if name != "example.net"}


def test_domains_lead_to_the_connector_that_offers_itself() -> None:
    """Real clients 6: only the connector knew its domains, so nobody asked it."""
    snapshot = tailnet(policy(TO_ALL))
    wanted = {"wiki.example.com": AT_CONNECTOR, "corp.example": AT_CONNECTOR}
    assert routes(snapshot, LAPTOP) == routes(snapshot, SERVER) == wanted


def test_connector_asks_nobody_for_what_it_serves() -> None:
    assert routes(tailnet(policy(TO_ALL)), CONNECTOR) == {}


@pytest.mark.parametrize(
    "grant",
    [
        {"src": ["*"], "dst": ["tag:connector"], "ip": ["*"]},
        {"src": ["*"], "dst": ["*"], "ip": ["tcp:80"]},
        {"src": ["*"], "dst": ["*"], "ip": ["udp:53"]},
        {"src": ["tag:srv"], "dst": ["*"], "ip": ["*"]},
    ],
)
def test_whom_the_connector_would_refuse_is_not_told(grant: Document) -> None:
    """A client answers queries of peers that may reach the internet through it; others get 403."""
    snapshot = tailnet(policy(grant))
    assert routes(snapshot, LAPTOP) == {}
    is_server_let_in = grant["src"] == ["tag:srv"]
    assert bool(routes(snapshot, SERVER)) == is_server_let_in


@pytest.mark.parametrize(
    "hostinfo",
    [
        tailcfg.Hostinfo(services=PEER_API),
        tailcfg.Hostinfo(app_connector=True),
        tailcfg.Hostinfo(app_connector=False, services=PEER_API),
    ],
)
def test_node_that_does_not_offer_itself_is_not_asked(hostinfo: tailcfg.Hostinfo) -> None:
    assert routes(tailnet(policy(TO_ALL), hostinfo), LAPTOP) == {}


def test_domains_that_are_no_names_are_left_out() -> None:
    """Clients end over a suffix that is no name."""
    domains = ["", "*.", ".", "a..b", "*", "good.example", "UPPER.example.", "-x.example", "x" * 64]
    app = {"domains": domains, "connectors": ["*"]}
    broken = {"domains": "text", "connectors": 7}
    snapshot = tailnet(policy(TO_ALL, apps=(app, broken)))
    assert routes(snapshot, LAPTOP).keys() == {"good.example", "upper.example"}


def test_settings_go_first() -> None:
    edit = Edit(tailnet(policy(TO_ALL)), Sequences())
    edit.set_settings(Settings(split_dns=(("corp.example", ("10.0.0.53",)),)))
    told = routes(edit.finish()[0], LAPTOP)
    assert told["corp.example"] == (tailcfg.Resolver(addr="10.0.0.53"),)
    assert told["wiki.example.com"] == AT_CONNECTOR


def test_open_sessions_follow_the_connector() -> None:
    old = tailnet(policy(TO_ALL))
    edit = Edit(old, Sequences())
    moved = (tailcfg.Service(proto="peerapi4", port=4002),)
    edit.put(
        replace(old.nodes[CONNECTOR], hostinfo=tailcfg.Hostinfo(app_connector=True, services=moved))
    )
    new = policies.settle(old, edit.finish()[0])
    edit = Edit(new, Sequences())
    edit.drop(new.nodes[CONNECTOR])
    gone = policies.settle(new, edit.finish()[0])
    encoder = Encoder()
    told = []
    for before, after in ((old, new), (new, gone)):
        parts = encoder.delta(before, after, LAPTOP, 148, zstd=False) or ()
        (message,) = read_messages(parts, zstd=False)
        assert message.dns_config is not None
        told.append(message.dns_config.routes.get("wiki.example.com"))
    assert told == [(tailcfg.Resolver(addr="http://100.64.0.2:4002/dns-query"),), None]


def test_coming_and_going_of_a_connector_changes_no_dns() -> None:
    old = tailnet(policy(TO_ALL))
    edit = Edit(old, Sequences())
    edit.set_presence(CONNECTOR, Presence(online=True, sessions=1, online_since=START))
    parts = Encoder().delta(old, edit.finish()[0], LAPTOP, 148, zstd=False) or ()
    assert [m.dns_config for m in read_messages(parts, zstd=False)] == [None]
