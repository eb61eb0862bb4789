"""The law of deltas under real policies: routers that are chosen, hidden addresses, SSH rules.

Snapshots are settled as the server settles them, one after the other; sessions take any two.
"""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance import netmap
from appliance.netmap.connectors import APP_CONNECTORS
from appliance.netmap.encoded import Encoder
from appliance.policy.answers.admission import admit
from appliance.policy.engine.compile import OPEN, compile  # noqa: A004 - its name
from appliance.policy.engine.routes import RouteTable, elect
from appliance.records import NodeID, Presence, Role, User, UserID
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.netmap import tailnets
from tests.netmap.tailnets import START
from tests.netmap.test_encoded import check_delta, check_full
from tests.netmap.test_law import check, pairs
from tests.policy.worlds import LOGINS, TAGS, Document, random_document

CAPVERS = (113, 119, 130, 148)
NEXTDNS = ("nextdns:abc", "nextdns:def", "nextdns:no-device-info")


def test_the_law_holds_under_every_policy() -> None:
    """Some thousand cases in every run, new ones by the run's seed."""
    cases = 0
    rng = Random()
    while cases < 1_500:
        seed = rng.getrandbits(32)
        cases += _hold(seed)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_law_holds(seed: int) -> None:
    _hold(seed)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_settled_is_as_compiled_from_scratch(seed: int) -> None:
    rng = Random(seed)
    for snapshot in history(rng, rng.randint(1, 8), steps=5):
        fresh = compile(
            snapshot.policy, snapshot.users, snapshot.nodes, policies.background(snapshot)
        )
        for viewer in snapshot.nodes:
            seen, other = snapshot.compiled.sight(viewer), fresh.sight(viewer)
            assert seen.nodes == other.nodes
            assert snapshot.compiled.packet_filter(viewer) == fresh.packet_filter(viewer)
        assert snapshot.routes is not None
        assert fresh.state is not None
        chosen = elect(fresh.state, lambda _: True).chosen
        assert snapshot.routes.elections.chosen.keys() == chosen.keys()
        table = RouteTable(fresh.state, snapshot.routes.elections)
        for viewer in snapshot.nodes:
            assert dict(snapshot.routes.seen(viewer)) == dict(table.seen(viewer))
            assert snapshot.routes.own(viewer) == table.own(viewer)


def _hold(seed: int) -> int:
    rng = Random(seed)
    encoder, cases = Encoder(chunk_peers=3, long_list=rng.randint(1, 4)), 0
    versions = history(rng, rng.randint(1, 8), steps=4)
    try:
        for old, new in pairs(rng, versions):
            for viewer in sorted(old.nodes.keys() & new.nodes.keys()):
                capver = rng.choice(CAPVERS)
                check(old, new, viewer, capver)
                check_full(encoder, new, viewer, capver, zstd=True)
                check_delta(encoder, old, new, viewer, capver, zstd=True)
                cases += 1
    except AssertionError as error:
        error.add_note(f"seed {seed}")
        raise
    return cases


def history(rng: Random, size: int, steps: int) -> list[Snapshot]:
    """Give a tailnet and its next versions, each settled after the one before."""
    ids = Sequences(user=100, node=100, auth_key=100)
    first = replace(fitted(rng, tailnets.random_tailnet(rng, size)), compiled=OPEN)
    versions = [policies.settle(first, first)]
    for _ in range(steps):
        old = versions[-1]
        if rng.random() < 0.3:
            new = under_another_policy(rng, old, ids)
        else:
            new = fitted(rng, random_step(rng, old, ids))
        versions.append(policies.settle(old, new))
    return versions


def random_step(rng: Random, old: Snapshot, ids: Sequences) -> Snapshot:
    """Change some things, but for the policy."""
    edit = Edit(old, ids)
    changes = [each for each in tailnets.CHANGES if each is not tailnets.change_policy]
    for change in rng.choices(changes, k=rng.randint(1, 3)):
        change(rng, edit)
    return edit.finish()[0]


def under_another_policy(rng: Random, old: Snapshot, ids: Sequences) -> Snapshot:
    """Set another policy, as an administrator does."""
    text = json.dumps(document(rng))
    domains = frozenset({"example.com"})
    background = replace(policies.background(old), domains=domains)
    admitted = admit(text, old.users, old.nodes, background, with_tests=False)
    edit = Edit(old, ids)
    edit.set_settings(replace(edit.settings, email_domains=domains))
    policies.replace_policy(edit, admitted, START, source="database", by="a test")
    return edit.finish()[0]


def document(rng: Random) -> Document:
    """Write a policy, now and then with attributes that change what peers look like."""
    made = random_document(rng)
    made.setdefault("nodeAttrs", [])
    if rng.random() < 0.4:
        target = [rng.choice((*TAGS, "*", "autogroup:member"))]
        made["nodeAttrs"].append({"target": target, "attr": ["disable-ipv4"]})
    for _ in range(rng.randint(0, 2)):
        target = [rng.choice((*TAGS, "*", "autogroup:member"))]
        made["nodeAttrs"].append({"target": target, "attr": rng.sample(NEXTDNS, rng.randint(1, 2))})
    if rng.random() < 0.4:
        made["nodeAttrs"].append({"target": ["*"], "app": {APP_CONNECTORS: [_app(rng)]}})
        made.setdefault("grants", []).append({"src": [rng.choice(TAGS)], "dst": ["*"], "ip": ["*"]})
    if rng.random() < 0.4:
        made["autoApprovers"] = {"routes": {"10.0.0.0/8": [rng.choice(TAGS)]}}
    if rng.random() < 0.2:
        made["randomizeClientPort"] = True
    return made


def _app(rng: Random) -> Document:
    return {
        "domains": rng.sample(("wiki.example.com", "*.example.org", "corp.example"), 2),
        "connectors": [rng.choice((*TAGS, "*"))],
    }


def fitted(rng: Random, snapshot: Snapshot) -> Snapshot:
    """Give users the names, and devices the tags, that the policies speak of."""
    edit = Edit(snapshot, Sequences())
    for user in list(edit.users.values()):
        role = rng.choice(tuple(Role)) if rng.random() < 0.1 else user.role
        edit.put(replace(user, email=LOGINS[user.id % len(LOGINS)], role=role))
    for node in list(edit.nodes.values()):
        if node.tags and node.tags[0] not in TAGS:
            edit.put(replace(node, tags=(TAGS[node.id % len(TAGS)],)))
    return edit.finish()[0]


def test_a_viewer_hears_of_the_router_that_took_over() -> None:
    """Peers are told the routes of the router that was chosen, and of no other."""
    rng = Random(1)
    ids = Sequences(user=1, node=10)
    edit = Edit(tailnets.empty_tailnet(), ids)
    edit.put(User(UserID(1), "ann", START))
    route = tailnets.ROUTES[0]
    for number in (1, 2, 3):
        made = tailnets.make_node(NodeID(number), rng, user_id=UserID(1))
        if number > 1:
            hostinfo = tailcfg.Hostinfo(routable_ips=(route,))
            made = replace(made, hostinfo=hostinfo, approved_routes=(route,))
        edit.put(made)
        edit.set_presence(made.id, Presence(online=True, sessions=1))
    first = edit.finish()[0]
    first = policies.settle(first, first)
    viewer, one, other = sorted(first.nodes)
    view = netmap.view(first, viewer)
    assert view.peers[one].primary_routes == (route,)
    assert view.peers[other].allowed_ips is None
    edit = Edit(first, ids)
    edit.set_presence(one, Presence(last_seen=START))
    second = edit.finish()[0]
    second = policies.settle(first, second)
    assert netmap.view(second, viewer).peers[other].primary_routes == (route,)
    (message,) = netmap.delta(first, second, viewer, 148)
    assert {peer.id for peer in message.peers_changed or ()} == {one, other}
    edit = Edit(second, ids)
    edit.set_presence(one, Presence(online=True, sessions=1))
    third = policies.settle(second, edit.finish()[0])
    assert netmap.view(third, viewer).peers[other].primary_routes == (route,), "no fail-back"
