"""What a route of the API is: one row with its path, its scope, its types and its handler.

Not for HTTP (``mount`` turns rows into an application) and not for the rows themselves, which stand
at the end of each noun's file. What a handler gets is a ``Context`` and its request as a Struct; what
it returns is a Struct. The document (``openapi``), the scope check, the entry in the audit log and
the bounds are all read from the row.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from msgspec import Struct

from appliance.api.door import Door
from appliance.errors import Forbidden, Invalid, NotFound
from appliance.identity.principals import Principal
from appliance.identity.scopes import Caller, Scope
from appliance.live import LiveTailnet
from appliance.live.policy import PolicyKeeper
from appliance.records import Node, NodeID, UserID
from appliance.tailnet import nodes
from appliance.tailnet.snapshot import Edit, Snapshot

MAX_BODY_BYTES = 256 * 1024
"""The longest list of tags or routes that makes sense is far shorter."""

S = TypeVar("S", bound=Struct)
R = TypeVar("R")

_MAX_ID = 2**63 - 1
MAX_ID_DIGITS = 19
"""Of the largest one; int() refuses 4,300 digits and more with an error of its own."""
_PARAMETER = re.compile(r"\{(\w+)\}")


class Nothing(Struct, frozen=True):
    """A request, or an answer, without members."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[R]):
    """An answer with more to it than its value.

    ``etag`` is the version of what is shown. ``is_unwell`` lets programs that look at the status
    only see that something is wrong.
    """

    value: R
    etag: str = ""
    is_unwell: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """All that a handler may use beside its request."""

    caller: Caller
    door: Door
    live: LiveTailnet
    """The tailnet that the request is about."""
    path: Mapping[str, str]
    """The parameters of the path."""
    act: str = ""
    if_match: Collection[str] | None = None
    """The versions over which a conditional route may make its change; None means any."""
    only: UserID | None = None
    """The user beyond whose things nothing may be seen or changed (``Route.own``); None: nobody."""

    @property
    def principal(self) -> Principal:
        """Give the one who asks."""
        return self.caller.principal

    def require(self, scope: Scope) -> None:
        """Refuse a caller without this scope. Raises Forbidden."""
        if not self.caller.may(scope):
            raise lacking(scope)

    def check_tags(self, tags: Collection[str], *, may_be_none: bool = False) -> None:
        """Refuse tags that are not the caller's to give, and none at all. Raises Forbidden."""
        mine = self.caller.tags
        if mine is None:
            return
        foreign = sorted(set(tags) - mine)
        if foreign or not (tags or may_be_none):
            told = f"{foreign[0][:64]!r} is not" if foreign else "no tag is"
            raise Forbidden(
                "tag-not-yours",
                f"{told} one of the tags that the client may give: {', '.join(sorted(mine))}",
            )

    def edit(self, *, reason: str = "") -> AbstractAsyncContextManager[Edit]:
        """Draft a change in the name of the one who asks."""
        return self.live.edit(by=self.principal, act=self.act, reason=reason)

    @property
    def is_of_the_server(self) -> bool:
        """Tell whether the caller has a say in what all tailnets share: in the first one, or in all."""
        return self.caller.tailnet in (None, self.door.tailnets.default.id)

    @property
    def keeper(self) -> PolicyKeeper:
        """Give the keeper of the tailnet's policy."""
        return self.door.policies[self.live.id]

    @property
    def node_id(self) -> NodeID:
        """Give the node that the path names. Raises Invalid."""
        return NodeID(number(self.path["node_id"], "node"))

    def node(self, state: Snapshot | Edit) -> Node:
        """Give the node that the path names, if the caller may know of it. Raises Invalid, NotFound."""
        node = nodes.get(state, self.node_id)
        if self.only is not None and node.user_id != self.only:
            raise NotFound("node-unknown", f"there is no node of yours with the id {node.id}")
        return node

    @property
    def user_id(self) -> UserID:
        """Give the user that the path names. Raises Invalid."""
        return UserID(number(self.path["user_id"], "user"))


@dataclass(frozen=True, slots=True)
class Route(Generic[S, R]):
    """One row of the table.

    ``scope`` None lets everybody who may ask at all. ``act`` is what the audit log calls the change
    ("node.rename"); empty for what changes nothing.
    """

    method: str
    path: str
    scope: Scope | None
    request: type[S]
    response: type[R]
    handler: Callable[[Context, S], Awaitable[R | Reply[R]]]
    act: str = ""
    max_body_bytes: int = MAX_BODY_BYTES
    is_conditional: bool = False
    """Whether ``If-Match`` is obeyed."""
    or_scope: Scope | None = None
    """Another scope that is enough to call it; the handler then asks (``ctx.require``) for the one
    that what is named needs."""
    own: bool = False
    """Whether users may call it without the scope, for what is theirs: ``ctx.only`` says whose, and
    the handler keeps to it. (A test calls all of these for things of others.)"""
    is_local: bool = False
    """Whether it is on the local socket only, whatever somebody may prove from elsewhere."""
    parameters: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", tuple(_PARAMETER.findall(self.path)))

    @property
    def takes_body(self) -> bool:
        """Tell whether members may come in a body as well as in the query."""
        return self.method != "GET"

    @property
    def summary(self) -> str:
        """Say in one line what the route does."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]


AnyRoute = Route[Any, Any]


def lacking(scope: Scope) -> Forbidden:
    """Make the refusal of a caller without a scope."""
    return Forbidden(
        "scope-missing",
        f"this needs the scope {scope}, which the one who asks does not have",
        concerns=scope,
    )


def number(text: str, what: str) -> int:
    """Read a decimal id. Raises Invalid."""
    if len(text) > MAX_ID_DIGITS or not (text.isascii() and text.isdigit()) or int(text) > _MAX_ID:
        shown = text[: 2 * MAX_ID_DIGITS]
        raise Invalid("id-invalid", f"{shown!r} is no {what} id: ids are numbers", concerns=shown)
    return int(text)


def optional_number(value: str | int, what: str) -> int | None:
    """Read an id that may be left out: 0 and "" mean none. Raises Invalid."""
    text = str(value)
    return None if text in ("", "0") else number(text, what)


def parse_moment(text: str, what: str) -> datetime | None:
    """Read an RFC 3339 time; empty and the year 1 (Go's "unset") give None. Raises Invalid."""
    if not text or text.startswith("0001-"):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(
            "time-invalid", f"{what} {text!r} is no time like 2030-01-31T12:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise Invalid("time-invalid", f"{what} {text!r} lacks its zone: add Z for UTC")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # the last hours of the year 9999, west of Greenwich
        raise Invalid("time-invalid", f"{what} {text!r} lies beyond what can be kept") from error
