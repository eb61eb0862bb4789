"""A stream without sockets: what a sink writes is kept, what a test delivers is shown to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from appliance.front.stream import Sink, Stream


class Alarms:
    """Stands for ``loop.call_later``: nothing rings until a test says how much time passes."""

    def __init__(self) -> None:
        self.now = 0.0
        self._set: list[Alarm] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> Alarm:
        alarm = Alarm(self.now + seconds, call)
        self._set.append(alarm)
        return alarm

    def advance(self, seconds: float) -> None:
        """Let time pass; everything that is due rings once."""
        self.now += seconds
        due = [alarm for alarm in self._set if alarm.at <= self.now]
        self._set = [alarm for alarm in self._set if alarm.at > self.now]
        for alarm in due:
            if not alarm.cancelled:
                alarm.call()


class Alarm:
    """One call that is due at a time, unless cancelled."""

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class MemoryStream(Stream):
    """Implements the contract of ``front.stream.Stream`` synchronously.

    ``deliver`` plays the peer's bytes, ``take`` gives what was written since; ``block`` makes the
    write buffer full until ``unblock``.
    """

    def __init__(self, sink: Sink | None = None, *, peer: tuple[str, int] | None = None) -> None:
        self.peer = peer
        self.tls = False
        self.tls_version = None
        self.server_name = None
        self.sink: Sink | None = None
        self.written = bytearray()
        self.writes = 0
        self.closed = False
        self.aborted = False
        self.reading = True
        self._kept = b""
        self._feeding = False
        self._blocked = False
        self._lost = False
        if sink is not None:
            self.hand_over(sink)

    # -- the contract --

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.written += data
            self.writes += 1

    def write_many(self, parts: Sequence[bytes]) -> None:
        self.write(b"".join(parts))

    def buffered(self) -> int:
        return len(self.written) if self._blocked else 0

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_limits(self, high: int, low: int) -> None:
        pass

    def hand_over(self, sink: Sink) -> None:
        self.sink = sink
        sink.connected(self)
        if not self._feeding:
            self._show()

    # -- the test's side --

    def deliver(self, data: bytes) -> None:
        """Show the bytes to the sink, behind what it has left over."""
        self._kept += data
        self._show()

    def deliver_slowly(self, data: bytes) -> None:
        """Show the bytes one by one."""
        for at in range(len(data)):
            self.deliver(data[at : at + 1])

    def take(self) -> bytes:
        """Give, and forget, what was written."""
        data = bytes(self.written)
        self.written.clear()
        return data

    def block(self) -> None:
        """Let the peer stop reading."""
        self._blocked = True
        assert self.sink is not None
        self.sink.paused()

    def unblock(self) -> None:
        """Let the peer read again."""
        self._blocked = False
        assert self.sink is not None
        self.sink.resumed()
        self._show()

    def lose(self, error: Exception | None = None) -> None:
        """Cut the connection."""
        self.closed = True
        if not self._lost and self.sink is not None:
            self._lost = True
            self.sink.lost(error)

    def _show(self) -> None:
        while self._kept and self.reading and not self.closed:
            sink = self.sink
            assert sink is not None
            buffer = bytearray(self._kept) + bytearray(
                16
            )  # the shared buffer is longer than its end
            view = memoryview(buffer)
            self._feeding = True
            try:
                used = sink.received(buffer, view, len(self._kept))
            finally:
                self._feeding = False
                view[:] = bytes(len(view))  # whoever kept the buffer is found out
            assert 0 <= used <= len(self._kept)
            self._kept = self._kept[used:]
            if self.sink is sink:
                break
