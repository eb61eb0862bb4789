"""What makes an identity provider of a site file useless, or dangerous.

Not for asking the provider, which may be away while a file is checked.
Source: OpenID Connect Discovery 1.0 section 2 (what an issuer is); RFC 9700 section 2.1.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from appliance.config import hosts
from appliance.config.reader import Reader
from appliance.config.settings import Oidc, Settings
from appliance.identity.oidc.provider import OUR_PARAMETERS

_WELL_KNOWN = "/.well-known/"


def check_oidc(settings: Settings, reader: Reader) -> None:
    """Check all providers."""
    names: set[str] = set()
    tailnets = {tailnet.name for tailnet in settings.all_tailnets}
    for i, provider in enumerate(settings.oidc):
        path = f"oidc[{i}]"
        if provider.name in names:
            fix = "name each provider, like 'company' and 'partner'"
            reader.refuse(f"{path}.name", provider.name, "a name that no other provider has", fix)
        names.add(provider.name)
        if provider.tailnet and provider.tailnet not in tailnets:
            told = "one of " + ", ".join(sorted(tailnets))
            reader.refuse(f"{path}.tailnet", provider.tailnet, told)
        _check_issuer(provider, path, reader)
        _check_client(provider, path, reader)
        _check_conditions(provider, path, reader)
    _check_redirect(settings, reader)


def _check_issuer(provider: Oidc, path: str, reader: Reader) -> None:
    issuer = provider.issuer
    if _WELL_KNOWN in issuer:
        fix = "leave out '/.well-known/…': it is found by itself"
        reader.refuse(f"{path}.issuer", issuer, "the issuer's own name", fix)
        return
    try:
        parts = urlsplit(issuer)
        host = parts.hostname or ""
    except ValueError:
        parts, host = urlsplit(""), ""
    if not host or parts.query or parts.fragment or parts.username or not issuer.isprintable():
        fix = "as its discovery document has it under 'issuer'"
        reader.refuse(f"{path}.issuer", issuer, "an https URL without ? and #", fix)
    elif parts.scheme != "https" and not (parts.scheme == "http" and hosts.is_private(host)):
        fix = "without TLS whoever is in between could sign in as anybody"
        reader.refuse(f"{path}.issuer", issuer, "an https URL", fix)


def _check_client(provider: Oidc, path: str, reader: Reader) -> None:
    if not provider.client_id.strip():
        fix = "the provider shows it where this server was registered"
        reader.refuse(f"{path}.client_id", provider.client_id, "the client's id", fix)
    if "openid" not in provider.scopes:
        fix = "without it no provider says who somebody is"
        reader.refuse(f"{path}.scopes", list(provider.scopes), "a list with 'openid' in it", fix)
    is_public = provider.client_secret_file is None
    if is_public and not provider.pkce:
        fix = "name a client_secret_file, or leave pkce on"
        reader.refuse(f"{path}.pkce", False, "true for a client without a secret", fix)
    if is_public and provider.client_auth not in ("auto", "none"):
        fix = "name the file with the secret"
        told = f"a file with client_auth {provider.client_auth!r}"
        reader.refuse(f"{path}.client_secret_file", None, told, fix)
    if not is_public and provider.client_auth == "none":
        fix = "leave out one of the two"
        reader.refuse(f"{path}.client_auth", "none", "a way to show the secret", fix)
    for name in sorted(OUR_PARAMETERS & provider.extra_params.keys()):
        fix = "every login brings its own"
        reader.refuse(f"{path}.extra_params.{name}", provider.extra_params[name], "nothing", fix)


def _check_conditions(provider: Oidc, path: str, reader: Reader) -> None:
    for i, domain in enumerate(provider.allowed_domains):
        if "@" in domain or "." not in domain.strip("."):
            told = "a domain like example.com"
            reader.refuse(f"{path}.allowed_domains[{i}]", domain, told)
    for i, user in enumerate(provider.allowed_users):
        if user.count("@") != 1:
            told = "an e-mail address like alice@example.com"
            reader.refuse(f"{path}.allowed_users[{i}]", user, told)
    if provider.use_expiry_from_token and provider.key_expiry is not None:
        fix = "leave out one of the two"
        reader.refuse(f"{path}.key_expiry", "a time", "nothing with use_expiry_from_token", fix)


def _check_redirect(settings: Settings, reader: Reader) -> None:
    """Providers send browsers back to ``server_url``, with what lets them in: only over TLS."""
    url = hosts.url(settings.server_url)
    if (
        settings.oidc
        and url is not None
        and url.scheme == "http"
        and not hosts.is_loopback(url.host)
    ):
        fix = "browsers are sent back there with what signs them in; write https://"
        reader.refuse("server_url", settings.server_url, "an https URL with 'oidc'", fix)
