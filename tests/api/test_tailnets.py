"""A server with two tailnets: an administrator of one learns and decides nothing of the other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.api import certificates, health
from appliance.api.routes import Context, Nothing, Reply
from appliance.errors import Conflict, Forbidden
from appliance.identity.principals import LOCAL
from appliance.identity.scopes import LOCAL_CALLER, Caller, Scope
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.policy import PolicyKeeper, PolicySource
from appliance.loops import Failing
from tests.api.conftest import House
from tests.support.builder import build, sequences_after
from tests.support.clock import NOON
from tests.support.livehouse import FakeStore


@pytest.fixture
async def contexts(house: House) -> dict[str, Context]:
    """Give what handlers get from an administrator of each tailnet, and of the machine."""
    snapshot = build("bob: phone", tailnet_id=2)
    snapshot = replace(snapshot, tailnet=replace(snapshot.tailnet, name="second"))
    other = LiveTailnet(snapshot, FakeStore(), sequences_after(snapshot), clock=house.clock)
    keepers = {live.id: PolicyKeeper(live, PolicySource()) for live in (house.live, other)}
    for live in (house.live, other):
        live.policy_failure = "a bug of this program met it"
    failing = [Failing("commit", each, NOON, 1, "why") for each in ("default", "second", "")]
    door = replace(
        house.door,
        tailnets=LiveTailnets([house.live, other]),
        policies=keepers,
        failing=lambda: failing,
    )
    house.warnings.append("the site file has a fault")

    def of(caller: Caller, live: LiveTailnet) -> Context:
        return Context(caller, door, live, {})

    everything = frozenset({Scope.ALL})
    return {
        "default": of(Caller(LOCAL, everything, tailnet=house.live.id), house.live),
        "second": of(Caller(LOCAL, everything, tailnet=other.id), other),
        "local": of(LOCAL_CALLER, house.live),
    }


@pytest.mark.parametrize(
    ("who", "troubles", "failing", "is_warned"),
    [
        ("default", {"default"}, ["default", ""], True),
        ("second", {"second"}, ["second", ""], False),
        ("local", {"default", "second"}, ["default", "second", ""], True),
    ],
)
async def test_health_tells_of_ones_own_tailnet(
    contexts: dict[str, Context], who: str, troubles: set[str], failing: list[str], is_warned: bool
) -> None:
    answer = await health.show(contexts[who], Nothing())
    assert isinstance(answer, Reply)
    assert set(answer.value.policy_trouble or {}) == troubles
    assert [each.about for each in answer.value.failing or ()] == failing
    assert bool(answer.value.warnings) == is_warned


async def test_members_are_told_whether_it_is_well_and_no_more(
    house: House, contexts: dict[str, Context]
) -> None:
    member = replace(contexts["default"].caller, scopes=frozenset())
    answer = await health.show(replace(contexts["default"], caller=member), Nothing())
    assert answer.value == health.Health(database_connectivity=True)
    house.wells.append(False)
    answer = await health.show(replace(contexts["default"], caller=member), Nothing())
    assert (answer.value, answer.is_unwell) == (health.Health(database_connectivity=False), True)


async def test_the_certificate_is_the_servers(contexts: dict[str, Context]) -> None:
    """The authority's limits are shared: who asks again and again leaves none for the others."""
    with pytest.raises(Forbidden, match="share the certificate"):
        await certificates.renew(contexts["second"], Nothing())
    for who in ("default", "local"):
        with pytest.raises(Conflict, match="no TLS"):
            await certificates.renew(contexts[who], Nothing())
