"""The map poll: every open session is brought from what it has seen to what is true now.

One pump per tailnet walks over all its sessions after each publication, once a coalescing pause is
over, and sends each the difference. A session whose client does not take its bytes is left alone
and skips versions; it continues from its own last one when the backlog is gone. Nothing is queued.
Why one pump and not a task per session: docs/decisions/0002-one-pump-for-map-sessions.md.

Not for what is told (``netmap``) nor for requests that are no polls (``machine``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from appliance.control.exchange import Exchange, OutStream
from appliance.identity.principals import SYSTEM
from appliance.live import CommitFailed, LiveTailnet
from appliance.loops import Loop, run_all
from appliance.netmap.encoded import Encoder
from appliance.netmap.gone import farewell
from appliance.netmap.texts import message
from appliance.records import NodeID
from appliance.repeats import Repeats
from appliance.tailnet import presence
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import NodeKey

log = logging.getLogger(__name__)

COALESCE_S = 0.1
"""Pause between a publication and its distribution: a joining node makes three edits within it."""
PUMP_SHARE = 1 / 16
"""Part of the time that distribution may take while changes keep coming: a storm of a thousand
nodes then becomes some ten messages for each, and a small tailnet never notices."""
MAX_GAP_S = 0.7
"""Rounds are never further apart than this and the pause: a change is heard within a second."""
SLICE_S = 0.01
"""How long the pump works before others may run: below the 20 ms that a packet may wait."""
SLICE_CHECK = 8
"""Sessions between two looks at the clock."""
KEEP_ALIVE_S = 50
"""Clients give up after 120 s of silence; proxies often after 60."""
KEEP_ALIVE_JITTER_S = 9
"""Spread of keep-alives, so that sessions that began together do not stay together."""
STALL_S = 120.0
"""A session whose client takes nothing for this long is ended: it watches for 120 s itself."""
MAX_MAILBOX = 16
"""Ping requests that wait for one session."""


@dataclass(slots=True)
class MapCounters:
    """What the map sessions of a tailnet have done since the start."""

    sessions: int = 0
    full_maps: int = 0
    deltas: int = 0
    keep_alives: int = 0
    replaced: int = 0
    stalled: int = 0
    failed: int = 0
    rounds: int = 0


class MapSession:
    """One open map poll of one node."""

    __slots__ = (
        "behind",
        "capver",
        "due",
        "heard_at",
        "mailbox",
        "node_id",
        "out",
        "seen",
        "zstd",
    )

    def __init__(self, node_id: NodeID, capver: int, *, zstd: bool, out: OutStream) -> None:
        self.node_id = node_id
        self.capver = capver
        self.zstd = zstd
        self.out = out
        self.seen: Snapshot | None = None
        self.behind = False
        self.due = 0
        """The second at which to see whether it needs a keep-alive; 0 if it wants none."""
        self.heard_at = 0.0
        self.mailbox: deque[bytes] | None = None


class MapSessions:
    """The open sessions of one tailnet. Its ``loops`` must be running."""

    def __init__(
        self,
        live: LiveTailnet,
        encoder: Encoder,
        *,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        cpu: Callable[[], float] = time.thread_time,
        coalesce_s: float = COALESCE_S,
        max_gap_s: float = MAX_GAP_S,
    ) -> None:
        self.live = live
        self.counters = MapCounters()
        self._encoder = encoder
        self._clock = clock
        self._jitter = jitter
        self._cpu = cpu
        self._coalesce_s = coalesce_s
        self._max_gap_s = max_gap_s
        self._sessions: dict[NodeID, MapSession] = {}
        # Ids, not sessions: a closed session and all its link must not live on for a minute here.
        self._due: defaultdict[int, list[NodeID]] = defaultdict(list)
        self._left: list[NodeID] = []
        self._someone_left = asyncio.Event()
        self._distributed = live.snapshot
        self._failures = Repeats()

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self, exchange: Exchange, node_id: NodeID, request: tailcfg.MapRequest) -> bool:
        """Answer a map poll: the full map now, differences and keep-alives from then on.

        An older session of the same node ends: the newest poll is the one that is read. False if
        there is no answer, because the node does not hold the request's key any more.
        """
        if not await self._enter(node_id, request.node_key):
            return False
        if exchange.closed:
            self._leave(node_id)
            return True
        if node_id not in self.live.snapshot.nodes:
            return False  # removed while this waited; its presence has gone with it
        out = exchange.open_stream(200)
        session = MapSession(node_id, request.version, zstd=request.compress == "zstd", out=out)
        old = self._sessions.pop(node_id, None)
        self._sessions[node_id] = session
        if old is not None:
            self.counters.replaced += 1
            self._leave(node_id)
            old.out.on_closed(None)
            old.out.close()
        out.on_closed(lambda: self._closed(session))
        out.on_drained(lambda: self._drained(session))
        self.counters.sessions += 1
        if not out.closed:
            self._bring(session, self.live.snapshot)
            if request.keep_alive:
                self._arm(session)
        return True

    def post(self, node_id: NodeID, response: tailcfg.MapResponse) -> bool:
        """Send a message that is not state (a ping request); False if the node has no session."""
        session = self._sessions.get(node_id)
        if session is None or session.seen is None:
            return False
        frame = message(tailcfg.encode(response), zstd=session.zstd)
        if not session.out.backlog:
            self._send(session, [frame])
            return True
        if session.mailbox is None:
            session.mailbox = deque()
        if len(session.mailbox) >= MAX_MAILBOX:
            return False
        session.mailbox.append(frame)
        return True

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run: distribution, keep-alives, and noting who left."""
        name = self.live.snapshot.tailnet.name
        return (
            Loop("map distribution", self._pump, about=name, max_backoff_s=1.0),
            Loop("map keep-alive", self._keep_alive, about=name, max_backoff_s=1.0),
            Loop("map leavers", self._note_leavers, about=name, max_backoff_s=1.0),
        )

    async def run(self) -> None:
        """Run the loops until cancelled, without a supervisor."""
        await run_all(self.loops())

    async def close(self) -> None:
        """End all sessions, as at a shutdown; clients come back by themselves."""
        for session in list(self._sessions.values()):
            session.out.on_closed(None)
            session.out.close()
        self._sessions.clear()

    async def _pump(self) -> None:
        not_before = 0.0
        while True:
            await self.live.newer(than=self._distributed)
            await asyncio.sleep(max(self._coalesce_s, not_before - self._clock()))
            self._distributed = self.live.snapshot
            spent = await self._distribute(self._distributed)
            self.counters.rounds += 1
            not_before = self._clock() + min(spent / PUMP_SHARE, self._max_gap_s)

    async def _distribute(self, new: Snapshot) -> float:
        """Bring every session to ``new``; give the CPU seconds that it took.

        The turns of others in between do not count, nor does what the machine does meanwhile:
        a round must not wait because somebody else is busy.
        """
        spent, began = 0.0, self._cpu()
        slice_end = self._clock() + SLICE_S
        for count, session in enumerate(list(self._sessions.values())):
            self._bring(session, new)
            if count % SLICE_CHECK == 0 and self._clock() > slice_end:
                spent += self._cpu() - began
                await asyncio.sleep(0)
                began = self._cpu()
                slice_end = self._clock() + SLICE_S
        return spent + self._cpu() - began

    def _bring(self, session: MapSession, new: Snapshot) -> None:
        """Bring one session to ``new``; a bug that it meets ends this session and no other."""
        try:
            self._advance(session, new)
        except Exception as error:  # noqa: BLE001 - logged once, and counted, in _fail
            self._fail(session, error)

    def _fail(self, session: MapSession, error: Exception) -> None:
        """End a session that a bug has hit: its client comes back and is told everything anew.

        It may hit there again, and all who see the same record: what is logged once is the place.
        """
        self.counters.failed += 1
        repeated = self._failures.note(_place_of(error), self._clock())
        if repeated is not None:
            log.error(
                "map session failed",
                exc_info=error,
                extra={"node": session.node_id, "capver": session.capver, "repeated": repeated},
            )
        session.out.on_closed(None)
        self._closed(session)
        try:
            session.out.abort()
        except Exception:
            log.exception("a failed map session could not be broken off")

    def _advance(self, session: MapSession, new: Snapshot) -> None:
        """Bring one session to ``new``, unless it is there, gone, or still busy with the last."""
        out, seen = session.out, session.seen
        if out.closed or out.ending or (seen is not None and seen.version >= new.version):
            return
        if out.backlog:
            session.behind = True
            return
        if session.node_id not in new.nodes:
            if seen is not None:
                told = tailcfg.encode(farewell(seen, session.node_id))
                self._send(session, [message(told, zstd=session.zstd)])
            self._end(session)
            return
        if seen is None:
            self.counters.full_maps += 1
            session.seen = new
            now = self.live.clock()
            self._send(
                session,
                self._encoder.full(
                    new, session.node_id, session.capver, zstd=session.zstd, now=now
                ),
            )
            return
        parts = self._encoder.delta(seen, new, session.node_id, session.capver, zstd=session.zstd)
        session.seen = new
        if parts is not None:
            self.counters.deltas += 1
            self._send(session, parts)

    def _send(self, session: MapSession, parts: list[bytes]) -> None:
        session.heard_at = self._clock()
        session.out.write(parts)

    def _drained(self, session: MapSession) -> None:
        try:
            self._catch_up(session)
        except Exception as error:  # noqa: BLE001 - logged once, and counted, in _fail
            self._fail(session, error)

    def _catch_up(self, session: MapSession) -> None:
        session.heard_at = self._clock()
        while session.mailbox and not session.out.backlog:
            self._send(session, [session.mailbox.popleft()])
        if session.behind and not session.out.backlog:
            session.behind = False
            # What the pump has handed out, not what is newest: the pause holds for everybody.
            self._advance(session, self._distributed)

    def _end(self, session: MapSession) -> None:
        session.out.on_closed(None)
        session.out.close()
        self._closed(session)

    def _closed(self, session: MapSession) -> None:
        if self._sessions.get(session.node_id) is session:
            del self._sessions[session.node_id]
            self._leave(session.node_id)

    async def _enter(self, node_id: NodeID, node_key: NodeKey) -> bool:
        """Count a session; False if the node does not hold this key any more.

        It counts from the draft on, and who waits for the commit may be cancelled there: the count
        is then given back, behind the draft.
        """
        is_counted = False
        try:
            async with self.live.edit(by=SYSTEM, act="node.connect") as edit:
                if edit.by_node_key.get(node_key) == node_id:
                    presence.session_opened(edit, node_id, self.live.clock())
                    is_counted = True
        except BaseException:
            if is_counted:
                self._leave(node_id)
            raise
        return is_counted

    def _leave(self, node_id: NodeID) -> None:
        self._left.append(node_id)
        self._someone_left.set()

    async def _note_leavers(self) -> None:
        """Write down who left, all in one edit: when a network breaks, hundreds leave at once."""
        while True:
            await self._someone_left.wait()
            self._someone_left.clear()
            left, self._left = self._left, []
            try:
                await self._note_left(left)
            except CommitFailed:
                self._left += left
                await asyncio.sleep(self._coalesce_s)
                self._someone_left.set()

    async def _note_left(self, left: Sequence[NodeID]) -> None:
        """Write down who left; one that a bug is in the way of does not keep the others online."""
        try:
            async with self.live.edit(by=SYSTEM, act="node.disconnect") as edit:
                now = self.live.clock()
                for node_id in left:
                    presence.session_closed(edit, node_id, now)
        except CommitFailed:
            raise
        except Exception:
            if len(left) == 1:
                log.exception("leaving could not be noted", extra={"node": left[0]})
                return
            for node_id in left:
                await self._note_left([node_id])

    def _arm(self, session: MapSession) -> None:
        after = KEEP_ALIVE_S + self._jitter() * KEEP_ALIVE_JITTER_S
        session.due = int(self._clock() + after)
        self._due[session.due].append(session.node_id)

    async def _keep_alive(self) -> None:
        looked_until = int(self._clock())
        while True:
            await asyncio.sleep(1)
            now = int(self._clock())
            self.keep_alive(range(looked_until, now + 1))
            looked_until = now + 1

    def keep_alive(self, seconds: Iterable[int]) -> None:
        """Look after the sessions that are due in these seconds of the clock."""
        for second in seconds:
            for node_id in self._due.pop(second, ()):
                session = self._sessions.get(node_id)
                if session is None or session.due != second:
                    continue
                try:
                    self._keep_one_alive(session)
                except Exception as error:  # noqa: BLE001 - logged once, and counted, in _fail
                    self._fail(session, error)

    def _keep_one_alive(self, session: MapSession) -> None:
        if session.out.closed or self._sessions.get(session.node_id) is not session:
            return
        silent_s = self._clock() - session.heard_at
        if session.out.backlog:
            if silent_s > STALL_S:
                self.counters.stalled += 1
                session.out.abort()
                self._closed(session)
                return
        elif silent_s >= KEEP_ALIVE_S / 2:
            self.counters.keep_alives += 1
            self._send(session, [self._encoder.keep_alive(zstd=session.zstd)])
        self._arm(session)


def _place_of(error: Exception) -> tuple[object, ...]:
    """Give what is the same whoever meets a bug: its kind, and where in the code it came up."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return (type(error),)
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno
