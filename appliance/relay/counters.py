"""What a relay counts: plain integers that ``metrics`` exports.

Not for deciding anything. Sits below everything else of the relay. Bytes are of packets' data,
without keys and frame headers, as official relays count them.
"""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """Why a packet was not delivered; the names are those of the official relay's metrics."""

    UNKNOWN_DEST = "unknown_dest"
    UNKNOWN_DEST_ON_FWD = "unknown_dest_on_fwd"
    QUEUE_TAIL = "queue_tail"
    WRITE_ERROR = "write_error"


class Refusal(StrEnum):
    """Why a connection did not become, or did not stay, a client."""

    LOGIN = "login"
    LATE = "late"
    CROWDED = "crowded"
    NOT_ADMITTED = "not_admitted"
    UNVERIFIED = "unverified"
    PROTOCOL = "protocol"
    REVOKED = "revoked"


class RelayCounters:
    """All counts since the start, and the gauges of now."""

    __slots__ = (
        "accepted",
        "clients",
        "delivered_in",
        "delivered_in_bytes",
        "disco_received",
        "dropped",
        "dropped_bytes",
        "dropped_disco",
        "duplicate_keys",
        "fast_starts",
        "forwarded_in",
        "forwarded_out",
        "home_clients",
        "home_moves_in",
        "home_moves_out",
        "keep_alives",
        "mesh_clients",
        "not_ideal_clients",
        "passed",
        "passed_bytes",
        "peer_gone_disconnected",
        "peer_gone_not_here",
        "pings",
        "pongs",
        "rate_limited",
        "refused",
        "stopped",
        "stopped_bytes",
        "unknown_frames",
        "watchers",
        "websockets",
    )

    def __init__(self) -> None:
        # gauges
        self.clients = 0
        """Logged-in connections, relays of the region included."""
        self.mesh_clients = 0
        self.home_clients = 0
        """Connections that call this relay their home."""
        self.not_ideal_clients = 0
        """Connections that wanted the first relay of the region instead."""
        self.duplicate_keys = 0
        """Keys with two or more connections."""
        self.watchers = 0
        # connections
        self.accepted = 0
        """Logins that went well."""
        self.refused: dict[Refusal, int] = dict.fromkeys(Refusal, 0)
        self.fast_starts = 0
        self.websockets = 0
        # packets; one pair of additions per wake is what the hot path can afford
        self.passed = 0
        """Packets from a client of ours to a client of ours."""
        self.passed_bytes = 0
        self.stopped = 0
        """Packets from a client that went to another relay or were dropped."""
        self.stopped_bytes = 0
        self.delivered_in = 0
        """Packets from another relay to a client of ours."""
        self.delivered_in_bytes = 0
        self.disco_received = 0
        """Of ``packets_received``, those of path discovery."""
        self.forwarded_in = 0
        self.forwarded_out = 0
        self.dropped: dict[Drop, int] = dict.fromkeys(Drop, 0)
        self.dropped_bytes: dict[Drop, int] = dict.fromkeys(Drop, 0)
        self.dropped_disco: dict[Drop, int] = dict.fromkeys(Drop, 0)
        # other frames
        self.pings = 0
        self.pongs = 0
        self.keep_alives = 0
        self.peer_gone_disconnected = 0
        self.peer_gone_not_here = 0
        self.home_moves_in = 0
        self.home_moves_out = 0
        self.unknown_frames = 0
        self.rate_limited = 0
        """How often a client had to wait for its rate."""

    @property
    def packets_received(self) -> int:
        """Packets that clients of ours sent."""
        return self.passed + self.stopped

    @property
    def bytes_received(self) -> int:
        """Bytes of ``packets_received``."""
        return self.passed_bytes + self.stopped_bytes

    @property
    def packets_sent(self) -> int:
        """Packets that clients of ours were sent."""
        return self.passed + self.delivered_in

    @property
    def bytes_sent(self) -> int:
        """Bytes of ``packets_sent``."""
        return self.passed_bytes + self.delivered_in_bytes

    def drop(self, reason: Drop, packets: int, size_bytes: int, disco: int) -> None:
        """Count packets that were not delivered."""
        self.dropped[reason] += packets
        self.dropped_bytes[reason] += size_bytes
        self.dropped_disco[reason] += disco
