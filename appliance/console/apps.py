"""Pages that help to set up the apps: the server's address to copy, as a QR code, and where it goes.

For Apple's apps also a configuration profile, which sets the address by itself.
Source of the profile's keys: https://tailscale.com/kb/1315 (``ControlURL``); of the registry's and the
menus': https://tailscale.com/kb/1318 and 1507.
"""

from __future__ import annotations

import io
import plistlib
import uuid
from functools import cache

import segno
from aiohttp import web
from markupsafe import Markup

from appliance.console.visits import Visit
from appliance.errors import NotFound

_PAYLOADS = {
    "ios": "io.tailscale.ipn.ios",
    "macos-app-store": "io.tailscale.ipn.macos",
    "macos-standalone": "io.tailscale.ipn.macsys",
}
_NAMESPACE = uuid.UUID("b7b3f0a2-6a0e-4d0c-9a53-0f6f5a2f7a10")
"""Ours: the same server gives the same profile, which replaces the one from before."""


async def apple(visit: Visit) -> web.Response:
    """Help with iPhone, iPad, Apple TV and Mac."""
    return _page(visit, "apple.html")


async def windows(visit: Visit) -> web.Response:
    """Help with Windows."""
    return _page(visit, "windows.html")


async def android(visit: Visit) -> web.Response:
    """Help with Android."""
    return _page(visit, "android.html")


async def apple_profile(visit: Visit) -> web.Response:
    """Return the profile of one of Apple's apps."""
    platform = visit.request.match_info["platform"]
    payload_type = _PAYLOADS.get(platform)
    if payload_type is None:
        raise NotFound("platform-unknown", f"the profiles are: {', '.join(_PAYLOADS)}")
    url = visit.console.base_url
    name = f"headwater.{uuid.uuid5(_NAMESPACE, url + platform)}"
    profile = {
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": name,
        "PayloadUUID": str(uuid.uuid5(_NAMESPACE, url + platform)).upper(),
        "PayloadDisplayName": f"Headwater ({url})",
        "PayloadDescription": f"Tailscale logs in at {url}",
        "PayloadContent": [
            {
                "PayloadType": payload_type,
                "PayloadVersion": 1,
                "PayloadIdentifier": f"{name}.app",
                "PayloadUUID": str(uuid.uuid5(_NAMESPACE, f"{url} {platform} app")).upper(),
                "ControlURL": url,
            }
        ],
    }
    return web.Response(
        body=plistlib.dumps(profile),
        content_type="application/x-apple-aspen-config",
        headers={
            "Content-Disposition": f'attachment; filename="headwater-{platform}.mobileconfig"'
        },
    )


def _page(visit: Visit, template: str) -> web.Response:
    return visit.page(template, qr=_qr(visit.console.base_url))


@cache  # of the server's own address only; a stranger may ask for it again and again
def _qr(text: str) -> Markup:
    """Draw a QR code as SVG, by attributes alone: pages allow no styles inside."""
    out = io.BytesIO()
    segno.make(text, micro=False).save(
        out, kind="svg", xmldecl=False, svgns=True, omitsize=True, border=4, nl=False
    )
    return Markup(out.getvalue().decode())  # noqa: S704 drawn here, of black squares
