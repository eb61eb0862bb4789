"""ts2021 and the Noise below it, against golden bytes: whole, byte by byte, with a tail."""

import os
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire import controlbase, noise, tailcfg
from appliance.wire.controlbase import HandshakeError, ServerHandshake, Session
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import ChallengeKey, MachineKey, PrivateKey
from tests.support.handshake import ClientHandshake, split_early_payload
from tests.vectors import load

GOLDEN = load("noise_ik.json")
V142 = GOLDEN["version_142"]


def run_of(start: int) -> PrivateKey:
    return PrivateKey(bytes(range(start, start + 32)))


CLIENT, CLIENT_EPHEMERAL, SERVER, SERVER_EPHEMERAL = map(run_of, (0x00, 0x20, 0x40, 0x60))
SERVER_PUBLIC = MachineKey(SERVER.public_raw)


def golden_pair() -> tuple[ClientHandshake, bytes, Session]:
    client = ClientHandshake(CLIENT, SERVER_PUBLIC, 142, lambda _: bytes(range(0x20, 0x40)))
    server = ServerHandshake(SERVER, lambda _: bytes(range(0x60, 0x80)))
    _, _, response, session = server.read(client.initiation)
    return client, response, session


def pair() -> tuple[Session, Session]:
    client, response, server = golden_pair()
    done = client.feed(response)
    assert done is not None
    return done[0], server


def test_public_keys() -> None:
    assert CLIENT.public_raw.hex() == GOLDEN["static_public"]["client"]
    assert SERVER.public_raw.hex() == GOLDEN["static_public"]["server"]


def test_noise_alone_with_another_prologue() -> None:
    ((text, wanted),) = GOLDEN["prologues"].items()
    prologue = text.encode()
    initiator = noise.Initiator(CLIENT, SERVER.public_raw, prologue, CLIENT_EPHEMERAL)
    assert initiator.initiation.hex() == wanted["initiation"]
    machine, response, ours = noise.respond(
        SERVER, prologue, initiator.initiation, SERVER_EPHEMERAL
    )
    assert machine == CLIENT.public_raw
    assert response.hex() == wanted["response"]
    assert initiator.finish(response).handshake_hash == ours.handshake_hash


def test_handshake_matches_golden_bytes() -> None:
    client = ClientHandshake(CLIENT, SERVER_PUBLIC, 142, lambda _: bytes(range(0x20, 0x40)))
    assert client.initiation.hex() == V142["initiation"]
    server = ServerHandshake(SERVER, lambda _: bytes(range(0x60, 0x80)))
    machine, version, response, session = server.read(bytes.fromhex(V142["initiation"]))
    assert machine == MachineKey(CLIENT.public_raw)
    assert version == 142
    assert response.hex() == V142["response"]
    assert session.handshake_hash.hex() == V142["handshake_hash"]


def test_records_match_golden_bytes() -> None:
    client, server = pair()
    for text, record in V142["records_to_server"]:
        assert client.seal(text.encode()).hex() == record
        assert server.feed(bytes.fromhex(record)) == text.encode()
    for text, record in V142["records_to_client"]:
        assert server.seal(text.encode()).hex() == record
        assert client.feed(bytes.fromhex(record)) == text.encode()


def test_response_and_records_byte_by_byte() -> None:
    client, response, _ = golden_pair()
    records = b"".join(bytes.fromhex(record) for _, record in V142["records_to_client"])
    session: Session | None = None
    plaintext = b""
    for byte in response + records:
        if session is not None:
            plaintext += session.feed(bytes([byte]))
        elif (done := client.feed(bytes([byte]))) is not None:
            session, tail = done
            assert tail == b""
    assert plaintext == b"server>clientserver>client"
    assert session is not None
    assert not session.has_partial_record


def test_response_with_a_tail_of_records() -> None:
    client, response, _ = golden_pair()
    records = [bytes.fromhex(record) for _, record in V142["records_to_client"]]
    done = client.feed(response + records[0] + records[1][:-1])
    assert done is not None
    session, tail = done
    assert session.feed(bytearray(tail)) == b"server>client"
    assert session.has_partial_record
    assert session.feed(memoryview(records[1][-1:])) == b"server>client"


@pytest.mark.parametrize(
    ("size", "records"), [(0, 0), (1, 1), (4077, 1), (4078, 2), (65232, 16), (65233, 17)]
)
def test_plaintext_is_cut_into_records_of_4096_bytes(size: int, records: int) -> None:
    client, server = pair()
    plaintext = os.urandom(size)
    parts = server.seal_parts(plaintext)
    assert sum(map(len, parts)) == size + 19 * records
    assert all(len(part) <= 65536 for part in parts)
    assert b"".join(map(client.feed, parts)) == plaintext


def test_empty_record_is_skipped() -> None:
    client, server = pair()
    sealed = b"\x04\x00\x10" + noise.CipherState(b"k" * 32).seal(b"")
    assert noise.CipherState(b"k" * 32).open(sealed[3:]) == b""
    # The same through a session: seal nothing by hand with the session's own cipher.
    sealed = b"\x04\x00\x10" + server._send.seal(b"")
    assert client.feed(sealed + server.seal(b"x")) == b"x"


def test_wrong_size_type_or_length_is_answered_with_an_error_frame() -> None:
    server = ServerHandshake(SERVER, os.urandom)
    good = bytes.fromhex(V142["initiation"])
    for bad in (
        b"",
        good[:-1],
        good + b"\0",
        good[:2] + b"\2" + good[3:],
        good[:4] + b"\1" + good[5:],
    ):
        with pytest.raises(HandshakeError) as caught:
            server.read(bad)
        client = ClientHandshake(CLIENT, SERVER_PUBLIC, 142, os.urandom)
        with pytest.raises(ProtocolError, match="the server says 'handshake message"):
            client.feed(caught.value.answer)


@pytest.mark.parametrize("place", [0, 1, 5, 36, 37, 84, 85, 100])
def test_forged_initiation_is_closed_without_an_answer(place: int) -> None:
    forged = bytearray.fromhex(V142["initiation"])
    forged[place] ^= 1
    with pytest.raises(HandshakeError) as caught:
        ServerHandshake(SERVER, os.urandom).read(bytes(forged))
    assert caught.value.answer == b""


def test_initiation_for_another_server_does_not_open() -> None:
    other = PrivateKey(os.urandom(32))
    with pytest.raises(HandshakeError):
        ServerHandshake(other, os.urandom).read(bytes.fromhex(V142["initiation"]))


def test_initiation_with_a_point_of_low_order_is_refused() -> None:
    weak = bytearray.fromhex(V142["initiation"])
    weak[5:37] = bytes(32)
    with pytest.raises(HandshakeError):
        ServerHandshake(SERVER, os.urandom).read(bytes(weak))


def test_forged_response_is_refused() -> None:
    client, response, _ = golden_pair()
    with pytest.raises(ProtocolError):
        client.feed(response[:-1] + bytes([response[-1] ^ 1]))
    with pytest.raises(ProtocolError):
        golden_pair()[0].feed(b"\x02\x00\x31")
    with pytest.raises(ProtocolError):
        golden_pair()[0].feed(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "bad",
    [
        b"\x03\x00\x05error",  # an error after the handshake
        b"\x04\x0f\xfe",  # one byte too long
        b"\x04\xff\xff",
        b"\x04\x00\x00",  # no room for a tag
        b"\x04\x00\x0f" + bytes(15),
        b"\x04\x00\x10" + bytes(16),  # forged
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_bad_frame_breaks_the_session_for_good(bad: bytes) -> None:
    client, server = pair()
    good = server.seal(b"good")
    with pytest.raises(ProtocolError):
        client.feed(bad)
    with pytest.raises(ProtocolError):
        client.feed(good)
    with pytest.raises(ProtocolError):
        client.seal(b"too late")


def test_repeated_and_lost_records_do_not_open() -> None:
    client, server = pair()
    record = server.seal(b"once")
    assert client.feed(record) == b"once"
    with pytest.raises(ProtocolError):
        client.feed(record)
    client, server = pair()
    server.seal(b"lost")
    with pytest.raises(ProtocolError):
        client.feed(server.seal(b"next"))


def test_message_numbers_end() -> None:
    state = noise.CipherState(bytes(32), noise.MESSAGE_NUMBER_LIMIT - 1)
    sealed = state.seal(b"last")
    with pytest.raises(ProtocolError):
        state.seal(b"one more")
    reader = noise.CipherState(bytes(32), noise.MESSAGE_NUMBER_LIMIT - 1)
    assert reader.open(sealed) == b"last"
    with pytest.raises(ProtocolError):
        reader.open(sealed)


def test_early_payload_has_the_known_form_and_is_split_again() -> None:
    challenge = ChallengeKey(bytes(range(32)))
    data = controlbase.encode_early_payload(challenge)
    assert data[:9].hex() == "ffffff54530000005f"
    assert len(data) == 104
    early = tailcfg.EarlyNoise(node_key_challenge=challenge)
    assert split_early_payload(data) == (early, b"")
    assert split_early_payload(data + b"tail") == (early, b"tail")
    for cut in range(len(data)):
        assert split_early_payload(data[:cut]) is None
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    assert split_early_payload(settings) == (None, settings)


def test_early_payload_is_bounded() -> None:
    with pytest.raises(ProtocolError):
        split_early_payload(controlbase.EARLY_PAYLOAD_MAGIC + b"\0\0\x04\x01")
    with pytest.raises(ProtocolError):
        split_early_payload(controlbase.EARLY_PAYLOAD_MAGIC + b"\0\0\0\1[")


@given(st.lists(st.binary(max_size=9000), max_size=6), st.data())
def test_any_plaintext_in_any_cut_arrives(texts: list[bytes], data: st.DataObject) -> None:
    client, server = pair()
    wire = b"".join(map(client.seal, texts))
    arrived = b""
    while wire:
        cut = data.draw(st.integers(1, len(wire)))
        arrived += server.feed(wire[:cut])
        wire = wire[cut:]
    assert arrived == b"".join(texts)
    assert not server.has_partial_record


@given(st.binary(max_size=200))
def test_any_bytes_as_initiation_or_frames_end_in_a_protocol_error_or_wait(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ServerHandshake(SERVER, os.urandom).read(data)
    _, server = pair()
    try:
        assert server.feed(data) == b""
        assert server.has_partial_record == bool(data)
    except ProtocolError:
        pass


@pytest.mark.parametrize("case", load("go_controlbase.json"), ids=lambda case: case["version"])
def test_live_exchange_of_the_official_package_is_replayed(case: dict[str, Any]) -> None:
    """The Go client and server talked over a pipe, with keys from a source that counts bytes."""
    drawn = bytes((case["random_start"] + place) % 256 for place in range(4 * 32))
    machine, control = PrivateKey(drawn[:32]), PrivateKey(drawn[32:64])
    control_public = MachineKey(control.public_raw)
    assert str(control_public) == case["control"]
    client = ClientHandshake(machine, control_public, case["version"], lambda _: drawn[64:96])
    assert client.initiation.hex() == case["initiation"]
    server = ServerHandshake(control, lambda _: drawn[96:])
    key, version, response, at_server = server.read(client.initiation)
    assert (str(key), version, response.hex()) == (
        case["machine"],
        case["version"],
        case["response"],
    )
    done = client.feed(response)
    assert done is not None
    at_client, _ = done
    assert at_client.handshake_hash.hex() == case["handshake_hash"]
    for record in case["records"]:
        plaintext = b"x" * record["size"]
        to_server = record["to"] == "server"
        sender, receiver = (at_client, at_server) if to_server else (at_server, at_client)
        wire = sender.seal(plaintext)
        if "wire" in record:
            assert wire.hex() == record["wire"]
        else:
            assert sha256(wire).hexdigest() == record["sha256"]
        assert receiver.feed(wire) == plaintext
