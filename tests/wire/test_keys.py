"""Keys and their texts, against the official Go package."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire import keys
from appliance.wire.errors import ProtocolError
from tests.vectors import load

GOLDEN: dict[str, Any] = load("go_keys.json")
RAW = bytes.fromhex(GOLDEN["raw"])
KINDS: dict[str, type[keys.PublicKey]] = {
    "machine": keys.MachineKey,
    "node": keys.NodeKey,
    "disco": keys.DiscoKey,
    "lock": keys.LockKey,
}
ALL_KINDS: list[type[keys.PublicKey]] = [*KINDS.values(), keys.ChallengeKey]


@pytest.mark.parametrize("name", KINDS)
def test_text_is_the_text_of_go(name: str) -> None:
    key = KINDS[name](RAW)
    assert str(key) == GOLDEN["texts"][name]
    assert KINDS[name].parse(GOLDEN["texts"][name]) == key
    if name in GOLDEN["shorts"]:
        assert key.short == GOLDEN["shorts"][name]


def test_zero_key_is_text_and_short_is_empty() -> None:
    zero = keys.NodeKey.zero()
    assert str(zero) == GOLDEN["texts"]["node_zero"]
    assert zero.short == GOLDEN["shorts"]["node_zero"] == ""
    assert zero.is_zero
    assert repr(zero) == "NodeKey(zero)"


@pytest.mark.parametrize("case", GOLDEN["node_parse"], ids=lambda case: repr(case["text"][:20]))
def test_parses_what_go_parses(case: dict[str, Any]) -> None:
    if case["ok"]:
        assert keys.NodeKey.parse(case["text"]).raw == RAW
    else:
        with pytest.raises(ProtocolError):
            keys.NodeKey.parse(case["text"])


def test_lock_key_has_two_input_forms() -> None:
    digits = RAW.hex()
    assert keys.LockKey.parse("tlpub:" + digits) == keys.LockKey.parse("nlpub:" + digits)
    with pytest.raises(ProtocolError):
        keys.LockKey.parse("nodekey:" + digits)


def test_private_key_is_clamped_as_in_go_and_has_its_public_key() -> None:
    private = keys.PrivateKey(RAW)
    assert str(keys.MachineKey(private.public_raw)) == GOLDEN["private_public"]
    assert keys.PrivateKey.parse(GOLDEN["private"]).public_raw == private.public_raw
    assert keys.PrivateKey.parse(private.reveal_text() + "\n").reveal() == private.reveal()


def test_secrets_do_not_show_and_do_not_compare() -> None:
    private, mesh = keys.PrivateKey(RAW), keys.MeshKey(RAW)
    for secret in (private, mesh):
        assert repr(secret).endswith("(hidden)")
        assert RAW.hex()[:8] not in f"{secret} {secret!r}"
        with pytest.raises(TypeError):
            hash(secret)
    with pytest.raises(ProtocolError) as caught:
        keys.PrivateKey.parse("privkey:" + RAW.hex()[:-1] + "g")
    assert RAW.hex()[:8] not in str(caught.value)


def test_exchange_agrees_and_refuses_weak_points() -> None:
    one, two = (keys.PrivateKey.generate(os.urandom) for _ in range(2))
    assert one.exchange(two.public_raw) == two.exchange(one.public_raw)
    for weak in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(ProtocolError):
            one.exchange(weak)
    with pytest.raises(ProtocolError):
        one.exchange(b"short")


def test_mesh_key_matches_itself_but_zero_matches_nothing() -> None:
    assert keys.MeshKey(RAW).matches(keys.MeshKey.parse(f" {RAW.hex().upper()}\n"))
    assert not keys.MeshKey(RAW).matches(keys.MeshKey(RAW[::-1]))
    assert not keys.MeshKey(bytes(32)).matches(keys.MeshKey(bytes(32)))


def test_hardware_key_is_a_point() -> None:
    text = GOLDEN["hardware"]
    key = keys.HardwareKey.parse(text)
    assert str(key) == text
    assert key == keys.HardwareKey(key.raw)
    assert hash(key) == hash(keys.HardwareKey(key.raw))
    for bad in (text[:-2], text.replace(":04", ":02"), text[12:], ""):
        with pytest.raises(ProtocolError):
            keys.HardwareKey.parse(bad)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_kinds_never_mix(kind: type[keys.PublicKey]) -> None:
    for other in ALL_KINDS:
        assert (kind(RAW) == other(RAW)) is (kind is other)
        if other is not kind:
            with pytest.raises(ProtocolError):
                kind.parse(str(other(RAW)))


@pytest.mark.parametrize("kind", ALL_KINDS)
@given(raw=st.binary(max_size=40))
def test_key_comes_back_from_its_text(kind: type[keys.PublicKey], raw: bytes) -> None:
    if len(raw) == keys.KEY_BYTES:
        assert kind.parse(str(kind(raw))) == kind(raw)
    else:
        with pytest.raises(ProtocolError):
            kind(raw)


@given(st.text(max_size=90) | st.text("nodekey:0123456789abcdefABCDEF", max_size=90))
def test_any_text_is_a_key_or_a_protocol_error(text: str) -> None:
    for kind in ALL_KINDS:
        try:
            key = kind.parse(text)
        except ProtocolError:
            continue
        assert str(key) == text.lower()
