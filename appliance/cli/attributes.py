"""``headwater nodes attributes``: what postures of the policy know of a node.

Not for the conditions on them (``policy``).
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import cast

import click

from appliance.cli.client import Client, Plain
from appliance.cli.nodenames import path_of
from appliance.cli.output import emit, moment, parse_time, table
from appliance.cli.root import Group, Invocation
from appliance.cli.users import segment

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?")
"""A number as postures spell it. What would lose digits is text: 0042, a long serial number."""

Value = str | int | float | bool


@click.group(cls=Group)
def attributes() -> None:
    """Show and set the posture attributes of a node.

    Rules with srcPosture let only nodes through whose attributes meet the posture's conditions.
    What starts with node: is reported by the node itself and cannot be set.

    \b
    Example:
      headwater nodes attributes list laptop
      headwater nodes attributes set laptop custom:level=4 custom:team=ops
      headwater nodes attributes set laptop custom:oncall=true --expires 2h
      headwater nodes attributes remove laptop custom:level
    """


@attributes.verb("list", "ls", "show", "get")
@click.argument("node")
@click.pass_obj
def show(invocation: Invocation, node: str) -> None:
    """List all that is known of NODE (id or name): what it reports, and what was set."""
    client = invocation.client()
    answer = client.get(f"{path_of(client, node)}/attributes")
    emit(invocation.output, answer, lambda: _table(answer))


@attributes.verb("set", "add")
@click.argument("node")
@click.argument("assignments", metavar="NAME=VALUE...", nargs=-1, required=True)
@click.option("-e", "--expires", default="", help="When they go: 2h, 30d, or an RFC 3339 time.")
@click.option("--comment", default="", help="Why; the server writes it into its log.")
@click.pass_obj
def put(
    invocation: Invocation, node: str, assignments: tuple[str, ...], expires: str, comment: str
) -> None:
    """Set attributes of NODE (id or name); each takes the place of one of the same name.

    true and false are booleans, 4 and 2.5 are numbers, everything else is text. Quotes inside make
    text of anything: 'custom:version="1.80"'. Without --expires an attribute stays. If one of them
    is refused, none is set.

    \b
    Example:
      headwater nodes attributes set laptop custom:level=4 ip:country=DE
      headwater nodes attributes set 3 custom:oncall=true --expires 2h --comment "ticket 1234"
      headwater nodes attributes set laptop custom:until=sunday -e 2030-01-31T12:00:00Z
    """
    wanted = dict(map(_assignment, assignments))
    expiry = _expiry(expires)
    client = invocation.client()
    given: Plain = {name: {"value": value, "expiry": expiry} for name, value in wanted.items()}
    answer = _change(client, path_of(client, node), given, comment)
    emit(invocation.output, answer, lambda: _table(answer, wanted))


@attributes.verb("remove", "rm", "delete", "del", "unset")
@click.argument("node")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def remove(invocation: Invocation, node: str, names: tuple[str, ...]) -> None:
    """Take attributes from NODE (id or name): all of those named, or none if it lacks one.

    \b
    Example:
      headwater nodes attributes remove laptop custom:level
    """
    client = invocation.client()
    path = path_of(client, node)
    known = cast(dict[str, Value], client.get(f"{path}/attributes")["attributes"])
    for name in names:
        if name not in known:
            client.delete(f"{path}/attributes/{segment(name)}")  # refused, and the server says why
    answer = _change(client, path, dict.fromkeys(names))
    said = "Attribute removed" if len(names) == 1 else "Attributes removed"
    emit(invocation.output, answer, said)


def _change(client: Client, path: str, changes: Plain, comment: str = "") -> Plain:
    """Set and take away attributes of one node, all or none; give all that it has then."""
    body: Plain = {"nodes": {path.rpartition("/")[2]: changes}, "comment": comment}
    changed = cast(
        dict[str, Plain], client.call("PATCH", "/api/v1/device-attributes", body)["nodes"]
    )
    (answer,) = changed.values()
    return answer


def _assignment(text: str) -> tuple[str, Value]:
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise click.BadParameter(
            f"{text!r} sets nothing: write NAME=VALUE, like custom:level=4", param_hint="NAME=VALUE"
        )
    return name, _value(value)


def _value(text: str) -> Value:
    """Read a value as a person types it: quotes make text of anything."""
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text


def _expiry(text: str) -> str:
    if not text:
        return ""
    from appliance import durations

    try:
        return (datetime.now(UTC) + durations.parse(text)).isoformat()
    except (ValueError, OverflowError):
        pass
    try:
        return parse_time(text).isoformat()
    except ValueError as error:
        hint = f"{text!r} is neither a time to go like 2h or 30d, nor one like 2030-01-31T12:00:00Z"
        raise click.BadParameter(hint, param_hint="--expires") from error


def _table(answer: Plain, names: object = None) -> str:
    """Lay out all attributes, or those with these names."""
    known = cast(dict[str, Value], answer["attributes"])
    expiries = cast(dict[str, str], answer["expiries"])
    only = known if names is None else cast(dict[str, Value], names)
    return table(
        ("Attribute", "Value", "Type", "Source", "Expires"),
        (
            (
                name,
                value if isinstance(value, str) else json.dumps(value),
                _type(value),
                "node" if name.startswith("node:") else "set",
                moment(expiries.get(name), "never"),
            )
            for name, value in known.items()
            if name in only
        ),
    )


def _type(value: Value) -> str:
    if isinstance(value, str):
        return "text"
    return "true or false" if isinstance(value, bool) else "number"
