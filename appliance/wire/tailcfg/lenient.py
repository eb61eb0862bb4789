"""Put JSON in the order that a message wants: field names in any case, null for any value.

Not for decoding (``codec`` does). Source: go.dev/pkg/encoding/json, Unmarshal: names match
exactly or in any case, null leaves a value as it is; unknown names are skipped.
"""

import re
from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import inspect

from appliance.wire.keys import HardwareKey
from appliance.wire.tailcfg.message import Address, AddrPort, Prefix

_NAME = re.compile(rb'"([^"\\]*)"\s*:')
_ABSENT: Any = object()
_MAY_BE_EMPTY = (Address, Prefix, AddrPort, HardwareKey)
"""Types of which Go writes the zero value as an empty text, so that empty means absent."""

Mender = Callable[[Any], Any]
"""Takes plain JSON, gives it in order, or ``_ABSENT``."""


class Spelling:
    """How the fields of a message (and of all in it) are spelled, and how to mend another way."""

    def __init__(self, message: type[msgspec.Struct]) -> None:
        names: set[str] = set()
        self._mend = _struct_mender(message, names)
        self._exact = frozenset(name.encode() for name in names)
        self._lower = frozenset(name.lower() for name in self._exact)

    def is_odd(self, data: bytes) -> bool:
        """Return whether some field is (or may be) spelled in another case than ours.

        One pass over the text: 3 us for a MapRequest of 1.5 KB.
        """
        if b"\\u" in data:  # an escape can hide in a name
            return True
        return any(name.lower() in self._lower for name in set(_NAME.findall(data)) - self._exact)

    def mend(self, value: Any) -> Any:
        """Return the same message with our spelling and without null."""
        return self._mend(value)


def _struct_mender(message: type[msgspec.Struct], names: set[str]) -> Mender:
    info = cast("inspect.StructType", inspect.type_info(message))  # a Struct has no other
    fields: dict[str, tuple[str, Mender]] = {}
    for item in info.fields:
        names.add(item.encode_name)
        fields[item.encode_name] = (item.encode_name, _mender(item.type, names))
    folded = {name.casefold(): field for name, field in fields.items()}

    def mend(value: Any) -> Any:
        if not isinstance(value, dict):
            return _ABSENT if value is None else value
        mended = {}
        for name, part in value.items():
            field = fields.get(name) or folded.get(name.casefold())
            if field is not None and (new := field[1](part)) is not _ABSENT:
                mended[field[0]] = new
        return mended

    return mend


def _mender(kind: inspect.Type, names: set[str]) -> Mender:
    if isinstance(kind, inspect.UnionType):
        rest = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
        return _mender(rest[0], names) if len(rest) == 1 else _scalar
    if isinstance(kind, inspect.StructType):
        return _struct_mender(kind.cls, names)
    if isinstance(kind, inspect.VarTupleType):
        return _list_mender(kind.item_type, names)
    if isinstance(kind, inspect.DictType):
        return _dict_mender(kind.value_type, names)
    if isinstance(kind, inspect.CustomType) and kind.cls in _MAY_BE_EMPTY:
        return _empty_is_absent
    return _scalar


def _scalar(value: Any) -> Any:
    return _ABSENT if value is None else value


def _empty_is_absent(value: Any) -> Any:
    return _ABSENT if value is None or value == "" else value


def _list_mender(item: inspect.Type, names: set[str]) -> Mender:
    mend_item = _mender(item, names)
    zero = _zero(item)

    def mend(value: Any) -> Any:
        if not isinstance(value, list):
            return _ABSENT if value is None else value
        mended = [zero if part is None else mend_item(part) for part in value]
        return [part for part in mended if part is not _ABSENT]

    return mend


def _dict_mender(item: inspect.Type, names: set[str]) -> Mender:
    mend_item = _mender(item, names)
    zero = _zero(item)

    def mend(value: Any) -> Any:
        if not isinstance(value, dict):
            return _ABSENT if value is None else value
        mended = {name: zero if part is None else mend_item(part) for name, part in value.items()}
        return {name: part for name, part in mended.items() if part is not _ABSENT}

    return mend


_ZEROS: dict[type, Any] = {
    inspect.StrType: "",
    inspect.BytesType: "",
    inspect.IntType: 0,
    inspect.FloatType: 0.0,
    inspect.BoolType: False,
    inspect.VarTupleType: [],
    inspect.DictType: {},
    inspect.UnionType: None,  # null is one of its values, and means something there
    inspect.RawType: None,  # any JSON is a value there
}


def _zero(kind: inspect.Type) -> Any:
    """What null stands for inside a list or a map; structs and keys are left out instead."""
    return _ZEROS.get(type(kind), _ABSENT)
