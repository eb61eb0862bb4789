"""Compiled policies behind the netmap: the law of deltas holds, encoded or not."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.netmap.encoded import Encoder
from appliance.policy.engine.compile import Compiled, compile, recompile  # noqa: A004 - its name
from appliance.policy.text.language import Policy
from appliance.tailnet.snapshot import Snapshot
from tests.netmap.test_encoded import check_delta, check_full
from tests.netmap.test_law import check, history, pairs
from tests.policy.worlds import random_document, read


def compiled_after(policy: Policy, old: Snapshot, new: Snapshot) -> Compiled:
    """Go on as an edit does: name the records that are other objects now."""
    nodes = [
        each
        for each in old.nodes.keys() | new.nodes.keys()
        if old.nodes.get(each) is not new.nodes.get(each)
    ]
    users = [
        each
        for each in old.users.keys() | new.users.keys()
        if old.users.get(each) is not new.users.get(each)
    ]
    return recompile(old.compiled, policy, new.users, new.nodes, nodes, users)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_law_holds_under_compiled_policies(seed: int) -> None:
    rng = Random(seed)
    policy = read(random_document(rng))
    versions: list[Snapshot] = []
    for plain in history(rng, rng.randint(1, 6), steps=3):
        if versions:
            compiled = compiled_after(policy, versions[-1], plain)
        else:
            compiled = compile(policy, plain.users, plain.nodes)
        versions.append(replace(plain, compiled=compiled))
    encoder = Encoder(chunk_peers=3)
    for old, new in pairs(rng, versions):
        for viewer in sorted(old.nodes.keys() & new.nodes.keys()):
            check(old, new, viewer, 130)
            check_full(encoder, new, viewer, 130, zstd=True)
            check_delta(encoder, old, new, viewer, 130, zstd=True)
