"""The policy of each tailnet: where its texts come from, which one is in force, what is wrong.

A ``PolicyKeeper`` takes texts from the one source that the settings name, lets ``admission`` judge
them, and puts the good ones in force; a bad one leaves the last good one there and is remembered as
trouble. Not for judging (``policy.admission``), nor for what follows from a policy
(``tailnet.policies``). Sits on ``live``; the API asks it, ``server`` makes it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from appliance.errors import Conflict, Forbidden
from appliance.identity.principals import Principal
from appliance.live import LiveTailnet
from appliance.policy.admission import Admitted, admit
from appliance.policy.language import Policy
from appliance.records import PolicyText, PolicyTextID
from appliance.tailnet import policies

log = logging.getLogger(__name__)

DENYING = Policy(acls=())
"""In force while there should be a policy and none can be: nobody reaches anything."""

Mode = Literal["database", "file", "settings"]


@dataclass(frozen=True, slots=True)
class PolicySource:
    """Where a tailnet's policy comes from: ``path`` is for files, ``text`` for settings."""

    mode: Mode = "database"
    path: Path | None = None
    text: str = ""

    def __str__(self) -> str:
        match self.mode:
            case "file":
                return f"the file {self.path}"
            case "settings":
                return "the settings of the server (tailnet.policy)"
            case "database":
                return "the database"


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """How a tailnet's policy is.

    ``in_force`` None means that nobody ever wrote one, so that everything may reach everything;
    unless ``denies_all``, when there should be one that cannot be used, and nothing may. ``since``
    is when the policy in force was set. ``trouble`` says why the newest text that was offered is
    not in force, over as many lines as it has mistakes, and is empty if all is well.
    """

    source: Mode
    path: Path | None
    in_force: PolicyText | None
    since: datetime | None
    denies_all: bool = False
    trouble: str = ""
    trouble_since: datetime | None = None


class PolicyKeeper:
    """The policy of one tailnet. May be asked from the event loop's thread only."""

    def __init__(self, live: LiveTailnet, source: PolicySource) -> None:
        self.live = live
        self.source = source
        self.refused = 0
        """How many texts were offered since the start that could not be put in force."""
        self._trouble = ""
        self._trouble_since: datetime | None = None
        self._judging = asyncio.Lock()
        self._replacing = asyncio.Lock()

    @property
    def status(self) -> PolicyStatus:
        """How the policy is now."""
        snapshot = self.live.snapshot
        denies_all = snapshot.policy is DENYING
        in_force = None if denies_all else snapshot.policy_text
        return PolicyStatus(
            source=self.source.mode,
            path=self.source.path,
            in_force=in_force,
            since=None if in_force is None else in_force.created_at,
            denies_all=denies_all,
            trouble=self._trouble,
            trouble_since=self._trouble_since,
        )

    async def check(self, text: str) -> Admitted:
        """Judge a text for the tailnet as it is now, own tests included; nothing changes.

        Raises PolicyError or TestsFailed. Runs in a thread, since large tailnets take some tenths
        of a second; one text at a time, so that many of them do not take all cores' time.
        """
        async with self._judging:
            snapshot = self.live.snapshot
            background = policies.background(snapshot)
            return await asyncio.to_thread(admit, text, snapshot.users, snapshot.nodes, background)

    async def replace(
        self, text: str, by: Principal, *, over: PolicyTextID | None = None
    ) -> PolicyText:
        """Put a text in force that somebody wrote; on disk when it returns.

        ``over`` is the text that he had in front of him: if another one is in force by now, his
        is refused. Raises Forbidden if the policy comes from elsewhere, Conflict, PolicyError,
        TestsFailed, or CommitFailed.
        """
        if self.source.mode != "database":
            raise Forbidden(
                "policy-read-only",
                f"the policy of this tailnet comes from {self.source}: change it there, "
                "or set tailnet.policy.mode to 'database'",
            )
        return await self._put_in_force(text, by, over=over)

    async def _put_in_force(
        self, text: str, by: Principal, *, over: PolicyTextID | None = None
    ) -> PolicyText:
        source = self.source.mode
        async with self._replacing:
            self._check_unchanged(over)
            admitted = await self.check(text)
            async with self.live.edit(by=by) as edit:
                # No await in here: the draft is the only one of the tailnet.
                record = policies.replace_policy(
                    edit, admitted, self.live.clock(), source=source, by=str(by)
                )
            self._trouble, self._trouble_since = "", None
        log.info("policy set", extra={"by": str(by), "source": source, "tailnet": self._name})
        return record

    def _check_unchanged(self, over: PolicyTextID | None) -> None:
        newest = self.live.snapshot.policy_text
        if over is not None and (newest is None or newest.id != over):
            raise Conflict(
                "policy-changed",
                "somebody else set another policy meanwhile; read it and write yours again",
            )

    @property
    def _name(self) -> str:
        return self.live.snapshot.tailnet.name
