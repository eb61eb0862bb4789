"""MagicDNS labels and tags."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Conflict, Invalid
from appliance.records import NodeID
from appliance.tailnet import checkin, names, nodes
from appliance.tailnet import settings as site
from appliance.tailnet.snapshot import Edit
from appliance.wire import tailcfg
from tests.support.builder import build, edit_of, node_named


@pytest.mark.parametrize(
    ("said", "label"),
    [
        ("laptop", "laptop"),
        ("Laptop", "laptop"),
        ("Alice's MacBook Pro", "alices-macbook-pro"),
        ("Zoë\u2019s iPhone", "zoes-iphone"),
        ("Straße 7", "strasse-7"),
        ("web01.prod.example.com", "web01-prod-example-com"),
        ("mac.local", "mac"),
        ("mac.localdomain", "mac"),
        ("nas.LAN", "nas"),
        ("a_b.c d@e", "a-b-c-d-e"),
        ("--edge--", "edge"),
        ("a - b", "a-b"),
        ("xn--mller-kva", "xn-mller-kva"),
        ("", "node"),
        ("   ", "node"),
        ("名前", "node"),
        ("🙂", "node"),
        ("-", "node"),
        (".local", "node"),
        ("x" * 63, "x" * 63),
        ("x" * 64, "x" * 63),
        ("x" * 62 + " y", "x" * 62),
        ("x" * 10_000, "x" * 63),
        ("①", "1"),
        ("a\0b\x1b[31m", "ab31m"),
    ],
)
def test_host_names_become_labels(said: str, label: str) -> None:
    assert names.sanitise(said) == label


@given(st.text(max_size=300))
def test_every_text_becomes_a_label_that_stays(text: str) -> None:
    label = names.sanitise(text)
    assert names.check_label(label) == label
    assert names.sanitise(label) == (label if "--" not in label else names.sanitise(label))


@pytest.mark.parametrize(
    ("hostname", "model", "label"),
    [
        ("localhost", "Pixel 8", "pixel-8"),
        ("", "iPhone15,2", "iphone15-2"),
        ("localhost", "", "localhost"),
        ("phone", "Pixel 8", "phone"),
    ],
)
def test_phones_without_a_name_go_by_their_model(hostname: str, model: str, label: str) -> None:
    assert names.wanted(tailcfg.Hostinfo(hostname=hostname, device_model=model)) == label


def test_taken_labels_get_numbers_and_gaps_are_used() -> None:
    edit = edit_of(build("alice: pc pc-1 pc-2 pc-4"))
    assert names.choose(edit, "desk") == "desk"
    assert names.choose(edit, "pc") in {"pc-3", "pc-5"}
    assert names.choose(edit, "pc", keep=NodeID(1)) == "pc"
    assert names.choose(edit, "pc-1") == "pc-1-1"


def test_numbers_fit_into_the_label() -> None:
    long = "x" * 63
    edit = edit_of(build(f"alice: {long} {long} {long}"))
    assert set(edit.by_name) == {long, "x" * 61 + "-1", "x" * 61 + "-2"}
    dashed = "x" * 60 + "-yz"
    edit = edit_of(build(f"alice: {dashed}"))
    assert names.choose(edit, dashed) == "x" * 60 + "-1"


def test_choosing_among_many_looks_at_few() -> None:
    edit = edit_of(build("alice: " + " ".join(["pc"] * 300)))
    asked: list[str] = []

    class Counting(dict[str, NodeID]):
        def get(self, key: str, default: object = None) -> NodeID | None:  # type: ignore[override]  # narrower on purpose
            asked.append(key)
            assert default is None
            return super().get(key)

    edit._by_name.now = Counting(edit.by_name)
    assert names.choose(edit, "pc") == "pc-300"
    assert len(asked) < 25


@pytest.mark.parametrize(
    ("text", "label"), [("desk", "desk"), (" Desk ", "desk"), ("a", "a"), ("x" * 63, "x" * 63)]
)
def test_people_may_choose_labels(text: str, label: str) -> None:
    assert names.check_label(text) == label


@pytest.mark.parametrize("text", ["", " ", "-a", "a-", "a.b", "a b", "é", "x" * 64, "a_b", "a\n"])
def test_people_may_not_choose_anything_else(text: str) -> None:
    if text == "a\n":
        assert names.check_label(text) == "a"
        return
    with pytest.raises(Invalid) as caught:
        names.check_label(text)
    assert caught.value.code == "node-name-invalid"


def test_a_taken_label_is_a_conflict() -> None:
    edit = edit_of(build("alice: laptop phone"))
    names.check_free(edit, "laptop", NodeID(1))
    names.check_free(edit, "desk", NodeID(1))
    with pytest.raises(Conflict, match="laptop"):
        names.check_free(edit, "laptop", NodeID(2))


def test_tags_are_checked_sorted_and_once_each() -> None:
    assert names.check_tags(["tag:web", "tag:db-2", "tag:web"]) == ("tag:db-2", "tag:web")
    assert names.check_tags([]) == ()


@pytest.mark.parametrize(
    "tag", ["web", "tag:", "tag:Web", "tag:1", "tag:a b", "TAG:a", "tag:é", "tag:" + "a" * 100, "tag:a\n"]
)  # fmt: skip
def test_malformed_tags_are_refused(tag: str) -> None:
    with pytest.raises(Invalid) as caught:
        names.check_tags(["tag:web", tag])
    assert caught.value.code == "tag-invalid"


def test_full_names_end_with_a_dot() -> None:
    snapshot = build("alice: laptop")
    node = node_named(snapshot, "laptop")
    assert names.fqdn(snapshot, node) == "laptop.tail.example."
    assert names.fqdn(edit_of(snapshot), node) == "laptop.tail.example."
    bare = replace(snapshot, tailnet=replace(snapshot.tailnet, domain=""))
    assert names.fqdn(bare, node) == "laptop."


def recording(*records: str, nodes: str = "", domain: str = "tail.example") -> Edit:
    """Make a tailnet whose site file has static records."""
    made = tuple(tailcfg.DNSRecord(name=name, type="A", value="192.0.2.9") for name in records)
    edit = edit_of(build(nodes))
    site.take_over(edit, replace(edit.settings, extra_records=made), domain=domain)
    return edit


class TestNamesOfOthers:
    """H7: a node cannot have a name that the site file or the machine's own software uses."""

    @pytest.mark.parametrize(
        "record",
        ["grafana.tail.example", "Grafana.Tail.Example", "grafana.tail.example.", ".grafana.tail.example"],
    )  # fmt: skip
    def test_static_record_is_a_taken_name(self, record: str) -> None:
        edit = recording(record, nodes="alice: other")
        assert names.choose(edit, "grafana") == "grafana-1"
        with pytest.raises(Conflict) as caught:
            nodes.rename(edit, NodeID(1), "Grafana")
        assert caught.value.code == "node-name-recorded"
        assert "extra_records" in caught.value.sentence

    @pytest.mark.parametrize(
        "record",
        ["grafana", "grafana.other.example", "tail.example", "x.grafana.tail.example", "grafanatail.example", "grafana.tail.example.net"],
    )  # fmt: skip
    def test_record_elsewhere_takes_no_name(self, record: str) -> None:
        edit = recording(record, nodes="alice: other")
        assert names.choose(edit, "grafana") == "grafana"
        assert nodes.rename(edit, NodeID(1), "grafana").name == "grafana"

    def test_machine_that_changes_its_name_does_not_get_it_either(self) -> None:
        edit = recording("grafana.tail.example", nodes="alice: laptop")
        said = tailcfg.Hostinfo(hostname="grafana")
        request = tailcfg.MapRequest(version=130, hostinfo=said)
        assert checkin.check_in(edit, NodeID(1), request).name == "grafana-1"
        assert checkin.check_in(edit, NodeID(1), request).name == "grafana-1"

    @pytest.mark.parametrize("is_pinned", [False, True])
    def test_node_that_has_the_name_of_a_new_record_yields(self, is_pinned: bool) -> None:
        edit = edit_of(build("alice: grafana grafana-1 laptop"))
        if is_pinned:
            nodes.rename(edit, NodeID(1), "grafana")
        records = (tailcfg.DNSRecord(name="grafana.tail.example", value="192.0.2.9"),)
        changed = replace(edit.settings, extra_records=records)
        renamed = site.take_over(edit, changed, domain="tail.example")
        node = edit.nodes[NodeID(1)]
        assert renamed == [("grafana", node)]
        assert (node.name, node.name_pinned) == ("grafana-2", is_pinned)
        assert site.take_over(edit, changed, domain="tail.example") == []

    def test_new_domain_makes_records_count(self) -> None:
        edit = recording("grafana.new.example", nodes="alice: grafana")
        assert edit.nodes[NodeID(1)].name == "grafana"
        site.take_over(edit, edit.settings, domain="new.example")
        assert edit.nodes[NodeID(1)].name == "grafana-1"

    @pytest.mark.parametrize("said", ["wpad", "WPAD.local", "isatap", "localhost", "ip6-localhost"])
    def test_names_that_software_uses_are_not_given_out(self, said: str) -> None:
        edit = edit_of(build("alice: laptop"))
        label = names.wanted(tailcfg.Hostinfo(hostname=said))
        assert label in names.RESERVED
        assert names.choose(edit, label) == f"{label}-1"
        with pytest.raises(Conflict) as caught:
            nodes.rename(edit, NodeID(1), label)
        assert caught.value.code == "node-name-reserved"

    def test_node_that_has_such_a_name_from_before_yields(self) -> None:
        edit = edit_of(build("alice: laptop"))
        edit.put(replace(edit.nodes[NodeID(1)], name="wpad"))
        site.take_over(edit, edit.settings)
        assert edit.nodes[NodeID(1)].name == "wpad-1"
