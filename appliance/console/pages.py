"""Templates and static files, read once at the start; and the headers that every page has.

Not for what pages show. Everything is escaped unless a template says otherwise, a name that a
template does not get is an error, and no file is opened while the server runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType

import jinja2

HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": (
            "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
            "frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": (
            "publickey-credentials-get=(self), publickey-credentials-create=(self), camera=(), "
            "microphone=(), geolocation=()"
        ),
        "Cache-Control": "no-store",
    }
)
"""Of every page: nothing from elsewhere, in nobody's frame, in nobody's cache."""

STATIC_PATH = "/static/"
DIGEST_CHARS = 16
"""Of a static file's digest, in its address: a new release is another address, and never stale."""
_TYPES = {
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Static:
    """A static file as it is sent."""

    body: bytes
    content_type: str
    digest: str


def _read_static() -> dict[str, Static]:
    found = {}
    for each in (resources.files(__package__) / "static").iterdir():
        content_type = _TYPES.get(each.name.rpartition(".")[2])
        if content_type is not None:
            body = each.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:DIGEST_CHARS]
            found[each.name] = Static(body, content_type, digest)
    return found


class Pages:
    """The templates and the static files of this release."""

    def __init__(self) -> None:
        self.static = _read_static()
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("appliance.console"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals["static"] = self.address_of
        self._templates = {
            name: self._environment.get_template(name)
            for name in self._environment.list_templates(extensions=["html"])
        }

    def render(self, template: str, **values: object) -> str:
        """Render a page."""
        return self._templates[template].render(**values)

    def address_of(self, name: str) -> str:
        """Return the address of a static file, with its version."""
        return f"{STATIC_PATH}{name}?v={self.static[name].digest}"
