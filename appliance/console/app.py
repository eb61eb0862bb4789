"""The addresses of the pages. ``serve`` puts them on the main listener, beside the API's."""

from __future__ import annotations

from aiohttp import web

from appliance.console import account, apps, devices, keys, links, signin, ssh, welcome
from appliance.console.door import CONSOLE, Console, SignInWay
from appliance.console.pages import STATIC_PATH
from appliance.console.visits import PageHandler, page
from appliance.live import LiveTailnet
from appliance.records import CredentialKind, TailnetID

PAGES: tuple[tuple[str, str, PageHandler], ...] = (
    ("GET", "/", welcome.show),
    ("GET", "/signin", signin.show),
    ("POST", "/signout", signin.sign_out),
    ("GET", "/register/{login_id}", devices.show),
    ("GET", "/a/{login_id}", devices.show),
    ("POST", "/register/{login_id}/connect", devices.connect),
    ("POST", "/register/{login_id}/reject", devices.reject),
    ("GET", r"/connected/{node_id:\d{1,18}}", devices.connected),
    ("GET", "/auth/{check_id}", ssh.show),
    ("POST", "/auth/{check_id}/approve", ssh.approve),
    ("POST", "/auth/{check_id}/deny", ssh.deny),
    ("GET", "/signin/link/{secret}", links.show_link),
    ("POST", "/signin/link/{secret}", links.use_link),
    ("GET", "/invite/{secret}", links.show_invitation),
    ("POST", "/invite/{secret}", links.use_invitation),
    ("GET", "/signin/code", links.show_code),
    ("POST", "/signin/code", links.use_code),
    ("GET", "/signin/passkey", keys.show),
    ("POST", "/signin/passkey/begin", keys.begin_sign_in),
    ("POST", "/signin/passkey/complete", keys.finish_sign_in),
    ("POST", "/passkeys/begin", keys.begin_registration),
    ("POST", "/passkeys/complete", keys.finish_registration),
    ("POST", r"/passkeys/{credential_id:\d{1,18}}/remove", keys.remove),
    ("GET", "/sessions", account.show),
    ("GET", "/apple", apps.apple),
    ("GET", "/apple/{platform}", apps.apple_profile),
    ("GET", "/windows", apps.windows),
    ("GET", "/android", apps.android),
    ("POST", r"/sessions/{session_id:\d{1,18}}/end", account.end),
    ("POST", "/sessions/end-others", account.end_others),
    ("POST", "/recovery-codes", account.make_codes),
)


def add_to(app: web.Application, console: Console) -> None:
    """Add the pages to an application."""
    app[CONSOLE] = console
    kinds = _Kinds()
    console.ways.append(lambda: _own_ways(console, kinds))
    for method, path, handler in PAGES:
        if method == "GET":
            app.router.add_get(path, page(handler))
        else:
            app.router.add_route(method, path, page(handler))
    app.router.add_get(STATIC_PATH + "{name}", welcome.static)


class _Kinds:
    """Which kinds of credentials there are: looked for when some have changed, not for each stranger."""

    def __init__(self) -> None:
        self._known: dict[TailnetID, tuple[object, frozenset[CredentialKind]]] = {}

    def of(self, live: LiveTailnet) -> frozenset[CredentialKind]:
        """Return the kinds that a tailnet's people have."""
        credentials = live.snapshot.credentials
        known = self._known.get(live.id)
        if known is None or known[0] is not credentials:
            known = credentials, frozenset(each.kind for each in credentials.values())
            self._known[live.id] = known
        return known[1]


def _own_ways(console: Console, kinds: _Kinds) -> list[SignInWay]:
    """List the ways that need no identity provider; none of them before somebody has set it up."""
    found = frozenset().union(*map(kinds.of, console.tailnets))
    ways = []
    if CredentialKind.PASSKEY in found and console.passkeys.is_possible:
        ways.append(keys.WAY)
    if CredentialKind.RECOVERY_CODE in found:
        ways.append(links.CODE_WAY)
    return ways
