"""The law of change distribution: ``apply(full(old), delta(old, new)) == full(new)``.

For random tailnets, random edits between any two versions (forward and backward), all viewers
and capability versions, as the Go client applies messages (``fakeclient``).
"""

from __future__ import annotations

import random
from itertools import pairwise
from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from appliance import netmap
from appliance.netmap.capver import band, fit_derp_map
from appliance.records import NodeID
from appliance.tailnet.snapshot import Sequences, Snapshot
from appliance.wire import tailcfg
from tests.netmap.tailnets import CAPVERS, random_step, random_tailnet
from tests.support import fakeclient

MIN_CASES = 10_000

DISTRUSTFUL = range(138, 145)
"""Versions that overlook a patch with a disco key of a node that is offline (1.98 to 1.102)."""


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 4))
def test_delta_leads_where_the_full_map_is(seed: int, size: int, steps: int) -> None:
    rng = Random(seed)
    versions = history(rng, size, steps)
    for old, new in pairs(rng, versions):
        for viewer in sorted(old.nodes.keys() & new.nodes.keys()):
            for capver in CAPVERS:
                check(old, new, viewer, capver)


def test_law_holds_on_ten_thousand_cases() -> None:
    """Count them: one case is (old, new, viewer, capability version), new ones in every run."""
    cases = 0
    while cases < MIN_CASES:
        seed = random.getrandbits(32)  # of the run's seed, which the head of the report names
        rng = Random(seed)
        for old, new in pairs(rng, history(rng, size=rng.randint(2, 12), steps=3)):
            for viewer in sorted(old.nodes.keys() & new.nodes.keys()):
                for capver in CAPVERS:
                    try:
                        check(old, new, viewer, capver)
                    except AssertionError as error:
                        error.add_note(f"seed {seed}, viewer {viewer}, capver {capver}")
                        raise
                    cases += 1


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_session_may_take_every_version_or_skip_some(seed: int, size: int) -> None:
    rng = Random(seed)
    versions = history(rng, size, steps=6)
    for viewer in sorted(versions[0].nodes.keys() & versions[-1].nodes.keys()):
        capver = rng.choice(CAPVERS)
        seen = versions[0]
        state = told(capver, netmap.full(seen, viewer, capver))
        for new in versions[1:]:
            if viewer in new.nodes and rng.random() < 0.7:
                state = told(capver, *netmap.delta(seen, new, viewer, capver), state=state)
                seen = new
        assert state.netmap() == told(capver, netmap.full(seen, viewer, capver)).netmap()


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_a_full_map_says_what_the_view_says(seed: int, size: int) -> None:
    snapshot = random_tailnet(Random(seed), size)
    for viewer in snapshot.nodes:
        view = netmap.view(snapshot, viewer)
        for capver in CAPVERS:
            of = band(capver)
            known = told(capver, netmap.full(snapshot, viewer, capver)).netmap()
            assert known == fakeclient.Netmap(
                node=as_kept(view.node),
                peers={peer_id: as_kept(peer) for peer_id, peer in view.peers.items()},
                packet_filter=view.packet_filters,
                dns_config=view.dns_config,
                derp_map=fit_derp_map(view.derp_map, of),
                user_profiles=dict(view.user_profiles.items()),
                status_profiles=dict(view.user_profiles.items()),
                domain=view.domain,
                domain_data_plane_audit_log_id="",
                messages={},
                ssh_policy=view.ssh_policy,
                collect_services=None,
                tka_head="",
                tka_enabled=False,
            )


def history(rng: Random, size: int, steps: int) -> list[Snapshot]:
    """Give a tailnet and its next versions."""
    ids = Sequences(user=100, node=100, auth_key=100)
    versions = [random_tailnet(rng, size)]
    for _ in range(steps):
        versions.append(random_step(rng, versions[-1], ids))
    return versions


def pairs(rng: Random, versions: list[Snapshot]) -> list[tuple[Snapshot, Snapshot]]:
    """Give each version with its next, the first with the last, and one pair backward."""
    backward = sorted(rng.sample(range(len(versions)), 2), reverse=True)
    return [
        *pairwise(versions),
        (versions[0], versions[-1]),
        (versions[backward[0]], versions[backward[1]]),
    ]


def check(old: Snapshot, new: Snapshot, viewer: NodeID, capver: int) -> None:
    """Hold one case against the law, and its messages against the rules for messages."""
    messages = netmap.delta(old, new, viewer, capver)
    before = told(capver, netmap.full(old, viewer, capver))
    after = told(capver, *messages, state=before)
    assert after.netmap() == told(capver, netmap.full(new, viewer, capver)).netmap()
    for message in messages:
        assert message.peers is None
        assert message.peers_changed != ()
        assert message.peers_removed != ()
    check_profiles(after)


def check_profiles(state: fakeclient.ClientState) -> None:
    """Every owner of a known node must have a profile."""
    assert state.node is not None
    owners = {state.node.user, *(peer.user for peer in state.peers.values())}
    assert owners <= state.user_profiles.keys()


def told(
    capver: int,
    *messages: tailcfg.MapResponse,
    state: fakeclient.ClientState | None = None,
) -> fakeclient.ClientState:
    """Give what a client knows after these messages, each through its bytes."""
    state = state or fakeclient.ClientState()
    for message in messages:
        data = tailcfg.encode(message)
        assert b"null" not in data
        state = fakeclient.apply(
            state,
            tailcfg.decode_map_response(data),
            distrusts_old_disco=capver in DISTRUSTFUL,
        )
    return state


def as_kept(node: tailcfg.Node) -> tailcfg.Node:
    """Give a node as a client keeps it."""
    kept = fakeclient.upgrade(node)
    return msgspec.structs.replace(kept, endpoints=kept.endpoints or ())
