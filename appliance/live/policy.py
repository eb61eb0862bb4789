"""The policy of each tailnet: where its texts come from, which one is in force, what is wrong.

A ``PolicyKeeper`` takes texts from the one source that the settings name, lets ``admission`` judge
them, and puts the good ones in force; a bad one leaves the last good one there and is remembered as
trouble. Not for judging (``policy.admission``), nor for what follows from a policy
(``tailnet.policies``). Sits on ``live``; the API asks it, ``server`` makes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from appliance.errors import Conflict, Forbidden, Invalid
from appliance.files import Unreadable, WatchedText
from appliance.identity.principals import SYSTEM, Principal
from appliance.live import CommitFailed, LiveTailnet
from appliance.live.tailnet import a_bug
from appliance.loops import Loop
from appliance.policy.answers.admission import Admitted, TestsFailed, admit
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.policy.text.document import MAX_TEXT_CHARS
from appliance.policy.text.language import UNWRITTEN
from appliance.policy.text.mistakes import PolicyError
from appliance.records import Node, PolicyText, PolicyTextID
from appliance.tailnet import policies
from appliance.tailnet.differences import differing
from appliance.tailnet.policies import DENYING
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot

log = logging.getLogger(__name__)

RETRY_S = 10.0
"""How soon a text whose tests failed is tested again once other users or nodes are there. Of a
large tailnet this costs some tenths of a second."""
POLL_S = 2.0
"""How soon a changed policy file is noticed. One stat call for each tailnet."""

COMPILATION_RETRY_S = 60.0
"""How soon a policy that met a bug of the compiler is compiled again: the node or user that it
stumbled over may have gone. Of a large tailnet this costs some tenths of a second."""

NOT_WRITTEN = PolicyTextID(0)
"""Stands for the text of a tailnet that nobody ever wrote a policy for; ids of texts start at 1."""

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


def restore(
    snapshot: Snapshot,
    source: PolicySource,
    email_domains: Collection[str] = (),
    providers: Collection[str] = (),
) -> tuple[Snapshot, str]:
    """Bring the stored policy of a tailnet in force, before anybody sees it; give trouble too.

    A text that was good when it was set is not tested again. One that this release does not take
    denies everything, since an older one might let somebody in whom this one had shut out; so does
    a source that is to give the first text, until it has.
    """
    settings = replace(
        snapshot.settings, email_domains=frozenset(email_domains), providers=frozenset(providers)
    )
    snapshot = replace(snapshot, settings=settings)
    record = snapshot.policy_text
    if record is None:
        return (snapshot if source.mode == "database" else replace(snapshot, policy=DENYING)), ""
    users, nodes = snapshot.users, snapshot.nodes
    try:
        good = admit(record.text, users, nodes, policies.background(snapshot), with_tests=False)
    except PolicyError as error:
        return replace(snapshot, policy=DENYING), f"the stored policy: {error.sentence}"
    except Exception as error:
        # A bug must not keep the server, with all other tailnets, from starting.
        log.exception("stored policy cannot be read", extra={"tailnet": snapshot.tailnet.name})
        return replace(snapshot, policy=DENYING), f"the stored policy: {a_bug(error)}"
    return replace(snapshot, policy=good.policy, compiled=good.compiled), ""


@dataclass(frozen=True, slots=True)
class _Failed:
    """A text that failed its own tests, and the tailnet as it was then."""

    text: str
    snapshot: Snapshot
    retry_at: float

    def is_worth_it(self, now: Snapshot) -> bool:
        """Tell whether somebody came, went or became another, so that tests may end otherwise."""
        was = self.snapshot
        if was.users is not now.users or was.nodes.keys() != now.nodes.keys():
            return True
        changed = differing(was.nodes, now.nodes)
        return any(_tested_of(was.nodes[each]) != _tested_of(now.nodes[each]) for each in changed)


def _tested_of(node: Node) -> tuple[object, ...]:
    """Give what a policy's own tests look at, besides what the node reports of itself."""
    return node.user_id, node.tags, node.addresses, node.approved_routes, node.attributes


class PolicyKeeper:
    """The policy of one tailnet. May be asked from the event loop's thread only.

    ``trouble`` is the error from ``restore``. ``look`` re-reads a file or settings source once, and
    ``loops`` do so whenever the file changes.
    """

    def __init__(self, live: LiveTailnet, source: PolicySource, *, trouble: str = "") -> None:
        self.live = live
        self.source = source
        self.refused = 0
        """How many texts were offered since the start that could not be put in force."""
        self._file = _watched(source)
        self._is_offered = True
        self._failed: _Failed | None = None
        self._is_outdated = False
        self._retry_compilation_at = 0.0
        self._trouble = ""
        self._trouble_since: datetime | None = None
        self._judging = asyncio.Lock()
        self._replacing = asyncio.Lock()
        if trouble:
            self._note(trouble)

    @property
    def status(self) -> PolicyStatus:
        """How the policy is now."""
        in_force = None if self._denies_all else self.live.snapshot.policy_text
        return PolicyStatus(
            source=self.source.mode,
            path=self.source.path,
            in_force=in_force,
            since=None if in_force is None else in_force.created_at,
            denies_all=self._denies_all,
            trouble=self._trouble or self.live.policy_failure,
            trouble_since=self._trouble_since if self._trouble else self.live.policy_failed_at,
        )

    async def check(self, text: str) -> Admitted:
        """Judge a text for the tailnet as it is now, own tests included; nothing changes.

        Raises PolicyError or TestsFailed. Runs in a thread, since large tailnets take some tenths
        of a second; one text at a time, so that many of them do not take all cores' time.
        """
        return await self._judge(text)

    async def replace(
        self, text: str, by: Principal, *, over: PolicyTextID | None = None
    ) -> PolicyText:
        """Put a text in force that somebody wrote; on disk when it returns.

        ``over`` is the id of the policy that the caller edited, or NOT_WRITTEN (optimistic
        locking). Raises Conflict if another one is in force by now, Forbidden if the policy comes
        from elsewhere, PolicyError, TestsFailed, or CommitFailed.
        """
        async with self._replacing:
            self._check_writable()
            self._check_unchanged(over)
            try:
                return await self._put_in_force(text, by)
            except Invalid:
                self.refused += 1
                raise

    async def look(self) -> None:
        """Take the text of a file or of the settings if it is another one than before.

        What is wrong becomes trouble, for people to read; nothing is raised. A text that failed its
        own tests is tried again when users or nodes have come or gone: they may be what it names.
        """
        async with self._replacing:
            text: str | None = None
            try:
                text = await self._news() or self._worth_another_try()
                if text is not None:
                    self._failed = None
                    await self._take(text)
                await self._retry_compilation()
            except Unreadable as error:
                self._failed = None
                self._refuse(str(error))
            except Invalid as error:
                if text is not None and isinstance(error, TestsFailed):
                    self._failed = _Failed(text, self.live.snapshot, _now() + RETRY_S)
                self._refuse(f"{self.source}:\n{error.sentence}")
            except CommitFailed as error:
                self._offer_again()
                self._refuse(f"{self.source}: {error}; it is tried again")
            except Exception as error:
                self._refuse(f"{self.source}: {a_bug(error)}")
                raise  # its loop logs it, and looks again

    async def take_over(self, source: PolicySource) -> None:
        """Go on with the source that the settings name now, and look at it anew."""
        async with self._replacing:
            self.source = source
            self._file = _watched(source)
            self._offer_again()
            self._failed = None
            self._trouble, self._trouble_since = "", None
            await self._read_again()
        await self.look()

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run for a changed file to be noticed."""
        return (Loop("policy", self.look, POLL_S, about=self._name),)

    async def _news(self) -> str | None:
        """Give what the source offers, unless it was offered before. Raises Unreadable."""
        if self._file is not None:
            return await asyncio.to_thread(self._file.news)
        if self.source.mode == "settings" and self._is_offered:
            self._is_offered = False
            return self.source.text
        return None

    async def _retry_compilation(self) -> None:
        """Try again, at times, what a bug kept from being compiled: its cause may have gone."""
        if not self.live.policy_failure or _now() < self._retry_compilation_at:
            return
        self._retry_compilation_at = _now() + COMPILATION_RETRY_S
        await self._read_again()
        if not self._denies_all:
            self._recover()

    def _worth_another_try(self) -> str | None:
        failed = self._failed
        if failed is None or _now() < failed.retry_at:
            return None
        return failed.text if failed.is_worth_it(self.live.snapshot) else None

    def _offer_again(self) -> None:
        self._is_offered = True
        if self._file is not None:
            self._file.forget()

    async def _take(self, text: str) -> None:
        """Put the text of a file or of the settings in force, unless it is already."""
        newest = self.live.snapshot.policy_text
        known = None if newest is None else (newest.text, newest.source)
        if self._denies_all or known != (text, self.source.mode):
            await self._put_in_force(text, SYSTEM)
        elif not self._is_outdated:
            self._recover()

    async def _read_again(self) -> None:
        """Look whether the stored text can be read with new settings (domains come and go)."""
        newest = self.live.snapshot.policy_text
        if newest is None:
            if self.source.mode == "database" and self._denies_all:
                await self._let_everything_through()
            return
        try:
            admitted = await self._judge(newest.text, with_tests=False)
        except PolicyError as error:
            self._is_outdated = True
            self._refuse(f"the stored policy cannot be read any more:\n{error.sentence}")
            return
        self._is_outdated = False
        if self._denies_all:
            async with self.live.edit(by=SYSTEM, act="policy.set") as edit:
                edit.set_policy(admitted.policy, admitted.compiled)

    async def _let_everything_through(self) -> None:
        snapshot = self.live.snapshot
        background = policies.background(snapshot)
        async with self.live.edit(by=SYSTEM, act="policy.set") as edit:
            compiled = compile(UNWRITTEN, snapshot.users, snapshot.nodes, background)
            edit.set_policy(UNWRITTEN, compiled)

    async def _put_in_force(self, text: str, by: Principal) -> PolicyText:
        admitted = await self._judge(text, is_wanted=True)
        source = self.source.mode
        async with self.live.edit(by=by, act="policy.set") as edit:
            # No await in here: everybody who has a change waits for this block to end.
            record = policies.replace_policy(
                edit, admitted, self.live.clock(), source=source, by=str(by)
            )
        self._is_outdated = False
        self._recover()
        return record

    async def _judge(
        self, text: str, *, with_tests: bool = True, is_wanted: bool = False
    ) -> Admitted:
        async with self._judging:
            now = self.live.snapshot
            background = policies.background(now)
            work = partial(admit, text, now.users, now.nodes, background, with_tests=with_tests)
            admitted = await asyncio.to_thread(work)
            return await asyncio.to_thread(_prepared, admitted, now) if is_wanted else admitted

    def _check_writable(self) -> None:
        if self.source.mode != "database":
            raise Forbidden(
                "policy-read-only",
                f"the policy of this tailnet comes from {self.source}: change it there, "
                "or set tailnet.policy.mode to 'database'",
            )

    def _check_unchanged(self, over: PolicyTextID | None) -> None:
        newest = self.live.snapshot.policy_text
        if over is not None and over != (NOT_WRITTEN if newest is None else newest.id):
            raise changed_meanwhile()

    def _refuse(self, trouble: str) -> None:
        """Keep the policy that is in force, and say why."""
        if trouble != self._trouble:
            self.refused += 1
            self._note(trouble)

    def _note(self, trouble: str) -> None:
        self._trouble, self._trouble_since = trouble, self.live.clock()
        fields: dict[str, object] = {"tailnet": self._name, "source": self.source.mode}
        if self.source.path is not None:
            fields["path"] = str(self.source.path)
        fields["reason"] = trouble
        if self._denies_all:
            log.error("no policy can be used: everything is denied", extra=fields)
        else:
            log.warning("policy refused, the one in force stays", extra=fields)

    def _recover(self) -> None:
        """Forget what was wrong before."""
        if self._trouble:
            log.info("policy trouble is over", extra={"tailnet": self._name})
        self._trouble, self._trouble_since = "", None

    @property
    def _denies_all(self) -> bool:
        return self.live.snapshot.policy is DENYING

    @property
    def _name(self) -> str:
        return self.live.snapshot.tailnet.name


def changed_meanwhile() -> Conflict:
    """Give the refusal of a text that was written over another one than is in force."""
    return Conflict(
        "policy-changed", "somebody set another policy meanwhile, so yours is not taken"
    )


def _prepared(admitted: Admitted, snapshot: Snapshot) -> Admitted:
    """Give the policy compiled for the tailnet as it will be once it has approved routes.

    The draft that puts it in force would otherwise do so while everybody waits: half a second for
    100 routers of 5,000 nodes. Blocking, and no part of any draft.
    """
    trial = Edit(snapshot, Sequences())
    trial.set_policy(admitted.policy, admitted.compiled)
    nodes = {key: policies.with_approved_routes(trial, n) for key, n in snapshot.nodes.items()}
    if all(node is snapshot.nodes[key] for key, node in nodes.items()):
        return admitted
    compiled = compile(admitted.policy, snapshot.users, nodes, policies.background(snapshot))
    return replace(admitted, compiled=compiled)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _watched(source: PolicySource) -> WatchedText | None:
    if source.mode != "file" or source.path is None:
        return None
    return WatchedText(source.path, max_bytes=MAX_TEXT_CHARS)
