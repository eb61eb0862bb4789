"""Who looks like an authority that validates gets its certificate; everybody else the usual one."""

from __future__ import annotations

import asyncio
import ssl
from ipaddress import ip_address
from random import Random

import pytest

from appliance.front.clienthello import ClientHello, decode_hello, gather
from appliance.front.proxystream import ProxiedTlsStream
from appliance.front.stream import Sink, accept, bind
from appliance.front.tlsstream import HandshakeGate, TlsStream
from appliance.wire.errors import ProtocolError
from tests.front.test_stream import Recorder
from tests.fuzz.fuzz_tls import Owner, Transport, feed
from tests.support.certificates import client_context, self_signed_pem, server_context
from tests.support.clienthellos import Hello, in_records, pieces, random_hello
from tests.support.polling import until

HELLOS = 10_000
REVERSED = ip_address("192.0.2.7").reverse_pointer
REVERSED6 = ip_address("2001:db8::7").reverse_pointer
ASKED = ("a.example.com", REVERSED, REVERSED6)
OTHER = ("b.example.com", "192.0.2.7", "a.example.com.", "localhost")


class Answers:
    """Open questions for some names, each with a certificate of its own."""

    def __init__(self, *names: str) -> None:
        self.contexts = {name: challenge_context(name) for name in names}
        self.asked: list[str | None] = []

    @property
    def is_pending(self) -> bool:
        return bool(self.contexts)

    def context_for(self, server_name: str | None) -> ssl.SSLContext | None:
        self.asked.append(server_name)
        return self.contexts.get(server_name or "")


def challenge_context(name: str) -> ssl.SSLContext:
    context = server_context(f"challenge.{name}"[:64])
    context.set_alpn_protocols(["acme-tls/1"])
    return context


def test_a_hello_of_known_bytes() -> None:
    extensions = bytes.fromhex(
        "0000000b00090000" + "06" + b"a.test".hex() + "0010000d000b0a" + b"acme-tls/1".hex()
    )
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\xc0\x2b" + b"\x01\0" + b"\0\x20" + extensions
    message = b"\x01\0\0" + bytes([len(body)]) + body
    assert decode_hello(message) == ClientHello("a.test", (b"acme-tls/1",))
    bare = 4 + 2 + 32 + 1 + 4 + 2
    """A hello may end where its extensions would begin, as those of old clients do."""
    for end in {*range(4, len(message))} - {bare}:
        with pytest.raises(ProtocolError):
            decode_hello(message[:end])
    assert decode_hello(message[:bare]) == ClientHello(None, ())


def test_every_random_hello_is_read_as_it_was_meant() -> None:
    rng = Random(7)
    for _ in range(2_000):
        hello = random_hello(rng, ASKED + OTHER)
        data = in_records(hello.message, rng.choice((300, 700, 16_384)))
        assert gather(memoryview(data)) == hello.message
        assert decode_hello(hello.message) == ClientHello(hello.server_name, hello.protocols)


def test_damaged_hellos_are_refused_or_read_and_never_a_bug() -> None:
    rng = Random(11)
    for _ in range(5_000):
        message = bytearray(random_hello(rng, ASKED).message)
        for _ in range(rng.randrange(1, 4)):
            message[rng.randrange(4, len(message))] = rng.randrange(256)
        try:
            decode_hello(bytes(message[: rng.randrange(4, len(message) + 1)]))
        except ProtocolError:
            continue


async def test_each_of_many_hellos_gets_the_right_certificate() -> None:
    """Split anywhere, in several records, of any size, with every kind of name."""
    rng = Random(20_300_101)
    web, answers = server_context(), Answers(*ASKED)
    counted = {"web": 0, "challenge": 0}
    for _ in range(HELLOS):
        hello = random_hello(rng, ASKED + OTHER)
        expected = web
        if hello.is_validator and hello.server_name in answers.contexts:
            expected = answers.contexts[hello.server_name]
        await greet(rng, web, answers, hello, expected)
        counted["web" if expected is web else "challenge"] += 1
    assert min(counted.values()) > HELLOS // 20, "both kinds were tried"


async def greet(
    rng: Random, web: ssl.SSLContext, answers: Answers, hello: Hello, expected: ssl.SSLContext
) -> None:
    gate, transport = HandshakeGate(), Transport()
    stream = TlsStream(Owner(), web, gate=gate, challenges=answers)
    stream.connection_made(transport)
    data = in_records(hello.message, rng.choice((300, 900, 16_384)))
    for piece in pieces(rng, data, 4):
        feed(stream, piece)
    assert stream._object is not None
    assert stream._object.context is expected
    assert transport.written[:1] == b"\x16", "a handshake, not an alert"
    stream.abort()
    stream.connection_lost(None)
    gate.close()


async def test_a_refused_hello_is_refused_by_openssl_while_questions_are_open() -> None:
    rng = Random(3)
    for _ in range(200):
        message = bytearray(random_hello(rng, ASKED).message)
        at = message.find(b"acme-tls/1")
        if at < 0:
            continue
        message[at - 1] = 200  # a length that leads out of the extension
        transport, gate = Transport(), HandshakeGate()
        stream = TlsStream(Owner(), server_context(), gate=gate, challenges=Answers(*ASKED[:1]))
        stream.connection_made(transport)
        feed(stream, in_records(bytes(message), 16_384))
        assert transport.written[:1] == b"\x15", "an alert"
        stream.connection_lost(None)
        gate.close()


@pytest.mark.parametrize("behind_proxy", [False, True])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_validator_sees_its_certificate_and_nothing_more(
    version: ssl.TLSVersion, behind_proxy: bool
) -> None:
    answers = Answers("a.example.com")
    sinks: list[Recorder] = []

    def sink() -> Sink:
        sinks.append(Recorder())
        return sinks[-1]

    def make(owner: Owner, context: ssl.SSLContext, *, gate: HandshakeGate) -> TlsStream:
        kind = ProxiedTlsStream if behind_proxy else TlsStream
        return kind(owner, context, gate=gate, challenges=answers)

    web = server_context()
    sockets = await bind("127.0.0.1", 0)
    listener = await accept(sink, sockets, tls=lambda: web, make_tls=make)
    reader, writer = await ask(listener.port, ["acme-tls/1"], version)
    tls = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "acme-tls/1"
    assert tls.getpeercert(binary_form=True) == der("challenge.a.example.com")
    assert await reader.read() == b"", "closed, and nothing said"
    writer.close()
    await until(lambda: listener.gate.unfinished == 0)
    assert not sinks, "no door saw it"
    _reader, writer = await ask(listener.port, ["h2", "acme-tls/1"], version)
    assert writer.get_extra_info("ssl_object").getpeercert(binary_form=True) == der("localhost")
    writer.close()
    answers.contexts.clear()
    _reader, writer = await ask(listener.port, ["acme-tls/1"], version)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
    assert answers.asked == ["a.example.com"], "no hello is looked into without a question"
    writer.close()
    listener.abort_streams()
    listener.close()


async def ask(
    port: int, protocols: list[str], version: ssl.TLSVersion
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = client_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(protocols)
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="a.example.com"
    )


def der(name: str) -> bytes:
    pem = self_signed_pem(name).decode()
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index(end) + len(end)])
