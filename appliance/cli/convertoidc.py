"""Headscale's section ``oidc`` in our settings' plain form.

Not for the other sections (``convert``).
Source: headscale config-example.yaml and types/config.go of 0.15 to 0.30.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance import durations

if TYPE_CHECKING:
    from appliance.cli.convert import Conversion

SECRET_CREDENTIAL = "oidc-client-secret"  # noqa: S105  # the name of a file


def oidc(it: Conversion) -> None:
    """Take over the identity provider."""
    theirs = it.theirs
    issuer = theirs.text("oidc.issuer")
    if not issuer:
        return
    provider: dict[str, object] = {
        "name": "oidc",
        "issuer": issuer,
        "client_id": theirs.text("oidc.client_id"),
        "client_secret_file": _secret(it),
        # Headscale's default is false; every provider that does not know it ignores it.
        "pkce": True,
        "email_verified_required": it.flag("oidc.email_verified_required", default=True),
    }
    scopes = theirs.texts("oidc.scope")
    if scopes:
        provider["scopes"] = scopes if "openid" in scopes else ["openid", *scopes]
    if it.flag("oidc.pkce.enabled", default=False) and theirs.text("oidc.pkce.method") == "plain":
        it.remark("oidc.pkce.method", "S256 is used: 'plain' protects nothing", "plain")
    for name in ("allowed_domains", "allowed_users", "allowed_groups"):
        found = theirs.texts(f"oidc.{name}")
        if found:
            provider[name] = found
    extra = theirs.get("oidc.extra_params")
    if isinstance(extra, dict) and extra:
        provider["extra_params"] = {str(key): str(value) for key, value in extra.items()}
    _expiry(it, provider)
    it.put("oidc", [provider])
    for key in ("oidc.domain_map", "oidc.strip_email_domain", "oidc.map_legacy_users"):
        if theirs.has(key):
            sentence = "users are known by the provider's own number for them, not by their address"
            it.remark(key, sentence)


def _secret(it: Conversion) -> str | None:
    if it.theirs.text("oidc.client_secret_path"):
        return it.path("oidc.client_secret_path")
    if not it.theirs.text("oidc.client_secret"):
        return None
    it.remark(
        "oidc.client_secret",
        f"put the secret into /etc/headwater/secrets/{SECRET_CREDENTIAL}, which is handed over as a"
        " credential, or name another file in oidc[0].client_secret_file",
    )
    return SECRET_CREDENTIAL


def _expiry(it: Conversion, provider: dict[str, object]) -> None:
    if it.flag("oidc.use_expiry_from_token", default=False):
        provider["use_expiry_from_token"] = True
        return
    text = it.theirs.text("oidc.expiry")
    if text in ("", "0"):
        return
    try:
        period = durations.parse(text)
    except ValueError:
        it.remark("oidc.expiry", "no duration; left out", text)
        return
    if period:
        provider["key_expiry"] = durations.to_text(period)
