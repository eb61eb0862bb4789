"""``/api/v1/policy``: Headscale's three calls, and the questions that our own commands ask.

Not for answering (``policy.answers``) nor for judging (``live.policy``). What takes
long for a large tailnet runs in a thread, on records and policies that nobody changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime
from functools import partial
from typing import TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from appliance.api.conditions import ANY, etag_of, if_match, with_etag
from appliance.api.door import answer, body_of, keeper_of
from appliance.api.problem import problem
from appliance.errors import Conflict, Forbidden, Rejected
from appliance.identity.principals import LOCAL
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

S = TypeVar("S", bound=msgspec.Struct)


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
    updated_at: datetime | None


class Status(Struct, frozen=True, kw_only=True, rename="camel"):
    """How the policy is; ``source`` is "database", "file" or "settings".

    ``etag`` is what ``If-Match`` of the next change may say.
    """

    source: str
    file: str
    since: datetime | None
    by: str
    etag: str
    denies_all: bool
    trouble: str
    trouble_since: datetime | None


UNWRITTEN_ETAG = "ts-default"
"""The ETag of no policy at all, as long as nobody wrote one. Source: the hosted service's API."""


async def get(request: web.Request) -> web.Response:
    """Show the policy in force."""
    keeper = keeper_of(request)
    record = keeper.status.in_force
    if record is None:
        # Status and words are Headscale's: consoles take them for "none yet, write one".
        words = "acl policy not found: no policy is set, and everything may reach everything"
        if keeper.status.denies_all:
            words = "acl policy not found: there is none that can be used, see 'policy status'"
        return with_etag(problem(500, words, code="policy-missing"), _etag(keeper))
    return _shown(keeper, record)


async def put(request: web.Request) -> web.Response:
    """Put a policy in force; with ``If-Match``, only over one that the writer has seen."""
    keeper = keeper_of(request)
    wanted = if_match(request)
    body = await _body(request, PolicyBody)
    try:
        answers.check_written(body.policy)
        over = None if wanted is None else _seen(keeper, wanted)
        return _shown(keeper, await keeper.replace(body.policy, LOCAL, over=over))
    except Forbidden as refusal:
        # Headscale's words first: its tools look for them.
        words = f"update is disabled for modes other than 'database': {refusal.sentence}"
        return problem(400, words, code=refusal.code)
    except Conflict as refusal:
        words = (
            f"{refusal.sentence}: get the policy that is in force, work your change into it, and"
            " send that with the new ETag in If-Match (without If-Match yours would replace it)"
        )
        return with_etag(problem(412, words, code=refusal.code), _etag(keeper))
    except Rejected as refusal:
        return _refusal(refusal)


async def check(request: web.Request) -> web.Response:
    """Say whether a policy could be put in force, and what in it is worth a look."""
    keeper = keeper_of(request)
    body = await _body(request, PolicyBody)
    try:
        answers.check_written(body.policy)
        admitted = await keeper.check(body.policy)
    except Rejected as refusal:
        return _refusal(refusal)
    users = keeper.live.snapshot.users
    return answer(await asyncio.to_thread(answers.checked, admitted, users))


async def test(request: web.Request) -> web.Response:
    """Run the tests of a policy, or of the one in force."""
    keeper = keeper_of(request)
    body = await _body(request, TestBody)
    record = keeper.status.in_force
    text = body.policy
    if text is None:
        text = "{}" if record is None else record.text
    try:
        return answer(await asyncio.to_thread(answers.test, text, _subjects(keeper)))
    except Rejected as refusal:
        return _refusal(refusal)


async def diff(request: web.Request) -> web.Response:
    """Say what a policy would change, node by node."""
    keeper = keeper_of(request)
    body = await _body(request, DiffBody)
    subjects = _subjects(keeper)
    try:
        old = await _read(keeper, body.against)
    except Rejected as refusal:
        return _refusal(refusal, of="against")
    try:
        new = await asyncio.to_thread(answers.read, body.policy, subjects.background)
    except Rejected as refusal:
        return _refusal(refusal)
    return answer(await asyncio.to_thread(answers.diff, old, new, subjects))


async def explain(request: web.Request) -> web.Response:
    """Say which rule lets one end reach another, or which come near."""
    keeper = keeper_of(request)
    body = await _body(request, ExplainBody)
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
        return answer(ask(snapshot.compiled, subjects, table=snapshot.routes))
    try:
        policy = await _read(keeper, body.policy)
    except Rejected as refusal:
        return _refusal(refusal)
    return answer(await asyncio.to_thread(lambda: ask(compile(policy, *subjects), subjects)))


async def dump(request: web.Request) -> web.Response:
    """Give the tailnet as policies see it, for questions without a server."""
    data = await asyncio.to_thread(dumps.encode, *_subjects(keeper_of(request)))
    return web.Response(body=data, content_type="application/json")


async def status(request: web.Request) -> web.Response:
    """Say where the policy comes from and how it is."""
    keeper = keeper_of(request)
    known = keeper.status
    record = known.in_force
    return answer(
        Status(
            source=known.source,
            file="" if known.path is None else str(known.path),
            since=known.since,
            by="" if record is None else record.created_by,
            etag=_etag(keeper),
            denies_all=known.denies_all,
            trouble=known.trouble,
            trouble_since=known.trouble_since,
        )
    )


async def _body(request: web.Request, kind: type[S]) -> S:
    return await body_of(request.clone(client_max_size=MAX_BODY_BYTES), kind)


def _shown(keeper: PolicyKeeper, record: PolicyText) -> web.Response:
    is_ours = keeper.source.mode == "database"
    shown = answer(Shown(policy=record.text, updated_at=record.created_at if is_ours else None))
    return with_etag(shown, etag_of(record.text))


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


def _refusal(refusal: Rejected, *, of: str = "policy") -> web.Response:
    """Say what is wrong with a text, in Headscale's words and with each place."""
    words = refusal.sentence
    if refusal.code == "policy-invalid":
        words = f"parsing policy from bytes: {words}"
    mistakes = answers.mistakes_of(refusal)
    return problem(400, words, code=refusal.code, mistakes=mistakes, of=of)


ROUTES = (
    web.get("/api/v1/policy", get),
    web.put("/api/v1/policy", put),
    web.post("/api/v1/policy/check", check),
    web.post("/api/v1/policy/test", test),
    web.post("/api/v1/policy/diff", diff),
    web.post("/api/v1/policy/explain", explain),
    web.get("/api/v1/policy/dump", dump),
    web.get("/api/v1/policy/status", status),
)
