"""The route table as an OpenAPI 3.1 document, and that document as a page for people.

Not for serving (``document``). Everything is derived from the rows and their Structs, so the document
cannot say what the routes do not do. Pure: the same rows give the same text.
Source: OpenAPI 3.1.1; JSON Schema 2020-12 as msgspec writes it.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from appliance import __version__
from appliance.api.routes import AnyRoute, Nothing

_REF = "#/components/schemas/{name}"
_PROBLEM = {"$ref": _REF.format(name="Problem")}

DESCRIPTION = """\
The API of Headwater, shaped as version 1 of Headscale's. Members of a request may be given in the \
body or in the query, in camelCase or in snake_case; null means "not said", members that are not \
known are ignored. Answers have the names that stand here. Where a server has several tailnets, \
`?tailnet=NAME` chooses one."""


class Problem(Struct, frozen=True, kw_only=True):
    """A refusal: RFC 9457, and beside it what clients of Headscale up to 0.29 read."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[dict[str, str], ...]
    code: int
    message: str
    details: tuple[str, ...]


def document(routes: Sequence[AnyRoute]) -> dict[str, Any]:
    """Give the document of these routes."""
    kinds = sorted({kind for route in routes for kind in _structs(route)}, key=lambda k: k.__name__)
    components = _components([*kinds, Problem])
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, components)
    scopes = sorted({route.scope.value for route in routes if route.scope is not None})
    return {
        "openapi": "3.1.1",
        "info": {"title": "Headwater", "version": __version__, "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Scopes: " + ", ".join(scopes),
                },
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The key, or a token, as user name; the password is not looked at.",
                },
                "client": {
                    "type": "oauth2",
                    "flows": {
                        "clientCredentials": {
                            "tokenUrl": "/api/v2/oauth/token",
                            "scopes": dict.fromkeys(scopes, ""),
                        }
                    },
                },
            },
        },
    }


def page(title: str, routes: Sequence[AnyRoute]) -> str:
    """Give the page for people: one table a noun, without anything from elsewhere."""
    parts = [f"<h1>{html.escape(title)}</h1><p>{html.escape(DESCRIPTION)}</p>"]
    for noun in dict.fromkeys(tag(route) for route in routes):
        rows = "".join(_page_row(route) for route in routes if tag(route) == noun)
        parts.append(
            f"<h2>{html.escape(noun)}</h2><table><tr><th>call<th>what it does<th>scope"
            f"<th>request<th>answer</tr>{rows}</table>"
        )
    rows = "".join(
        f"<tr><td>{html.escape(name)}<td>{'<br>'.join(map(html.escape, told))}"
        for name, told in objects(routes).items()
    )
    parts.append(f"<h2>Objects</h2><table>{rows}</table>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style><body>{''.join(parts)}"
        '<p>The same for programs: <a href="openapi.json">openapi.json</a></p></body></html>'
    )


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{border:1px solid #8888;padding:.3rem .5rem;text-align:left;vertical-align:top}"
    "code{white-space:nowrap}"
)
"""The page's only style; its hash is in the page's Content-Security-Policy."""


def tag(route: AnyRoute) -> str:
    """Give the noun that a route is about, as its path has it."""
    return route.path.split("/")[3]


def request_members(route: AnyRoute) -> list[str]:
    """Describe what a request may say: ``name: type``."""
    return _members(route.request)


def answer_members(route: AnyRoute) -> list[str]:
    """Describe what an answer says: ``name: type``."""
    return _members(route.response)


def objects(routes: Sequence[AnyRoute]) -> dict[str, list[str]]:
    """Describe the objects inside of requests and answers, by name."""
    kinds = {kind for route in routes for kind in _structs(route)}
    outer = {kind.__name__ for kind in kinds}
    return {
        name: [f"{member}: {_word(each)}" for member, each in schema.get("properties", {}).items()]
        for name, schema in sorted(_components(list(kinds)).items())
        if name not in outer
    }


def _page_row(route: AnyRoute) -> str:
    cells = (
        f"<code>{html.escape(f'{route.method} {route.path}')}</code>",
        html.escape(route.summary),
        f"<code>{html.escape(route.scope or '')}</code>",
        "<br>".join(map(html.escape, request_members(route))),
        "<br>".join(map(html.escape, answer_members(route))),
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells) + "</tr>"


def _structs(route: AnyRoute) -> Iterable[type[Struct]]:
    return (kind for kind in (route.request, route.response) if _is_struct(kind))


def _is_struct(kind: object) -> bool:
    return inspect.isclass(kind) and issubclass(kind, Struct)


def _members(kind: type) -> list[str]:
    if not _is_struct(kind):
        return []
    components = _components([kind])
    return [f"{name}: {_word(schema)}" for name, schema in _properties(kind, components).items()]


def _components(kinds: Sequence[type[Struct]]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components(
        kinds, schema_hook=lambda _: {"description": "any plain value"}, ref_template=_REF
    )
    return components


def _properties(kind: type, components: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = components.get(kind.__name__, {}).get("properties", {})
    return found


def _word(schema: dict[str, Any]) -> str:
    """Say a member's type in a word or two."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_word(each) for each in schema["anyOf"]))
    if "$ref" in schema:
        name: str = schema["$ref"].rpartition("/")[2]
        return name
    if schema.get("type") == "array":
        return f"list of {_word(schema.get('items') or {})}"
    if schema.get("format") == "date-time":
        return "time"
    if schema.get("type") == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_word(inner)}" if isinstance(inner, dict) else "object"
    return {"string": "text", "integer": "number"}.get(schema.get("type", ""), "") or str(
        schema.get("type", "any")
    )


def _operation(route: AnyRoute, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "tags": [tag(route)],
        "operationId": f"{_module(route)}.{route.handler.__name__}",
        "summary": route.summary,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": _schema(route)}},
            "default": {
                "description": "Refused, or failed.",
                "content": {"application/problem+json": {"schema": _PROBLEM}},
            },
        },
    }
    if route.scope is not None:
        needed = [route.scope.value]
        operation["security"] = [{"key": needed}, {"basic": needed}, {"client": needed}]
        if route.own:
            operation["x-own"] = True
        operation["x-scope"] = route.scope.value
    if route.act:
        operation["x-act"] = route.act
    operation["parameters"] = [*_path_parameters(route), *_query_parameters(route, components)]
    if route.takes_body and route.request is not Nothing:
        operation["requestBody"] = {
            "required": False,
            "content": {
                "application/json": {
                    "schema": {"$ref": _REF.format(name=route.request.__name__)},
                }
            },
        }
    return operation


def _module(route: AnyRoute) -> str:
    return route.handler.__module__.rpartition(".")[2]


def _schema(route: AnyRoute) -> dict[str, Any]:
    if not _is_struct(route.response):
        return {"schema": {"type": "object"}}
    return {"schema": {"$ref": _REF.format(name=route.response.__name__)}}


def _path_parameters(route: AnyRoute) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.parameters
    ]


def _query_parameters(route: AnyRoute, components: dict[str, Any]) -> list[dict[str, Any]]:
    """List the members that have no body to be in, and the tailnet."""
    shown = {} if route.takes_body else _properties(route.request, components)
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in [*shown.items(), ("tailnet", {"type": "string"})]
    ]
