"""A TCP proxy in threads that cuts connections at a chosen moment: for a database that is far away."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

Target = Path | tuple[str, int]
WAIT_S = 20.0
"""For the moment that a test asked for."""


class Forwarder:
    """Listens on a port of loopback, and passes on to ``target``, which may change.

    ``cut_answer_to`` closes the connection when a client has sent these bytes and the target has
    answered: the client never sees the answer. ``cut_before`` closes it without passing them on.
    Each happens once. ``is_refusing`` closes new connections at once.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.is_refusing = False
        self.cut_answer_to: bytes | None = None
        self.cut_before: bytes | None = None
        self.refuse_after_cut = False
        self.cuts = 0
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.is_refusing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """End every connection there is."""
        for pair in tuple(self._pairs):
            self._close(pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_refusing:
                client.close()
                continue
            try:
                server = self._connect()
            except OSError:
                client.close()
                continue
            pair = (client, server)
            self._pairs.add(pair)
            threading.Thread(target=self._up, args=(pair,), daemon=True).start()
            threading.Thread(target=self._down, args=(pair,), daemon=True).start()

    def _connect(self) -> socket.socket:
        if isinstance(self.target, tuple):
            return socket.create_connection(self.target, timeout=WAIT_S)
        server = socket.socket(socket.AF_UNIX)
        server.connect(str(self.target))
        return server

    def _up(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self.cut_before is not None and self.cut_before in data:
                    self.cut_before = None
                    break
                if self.cut_answer_to is not None and self.cut_answer_to in data:
                    self.cut_answer_to = None
                    self._hold_back(pair)
                server.sendall(data)
        self._cut(pair)

    def _hold_back(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """See to it that the client gets no more of the server's answers."""
        with suppress(OSError):
            pair[0].shutdown(socket.SHUT_WR)

    def _down(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        with suppress(OSError):
            while data := server.recv(1 << 16):
                client.sendall(data)
        self._cut(pair)

    def _cut(self, pair: tuple[socket.socket, socket.socket]) -> None:
        if pair in self._pairs:
            self.cuts += 1
            self.is_refusing = self.is_refusing or self.refuse_after_cut
        self._close(pair)

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        for sock in pair:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
