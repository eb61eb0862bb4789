"""Users, keys and nodes in the machine forms of Headscale's releases.

Up to 0.29 its command line printed protobuf messages as Go's encoders for JSON and YAML see them; from
0.30 on it prints what the API answers. Scripts read these, so both are here. Not for values that
Headscale does not have (those are the API's, whatever the release). Pure.
Source: headscale v0.29.2 gen/go/headscale/v1 (names, ``omitempty``), cmd/headscale/cli/utils.go;
headscale 0.30 gen/client/v1; yaml.v3 (a key is the field's name in lower case).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

from appliance.cli.output import parse_time

MESSAGES = "0.29"
"""The last release with the messages' form."""

_TIMES = frozenset({"createdAt", "lastSeen", "expiry", "expiration"})
_METHODS = {
    "REGISTER_METHOD_UNSPECIFIED": 0,
    "REGISTER_METHOD_AUTH_KEY": 1,
    "REGISTER_METHOD_CLI": 2,
    "REGISTER_METHOD_OIDC": 3,
}
_CAPITAL = re.compile(r"(?=[A-Z])")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def in_form(value: object, release: str, output: str) -> object:
    """Give a value of the API (or a list of them) as ``release`` prints it in ``output``."""
    if isinstance(value, list):
        return [in_form(each, release, output) for each in value]
    if not isinstance(value, dict):
        return value
    is_yaml = output == "yaml"
    if release != MESSAGES:
        value = {
            key: _NOBODY[key] if each is None and key in _NOBODY else each
            for key, each in value.items()
        }
        return _renamed(value, str.lower, _moment, release, output) if is_yaml else value
    name: Callable[[str], str] = str.lower if is_yaml else _snake
    found = _renamed(value, name, _seconds, release, output)
    # Go's JSON of a message leaves out what is empty; its YAML does not.
    return found if is_yaml else {key: each for key, each in found.items() if each not in _EMPTY}


_EMPTY: tuple[object, ...] = (None, "", [], False, 0)


_NO_USER = {
    "id": "",
    "name": "",
    "createdAt": "0001-01-01T00:00:00Z",
    "displayName": "",
    "email": "",
    "providerId": "",
    "provider": "",
    "profilePicUrl": "",
}
_NO_KEY = {
    "user": _NO_USER,
    "id": "",
    "key": "",
    "reusable": False,
    "ephemeral": False,
    "used": False,
    "expiration": None,
    "createdAt": None,
    "aclTags": None,
}
_NOBODY: dict[str, object] = {"user": _NO_USER, "preAuthKey": _NO_KEY}
"""What 0.30 prints for null: its client's structures are never absent."""


def _renamed(
    value: dict[str, object],
    name: Callable[[str], str],
    time: Callable[[str], object],
    release: str,
    output: str,
) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, each in value.items():
        told: object = in_form(each, release, output)
        if key in _TIMES and isinstance(each, str):
            told = time(each)
        elif release == MESSAGES and key == "id" and isinstance(each, str):
            told = int(each)
        elif release == MESSAGES and key == "registerMethod":
            told = _METHODS.get(cast(str, each), 0)
        found[name(key)] = told
    return found


def _snake(name: str) -> str:
    return "_".join(_CAPITAL.split(name)).lower()


def _moment(text: str) -> object:
    return parse_time(text)


def _seconds(text: str) -> object:
    """Give a time as a protobuf timestamp."""
    since = parse_time(text) - _EPOCH
    told = {
        "seconds": since // timedelta(seconds=1),
        "nanos": since % timedelta(seconds=1) // timedelta(microseconds=1) * 1000,
    }
    return {unit: count for unit, count in told.items() if count}
