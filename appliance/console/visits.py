"""A request of a browser: its cookies, who is signed in, and whether a form is really ours.

In the order in which a request passes: cookies, session, form check, the page's handler, the answer or
the page that says no. Not for what pages do. A form is taken if the browser says that it was sent by
our own page (``Sec-Fetch-Site``; else ``Origin``), and if it has the token that belongs to the
cookie. Cookies begin with ``__Host-``: no other host and no plain HTTP can set them.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit

from aiohttp import web

from appliance.console.door import CONSOLE, Console
from appliance.console.pages import HEADERS
from appliance.errors import Forbidden, Invalid, Kind, Rejected
from appliance.identity import sessions
from appliance.identity.principals import Principal, PrincipalKind
from appliance.live import CommitFailed, LiveTailnet
from appliance.records import Session, User, UserID

log = logging.getLogger(__name__)

SESSION_COOKIE = "headwater"
STATE_COOKIE = "headwater-state"
"""Binds what a browser has begun to this browser, before anybody is signed in."""
STATE_BYTES = 32
STATE_LENGTH = 43
STATE_AGE_S = 3600
"""As long as a link for a device is good."""
FRESH = timedelta(hours=1)
"""How old a session may be that adds a passkey or makes codes: a browser may have been left open."""
MAX_PATH_CHARS = 512
MAX_FORM_BYTES = 16 * 1024
MAX_FORM_FIELDS = 20
"""Ours have three."""
TOKEN_FIELD = "csrf"  # noqa: S105 the name of a field

_STATUS = {
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.INVALID: 400,
    Kind.FORBIDDEN: 403,
    Kind.TOO_MANY: 429,
}
RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is signed in, in which tailnet, by which session."""

    live: LiveTailnet
    session: Session
    user: User
    cookie: str = field(repr=False)

    @property
    def principal(self) -> Principal:
        """Return the user as the one who makes changes."""
        return Principal(PrincipalKind.USER, self.user.login_name)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. ``state`` is the browser's cookie before it is signed in."""

    request: web.Request
    console: Console
    who: SignedIn | None
    state: str = field(repr=False)
    is_new: bool
    """Whether ``state`` was made for this answer."""
    fields: dict[str, str] = field(default_factory=dict, repr=False)
    """Of the form that was sent, once it is checked."""

    @property
    def user(self) -> SignedIn:
        """Return who is signed in. Raises ``SignInFirst``."""
        if self.who is None:
            raise SignInFirst
        return self.who

    @property
    def fresh(self) -> SignedIn:
        """Return who is signed in and was so lately: for what lets somebody in permanently.

        Raises ``SignInFirst``.
        """
        who = self.user
        if who.live.clock() - who.session.created_at >= FRESH:
            raise SignInFirst(is_again=True)
        return who

    @property
    def binding(self) -> str:
        """Return the text that only this browser has: its session's cookie, or the one before."""
        return self.state if self.who is None else self.who.cookie

    @property
    def token(self) -> str:
        """Return the token that a form of this browser must carry."""
        return self.seal("form")

    def seal(self, about: str) -> str:
        """Return what only this browser is told about something."""
        text = f"headwater {about}"
        return hmac.new(self.binding.encode(), text.encode(), hashlib.sha256).hexdigest()

    @property
    def here(self) -> str:
        """Return the path that was asked for, to come back to."""
        return local_path(self.request.path_qs)

    def cookie(self, name: str) -> str:
        """Return what the browser keeps under a name of ours; empty if nothing."""
        return _cookie(self.request, self.console, name)

    def page(self, template: str, *, status: int = 200, **values: object) -> web.Response:
        """Answer with a page."""
        text = self.console.pages.render(
            template,
            token=self.token,
            signed_in=None if self.who is None else self.who.user,
            server_url=self.console.base_url,
            **values,
        )
        response = web.Response(status=status, text=text, content_type="text/html")
        if self.is_new and self.who is None:
            set_cookie(self.console, response, STATE_COOKIE, self.state, STATE_AGE_S)
        return response

    def go(self, path: str) -> web.Response:
        """Answer a form: the browser asks for another page."""
        return web.Response(status=303, headers={"Location": local_path(path)})


class SignInFirst(Exception):
    """The page is for people who are signed in, or were so lately: show where to do that."""

    def __init__(self, *, is_again: bool = False) -> None:
        super().__init__()
        self.is_again = is_again


PageHandler = Callable[[Visit], Awaitable[web.Response]]


def page(handler: PageHandler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make a page's handler one of aiohttp's."""

    async def handle(request: web.Request) -> web.StreamResponse:
        visit = await _visit_of(request)
        try:
            if request.method == "POST":
                await check_form(visit)
                if visit.who is not None:
                    spend_change(visit, visit.who.live, visit.who.user.id)
            response = await handler(visit)
        except SignInFirst as first:
            there = visit.here if request.method == "GET" else "/sessions" if visit.who else "/"
            again = "again=1&" if first.is_again else ""
            response = visit.go(f"/signin?{again}next={quote(there, safe='/')}")
        except Rejected as refusal:
            response = refused(visit, refusal)
        except CommitFailed:
            response = visit.page(
                "refused.html",
                status=503,
                title="Not stored",
                sentence="The change could not be stored. Try again in a moment.",
            )
        response.headers.update(HEADERS)
        return response

    return handle


def spend_change(visit: Visit, live: LiveTailnet, user_id: UserID, *, codes: bool = False) -> None:
    """Count a change by a user. Raises TooMany."""
    console = visit.console
    console.attempts.spend_change(f"{live.id} {user_id}", console.monotonic(), codes=codes)


def refused(visit: Visit, refusal: Rejected) -> web.Response:
    """Make the page that says no."""
    status = _STATUS[refusal.kind]
    response = visit.page(
        "refused.html",
        status=status,
        title="That did not work",
        sentence=refusal.sentence[:1].upper() + refusal.sentence[1:],
    )
    if status == 429:
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response


async def read_form(request: web.Request, max_bytes: int = MAX_FORM_BYTES) -> dict[str, str]:
    """Read the fields of a form; of a field that comes twice the first counts. Raises Invalid.

    Whatever charset a stranger names, ours are UTF-8: some of Python's take seconds to decode.
    """
    data = await request.clone(client_max_size=max_bytes).read()
    try:
        pairs = parse_qsl(data.decode(), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError as error:
        raise Invalid("form-unreadable", "this form cannot be read") from error
    return dict(reversed(pairs))


async def check_form(visit: Visit) -> None:
    """Refuse a form that another site made a browser send. Raises Forbidden."""
    headers = visit.request.headers
    site = headers.get("Sec-Fetch-Site")
    if site is None:
        origin = headers.get("Origin", "")
        is_ours = origin == visit.console.base_url
    else:
        is_ours = site == "same-origin"
    if not is_ours:
        raise Forbidden(
            "form-foreign",
            "this form was not sent by a page of this server: open the page anew, with a browser of "
            "today",
        )
    if visit.request.content_type == "application/x-www-form-urlencoded":
        visit.fields.update(await read_form(visit.request))
    given = headers.get("X-CSRF-Token") or visit.fields.get(TOKEN_FIELD, "")
    if visit.is_new or not hmac.compare_digest(
        given.encode(errors="replace"), visit.token.encode()
    ):
        raise Forbidden(
            "form-outdated", "this page was open for too long: go back, reload it, and try again"
        )


def local_path(text: str) -> str:
    """Return a path of this server; "/" for what leads anywhere else, or nowhere."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "/"
    is_ours = (
        len(text) <= MAX_PATH_CHARS
        and not parts.scheme
        and not parts.netloc
        and text.startswith("/")
        and not text.startswith("//")
        and "\\" not in text
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )
    return text if is_ours else "/"


def set_cookie(
    console: Console, response: web.StreamResponse, name: str, value: str, age_s: int | None
) -> None:
    """Give the browser a cookie, as strict as it can be; ``age_s`` None: until it is closed."""
    response.set_cookie(
        _cookie_name(console, name),
        value,
        max_age=age_s,
        path="/",
        secure=console.is_secure,
        httponly=True,
        samesite="Lax",
    )


def drop_cookie(console: Console, response: web.StreamResponse, name: str) -> None:
    """Take a cookie away from the browser."""
    response.del_cookie(
        _cookie_name(console, name),
        path="/",
        secure=console.is_secure,
        httponly=True,
        samesite="Lax",
    )


def _cookie(request: web.Request, console: Console, name: str) -> str:
    """Give a cookie of ours; what is no ASCII is none."""
    text = request.cookies.get(_cookie_name(console, name), "")
    return text if text.isascii() else ""


def _cookie_name(console: Console, name: str) -> str:
    """Without TLS, for trying things out, browsers take no cookie with the strict prefix."""
    return f"__Host-{name}" if console.is_secure else name


async def _visit_of(request: web.Request) -> Visit:
    console = request.app[CONSOLE]
    state = _cookie(request, console, STATE_COOKIE)
    is_new = len(state) != STATE_LENGTH
    if is_new:
        state = urlsafe_b64encode(console.random_bytes(STATE_BYTES)).rstrip(b"=").decode()
    who = await _signed_in(console, request)
    return Visit(request, console, who, state, is_new and who is None)


async def _signed_in(console: Console, request: web.Request) -> SignedIn | None:
    text = _cookie(request, console, SESSION_COOKIE)
    if not text:
        return None
    for live in console.tailnets:
        now = live.clock()
        session = sessions.find(live.snapshot, text, now)
        if session is None:
            continue
        who = SignedIn(live, session, live.snapshot.users[session.user_id], text)
        if sessions.is_due(session, now):
            await _touch(who, now)
        return who
    return None


async def _touch(who: SignedIn, now: datetime) -> None:
    try:
        async with who.live.edit(by=who.principal, act="session.use") as edit:
            sessions.touch(edit, who.session.id, now)
    except CommitFailed:
        log.debug("use of a session was not noted")  # the commit's failure is logged
