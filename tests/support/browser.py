"""A browser without a screen: cookies, redirects, forms. For pages of others that have no script.

Not for how pages look (headless Chromium does that).
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urljoin

import aiohttp
from yarl import URL

MAX_REDIRECTS = 20
TIMEOUT_S = 60.0
"""A provider of somebody else's on a busy machine."""


@dataclass
class Form:
    """A form of a page; ``fields`` are filled in as the page has them."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[tuple[str, str]] = []
        self._text = ""
        self._href: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note forms, their fields and links."""
        given = {key: value or "" for key, value in attrs}
        if tag == "form":
            self.forms.append(Form(given.get("action", ""), given.get("method", "get").lower()))
        elif tag in ("input", "button") and self.forms and given.get("name"):
            kind = given.get("type", "")
            if kind not in ("checkbox", "radio") or "checked" in given:
                self.forms[-1].fields.setdefault(given["name"], given.get("value", ""))
        elif tag == "a":
            self._href, self._text = given.get("href"), ""

    def handle_data(self, data: str) -> None:
        """Note what a link says."""
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        """Note a whole link."""
        if tag == "a" and self._href is not None:
            self.links.append((" ".join(self._text.split()), self._href))
            self._href = None


@dataclass
class Page:
    """What a browser shows."""

    url: str
    status: int
    text: str

    @property
    def forms(self) -> list[Form]:
        """Its forms."""
        return self._read().forms

    def link(self, words: str) -> str:
        """Return where the link goes that says these words."""
        for text, href in self._read().links:
            if words in text:
                return urljoin(self.url, href)
        raise AssertionError(f"no link {words!r} at {self.url}:\n{self.text[:2000]}")

    def _read(self) -> _Reader:
        reader = _Reader()
        reader.feed(self.text)
        return reader


class Browser:
    """One browser with cookies of its own."""

    def __init__(self, *, ca_file: str | None = None, stop_at: str = "", trusted: str = "") -> None:
        """``stop_at``: the beginning of addresses that are not opened, but shown as where it
        ended. ``trusted``: a loopback address without TLS that gets the cookies for TLS, as in browsers.
        """
        context = ssl.create_default_context(cafile=ca_file)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context),
            cookie_jar=aiohttp.CookieJar(
                unsafe=True, treat_as_secure_origin=[URL(trusted).origin()] if trusted else None
            ),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        self.visited: list[str] = []
        self._stop_at = stop_at

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def get(self, url: str) -> Page:
        """Open an address, and follow where it leads."""
        return await self._open("GET", url, None, {})

    async def send(self, page: Page, form: Form, **fields: str) -> Page:
        """Fill in a form and send it."""
        url = urljoin(page.url, form.action or page.url)
        values = {**form.fields, **fields}
        origin = "/".join(page.url.split("/")[:3])
        headers = {"Origin": origin, "Referer": page.url}
        if form.method == "get":
            return await self._open("GET", url, None, headers, values)
        return await self._open("POST", url, values, headers)

    async def _open(
        self,
        method: str,
        url: str,
        data: Mapping[str, str] | None,
        headers: Mapping[str, str],
        query: Mapping[str, str] | None = None,
    ) -> Page:
        for _ in range(MAX_REDIRECTS):
            self.visited.append(url)
            if self._stop_at and url.startswith(self._stop_at):
                return Page(url, 0, "")
            async with self._session.request(
                method, url, data=data, params=query, headers=headers, allow_redirects=False
            ) as answer:
                where = answer.headers.get("Location")
                if where is None or answer.status not in (301, 302, 303, 307, 308):
                    return Page(str(answer.url), answer.status, await answer.text())
                url = urljoin(str(answer.url), where)
                if answer.status not in (307, 308):
                    method, data = "GET", None
                query, headers = None, {}
        raise AssertionError(f"more than {MAX_REDIRECTS} redirects, at last to {url}")
