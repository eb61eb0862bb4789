"""What every handler of the API needs: the tailnets, the body, ids out of paths.

Not for meaning, nor for how clients spell what they send (``members``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from aiohttp import web

from appliance.api import members
from appliance.errors import Invalid, NotFound
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.policy import PolicyKeeper
from appliance.records import TailnetID
from appliance.tailnet.addresses import Rng

MAX_BODY_BYTES = 256 * 1024
"""The longest list of tags or routes that makes sense is far shorter."""

S = TypeVar("S", bound=msgspec.Struct)
_MAX_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Door:
    """What the handlers work with. ``is_database_well`` asks the database; the rest is at hand."""

    tailnets: LiveTailnets
    policies: Mapping[TailnetID, PolicyKeeper]
    is_database_well: Callable[[], Awaitable[bool]]
    random_bytes: Callable[[int], bytes]
    rng: Rng
    metrics: Callable[[], bytes]
    ssh_checks: SSHChecks


DOOR = web.AppKey("door", Door)


def door_of(request: web.Request) -> Door:
    """Give the door that the request came in by."""
    return request.app[DOOR]


def live_of(request: web.Request) -> LiveTailnet:
    """Give the tailnet that ``?tailnet=`` names, or else the default one. Raises NotFound."""
    tailnets = door_of(request).tailnets
    name = request.query.get("tailnet")
    if not name:
        return tailnets.default
    for live in tailnets:
        if live.snapshot.tailnet.name == name:
            return live
    raise NotFound("tailnet-unknown", f"there is no tailnet named {name!r}", concerns=name)


def keeper_of(request: web.Request) -> PolicyKeeper:
    """Give the keeper of that tailnet's policy. Raises NotFound."""
    return door_of(request).policies[live_of(request).id]


async def body_of(request: web.Request, kind: type[S]) -> S:
    """Read the request as ``kind``, from its query and its body alike. Raises Invalid."""
    return members.read(kind, request.query.items(), await request.read())


def number(text: str, what: str) -> int:
    """Read a decimal id. Raises Invalid."""
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > _MAX_ID:
        raise Invalid("id-invalid", f"{text!r} is no {what} id: ids are numbers", concerns=text)
    return int(text)


def path_number(request: web.Request, name: str, what: str) -> int:
    """Read a decimal id out of the path. Raises Invalid."""
    return number(request.match_info[name], what)


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


def answer(value: object) -> web.Response:
    """Encode an answer."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
