"""``POST /api/v2/oauth/token``: a short-lived token for the secret of an OAuth client.

Client credentials as RFC 6749 has them, 4.4 and 5.2, in the forms that the hosted service takes: the
secret in the form or as the password of HTTP Basic; the client's id may be anything, because the
secret names it (stock clients send "some-client-id"), and ``grant_type`` may be missing. Not for what a
token is (``identity.tokens``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, unquote_plus

import msgspec
from aiohttp import web

from appliance.api.door import Door
from appliance.api.gate import Gate
from appliance.errors import Invalid
from appliance.identity import tokens
from appliance.identity.scopes import covers, known, read_scopes
from appliance.live import LiveTailnet
from appliance.records import OAuthClient
from appliance.tailnet import names, oauthclients

PATH = "/api/v2/oauth/token"
MAX_FORM_BYTES = 8192
MAX_FORM_FIELDS = 20
INVALID_CLIENT = "invalid_client"

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class _Refused(Exception):
    """An error of RFC 6749, 5.2."""

    def __init__(self, error: str, sentence: str) -> None:
        super().__init__(sentence)
        self.error = error
        self.sentence = sentence


def endpoint(
    door: Door, gate: Gate, seal: tokens.Seal
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Make the handler."""

    async def issue(request: web.Request) -> web.Response:
        source = gate.admit(request)
        try:
            form = await _form(request)
            live, client = _find(door, _secret(request, form))
            gate.spend(f"oauth-client:{client.prefix}")
            scopes, tags = _wanted(client, form)
        except _Refused as refusal:
            if refusal.error == INVALID_CLIENT:
                gate.counters.unknown += 1
                gate.wrong(source, "an unknown OAuth client")
            return _refused(refusal)
        now = live.clock()
        door.key_uses.note(live.id, client, now)
        answer = {
            "access_token": tokens.issue(client, scopes, tags, now, seal),
            "token_type": "Bearer",
            "expires_in": int(tokens.TOKEN_LIFETIME.total_seconds()),
            "scope": " ".join(scopes),
        }
        return _answer(200, answer)

    return issue


async def _form(request: web.Request) -> Mapping[str, str]:
    if request.content_type not in (
        "application/x-www-form-urlencoded",
        "application/octet-stream",
    ):
        raise _Refused(
            "invalid_request", "the request is a form (application/x-www-form-urlencoded)"
        )
    data = await request.clone(client_max_size=MAX_FORM_BYTES).read()
    try:
        pairs = parse_qsl(
            data.decode(),
            keep_blank_values=True,
            max_num_fields=MAX_FORM_FIELDS,
            strict_parsing=False,
        )
    except ValueError as error:
        raise _Refused("invalid_request", "the form cannot be read") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise _Refused("invalid_request", "a field of the form is given twice")
    if form.get("grant_type", "client_credentials") != "client_credentials":
        raise _Refused("unsupported_grant_type", "only client_credentials is offered")
    return form


def _secret(request: web.Request, form: Mapping[str, str]) -> str:
    headers = request.headers.getall("Authorization", [])
    scheme, _, rest = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    if scheme.lower() == "basic":
        try:
            name, password = tokens.of_basic(rest.strip())
        except ValueError as error:
            raise _Refused(INVALID_CLIENT, "the Authorization header cannot be read") from error
        # RFC 6749, 2.3.1: both are encoded as in a form before they are joined.
        return unquote_plus(password or name)
    return form.get("client_secret", "")


def _find(door: Door, secret: str) -> tuple[LiveTailnet, OAuthClient]:
    for live in door.tailnets:
        client = oauthclients.find(live.snapshot, secret)
        if client is not None:
            return live, client
    raise _Refused(INVALID_CLIENT, "there is no OAuth client with this secret")


def _wanted(client: OAuthClient, form: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the scopes and tags of the token: those asked for, or all of the client's."""
    try:
        scopes = read_scopes([form.get("scope", "")]) or known(client.scopes)
        tags = names.check_tags(form.get("tags", "").replace(",", " ").split()) or client.tags
    except Invalid as refusal:
        raise _Refused("invalid_scope", refusal.sentence) from refusal
    held = known(client.scopes)
    beyond = sorted(scope for scope in scopes if not covers(held, scope))
    if beyond:
        raise _Refused("invalid_scope", f"the client does not have the scope {beyond[0]}")
    foreign = sorted(set(tags) - set(client.tags))
    if foreign:
        raise _Refused("invalid_scope", f"the client does not have the tag {foreign[0]}")
    return sorted(scopes), sorted(tags)


def _refused(refusal: _Refused) -> web.Response:
    status = 401 if refusal.error == INVALID_CLIENT else 400
    told = {"error": refusal.error, "error_description": refusal.sentence}
    # Beside them what clients of the hosted service read.
    response = _answer(status, {**told, "message": refusal.sentence, "status": status})
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="headwater"'
    return response


def _answer(status: int, value: Mapping[str, object]) -> web.Response:
    return web.Response(
        status=status,
        body=msgspec.json.encode(value),
        content_type="application/json",
        headers=_NO_STORE,
    )
