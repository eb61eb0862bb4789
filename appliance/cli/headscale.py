"""A configuration file of Headscale's, 0.12 to 0.30, read as Headscale itself reads it.

Keys without regard to case, and values turned into what a key needs by the rules of viper and cast:
a number is text where text is wanted, ``"true"`` is true, and a number is a duration in
nanoseconds. Not for what the values mean here (``convert``). Pure.
Source: headscale hscontrol/types/config.go (config.go before 0.23); spf13/cast ToDuration, ToBool.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from appliance import durations

Plain = dict[str, object]

NAMED_BY_PEOPLE = frozenset(
    {
        "dns.nameservers.split",
        "dns.split",
        "dns_config.restricted_nameservers",
        "oidc.domain_map",
        "oidc.extra_params",
    }
)
"""Mappings whose keys are no settings."""

DISTINCTIVE = frozenset(
    {
        "acl_policy_path",
        "acme_email",
        "acme_url",
        "database.postgres.host",
        "database.sqlite.path",
        "database.type",
        "db_host",
        "db_name",
        "db_path",
        "db_type",
        "derp.paths",
        "derp.server.enabled",
        "derp.server.region_id",
        "derp.server.stun_listen_addr",
        "derp.urls",
        "disable_check_updates",
        "dns.base_domain",
        "dns.magic_dns",
        "dns.nameservers.global",
        "dns.override_local_dns",
        "dns_config.base_domain",
        "dns_config.magic_dns",
        "dns_config.nameservers",
        "ephemeral_node_inactivity_timeout",
        "grpc_allow_insecure",
        "grpc_listen_addr",
        "ip_prefix",
        "ip_prefixes",
        "listen_addr",
        "metrics_listen_addr",
        "node.ephemeral.inactivity_timeout",
        "node.expiry",
        "noise.private_key_path",
        "prefixes.allocation",
        "prefixes.v4",
        "prefixes.v6",
        "private_key_path",
        "randomize_client_port",
        "server_url",
        "taildrop.enabled",
        "tls_cert_path",
        "tls_letsencrypt_hostname",
        "unix_socket",
        "unix_socket_permission",
    }
)
"""Keys that no other program's file has by chance; one of them makes a file Headscale's."""

OLD_FORM = ("dns_config.", "db_", "ip_prefix", "private_key_path")
"""Beginnings of keys that 0.22 was the last release to read."""

_FLAGS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
"""Source: Go strconv.ParseBool."""


class Theirs:
    """One file: values by dotted key, and which keys were asked for."""

    def __init__(self, document: dict[object, object]) -> None:
        self.values: Plain = {}
        self._flatten(document, "")
        self._asked: set[str] = set()

    @property
    def is_headscale(self) -> bool:
        """Tell whether a key is there that only Headscale's files have."""
        return not DISTINCTIVE.isdisjoint(self.values)

    @property
    def is_old_form(self) -> bool:
        """Tell whether the file has keys of 0.22 or before."""
        return any(key.startswith(OLD_FORM) for key in self.values)

    def get(self, key: str) -> object:
        """Return a value as it stands; None if it is missing, null or an empty text."""
        self._asked.add(key)
        value = self.values.get(key)
        return None if value == "" else value

    def first(self, *keys: str) -> str:
        """Return the first of the keys that has a value; the last one if none has."""
        found = [key for key in keys if self.get(key) is not None]
        return found[0] if found else keys[-1]

    def has(self, *keys: str) -> bool:
        """Tell whether one of the keys has a value."""
        return self.get(self.first(*keys)) is not None

    def text(self, key: str) -> str:
        """Return a value as text, empty if there is none."""
        value = self.get(key)
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value).strip() if isinstance(value, str | int | float) else ""

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a value as true or false. Raises ValueError for text that is neither."""
        value = self.get(key)
        if value is None:
            return default
        if isinstance(value, bool | int | float):
            return bool(value)
        found = _FLAGS.get(str(value))
        if found is None:
            raise ValueError("neither true nor false; Headscale takes it for false")
        return found

    def texts(self, key: str) -> list[str]:
        """Return a list of texts; one text stands for its words."""
        value = self.get(key)
        if isinstance(value, list):
            return [str(each).strip() for each in value if each not in (None, "")]
        return str(value).split() if isinstance(value, str | int | float) else []

    def lists(self, key: str) -> dict[str, list[str]]:
        """Return a mapping to lists of texts."""
        value = self.get(key)
        if not isinstance(value, dict):
            return {}
        return {str(name).lower(): Theirs({"x": each}).texts("x") for name, each in value.items()}

    def duration(self, key: str) -> timedelta | None:
        """Return a duration as Go reads it, numbers in nanoseconds; None if there is none.

        Raises ValueError if it cannot be read.
        """
        value = self.get(key)
        if value is None:
            return None
        text = str(value)
        return durations.parse_go(text if text.strip("-+.0123456789") else f"{text}ns")

    def unasked(self) -> Iterator[str]:
        """Name the keys that nobody has asked for and that say something."""
        for key, value in self.values.items():
            if key not in self._asked and value not in (None, "", [], {}, False):
                yield key

    def _flatten(self, section: dict[object, object], prefix: str) -> None:
        """Note dotted keys in lower case; a key that is written twice counts as written first."""
        for key, value in section.items():
            path = f"{prefix}{key}".lower()
            if isinstance(value, dict) and path not in NAMED_BY_PEOPLE:
                self._flatten(value, path + ".")
            else:
                self.values.setdefault(path, value)
