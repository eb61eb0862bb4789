"""A carrier that records what an exchange answers, in place of a Noise link with HTTP/2."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Sequence
from itertools import count

import zstandard

from appliance.control.exchange import Exchange, Header, OutStream
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey

_ids = count(1, 2)


class Recorder:
    """Keeps status, body and streams; ``window`` bytes are taken, the rest is backlog."""

    def __init__(self, machine_key: MachineKey, *, version: int = 130) -> None:
        self.machine_key = machine_key
        self.version = version
        self.peer: tuple[str, int] | None = ("192.0.2.1", 1)
        self.status = 0
        self.body = b""
        self.headers: dict[bytes, bytes] = {}
        self.out: OutStream | None = None
        self.window = 1 << 30
        self.vouched = False
        self.was_reset = False

    def request(self, path: str, body: bytes = b"", method: str = "POST") -> Exchange:
        return Exchange(self, next(_ids), method, path, (), body)

    def answer(self, stream_id: int, status: int, headers: Sequence[Header], body: bytes) -> None:
        del stream_id
        self.status, self.body, self.headers = status, body, dict(headers)

    def begin(self, stream_id: int, status: int, headers: Sequence[Header]) -> OutStream:
        del headers
        self.status = status
        self.out = OutStream(self, stream_id)
        return self.out

    def send(self, out: OutStream, parts: Sequence[bytes]) -> None:
        out.queue = out.queue or deque()
        out.queue.extend(parts)
        out.backlog += sum(map(len, parts))
        self.take(out, 0)

    def finish(self, out: OutStream) -> None:
        del out

    def reset(self, stream_id: int) -> None:
        del stream_id
        self.was_reset = True

    def vouch(self) -> None:
        self.vouched = True

    def take(self, out: OutStream, more: int) -> None:
        """Let the client take what its window allows, grown by ``more`` bytes."""
        self.window += more
        had = out.backlog
        while out.queue and self.window >= len(out.queue[0]):
            part = bytes(out.queue.popleft())
            self.window -= len(part)
            self.body += part
            out.backlog -= len(part)
        if had and not out.backlog and more:
            out.drain_reached()

    def messages(self) -> list[tailcfg.MapResponse]:
        """Cut the body into map responses and forget it."""
        found: list[tailcfg.MapResponse] = []
        at = 0
        while at < len(self.body):
            (length,) = struct.unpack_from("<I", self.body, at)
            data = self.body[at + 4 : at + 4 + length]
            at += 4 + length
            if data[:4] == b"\x28\xb5\x2f\xfd":
                data = b"".join(_frames(data))
            found.append(tailcfg.decode_map_response(data))
        self.body = b""
        return found


def _frames(data: bytes) -> list[bytes]:
    out = []
    while data:
        one = zstandard.ZstdDecompressor().decompressobj()
        out.append(one.decompress(data))
        data = one.unused_data
    return out
