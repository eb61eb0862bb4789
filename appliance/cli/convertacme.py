"""Headscale's certificates of Let's Encrypt in our settings' plain form.

Not for certificate files (``convert``).
Source: headscale config-example.yaml and hscontrol/app.go of 0.12 to 0.30.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from appliance.cli.convert import Conversion

_DIRECTORY = "https://acme-v02.api.letsencrypt.org/directory"
_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
_PLAIN = ":80"
"""Where Headscale answers HTTP-01 unless told otherwise: ``:http``."""


def acme(it: Conversion, name: str) -> None:
    """Let this server ask for the certificate that Headscale asked for."""
    theirs = it.theirs
    it.put("tls.mode", "acme")
    email, directory = theirs.text("acme_email"), theirs.text("acme_url")
    if email:
        it.put("tls.email", email)
    if directory == _STAGING:
        it.put("tls.staging", True)
    elif directory not in ("", _DIRECTORY):
        it.put("tls.directory", directory)
    if name != (urlsplit(theirs.text("server_url")).hostname or ""):
        it.put("tls.names", [name])
    if theirs.text("tls_letsencrypt_challenge_type").upper() == "TLS-ALPN-01":
        _by_tls(it)
    else:
        _by_http(it)
    it.remark(
        "tls_letsencrypt_hostname",
        "this server asks for the certificate itself, with an account of its own; the first one comes"
        " within a minute of the start, once the name leads here",
        name,
    )


def _by_tls(it: Conversion) -> None:
    if it.endpoint("listen_addr").endswith(":443"):
        it.put("tls.challenge", "tls-alpn-01")


def _by_http(it: Conversion) -> None:
    place = it.endpoint("tls_letsencrypt_listen") or _PLAIN
    it.put("listen_plain", [place])
    if place.endswith(":80"):
        it.put("tls.challenge", "http-01")
    else:
        sentence = "port 80 must be led to this address, as it had to be for Headscale"
        it.remark("tls_letsencrypt_listen", sentence, place)
