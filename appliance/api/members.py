"""The members of a request: out of its query and its body, in every spelling that clients use.

Not for what they mean (``nodes`` and the other nouns) and not for answers (``shapes``). One table,
derived from the request's Struct, instead of a rule in each handler. Sits on nothing of ours but
``errors``.

Headscale's clients say the same thing in several ways, and what one release reads from the body the
other reads from the query: 0.27 to 0.29 take ``POST …/expire?disableExpiry=true``, 0.30 takes
``{"disableExpiry":true}``. Up to 0.29 every member has two names (``aclTags`` and ``acl_tags``).
So: both places and both names count alike, ``null`` means "not said", booleans and numbers may be
text, and a member that is said twice must say the same. Members that we do not know are ignored, as
those releases do.
Source: headscale v0.29.2 proto/headscale/v1/*.proto with the JSON mapping of protobuf and the
query rules of grpc-gateway; headscale 0.30 openapi.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec.structs import FieldInfo

from appliance.errors import Invalid

S = TypeVar("S", bound=msgspec.Struct)

MAX_QUERY_MEMBERS = 1000
"""Members in one query; the longest lists (routes, tags) are far shorter."""

_TYPE_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_EXPECTED = re.compile(r"Expected `(?P<wanted>[^`]*)`, got `(?P<found>\w+)`(?P<place> - at .*)?")


def read(kind: type[S], query: Iterable[tuple[str, str]], data: bytes) -> S:
    """Read a request. Raises Invalid with a sentence that names the member."""
    spellings = _spellings(kind)
    values: dict[str, object] = {}
    given = [*_of_query(spellings, query), *_of_body(data)]
    for name, value in given:
        field = spellings.get(name)
        if field is None or value is None:
            continue
        converted = _convert(name, value, field.type)
        if field.name in values and values[field.name] != converted:
            raise Invalid(
                "member-contradiction",
                f"{field.encode_name} is given twice, and not the same (query and body, or both "
                "spellings): give it once",
                concerns=name,
            )
        values[field.name] = converted
    return kind(**values)


@functools.cache
def _spellings(kind: type[msgspec.Struct]) -> Mapping[str, FieldInfo]:
    """List the names by which the members of a request may be given."""
    found: dict[str, FieldInfo] = {}
    for field in msgspec.structs.fields(kind):
        for name in (field.encode_name, field.name, _camel(field.name)):
            found[name] = field
    return found


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _of_query(
    spellings: Mapping[str, FieldInfo], query: Iterable[tuple[str, str]]
) -> Iterable[tuple[str, object]]:
    """Give the members of a query; those of a list are gathered."""
    lists: dict[str, list[str]] = {}
    for count, (name, text) in enumerate(query):
        if count >= MAX_QUERY_MEMBERS:
            raise Invalid("query-too-long", f"a query has at most {MAX_QUERY_MEMBERS} members")
        field = spellings.get(name)
        if field is not None and _is_list(field.type):
            lists.setdefault(name, []).append(text)
        else:
            yield name, text
    yield from lists.items()


def _is_list(kind: object) -> bool:
    return any(get_origin(each) in (tuple, list) for each in (kind, *get_args(kind)))


def _of_body(data: bytes) -> Iterable[tuple[str, object]]:
    if not data.strip():
        return ()
    try:
        plain = msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Invalid("body-invalid", f"the body cannot be read as JSON: {error}") from error
    if not isinstance(plain, dict):
        raise Invalid("body-invalid", "the body is to be a JSON object: {…}")
    return plain.items()


def _convert(name: str, value: object, kind: Any) -> object:
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid("member-invalid", _sentence(name, str(error)), concerns=name) from error


def _sentence(name: str, error: str) -> str:
    match = _EXPECTED.fullmatch(error)
    if match is None:
        return f"{name} cannot be read: {error}"
    wanted = " or ".join(_TYPE_WORDS.get(word, word) for word in match["wanted"].split(" | "))
    found = _TYPE_WORDS.get(match["found"], match["found"])
    return f"{name} cannot be read: expected {wanted}, got {found}{match['place'] or ''}"
