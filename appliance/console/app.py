"""The addresses of the pages. ``serve`` puts them on the main listener, beside the API's."""

from __future__ import annotations

from aiohttp import web

from appliance.console import devices, signin, ssh, welcome
from appliance.console.door import CONSOLE, Console
from appliance.console.pages import STATIC_PATH
from appliance.console.visits import PageHandler, page

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
)


def add_to(app: web.Application, console: Console) -> None:
    """Add the pages to an application."""
    app[CONSOLE] = console
    for method, path, handler in PAGES:
        if method == "GET":
            app.router.add_get(path, page(handler))
        else:
            app.router.add_route(method, path, page(handler))
    app.router.add_get(STATIC_PATH + "{name}", welcome.static)
