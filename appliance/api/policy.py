"""``/api/v1/policy``: Headscale's three calls, and the questions that our own commands ask.

Not for answering (``policy.answers``) nor for judging (``live.policy``). What takes
long for a large tailnet runs in a thread, on records and policies that nobody changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

import msgspec
from msgspec import Struct

from appliance.api.conditions import ANY, etag_of
from appliance.api.problem import Refusal
from appliance.api.routes import Context, Nothing, Reply, Route
from appliance.api.shapes import Moment
from appliance.errors import Conflict, Forbidden, Invalid, NotFound, Rejected
from appliance.identity.scopes import Scope
from appliance.live.policy import NOT_WRITTEN, PolicyKeeper, changed_meanwhile
from appliance.policy.answers import commands as answers
from appliance.policy.answers import dump as dumps
from appliance.policy.answers import reasons
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.policy.text.language import Policy
from appliance.records import NodeID, PolicyText, PolicyTextID
from appliance.tailnet import policies

MAX_BODY_BYTES = 4 << 20
"""Two texts of the longest kind, escaped as JSON. (A text has at most 1 MiB.)"""


class PolicyBody(Struct, frozen=True, kw_only=True):
    """The body of a call with one text."""

    policy: str = ""


class TestBody(Struct, frozen=True, kw_only=True):
    """The body of a run of tests; null means those of the policy in force."""

    __test__ = False

    policy: str | None = None


class DiffBody(Struct, frozen=True, kw_only=True):
    """The body of a comparison; ``against`` null means the policy in force."""

    policy: str = ""
    against: str | None = None


class ExplainBody(Struct, frozen=True, kw_only=True):
    """The body of a question; ``policy`` null means the one in force.

    ``user`` asks about SSH logins as this local user.
    """

    src: str = ""
    dst: str = ""
    protocol: str = ""
    user: str = ""
    policy: str | None = None


class Shown(Struct, frozen=True, kw_only=True, rename="camel"):
    """A policy; ``updated_at`` null means that it cannot be set here (consoles read it so)."""

    policy: str
    updated_at: Moment | None


class Status(Struct, frozen=True, kw_only=True, rename="camel"):
    """How the policy is; ``source`` is "database", "file" or "settings".

    ``etag`` is what ``If-Match`` of the next change may say.
    """

    source: str
    file: str
    since: Moment | None
    by: str
    etag: str
    denies_all: bool
    trouble: str
    trouble_since: Moment | None


UNWRITTEN_ETAG = "ts-default"
"""The ETag of no policy at all, as long as nobody wrote one. Source: the hosted service's API."""


async def get(ctx: Context, _: Nothing) -> Reply[Shown]:
    """Show the policy in force."""
    keeper = ctx.keeper
    record = keeper.status.in_force
    if record is None:
        # Status and words are Headscale's: consoles take them for "none yet, write one".
        words = "acl policy not found: no policy is set, and everything may reach everything"
        if keeper.status.denies_all:
            words = "acl policy not found: there is none that can be used, see 'policy status'"
        raise Refusal(NotFound("policy-missing", words), etag=_etag(keeper))
    return _shown(keeper, record)


async def put(ctx: Context, body: PolicyBody) -> Reply[Shown]:
    """Put a policy in force; with ``If-Match``, only over one that the writer has seen."""
    keeper = ctx.keeper
    try:
        answers.check_written(body.policy)
        over = None if ctx.if_match is None else _seen(keeper, ctx.if_match)
        return _shown(keeper, await keeper.replace(body.policy, ctx.principal, over=over))
    except Forbidden as refusal:
        # Headscale's words first: its tools look for them.
        words = f"update is disabled for modes other than 'database': {refusal.sentence}"
        raise Refusal(refusal, sentence=words) from refusal
    except Conflict as refusal:
        words = (
            f"{refusal.sentence}: get the policy that is in force, work your change into it, and"
            " send that with the new ETag in If-Match (without If-Match yours would replace it)"
        )
        raise Refusal(refusal, sentence=words, etag=_etag(keeper)) from refusal
    except Rejected as refusal:
        raise _refusal(refusal) from refusal


async def check(ctx: Context, body: PolicyBody) -> answers.Checked:
    """Say whether a policy could be put in force, and what in it is worth a look."""
    keeper = ctx.keeper
    try:
        answers.check_written(body.policy)
        admitted = await keeper.check(body.policy)
    except Rejected as refusal:
        raise _refusal(refusal) from refusal
    users = keeper.live.snapshot.users
    return await asyncio.to_thread(answers.checked, admitted, users)


async def test(ctx: Context, body: TestBody) -> answers.Tested:
    """Run the tests of a policy, or of the one in force."""
    keeper = ctx.keeper
    record = keeper.status.in_force
    text = body.policy
    if text is None:
        text = "{}" if record is None else record.text
    try:
        return await asyncio.to_thread(answers.test, text, _subjects(keeper))
    except Rejected as refusal:
        raise _refusal(refusal) from refusal


async def diff(ctx: Context, body: DiffBody) -> answers.Difference:
    """Say what a policy would change, node by node."""
    keeper = ctx.keeper
    subjects = _subjects(keeper)
    try:
        old = await _read(keeper, body.against)
    except Rejected as refusal:
        raise _refusal(refusal, of="against") from refusal
    try:
        new = await asyncio.to_thread(answers.read, body.policy, subjects.background)
    except Rejected as refusal:
        raise _refusal(refusal) from refusal
    return await asyncio.to_thread(answers.diff, old, new, subjects)


async def explain(ctx: Context, body: ExplainBody) -> reasons.Explanation:
    """Say which rule lets one end reach another, or which come near."""
    keeper = ctx.keeper
    snapshot, subjects = keeper.live.snapshot, _subjects(keeper)

    def is_up(node_id: NodeID) -> bool:
        presence = snapshot.presence_of(node_id)
        return presence.online and not presence.expired

    ask = partial(
        reasons.explain,
        src=body.src,
        dst=body.dst,
        protocol=body.protocol,
        user=body.user,
        is_up=is_up,
    )
    if body.policy is None and snapshot.compiled.state is not None:
        # Here and not in a thread: nodes ask this compiled policy too, and it remembers answers.
        return ask(snapshot.compiled, subjects, table=snapshot.routes)
    try:
        policy = await _read(keeper, body.policy)
    except Rejected as refusal:
        raise _refusal(refusal) from refusal
    return await asyncio.to_thread(lambda: ask(compile(policy, *subjects), subjects))


async def dump(ctx: Context, _: Nothing) -> msgspec.Raw:
    """Give the tailnet as policies see it, for questions without a server."""
    return msgspec.Raw(await asyncio.to_thread(dumps.encode, *_subjects(ctx.keeper)))


async def status(ctx: Context, _: Nothing) -> Status:
    """Say where the policy comes from and how it is."""
    keeper = ctx.keeper
    known = keeper.status
    record = known.in_force
    return Status(
        source=known.source,
        file="" if known.path is None else str(known.path),
        since=known.since,
        by="" if record is None else record.created_by,
        etag=_etag(keeper),
        denies_all=known.denies_all,
        trouble=known.trouble,
        trouble_since=known.trouble_since,
    )


def _shown(keeper: PolicyKeeper, record: PolicyText) -> Reply[Shown]:
    is_ours = keeper.source.mode == "database"
    shown = Shown(policy=record.text, updated_at=record.created_at if is_ours else None)
    return Reply(shown, etag=etag_of(record.text))


def _etag(keeper: PolicyKeeper) -> str:
    """Give the ETag of the newest text that was ever in force."""
    record = keeper.live.snapshot.policy_text
    return UNWRITTEN_ETAG if record is None else etag_of(record.text)


def _seen(keeper: PolicyKeeper, wanted: Collection[str]) -> PolicyTextID:
    """Give the text that these ETags mean. Raises Conflict if another one is in force."""
    record = keeper.live.snapshot.policy_text
    is_any = ANY in wanted and record is not None
    if not is_any and _etag(keeper) not in wanted:
        raise changed_meanwhile()
    return NOT_WRITTEN if record is None else record.id


def _subjects(keeper: PolicyKeeper) -> answers.Subjects:
    snapshot = keeper.live.snapshot
    return answers.Subjects(snapshot.users, snapshot.nodes, policies.background(snapshot))


async def _read(keeper: PolicyKeeper, text: str | None) -> Policy:
    """Read a text; None means the policy in force."""
    snapshot = keeper.live.snapshot
    if text is None:
        return snapshot.policy
    return await asyncio.to_thread(answers.read, text, policies.background(snapshot))


def _refusal(refusal: Rejected, *, of: str = "policy") -> Refusal:
    """Say what is wrong with a text, in Headscale's words and with each place."""
    words = refusal.sentence
    if refusal.code == "policy-invalid":
        words = f"parsing policy from bytes: {words}"
    refused = Invalid(refusal.code, words)
    members = {"mistakes": answers.mistakes_of(refusal), "of": of}
    return Refusal(refused, members=members)


_PATH = "/api/v1/policy"
_CHANGE, _READ = Scope.POLICY_FILE, Scope.POLICY_FILE_READ
_LONG = MAX_BODY_BYTES
ROUTES = (
    Route("GET", _PATH, _READ, Nothing, Shown, get),
    Route("PUT", _PATH, _CHANGE, PolicyBody, Shown, put, "policy.set", _LONG, is_conditional=True),
    Route(
        "POST", f"{_PATH}/check", _READ, PolicyBody, answers.Checked, check, max_body_bytes=_LONG
    ),
    Route("POST", f"{_PATH}/test", _READ, TestBody, answers.Tested, test, max_body_bytes=_LONG),
    Route("POST", f"{_PATH}/diff", _READ, DiffBody, answers.Difference, diff, max_body_bytes=_LONG),
    Route(
        "POST",
        f"{_PATH}/explain",
        _READ,
        ExplainBody,
        reasons.Explanation,
        explain,
        max_body_bytes=_LONG,
    ),
    # Who is there, with which attributes: more than the policy.
    Route("GET", f"{_PATH}/dump", Scope.ALL_READ, Nothing, msgspec.Raw, dump),
    Route("GET", f"{_PATH}/status", _READ, Nothing, Status, status),
)
