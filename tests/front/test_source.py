"""What counts as one source, and who of a crowd goes first."""

from __future__ import annotations

from appliance.front.source import Crowd, source_of


def test_sources_are_addresses_and_64s() -> None:
    assert source_of(("192.0.2.1", 1)) == source_of(("::ffff:192.0.2.1", 2))
    assert source_of(("192.0.2.1", 1)) != source_of(("192.0.2.2", 1))
    assert source_of(("2001:db8::1", 1)) == source_of(("2001:db8::ffff:2", 1))
    assert source_of(("2001:db8::1", 1)) != source_of(("2001:db8:0:1::1", 1))
    assert source_of(("fe80::1%eth0", 1)) == source_of(("fe80::2", 1)) is not None
    assert source_of(("not:an:address", 1)) == "not:an:address"


def test_this_machine_is_no_source() -> None:
    for own in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert source_of((own, 1)) is None
    assert source_of(None) is None


def test_crowd_gives_up_the_oldest_of_its_largest_source() -> None:
    crowd: Crowd[str] = Crowd()
    assert crowd.oldest_of_the_largest() is None
    for member, source in (("a1", "a"), ("b1", "b"), ("b2", "b"), ("c1", None)):
        crowd.add(member, source)
    assert crowd.oldest_of_the_largest() == "b1"
    assert (crowd.oldest(), crowd.oldest_of("b"), crowd.oldest_of(None)) == ("a1", "b1", "c1")
    assert (crowd.count("b"), crowd.count("z"), len(crowd)) == (2, 0, 4)
    assert crowd.remove("b1")
    assert not crowd.remove("b1")
    assert crowd.oldest_of_the_largest() == "a1"
    for member in ("a1", "b2", "c1"):
        assert member in crowd
        crowd.remove(member)
    assert len(crowd) == 0
    assert crowd.oldest() is None
