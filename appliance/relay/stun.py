"""The STUN server: tells nodes the address that the world sees, over UDP.

One socket per address family; answers leave from the address that was asked, which matters on
hosts with several (every host with IPv6). Not for reading messages (``wire.stun`` does).
Source: tailscale v1.104.5 net/stunserver/stunserver.go; ip(7), ipv6(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address

from appliance.front.source import source_of
from appliance.ratelimit import SourceBuckets
from appliance.wire import stun
from appliance.wire.errors import ProtocolError

log = logging.getLogger(__name__)

# -- our own limits --

MAX_PER_WAKE = 64
"""Datagrams handled before others get their turn."""

MAX_PER_SOURCE = 200
"""Answers for one source, at once and in a second: a large site behind one NAT asks ten times less."""

MAX_SOURCES = 10_000
"""Sources that are counted; forged ones come in any number, and the one idle longest is forgotten."""

RECEIVE_BUFFER_BYTES = 1024 * 1024
"""Asked of the kernel, so that a burst of all nodes waits and is not lost."""

_IP_PKTINFO = 8  # Linux; the module names it from 3.14 on
_IN_PKTINFO = struct.Struct("@i4s4s")
_IN6_PKTINFO = struct.Struct("@16si")
_ANCILLARY_BYTES = 64

_Ancillary = list[tuple[int, int, bytes]]


class StunCounters:
    """What the STUN server saw."""

    __slots__ = ("answered", "failed", "limited", "malformed")

    def __init__(self) -> None:
        self.answered = 0
        self.malformed = 0
        """Datagrams that are no request of a node; they are not answered."""
        self.limited = 0
        self.failed = 0
        """Answers that the kernel did not take."""


def bind(host: str, port: int) -> socket.socket:
    """Bind one address; nothing is answered before ``StunServer.serve``. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


class StunServer:
    """Answers binding requests on the sockets that it was given."""

    def __init__(self, *, max_per_source: int = MAX_PER_SOURCE) -> None:
        self.counters = StunCounters()
        self._sources = SourceBuckets(max_per_source, max_per_source, MAX_SOURCES)
        self._sockets: list[socket.socket] = []

    def serve(self, sock: socket.socket) -> int:
        """Answer on a socket that is bound already; gives its port."""
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if sys.platform == "linux":
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        self._sockets.append(sock)
        asyncio.get_running_loop().add_reader(sock, self._readable, sock)
        port: int = sock.getsockname()[1]
        return port

    def close(self) -> None:
        """Stop answering."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def answer(self, data: bytes, host: str, port: int, now: float) -> bytes | None:
        """Give the answer for one datagram, or None."""
        try:
            txid = stun.decode_request(data)
            address = _plain(host)
        except (ProtocolError, ValueError):
            self.counters.malformed += 1
            return None
        if not self._may_ask(host, now):
            self.counters.limited += 1
            return None
        return stun.encode_response(txid, address, port)

    # -- inside --

    def _readable(self, sock: socket.socket) -> None:
        now = asyncio.get_running_loop().time()
        for _ in range(MAX_PER_WAKE):
            try:
                data, ancillary, flags, peer = sock.recvmsg(
                    stun.MAX_REQUEST_BYTES + 1, _ANCILLARY_BYTES
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:  # an ICMP answer to something that we sent
                log.debug("stun socket", extra={"reason": str(error)})
                continue
            if flags & socket.MSG_TRUNC:
                self.counters.malformed += 1
                continue
            answer = self.answer(data, peer[0], peer[1], now)
            if answer is None:
                continue
            try:
                sock.sendmsg([answer], _from_same(ancillary), 0, peer)
            except OSError as error:
                self.counters.failed += 1
                log.debug("stun answer", extra={"reason": str(error)})
            else:
                self.counters.answered += 1

    def _may_ask(self, host: str, now: float) -> bool:
        return self._sources.allow(source_of((host, 0)) or host, now)


def _plain(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _from_same(ancillary: _Ancillary) -> _Ancillary:
    """Make the control message that sends from the address which the request came to."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            _, _, local = _IN_PKTINFO.unpack_from(data)
            return [(level, kind, _IN_PKTINFO.pack(0, local, b"\0" * 4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            local, interface = _IN6_PKTINFO.unpack_from(data)
            scoped = IPv6Address(local).is_link_local  # then the address alone says too little
            return [(level, kind, _IN6_PKTINFO.pack(local, interface if scoped else 0))]
    return []
