"""Health, version and metrics: what machines ask to learn how the server is."""

from __future__ import annotations

import platform
from collections.abc import Iterable

import msgspec
from aiohttp import web
from msgspec import UNSET, Struct, UnsetType

from appliance import __version__
from appliance.api.door import DOOR, Door
from appliance.api.routes import Context, Nothing, Reply, Route
from appliance.api.shapes import Moment
from appliance.live.policy import PolicyKeeper
from appliance.metrics import CONTENT_TYPE
from appliance.tls.current import complaints


class FailingLoop(Struct, frozen=True, kw_only=True, rename="camel"):
    """A background loop that fails and is tried again."""

    name: str
    about: str
    """What tells it from others of its kind, such as a tailnet; may be empty."""
    since: Moment
    failures: int
    reason: str


class Health(Struct, frozen=True, kw_only=True, rename="camel"):
    """How the server is; beside the first member, only what is wrong is there."""

    database_connectivity: bool
    database_trouble: str | UnsetType = UNSET
    policy_trouble: dict[str, str] | UnsetType = UNSET
    policy_denies_all: bool | UnsetType = UNSET
    certificate_trouble: str | UnsetType = UNSET
    failing: tuple[FailingLoop, ...] | UnsetType = UNSET
    warnings: tuple[str, ...] | UnsetType = UNSET


async def show(ctx: Context, _: Nothing) -> Reply[Health]:
    """Say whether the database answers and whether policies are in force.

    Of other tailnets nothing is told to those who are of one, and of the site file only to the first
    tailnet's.
    """
    door, within = ctx.door, ctx.caller.tailnet
    trouble = await door.database_trouble()
    if (
        not ctx.caller.scopes
    ):  # a member: what the policy or the site file says is not theirs to read
        return Reply(Health(database_connectivity=not trouble), is_unwell=bool(trouble))
    keepers = [each for each in door.policies.values() if within in (None, each.live.id)]
    others = {each.snapshot.tailnet.name for each in door.tailnets if within not in (None, each.id)}
    failing = [each for each in door.failing() if each.about not in others]
    health = Health(
        database_connectivity=not trouble,
        database_trouble=trouble or UNSET,
        policy_trouble=_troubles(keepers) or UNSET,
        policy_denies_all=any(each.status.denies_all for each in keepers) or UNSET,
        certificate_trouble="; ".join(_certificate_troubles(ctx)) or UNSET,
        failing=tuple(FailingLoop(**each._asdict()) for each in failing) or UNSET,
        warnings=tuple(door.warnings() if ctx.is_of_the_server else ()) or UNSET,
    )
    return Reply(health, is_unwell=bool(trouble))


def _certificate_troubles(ctx: Context) -> tuple[str, ...]:
    current = ctx.door.certificate
    return () if current is None else complaints(current.status(), ctx.live.clock())


def troubles_of(door: Door) -> dict[str, str]:
    """Give what is wrong with policies, by tailnet."""
    return _troubles(door.policies.values())


def _troubles(keepers: Iterable[PolicyKeeper]) -> dict[str, str]:
    found = {keeper.live.snapshot.tailnet.name: keeper.status for keeper in keepers}
    return {name: status.trouble for name, status in found.items() if status.trouble}


async def public(request: web.Request) -> web.Response:
    """Tell it in the form of health checks (draft-inadarei-api-health-check).

    A refused policy or a failing background loop is a warning without a word more: strangers may
    ask, too.
    """
    door = request.app[DOOR]
    is_well = not await door.database_trouble()
    grade = b"fail" if not is_well else b"warn" if troubles_of(door) or door.failing() else b"pass"
    return web.Response(
        status=200 if is_well else 500,
        body=b'{"status":"%s"}' % grade,
        content_type="application/health+json",
    )


async def version(request: web.Request) -> web.Response:
    """Tell the version, in the form that consoles of Headscale parse; they choose features by it."""
    about = {
        "version": f"{request.app[DOOR].release}.0",
        "commit": "",
        "buildTime": "",
        "go": {"version": "", "os": "linux", "arch": platform.machine()},
        "dirty": False,
        "headwater": __version__,
    }
    return web.Response(body=msgspec.json.encode(about), content_type="application/json")


async def metrics(request: web.Request) -> web.Response:
    """Give all metrics in Prometheus' text form."""
    return web.Response(
        body=request.app[DOOR].metrics(),
        headers={"Content-Type": CONTENT_TYPE},
    )


ROUTES = (Route("GET", "/api/v1/health", None, Nothing, Health, show),)
