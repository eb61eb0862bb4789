"""Headscale's configuration, as far as it has a counterpart, in our settings' plain form.

Not for its database or keys. What has no counterpart becomes a remark for people, never a silent
loss. Source: headscale config-example.yaml of 0.27 to 0.29 (key names and defaults).
"""

from __future__ import annotations

from collections.abc import Callable

Plain = dict[str, object]

# their dotted key -> our dotted key; the value moves as it is
_SAME: dict[str, str] = {
    "server_url": "server_url",
    "trusted_proxies": "trusted_proxies",
    "unix_socket": "socket.path",
    "prefixes.v4": "tailnet.prefixes.v4",
    "prefixes.v6": "tailnet.prefixes.v6",
    "prefixes.allocation": "tailnet.prefixes.allocation",
    "node.ephemeral.inactivity_timeout": "tailnet.ephemeral_timeout",
    "ephemeral_node_inactivity_timeout": "tailnet.ephemeral_timeout",
    "tls_cert_path": "tls.cert_file",
    "tls_key_path": "tls.key_file",
    "dns.magic_dns": "dns.magic_dns",
    "dns.base_domain": "tailnet.base_domain",
    "dns.override_local_dns": "dns.override_local_dns",
    "dns.nameservers.global": "dns.nameservers.global",
    "dns.nameservers.split": "dns.nameservers.split",
    "dns.search_domains": "dns.search_domains",
    "dns.extra_records": "dns.extra_records",
    "derp.server.enabled": "derp.server.enabled",
    "derp.server.region_id": "derp.server.region_id",
    "derp.server.region_code": "derp.server.region_code",
    "derp.server.region_name": "derp.server.region_name",
    "derp.server.verify_clients": "derp.server.verify_clients",
    "derp.server.ipv4": "derp.server.ipv4",
    "derp.server.ipv6": "derp.server.ipv6",
    "taildrop.enabled": "tailnet.file_sharing",
    "logtail.enabled": "tailnet.client_logs",
    "log.format": "log.format",
}

# keys whose absence here costs nothing
_MEANINGLESS = frozenset(
    {
        "disable_check_updates",
        "derp.auto_update_enabled",
        "derp.update_frequency",
        "derp.server.automatically_add_embedded_derp_region",
        "grpc_listen_addr",
        "grpc_allow_insecure",
        "log.level",  # handled with its words translated
        "auto_update.enabled",
    }
)
_MEANINGLESS_SECTIONS = ("database", "tuning", "cli")

# keys that need people, with what to tell them
_REMARKS: dict[str, str] = {
    "noise.private_key_path": "copy this key file to STATE_DIR/noise.key, so that clients know"
    " the server again",
    "derp.server.private_key_path": "copy this key file to STATE_DIR/derp.key if relays elsewhere"
    " know it; else a new one is made",
    "derp.urls": "maps from URLs are not fetched; list the regions under derp.regions",
    "derp.paths": "map files are not read; list the regions under derp.regions",
    "dns.extra_records_path": "list the records under dns.extra_records; SIGHUP reloads them",
    "database.sqlite.path": "the database is not converted; ours lives in state_dir",
    "tls_letsencrypt_hostname": "certificates are not fetched yet; use files, or a proxy",
    "database.postgres.pass": "put the password into a file: database_password_file",
}


def from_headscale(document: dict[object, object]) -> tuple[Plain, list[str]]:
    """Give our settings and the remarks on what did not come over."""
    theirs = _flatten(document)
    ours: Plain = {}
    remarks: list[str] = []
    for key, value in theirs.items():
        if key in _SAME:
            if value not in (None, "", [], {}):
                _put(ours, _SAME[key], value)
        elif key in _TRANSLATED:
            _TRANSLATED[key](ours, value)
        elif key in _REMARKS:
            if value not in (None, "", [], {}):
                remarks.append(f"{key} ({value}): {_REMARKS[key]}")
        elif not _is_meaningless(key) and value not in (None, "", [], {}, False):
            remarks.append(f"{key}: no counterpart yet")
    _finish(ours, theirs)
    remarks += _policy(ours, theirs)
    return ours, remarks


def _flatten(section: dict[object, object], prefix: str = "") -> Plain:
    """Give dotted keys; mappings with names of people's choice stay whole."""
    flat: Plain = {}
    for key, value in section.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and path not in _SAME:
            flat.update(_flatten(value, path + "."))
        else:
            flat[path] = value
    return flat


def _put(ours: Plain, path: str, value: object) -> None:
    *sections, name = path.split(".")
    target = ours
    for section in sections:
        inner = target.setdefault(section, {})
        if isinstance(inner, dict):
            target = inner
    target[name] = value


def _is_meaningless(key: str) -> bool:
    if key in _MEANINGLESS:
        return True
    return any(key == s or key.startswith(s + ".") for s in _MEANINGLESS_SECTIONS)


def _listen(ours: Plain, value: object) -> None:
    if isinstance(value, str) and value:
        ours["listen"] = [value]


def _stun_listen(ours: Plain, value: object) -> None:
    if isinstance(value, str) and value:
        _put(ours, "derp.server.stun_listen", [value])


def _metrics_listen(ours: Plain, value: object) -> None:
    if isinstance(value, str) and value:
        _put(ours, "metrics.listen", value)


def _expiry(ours: Plain, value: object) -> None:
    text = str(value)
    if text not in ("0", "0s", "", "None"):
        _put(ours, "tailnet.key_expiry", text)


def _level(ours: Plain, value: object) -> None:
    words = {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}
    text = str(value).lower()
    _put(ours, "log.level", words.get(text, text))


def _socket_mode(ours: Plain, value: object) -> None:
    text = f"0{value:o}" if isinstance(value, int) else str(value).replace("o", "")
    _put(ours, "socket.mode", text)


def _later(_ours: Plain, _value: object) -> None:
    """Leave a key to ``_policy``, which looks at several."""


_TRANSLATED: dict[str, Callable[[Plain, object], None]] = {
    "listen_addr": _listen,
    "metrics_listen_addr": _metrics_listen,
    "derp.server.stun_listen_addr": _stun_listen,
    "node.expiry": _expiry,
    "log.level": _level,
    "policy.mode": _later,
    "policy.path": _later,
    "acl_policy_path": _later,
    "unix_socket_permission": _socket_mode,
}


def _finish(ours: Plain, theirs: Plain) -> None:
    """Fill in what follows from several keys together."""
    has_files = bool(theirs.get("tls_cert_path"))
    _put(ours, "tls.mode", "files" if has_files else "off")
    if "derp.server.enabled" not in theirs:
        _put(ours, "derp.server.enabled", False)  # their default
    if not theirs.get("dns.base_domain"):
        _put(ours, "dns.magic_dns", False)
    if theirs.get("database.type") == "postgres":
        user = theirs.get("database.postgres.user", "headwater")
        host = theirs.get("database.postgres.host", "localhost")
        port = theirs.get("database.postgres.port", 5432)
        name = theirs.get("database.postgres.name", "headwater")
        ours["database_url"] = f"postgresql://{user}@{host}:{port}/{name}"


def _policy(ours: Plain, theirs: Plain) -> list[str]:
    """Take over where the policy comes from; give what people must do."""
    path = theirs.get("policy.path") or theirs.get("acl_policy_path")
    if theirs.get("policy.mode", "file") == "database":
        _put(ours, "tailnet.policy.mode", "database")
        return ["policy.mode (database): bring the policy over with 'headwater policy set FILE'"]
    if not path:
        return []
    _put(ours, "tailnet.policy.mode", "file")
    _put(ours, "tailnet.policy.path", path)
    if str(path).startswith("/"):
        return []
    return [f"policy.path ({path}): write the whole path under tailnet.policy.path"]
