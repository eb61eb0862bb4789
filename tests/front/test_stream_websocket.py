"""A stream inside WebSocket messages has the face of every other stream."""

from __future__ import annotations

import asyncio

from appliance.front.stream import Stream, WebSocketStream, dial, listen
from appliance.wire.websocket import (
    Close,
    Data,
    Event,
    FrameReader,
    Opcode,
    Pong,
    WebSocketError,
    encode_frame,
)
from tests.front.test_stream import Keeper, Recorder
from tests.support.polling import until

MASK = b"\x01\x02\x03\x04"


class Client(Recorder):
    def __init__(self) -> None:
        super().__init__()
        self.reader = FrameReader(masked=False)
        self.frames: list[Event] = []

    def received(self, buffer: bytearray, view: memoryview, end: int, /) -> int:
        self.frames += self.reader.feed(bytes(view[:end]))
        return super().received(buffer, view, end)

    def payload(self) -> bytes:
        return b"".join(frame.payload for frame in self.frames if isinstance(frame, Data))


async def connect(sink: Recorder) -> tuple[Stream, Client]:
    listener = await listen(lambda: WebSocketStream(sink), "127.0.0.1", 0)
    client = Client()
    stream = await dial(client, "127.0.0.1", listener.port)
    await until(lambda: sink.stream is not None)
    listener.close()
    return stream, client


def binary(data: bytes) -> bytes:
    return encode_frame(Opcode.BINARY, data, mask=MASK)


async def test_bytes_flow_both_ways_and_the_end_is_clean() -> None:
    sink = Recorder()
    stream, client = await connect(sink)
    stream.write(binary(b"hello ") + binary(b"relay"))
    await sink.until(lambda: bytes(sink.data) == b"hello relay")
    assert sink.stream is not None
    sink.stream.write(bytes(100_000))
    sink.stream.write_many([b"one", b"two"])
    await client.until(lambda: client.payload() == bytes(100_000) + b"onetwo")
    sink.stream.close()
    await client.until(lambda: "lost" in client.events)
    assert client.frames[-1] == Close(1000)
    await sink.until(lambda: "lost" in sink.events)


async def test_kept_bytes_and_hand_over() -> None:
    sink = Keeper(step=10)
    stream, _ = await connect(sink)
    stream.write(binary(b"0123456"))
    await sink.until(lambda: sink.shown == 1)
    stream.write(binary(b"789ab"))
    await sink.until(lambda: bytes(sink.data) == b"0123456789")
    second = Recorder()
    assert sink.stream is not None
    sink.stream.hand_over(second)
    assert bytes(second.data) == b"ab"
    stream.abort()
    await second.until(lambda: "lost" in second.events)
    assert "lost" not in sink.events


async def test_ping_is_answered_and_close_ends() -> None:
    sink = Recorder()
    stream, client = await connect(sink)
    stream.write(encode_frame(Opcode.PING, b"are you there", mask=MASK))
    await client.until(lambda: client.frames == [Pong(b"are you there")])
    stream.write(encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=MASK) + binary(b"too late"))
    await client.until(lambda: "lost" in client.events)
    assert not sink.data
    assert sink.events == ["connected", "ended", "lost"]


async def test_broken_rule_closes_with_its_code() -> None:
    sink = Recorder()
    stream, client = await connect(sink)
    stream.write(encode_frame(Opcode.TEXT, b"text", mask=MASK))
    await client.until(lambda: "lost" in client.events)
    assert client.frames == [Close(1003)]
    await sink.until(lambda: "lost" in sink.events)
    assert isinstance(sink.error, WebSocketError)


async def test_pause_keeps_what_came() -> None:
    class Pausing(Recorder):
        ready = False

        def received(self, buffer: bytearray, view: memoryview, end: int, /) -> int:
            if not self.ready and self.stream:
                self.stream.pause_reading()
                self.changed.set()
                self.shown += 1
                return 0
            return super().received(buffer, view, end)

    sink = Pausing()
    stream, _ = await connect(sink)
    stream.write(binary(b"later"))
    await sink.until(lambda: sink.shown == 1)
    sink.ready = True
    assert sink.stream is not None
    sink.stream.resume_reading()
    assert bytes(sink.data) == b"later"
    stream.abort()
    await asyncio.sleep(0)
