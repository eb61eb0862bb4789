"""``ETag`` and ``If-Match``: a change is made only over the version that its writer has seen.

Not for what is changed. ETags are derived from the content, so that they outlive restarts and say
the same on every server. Source: RFC 9110 8.8.3 and 13.1.1; the hosted service's quoted SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence

from aiohttp import web

from appliance.errors import Invalid

MAX_ETAGS = 100
"""Nobody has more versions in front of them."""
ANY = "*"
"""In place of ETags: whichever version there is."""

# The hosted service's tools quote; people with a shell leave the quotes out.
_ONE = re.compile(r'(?P<weak>W/)?"(?P<quoted>[^"]*)"|(?P<bare>[^\s",]+)')


def etag_of(text: str) -> str:
    """Give the ETag of a text, without its quotes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def with_etag(response: web.Response, etag: str) -> web.Response:
    """Let an answer carry the ETag of what it shows."""
    response.headers["ETag"] = f'"{etag}"'
    return response


def if_match(headers: Sequence[str]) -> Collection[str] | None:
    """Read ``If-Match``: ETags without quotes, or ANY among them; None if nothing is demanded.

    A weak ETag matches nothing, as the RFC has it. Raises Invalid for what is no list of ETags: a
    condition that cannot be read must not be left out.
    """
    if not headers:
        return None
    found: set[str] = set()
    for word in _words(",".join(headers)):
        one = _ONE.fullmatch(word)
        if one is None:
            raise Invalid(
                "condition-invalid", 'If-Match is a list of ETags such as "0123…", or one *'
            )
        if one["weak"] is None:
            found.add(one["bare"] if one["quoted"] is None else one["quoted"])
    return found


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",", MAX_ETAGS)]
    return [word for word in words if word]
