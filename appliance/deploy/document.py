"""The facts, and what a site file may hold, as one JSON document for programs without Python.

Not for what depends on a site (``render``). The NixOS module reads ``facts.json``, which is this.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import types
import typing
from pathlib import Path

import msgspec

from appliance import config
from appliance.config import resolved
from appliance.config.reader import describe, to_plain
from appliance.config.warnings import HIDDEN_PLACES
from appliance.deploy import facts, plan

PLACE = Path(__file__).with_name("facts.json")
"""Where the document is kept; the NixOS module reads it from there."""


def text() -> str:
    """Write the document, ordered, with a line end."""
    return json.dumps(document(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def document() -> dict[str, object]:
    """Give the document as plain values."""
    return {
        "constants": {
            name.lower(): value
            for name, value in vars(facts).items()
            if name.isupper() and isinstance(value, str | int)
        },
        "directives": {
            "unit": _plain(facts.UNIT),
            "service": _plain(facts.SERVICE),
            "hardening": _plain(facts.HARDENING),
            "stream_socket": _plain(facts.STREAM_SOCKET),
            "datagram_socket": _plain(facts.DATAGRAM_SOCKET),
            "local_socket": _plain(facts.LOCAL_SOCKET),
        },
        "sysctl": dict(facts.SYSCTL),
        "image": dict(facts.IMAGE),
        "hidden_places": list(HIDDEN_PLACES),
        "secret_keys": sorted(plan.SECRET_KEYS),
        "reload": {"hot": sorted(resolved.HOT), "cold_inside": resolved.COLD_INSIDE},
        "renamed": dict(config.RENAMED),
        "settings": schema(config.Settings),
    }


def schema(kind: type[msgspec.Struct]) -> dict[str, object]:
    """Describe what a mapping of the site file may hold: by key its type, default and meaning."""
    meanings = _meanings(kind)
    return {
        field.encode_name: {
            "required": field.required,
            "default": None if field.required else to_plain(_default(field)),
            "meaning": meanings.get(field.name, ""),
            **_type(field.type),
        }
        for field in msgspec.structs.fields(kind)
    }


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default is not msgspec.NODEFAULT:
        return field.default
    factory = field.default_factory
    return factory() if callable(factory) else None


def _type(kind: typing.Any) -> dict[str, object]:
    """Describe a type: its kind, its words for people, and what is inside it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    allowed = {"allowed": describe(kind)}
    if origin is typing.Annotated:
        return {**_type(arguments[0]), **_limits(arguments[1:]), **allowed}
    if origin is typing.Literal:
        return {"kind": "word", "words": list(arguments), **allowed}
    if origin in (typing.Union, types.UnionType):
        inner = [_type(each) for each in arguments if each is not types.NoneType]
        only = inner[0] if len(inner) == 1 else {"kind": "either", "either": inner}
        return {**only, "null": len(inner) < len(arguments), **allowed}
    if origin is tuple:
        return {"kind": "list", "each": _type(arguments[0]), **allowed}
    if origin is dict:
        return {"kind": "mapping", "each": _type(arguments[1]), **allowed}
    if issubclass(kind, msgspec.Struct):
        return {"kind": "section", "keys": schema(kind), **allowed}
    return {"kind": kind.__name__, **allowed}


def _limits(notes: tuple[object, ...]) -> dict[str, object]:
    found: dict[str, object] = {}
    for note in notes:
        if isinstance(note, msgspec.Meta):
            limits = {"least": note.ge, "most": note.le, "pattern": note.pattern}
            found |= {name: value for name, value in limits.items() if value is not None}
    return found


def _meanings(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Read the text under each field of a class."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(kind)).body[0]).body
    return {
        field.target.id: " ".join(str(below.value.value).split())
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


def _plain(directives: facts.Directives) -> dict[str, object]:
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in directives.items()
    }
