"""Messages against what the official Go package writes and reads."""

import json
from typing import Any

import msgspec
import pytest

from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from tests.vectors import load

MESSAGES: list[dict[str, Any]] = load("go_messages.json")
LENIENT: list[dict[str, Any]] = load("go_lenient.json")

# Fields that Go still carries and we leave out on purpose: nobody sends or reads them now.
LEFT_OUT = {
    "Oauth2Token",  # of RegisterRequest.Auth; Android before 1.66
    "pubKeys",  # of SSH principals; gone since capability version 110
    # Of clients that are refused:
    "Capabilities",  # of Node, before capability version 74
    "DERP",  # of Node, before 111
    "PacketFilter",  # of MapResponse, before 81
}
UNSET_TIME = "0001-01-01T00:00:00Z"


def decoder(name: str) -> tailcfg.Decoder[Any]:
    return tailcfg.Decoder(getattr(tailcfg, name), tailcfg.MAX_RESPONSE_BYTES, any_case=True)


def comparable(value: Any) -> Any:
    """Leave out what we leave out; times without trailing zeros, as Go writes them."""
    if isinstance(value, dict):
        return {name: comparable(part) for name, part in value.items() if name not in LEFT_OUT}
    if isinstance(value, list):
        return [comparable(part) for part in value]
    if isinstance(value, str) and value.startswith("2026-") and value.endswith("Z"):
        return value[:-1].rstrip("0")
    return value


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["type"])
def test_every_field_of_go_survives(case: dict[str, Any]) -> None:
    """Go's message with every field set, read and written by us, says the same."""
    full = json.dumps(case["full"], ensure_ascii=False).encode()
    message = decoder(case["type"])(full)
    assert comparable(json.loads(tailcfg.encode(message))) == comparable(case["full"])


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["type"])
def test_full_message_needs_no_mending(case: dict[str, Any]) -> None:
    fast = msgspec.json.Decoder(getattr(tailcfg, case["type"]), dec_hook=tailcfg.codec._from_text)
    full = json.dumps(case["full"], ensure_ascii=False).encode()
    assert fast.decode(full) == decoder(case["type"])(full)


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["type"])
def test_zero_value_of_go_is_ours(case: dict[str, Any]) -> None:
    """Whatever Go writes in a zero message (null included) reads as our message of defaults."""
    zero = decoder(case["type"])(json.dumps(case["zero"]).encode())
    assert zero == getattr(tailcfg, case["type"])()


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case["type"])
def test_what_go_always_writes_is_always_written(case: dict[str, Any]) -> None:
    ours = json.loads(tailcfg.encode(getattr(tailcfg, case["type"])()))
    unset = (None, UNSET_TIME)
    theirs = {name for name, value in case["zero"].items() if value not in unset}
    if case["type"] == "DERPAdmitClientRequest":
        theirs -= {"Source"}  # an address that is never absent
    assert theirs <= ours.keys()


# Questions on which we differ from Go, and why that does no harm.
DIFFERENT = {
    '{"Version":1,"Version":null}': "null takes back what stood there before; nobody sends both",
    '{"Hostinfo":{"Hostname":"half \\ud800 pair"}}': "refused; no encoder of Go or Rust writes it",
    '{"SignatureType":"signature-v9"}': "kept as text; Go takes a strange name for none",
    '{"PeersChangedPatch":[{"NodeID":1,"Endpoints":[],"CapMap":{},'
    '"KeyExpiry":"0001-01-01T00:00:00Z"}]}': "Go reads it as we do, but cannot write it",
}
SAME = [case for case in LENIENT if case["text"] not in DIFFERENT]


@pytest.mark.parametrize("case", SAME, ids=lambda case: case["text"][:70])
def test_reads_what_go_reads(case: dict[str, Any]) -> None:
    decode = decoder(case["type"])
    text = case["text"].encode()
    if case.get("error"):
        with pytest.raises(ProtocolError):
            decode(text)
    else:
        assert decode(text) == decode(json.dumps(case["value"]).encode())


def test_patch_that_clears_is_read_and_written() -> None:
    text = (
        b'{"PeersChangedPatch":[{"NodeID":1,"CapMap":{},"Endpoints":[],'
        b'"KeyExpiry":"0001-01-01T00:00:00Z"}]}'
    )
    assert tailcfg.encode(tailcfg.decode_map_response(text)) == text


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ProtocolError):
        tailcfg.decode_map_request(b'{"Hostinfo":{"Hostname":"\\ud800"}}')
