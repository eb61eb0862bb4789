"""The logins that wait for a person, on all tailnets of the server: one table, and who waits at it.

A machine's request is held until somebody decides, the link runs out or the machine goes away; a
decision wakes exactly those who wait for it. Not for the rules (``tailnet.logins``, ``enrolment``) nor
for what machines or people are told (the doors). In memory only: after a restart clients ask again,
and show a new link.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from appliance.errors import Conflict
from appliance.identity.principals import Principal
from appliance.live.tailnet import LiveTailnet, LiveTailnets
from appliance.records import Node, TailnetID
from appliance.tailnet import logins
from appliance.tailnet.addresses import Rng
from appliance.tailnet.enrolment import LoginGrant, Pending
from appliance.tailnet.logins import PendingLogins
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey

log = logging.getLogger(__name__)


class LiveLogins:
    """The table of one server, kept on the event loop's thread. ``url`` is the server's."""

    def __init__(
        self,
        tailnets: LiveTailnets,
        url: str,
        *,
        random_bytes: Callable[[int], bytes],
        rng: Rng,
    ) -> None:
        self._tailnets = tailnets
        self._table = PendingLogins(f"{url.rstrip('/')}/register/")
        self._random_bytes = random_bytes
        self._rng = rng
        self._waiters: dict[str, asyncio.Future[bool]] = {}
        self.approved = 0
        self.rejected = 0

    @property
    def now(self) -> datetime:
        """The time, as the tailnets have it."""
        return self._tailnets.default.clock()

    @property
    def waiting(self) -> int:
        """How many requests are held."""
        return len(self._waiters)

    def ask(
        self,
        machine: MachineKey,
        request: tailcfg.RegisterRequest,
        source: str = "",
        crowd: str = "",
    ) -> Pending:
        """Return the login that a machine's request waits for, made now if need be; see ``logins.wait``."""
        before = self._table
        self._table, pending = logins.wait(
            before,
            machine,
            request,
            self.now,
            random_bytes=self._random_bytes,
            source=source,
            crowd=crowd,
        )
        for gone in before.by_id.keys() - self._table.by_id.keys():
            self._wake(gone)
        return pending

    def is_followed(self, pending: Pending, request: tailcfg.RegisterRequest) -> bool:
        """Return whether a request is to be held: it follows up a login that nobody decided yet."""
        known = self._table.by_id.get(pending.id)
        return known is pending and not known.is_rejected and request.followup == pending.url

    async def decided(self, pending: Pending) -> bool:
        """Wait until the login is decided, forgotten or out of time.

        One waits for each login, the newest: the one before it is let go, and told so by False.
        """
        self._wake(pending.id, is_decided=False)
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters[pending.id] = waiter
        left_s = (pending.expires_at - self.now).total_seconds()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                return await waiter
        except TimeoutError:
            return True
        finally:
            if self._waiters.get(pending.id) is waiter:
                del self._waiters[pending.id]

    def find(self, login_id: str) -> Pending:
        """Return a login that waits. Raises Invalid, NotFound."""
        return logins.find(self._table, login_id, self.now)

    def pending(self, within: TailnetID | None = None) -> Sequence[Pending]:
        """List the logins that wait, the oldest first: all, or those of one tailnet."""
        now = self.now
        return [
            each
            for each in self._table.by_id.values()
            if each.expires_at > now
            and not each.is_rejected
            and self._tailnets.find_node(each.request.node_key) is None
            and within in (None, self._home(each).id)
        ]

    def _home(self, pending: Pending) -> LiveTailnet:
        """Give the tailnet that a machine is of, or whose it would be if nobody said another one."""
        before = pending.request.old_node_key
        for live in self._tailnets:
            if before in live.snapshot.by_node_key:
                return live
        for live in self._tailnets:
            if pending.machine in live.snapshot.by_machine_key:
                return live
        return self._tailnets.default

    async def approve(
        self, live: LiveTailnet, login_id: str, grant: LoginGrant, *, by: Principal
    ) -> Node:
        """Let the machine into a tailnet as the grant's user, and answer it.

        Raises Invalid, NotFound, and whatever ``enrolment.register`` refuses: then the login waits on.
        """
        pending = self.find(login_id)
        user = live.snapshot.users.get(grant.user_id)
        reason = f"login of {'' if user is None else user.name}, by {grant.method}"
        if pending.source:
            reason += f", asked for from {pending.source}"
        try:
            async with live.edit(by=by, act="node.register", reason=reason) as edit:
                self._check_elsewhere(live, pending)
                node = logins.approve(self._table, edit, login_id, grant, self.now, rng=self._rng)
        except asyncio.CancelledError:
            # It may be committed all the same: the machine asks again, and finds out.
            self._wake(pending.id)
            raise
        self._table = logins.forget(self._table, pending.id)
        self._wake(pending.id)
        self.approved += 1
        log.info(
            "login approved",
            extra={
                "node": node.name,
                "user": ",".join(node.tags) if user is None or node.tags else user.name,
                "tailnet": live.snapshot.tailnet.name,
                "by": str(by),
                "source": pending.source,
            },
        )
        return node

    def _check_elsewhere(self, live: LiveTailnet, pending: Pending) -> None:
        for other in self._tailnets:
            if other is not live and pending.request.node_key in other.drafted.by_node_key:
                raise Conflict(
                    "login-outdated", "this machine has joined another network meanwhile"
                )

    def reject(self, login_id: str, *, by: Principal) -> Pending:
        """Refuse the machine, and tell it so. Raises Invalid, NotFound."""
        pending = self.find(login_id)
        self._table = logins.reject(self._table, login_id, self.now)
        self._wake(pending.id)
        self.rejected += 1
        log.info(
            "login rejected",
            extra={
                "machine_key": pending.machine.short,
                "by": str(by),
                "source": pending.source,
            },
        )
        return pending

    def _wake(self, login_id: str, *, is_decided: bool = True) -> None:
        waiter = self._waiters.pop(login_id, None)
        if waiter is not None and not waiter.done():
            waiter.set_result(is_decided)
