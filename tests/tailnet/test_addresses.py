"""Which addresses nodes get."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import TooMany
from appliance.records import Address, Node, Settings
from appliance.tailnet import addresses, nodes
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from tests.support.builder import build, edit_of, empty, extend, node_named
from tests.support.clock import fixed_rng


def only_v4(prefix: str, *, random: bool = False) -> Settings:
    return Settings(prefix_v4=IPv4Network(prefix), prefix_v6=None, random_addresses=random)


def fill(settings: Settings, count: int) -> Edit:
    edit = Edit(empty(settings), Sequences())
    extend(edit, "alice: " + " ".join(f"n{n}" for n in range(count)))
    return edit


def given_out(edit: Edit | Snapshot) -> list[Address]:
    return [address for node in edit.nodes.values() for address in node.addresses]


def add(edit: Edit, name: str) -> Node:
    extend(edit, f"alice: {name}")
    return node_named(edit, name)


def test_addresses_are_given_in_order_in_both_families() -> None:
    snapshot = build("alice: a b; bob: c")
    assert [str(a) for a in given_out(snapshot)] == [
        "100.64.0.1", "fd7a:115c:a1e0::1",
        "100.64.0.2", "fd7a:115c:a1e0::2",
        "100.64.0.3", "fd7a:115c:a1e0::3",
    ]  # fmt: skip


def test_one_family_may_be_off() -> None:
    assert [str(a) for a in given_out(fill(only_v4("100.64.0.0/10"), 1))] == ["100.64.0.1"]
    v6 = Settings(prefix_v4=None)
    assert [str(a) for a in given_out(fill(v6, 1))] == ["fd7a:115c:a1e0::1"]


@pytest.mark.parametrize(
    ("prefix", "first", "last", "size"),
    [
        ("100.64.0.0/24", "100.64.0.1", "100.64.0.254", 254),
        ("100.64.0.0/30", "100.64.0.1", "100.64.0.2", 2),
        ("100.64.0.0/31", "100.64.0.0", "100.64.0.1", 2),
        ("100.64.0.7/32", "100.64.0.7", "100.64.0.7", 1),
        ("100.64.0.0/10", "100.64.0.1", "100.127.255.254", 2**22 - 2 - 256 - 256 - 512),
        ("100.100.0.0/23", "100.100.0.1", "100.100.1.254", 255),
        ("100.100.100.0/24", "100.100.100.1", "100.100.100.254", 0),
        ("100.115.92.0/22", "100.115.92.1", "100.115.95.254", 511),
        ("fd7a:115c:a1e0::/64", "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::ffff:ffff:ffff:ffff", 2**64 - 2),
        ("fd7a:115c:a1e0::/126", "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::3", 3),
        ("fd00::/128", "fd00::", "fd00::", 1),
    ],
)  # fmt: skip
def test_pool_leaves_out_what_is_not_for_nodes(
    prefix: str, first: str, last: str, size: int
) -> None:
    pool = addresses.pool(ip_network(prefix))
    assert pool.first == int(ip_address(first))
    assert pool.last == int(ip_address(last))
    assert pool.size == size


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize(
    "prefix", ["100.100.99.248/28", "100.100.0.0/23", "100.115.91.0/24", "100.64.0.0/29"]
)
def test_every_address_is_given_once_and_then_no_more(prefix: str, random: bool) -> None:
    network = IPv4Network(prefix, strict=False)
    allowed = {
        IPv4Address(n)
        for n in range(int(network[1]), int(network[-1]))
        if not any(ip_address(n) in r for r in addresses.RESERVED if r.version == 4)
    }
    edit = fill(only_v4(str(network), random=random), len(allowed))
    assert set(given_out(edit)) == allowed
    with pytest.raises(TooMany) as caught:
        add(edit, "late")
    assert caught.value.code == "addresses-used-up"
    assert str(network) in caught.value.sentence


def test_prefix_of_reserved_addresses_alone_gives_nothing() -> None:
    with pytest.raises(TooMany):
        fill(only_v4("100.100.100.0/24"), 1)


def test_freed_addresses_come_again_only_after_the_end() -> None:
    """So that a new node is not taken for the one that was just deleted."""
    edit = fill(only_v4("100.64.0.0/29"), 4)
    nodes.delete(edit, node_named(edit, "n1").id)
    nodes.delete(edit, node_named(edit, "n3").id)
    found = [str(add(edit, f"late{n}").ipv4) for n in range(4)]
    assert found == ["100.64.0.5", "100.64.0.6", "100.64.0.2", "100.64.0.4"]


def test_after_a_start_it_goes_on_behind_the_highest() -> None:
    edit = fill(only_v4("100.64.0.0/24"), 5)
    nodes.delete(edit, node_named(edit, "n1").id)
    loaded = replace(edit.finish()[0], last_ipv4=None, last_ipv6=None)
    assert str(add(edit_of(loaded), "late").ipv4) == "100.64.0.6"


def test_draft_remembers_where_it_was_and_hands_it_on() -> None:
    edit = fill(Settings(), 3)
    snapshot = edit.finish()[0]
    assert snapshot.last_ipv4 == IPv4Address("100.64.0.3")
    assert str(snapshot.last_ipv6) == "fd7a:115c:a1e0::3"


def test_a_new_prefix_starts_at_its_beginning_and_leaves_old_addresses() -> None:
    edit = fill(only_v4("100.64.0.0/24"), 2)
    edit.set_settings(only_v4("100.65.0.0/24"))
    assert str(add(edit, "late").ipv4) == "100.65.0.1"
    assert str(node_named(edit, "n0").ipv4) == "100.64.0.1"
    edit.set_settings(only_v4("100.64.0.0/24"))
    assert str(add(edit, "later").ipv4) == "100.64.0.3"


def test_families_are_chosen_each_on_its_own() -> None:
    settings = Settings(
        prefix_v4=IPv4Network("100.64.0.0/30"), prefix_v6=IPv6Network("fd7a:115c:a1e0::/126")
    )
    edit = fill(settings, 2)
    with pytest.raises(TooMany, match=r"100\.64"):
        add(edit, "late")


def site(v4: str | None, v6: str | None, *, random: bool = False) -> Settings:
    return Settings(
        prefix_v4=None if v4 is None else IPv4Network(v4),
        prefix_v6=None if v6 is None else IPv6Network(v6),
        random_addresses=random,
    )


ULA = "fd7a:115c:a1e0::/48"


class TestBackfill:
    """F7: what follows when the prefixes of the site file change."""

    def what(self, changed: list[addresses.Readdressed]) -> list[str]:
        return [
            f"{each.node.name} +{','.join(map(str, each.added))} -{','.join(map(str, each.removed))}"
            for each in changed
        ]

    def test_new_family_is_given(self) -> None:
        edit = fill(site("100.64.0.0/24", None), 2)
        before = [node.ipv4 for node in edit.nodes.values()]
        edit.set_settings(site("100.64.0.0/24", ULA))
        changed = addresses.backfill(edit, fixed_rng())
        assert self.what(changed) == ["n0 +fd7a:115c:a1e0::1 -", "n1 +fd7a:115c:a1e0::2 -"]
        assert [node.ipv4 for node in edit.nodes.values()] == before
        assert [each.node for each in changed] == list(edit.nodes.values())
        assert addresses.backfill(edit, fixed_rng()) == []

    @pytest.mark.parametrize(("v4", "v6"), [(None, ULA), ("100.64.0.0/24", None)])
    def test_removed_family_is_taken_away(self, v4: str | None, v6: str | None) -> None:
        edit = fill(site("100.64.0.0/24", ULA), 2)
        edit.set_settings(site(v4, v6))
        gone = "100.64.0." if v4 is None else "fd7a:115c:a1e0::"
        changed = addresses.backfill(edit, fixed_rng())
        assert self.what(changed) == [f"n0 + -{gone}1", f"n1 + -{gone}2"]
        assert {len(node.addresses) for node in edit.nodes.values()} == {1}
        assert not any(str(address).startswith(gone) for address in edit.by_address)
        assert addresses.backfill(edit, fixed_rng()) == []

    def test_changed_prefix_gives_new_addresses_and_keeps_those_that_fit(self) -> None:
        edit = fill(site("100.64.0.0/24", None), 3)
        edit.put(replace(node_named(edit, "n1"), ipv4=IPv4Address("100.99.0.1")))
        edit.set_settings(site("100.99.0.0/16", None))
        assert self.what(addresses.backfill(edit, fixed_rng())) == [
            "n0 +100.99.0.2 -100.64.0.1",
            "n2 +100.99.0.3 -100.64.0.3",
        ]
        assert str(node_named(edit, "n1").ipv4) == "100.99.0.1"

    def test_smaller_prefix_keeps_what_lies_in_it(self) -> None:
        edit = fill(site("100.64.0.0/24", None), 4)
        edit.set_settings(site("100.64.0.0/29", None))
        assert addresses.backfill(edit, fixed_rng()) == []
        edit.set_settings(site("100.64.0.0/30", None))
        with pytest.raises(TooMany) as caught:
            addresses.backfill(edit, fixed_rng())
        assert "100.64.0.0/30" in caught.value.sentence

    @pytest.mark.parametrize("random", [False, True])
    def test_plan_says_what_will_be_done_and_changes_nothing(self, random: bool) -> None:
        edit = fill(site("100.64.0.0/24", ULA), 5)
        edit.set_settings(site("100.99.0.0/24", None, random=random))
        snapshot = edit.finish()[0]
        before = dict(snapshot.nodes), dict(snapshot.by_address)
        planned = addresses.plan_backfill(snapshot, fixed_rng())
        assert (dict(snapshot.nodes), dict(snapshot.by_address)) == before
        assert planned == addresses.backfill(edit_of(snapshot), fixed_rng())
        assert len(planned) == 5


def test_random_addresses_differ_from_sequential_ones_and_repeat_by_seed() -> None:
    settings = Settings(random_addresses=True)
    one, two = (given_out(fill(settings, 50)) for _ in range(2))
    assert one == two
    assert len(set(one)) == 100
    assert sorted(map(int, one)) != list(map(int, one))


def test_random_choice_walks_on_when_it_keeps_hitting_taken_ones() -> None:
    class Stubborn(Random):
        def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
            del stop, step
            return start + 3

    edit = fill(only_v4("100.64.0.0/29", random=True), 0)
    rng = Stubborn()
    found = []
    for n in range(6):
        extend(edit, f"alice: x{n}")
        node = replace(node_named(edit, f"x{n}"), ipv4=None)
        edit.put(node)
        node = addresses.assign(edit, node, rng)
        edit.put(node)
        found.append(str(node.ipv4))
    assert found == [f"100.64.0.{n}" for n in (4, 5, 6, 1, 2, 3)]


@given(st.integers(10, 30), st.binary(min_size=1, max_size=60), st.booleans())
def test_addresses_are_never_reserved_nor_given_twice(
    length: int, choices: bytes, random: bool
) -> None:
    network = IPv4Network((int(IPv4Address("100.100.100.0")), length), strict=False)
    edit = fill(only_v4(str(network), random=random), 0)
    for number, choice in enumerate(choices):
        if choice % 4 == 0 and edit.nodes:
            victim = list(edit.nodes.values())[choice % len(edit.nodes)]
            edit.drop(victim)
            continue
        try:
            address = add(edit, f"n{number}").ipv4
        except TooMany:
            assert len(edit.nodes) >= addresses.pool(network).size
            return
        assert address in network
        assert not any(address in r for r in addresses.RESERVED if r.version == 4)
    found = given_out(edit)
    assert len(set(found)) == len(found) == len(edit.nodes)


def test_the_middle_of_thousands_costs_no_walk() -> None:
    """Only addresses behind the last one given are looked at, however many there are."""
    asked = 0

    class Counting(dict[Address, object]):
        def __contains__(self, key: object) -> bool:
            nonlocal asked
            asked += 1
            return super().__contains__(key)

    edit = fill(only_v4("100.64.0.0/10"), 500)
    node = replace(node_named(edit, "n7"), ipv4=None)
    edit._by_address.now = Counting(edit.by_address)  # type: ignore[assignment]  # counts look-ups
    assert str(addresses.assign(edit, node, fixed_rng()).ipv4) == "100.64.1.245"
    assert asked == 1
