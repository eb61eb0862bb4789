"""SSH logins that wait until somebody vouches for them, and those that were vouched for lately.

Not for which logins need it (``policy.ssh``) and not for what nodes or people are told (``control``
and ``api``). In memory only: after a restart nodes ask again, and so are people. Everything is
bounded; what a full table costs is one more approval.
Source: control-protocol.md 7.4 (how long clients hold a login).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from appliance.errors import NotFound, TooMany
from appliance.records import NodeID, TailnetID, UserID

LIFETIME = timedelta(minutes=10)
"""How long a login waits: a person must be found and asked. Clients give up after 30 minutes."""
DELIVERY = timedelta(minutes=2)
"""How long a verdict is kept for the node to fetch: it asks again within seconds."""
MAX_CHECKS = 1024
"""Checks of one server at a time: each is a person at a prompt."""
MAX_CHECKS_PER_NODE = 16
"""Checks of one destination that nobody decided yet, so that no node can fill the table."""
MAX_APPROVALS = 10_000
"""Remembered approvals of one server; the oldest is forgotten first."""

ID_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
"""For ids: no letter that looks like another; people type these."""
ID_LENGTH = 10
"""31 ** 10 ids: nobody hits one of a thousand by guessing."""


class Verdict(StrEnum):
    """What was decided."""

    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class SSHLogin:
    """Who wants in where, and as whom. ``owner`` is the source's owner: another one is a stranger."""

    tailnet: TailnetID
    source: NodeID
    owner: UserID
    destination: NodeID
    local_user: str


@dataclass(slots=True, eq=False)
class SSHCheck:
    """One question to people; ``verdict`` is None until somebody answers.

    ``is_once``: the answer is for this very login and not for later ones.
    """

    id: str
    login: SSHLogin
    is_once: bool
    asked_at: datetime
    expires_at: datetime
    verdict: Verdict | None = None
    decided: asyncio.Event = field(default_factory=asyncio.Event)


class SSHChecks:
    """The pending checks and the approvals of one server; kept on the event loop's thread.

    ``url`` is the server's, where people decide.
    """

    def __init__(self, random_bytes: Callable[[int], bytes], *, url: str = "") -> None:
        self._random_bytes = random_bytes
        self._url = url
        self._checks: dict[str, SSHCheck] = {}
        self._approvals: dict[SSHLogin, datetime] = {}

    def is_approved(self, login: SSHLogin, period: timedelta, now: datetime) -> bool:
        """Tell whether somebody vouched for this login within ``period``."""
        at = self._approvals.get(login)
        return at is not None and timedelta(0) <= now - at < period

    def ask(self, login: SSHLogin, now: datetime, *, once: bool) -> SSHCheck:
        """Put a login to people; one that waits already is the same question, unless ``once``.

        ``once`` is for logins that are checked every time. Raises TooMany.
        """
        self._forget_expired(now)
        waiting = [
            check
            for check in self._checks.values()
            if check.verdict is None and check.login.destination == login.destination
        ]
        if not once:
            for check in waiting:
                if check.login == login and not check.is_once:
                    return check
        if len(waiting) >= MAX_CHECKS_PER_NODE or len(self._checks) >= MAX_CHECKS:
            raise TooMany(
                "ssh-checks-full",
                "too many SSH logins wait for approval; decide about those first "
                "(headwater ssh pending)",
            )
        check = SSHCheck(self._new_id(), login, once, now, now + LIFETIME)
        self._checks[check.id] = check
        return check

    def get(self, check_id: str, now: datetime) -> SSHCheck | None:
        """Give a check, decided or not; None if there is none, or no longer."""
        check = self._checks.get(check_id)
        return None if check is None or check.expires_at <= now else check

    def link(self, check: SSHCheck) -> str:
        """Give the address of the page that decides about a check; empty without pages."""
        return f"{self._url}/auth/{check.id}" if self._url else ""

    def pending(self, tailnet: TailnetID, now: datetime) -> list[SSHCheck]:
        """List the checks of a tailnet that nobody decided yet, the oldest first."""
        self._forget_expired(now)
        return [
            check
            for check in self._checks.values()
            if check.verdict is None and check.login.tailnet == tailnet
        ]

    def decide(
        self, tailnet: TailnetID, check_id: str, verdict: Verdict, now: datetime
    ) -> SSHCheck:
        """Answer a check. Raises NotFound for one that is gone, decided, or another tailnet's."""
        check = self.get(check_id.strip().lower(), now)
        if check is None or check.verdict is not None or check.login.tailnet != tailnet:
            raise NotFound(
                "ssh-check-unknown",
                f"no SSH login waits under the id {check_id[: 2 * ID_LENGTH]!r}: it may have "
                "expired or been decided (headwater ssh pending lists them)",
                concerns=check_id[: 2 * ID_LENGTH],
            )
        check.verdict = verdict
        check.expires_at = now + DELIVERY
        if verdict is Verdict.DENIED or not check.is_once:
            self._approvals.pop(check.login, None)
        if verdict is Verdict.APPROVED and not check.is_once:
            self._approvals[check.login] = now  # behind all others, so that it is forgotten last
            if len(self._approvals) > MAX_APPROVALS:
                del self._approvals[next(iter(self._approvals))]
        check.decided.set()
        return check

    def _forget_expired(self, now: datetime) -> None:
        for check in [check for check in self._checks.values() if check.expires_at <= now]:
            del self._checks[check.id]

    def _new_id(self) -> str:
        while True:
            number = int.from_bytes(self._random_bytes(16))
            letters = []
            for _ in range(ID_LENGTH):
                number, place = divmod(number, len(ID_LETTERS))
                letters.append(ID_LETTERS[place])
            check_id = "".join(letters)
            if check_id not in self._checks:
                return check_id
