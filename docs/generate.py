"""Write the generated pages, each from the table that the program itself uses.

``python -m docs.generate`` writes them; a test says when they are out of date. Not for prose.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import sys
import typing
from pathlib import Path

import msgspec

from appliance import config, metrics
from appliance.api import app, openapi
from appliance.api.routes import AnyRoute
from appliance.config.reader import describe, to_plain
from appliance.deploy import document
from appliance.identity import roles

HERE = Path(__file__).parent

CONFIGURATION_HEAD = """\
# Configuration

*This page is generated from `appliance/config/settings.py` (`make docs`); a test keeps the two equal.*

One file says everything. Its ending chooses the form: `.yaml`, `.toml` or `.json`; the keys are the
same. `headwater serve -c FILE` reads it, and without `-c` the first of `/etc/headwater/config.yaml`,
`.toml` and `.json` that is there. No environment variable overrides it.

* `headwater config check FILE` names every mistake at once, with the way out; it needs no server. What
  it calls fine starts, and a client comes up on it. Warnings say what works, but not as one may think.
* `headwater config show FILE` prints the file with every default filled in.
* `headwater config convert FILE` turns Headscale's configuration (0.12 and later) into ours, lists what has
  no counterpart, and checks the result.

Unknown keys are refused. Durations are text like `30d`, `12h`, `1h30m` or `90s`. Secrets are never in
the file: keys that end in `_file` name a file; a relative name means a credential that systemd hands
over (`LoadCredential=`).

`SIGHUP` (or `systemctl reload headwater`) reads the file and the certificates again. The sections
`tailnet`, `tailnets`, `dns`, `derp` (but for how our own relay runs) and `log` are taken over at once;
the log names what waits for a restart. A file with a mistake changes nothing.

A small site:

```yaml
server_url: https://hw.example.com
tls:
  cert_file: /etc/ssl/hw.example.com/fullchain.pem
  key_file: /etc/ssl/hw.example.com/key.pem
tailnet:
  base_domain: tailnet.example.net
  key_expiry: 180d
```
"""

METRICS_HEAD = """\
# Metrics

*This page is generated from `appliance/metrics.py` (`make docs`); a test keeps the two equal.*

`GET /metrics` on the local socket gives them in Prometheus' text form; `metrics.listen` opens a
listener for them. Names of nodes and users are never labels. Besides, there are the usual
`process_*` metrics.

| metric | kind | label | meaning |
|---|---|---|---|
"""


API_HEAD = """\
# The API

*This page is generated from the route table (`appliance/api`, `make docs`); a test keeps the two
equal.* The server itself has it as `/api/v1/docs` and, for programs, as `/api/v1/openapi.json`
(OpenAPI 3.1).

The API is on the local socket (`socket.path` of the site file), where whoever may open it may do
everything:

```console
$ curl --unix-socket /run/headwater/headwater.sock http://x/api/v1/node
$ curl --unix-socket /run/headwater/headwater.sock -X POST 'http://x/api/v1/node/1/expire?disableExpiry=true'
```

It is also on the main listener, for whoever shows an API key (`headwater apikeys create`) or a token, as Bearer or as the
user name of HTTP Basic; every other call gets 401 there:

```console
$ curl -H "Authorization: Bearer $(cat key)" https://headwater.example.com/api/v1/node
$ curl -u "$(cat key):" https://headwater.example.com/api/v1/node
```

An OAuth client (`headwater oauth-clients create --scope devices:core:read`) gets a token for an hour:

```console
$ curl -d client_secret="$(cat secret)" https://headwater.example.com/api/v2/oauth/token
```

Its shape is that of Headscale's version 1, and what clients of 0.27 to 0.30 send is understood:

* members may be in the body (JSON) or in the query, in camelCase or in snake_case; booleans and numbers
  may be text; `null` means "not said". A member that is given twice must say the same both times.
* members that are not known are ignored; a known one of the wrong type is refused with its name.
* ids are decimal text in answers, and text or numbers in requests. Times are RFC 3339.
* a refusal has the members of RFC 9457 (`type`, `title`, `status`, `detail`, `errors`) and beside them
  `code`, `message` and `details`, which clients up to 0.29 read.
* `?tailnet=NAME` chooses the tailnet where the server has several.
* scopes are named as those of the hosted service's OAuth clients; one without `:read` covers reading.
  *act* is what a change is called in the audit log. *own*: users may call it without the scope, for
  what is theirs. *local*: on the local socket only.

What the holder of a role may do, and so may a key of theirs that names no scopes (one with scopes may do what both may):

| role | scopes |
|---|---|
"""


def api_page() -> str:
    """Give the page on the API."""
    parts = [API_HEAD]
    for role, scopes in roles.SCOPES.items():
        held = ", ".join(f"`{scope}`" for scope in sorted(scopes))
        parts.append(f"| {role} | {held or 'none: what is theirs'} |\n")
    for noun in dict.fromkeys(openapi.tag(route) for route in app.ROUTES):
        parts.append(f"\n## {noun}\n")
        parts += [_route(route) for route in app.ROUTES if openapi.tag(route) == noun]
    parts.append("\n## Objects\n\n")
    for name, members in openapi.objects(app.ROUTES).items():
        parts.append(f"* **{name}**: {', '.join(f'`{member}`' for member in members)}\n")
    return "".join(parts)


def _route(route: AnyRoute) -> str:
    lines = [f"\n`{route.method} {route.path}`\n: {route.summary}"]
    facts = [f"scope `{route.scope}`" if route.scope else "no scope"]
    facts += [f"act `{route.act}`"] if route.act else []
    facts += [f"or `{route.or_scope}`"] if route.or_scope else []
    facts += ["own"] if route.own else []
    facts += ["local"] if route.is_local else []
    facts += ["obeys `If-Match`"] if route.is_conditional else []
    lines.append(f" ({', '.join(facts)})\n\n")
    for title, members in (
        ("request", openapi.request_members(route)),
        ("answer", openapi.answer_members(route)),
    ):
        if members:
            lines.append(f"* {title}: {', '.join(f'`{member}`' for member in members)}\n")
    return "".join(lines).rstrip() + "\n"


def configuration() -> str:
    """Give the page on the settings."""
    return CONFIGURATION_HEAD + "".join(_section(config.Settings, ""))


def metrics_page() -> str:
    """Give the page on the metrics."""
    rows = (
        f"| `{each.name}` | {each.kind} | {f'`{each.label}`' if each.label else ''} | {each.help} |\n"
        for each in metrics.METRICS
    )
    return METRICS_HEAD + "".join(rows)


_HOMES = {(config.Tailnet, "tailnets"): "tailnet", (config.Dns, "tailnet.dns"): "dns"}
"""The section that describes a Struct which occurs in several places."""

PAGES = {"api.md": api_page, "configuration.md": configuration, "metrics.md": metrics_page}


def _section(kind: type[msgspec.Struct], path: str) -> list[str]:
    """Describe one Struct and those inside it."""
    texts = _field_texts(kind)
    title = f"`{path}`" if path else "The top level"
    lines = [f"\n## {title}\n\n{inspect.getdoc(kind)}\n\n| key | value | default | meaning |\n"]
    lines.append("|---|---|---|---|\n")
    inner: list[str] = []
    for field in msgspec.structs.fields(kind):
        inside = f"{path}.{field.encode_name}" if path else field.encode_name
        below, is_list = _struct_of(field.type)
        meaning = texts.get(field.name, "")
        if below is None:
            value = _cell(describe(field.type))
        else:
            home = _HOMES.get((below, inside), inside)
            value = f"see `{home}{'[]' if is_list and home == inside else ''}`"
            meaning = meaning or (inspect.getdoc(below) or "").splitlines()[0]
            if home == inside:
                inner += _section(below, f"{inside}{'[]' if is_list else ''}")
        lines.append(
            f"| `{field.encode_name}` | {value} | {_default(field)} | {_cell(meaning)} |\n"
        )
    return lines + inner


def _struct_of(kind: typing.Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """Find the Struct in a field's type, and tell whether it is a list of them."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind, False
    is_list = typing.get_origin(kind) is tuple
    for inner in typing.get_args(kind):
        found, _ = _struct_of(inner)
        if found is not None:
            return found, is_list
    return None, False


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is msgspec.NODEFAULT:
        value = field.default_factory() if callable(field.default_factory) else None
    if isinstance(value, msgspec.Struct):
        return ""
    plain = to_plain(value)
    if plain in ("", [], {}):
        return "empty"
    if isinstance(plain, bool):
        return "`true`" if plain else "`false`"
    if plain is None:
        return "`null`"
    if isinstance(plain, list):
        return ", ".join(f"`{each}`" for each in plain)
    return f"`{plain}`"


def _field_texts(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Read the text under each field of a class."""
    body = typing.cast(ast.ClassDef, ast.parse(inspect.getsource(kind)).body[0]).body
    texts: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            texts[field.target.id] = " ".join(str(below.value.value).split())
    return texts


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
        sys.stdout.write(f"docs/{name}\n")
    document.PLACE.write_text(document.text())
    sys.stdout.write("appliance/deploy/facts.json\n")


if __name__ == "__main__":
    main()
