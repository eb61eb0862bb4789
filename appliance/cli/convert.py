"""Headscale's configuration, as far as it has a counterpart, in our settings' plain form.

Not for its database or keys, and not for how its files are read (``headscale``). A default of
Headscale's that differs from ours is written out; what has no counterpart becomes a remark for
people, never a silent loss; no remark repeats a secret.
Source: headscale config-example.yaml and types/config.go of 0.12 to 0.29 (key names and defaults).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath
from typing import cast
from urllib.parse import quote

from appliance import durations
from appliance.cli.convertacme import acme
from appliance.cli.convertoidc import oidc
from appliance.cli.headscale import Plain, Theirs
from appliance.config.resolvers import refusal
from appliance.redaction import redact

EPHEMERAL_DEFAULT = timedelta(seconds=120)
EPHEMERAL_FLOOR = timedelta(seconds=65)
"""Headscale does not start with this or less."""
OLD_PREFIX = "100.64.0.0/10"
"""What 0.22 and before took where no prefix was named: IPv4 only."""
PASSWORD_CREDENTIAL = "database-password"  # noqa: S105  # the name of a file

DATABASE_PORT = "5432"

_SERVICES = {"http": "80", "https": "443"}
"""Names of ports that Go resolves in an address to listen on."""

_MEANINGLESS = frozenset(
    {
        "acme_email",
        "acme_url",
        "derp.auto_update_enabled",
        "derp.server.private_key_path",
        "derp.server.stun.enabled",
        "derp.update_frequency",
        "disable_check_updates",
        "grpc_allow_insecure",
        "grpc_listen_addr",
        "node_update_check_interval",
        "oidc.only_start_if_oidc_is_available",
        "private_key_path",
        "tls_letsencrypt_cache_dir",
        "tls_letsencrypt_challenge_type",
        "tls_letsencrypt_listen",
    }
)
"""Keys whose absence here costs nothing."""
_MEANINGLESS_SECTIONS = ("cli.", "database.", "db_", "tuning.")

_EXAMPLES = frozenset({"1.2.3.4", "198.51.100.1", "2001:db8::1"})
"""Addresses of a relay in Headscale's own example, where they are no comments."""


def from_headscale(
    document: dict[object, object], base: Path | None = None
) -> tuple[Plain, list[str]]:
    """Return our settings and the remarks on what did not come over.

    ``base`` is the directory of the file: Headscale reads relative paths from there.
    """
    conversion = Conversion(Theirs(document), base)
    for step in _STEPS:
        step(conversion)
    for key in conversion.theirs.unasked():
        if key not in _MEANINGLESS and not key.startswith(_MEANINGLESS_SECTIONS):
            conversion.remark(key, "no counterpart yet")
    return conversion.ours, conversion.remarks


class Conversion:
    """Our settings and the remarks while they are made."""

    def __init__(self, theirs: Theirs, base: Path | None) -> None:
        self.theirs = theirs
        self.base = base
        self.ours: Plain = {}
        self.remarks: list[str] = []

    def put(self, path: str, value: object) -> None:
        """Set one of our keys."""
        *sections, name = path.split(".")
        target = self.ours
        for section in sections:
            target = cast(Plain, target.setdefault(section, {}))  # no path is a section and a key
        target[name] = value

    def remark(self, key: str, sentence: str, value: str = "") -> None:
        """Note something for people; ``value`` is shown without its secrets."""
        shown = f" ({redact(value)[:80]})" if value else ""
        self.remarks.append(f"{key}{shown}: {sentence}")

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a value as true or false; what is neither is false, as there, with a remark."""
        try:
            return self.theirs.flag(key, default=default)
        except ValueError as error:
            self.remark(key, str(error), self.theirs.text(key))
            return False

    def path(self, key: str) -> str:
        """Return a path in full: a relative one starts at the file's directory."""
        text = self.theirs.text(key)
        if not text or text.startswith("/"):
            return text
        if self.base is None:
            self.remark(key, "write the whole path", text)
            return text
        whole = str(self.base / text)
        self.remark(key, f"taken as {whole}, beside the file that was converted", text)
        return whole

    def endpoint(self, key: str) -> str:
        """Return an address to listen on as we read it; empty if there is none."""
        text = self.theirs.text(key)
        host, colon, port = text.rpartition(":")
        if not colon:
            return text
        # Go listens on both families at [::]; here that is IPv6 only, and no host means both.
        return f"{'' if host == '[::]' else host}:{_SERVICES.get(port, port)}"


# ── who is asked where ───────────────────────────────────────────────────────────────────────────


def _addresses(it: Conversion) -> None:
    url = it.theirs.text("server_url")
    if url:
        it.put("server_url", url)
    listen = it.endpoint("listen_addr")
    if listen:
        it.put("listen", [listen])
    metrics = it.endpoint("metrics_listen_addr")
    if metrics:
        it.put("metrics.listen", metrics)
    proxies = []
    for text in it.theirs.texts("trusted_proxies"):
        try:
            proxies.append(str(ip_network(text, strict=False)))
        except ValueError:
            it.remark("trusted_proxies", "no prefix; left out", text)
    if proxies:
        it.put("trusted_proxies", proxies)


def _certificates(it: Conversion) -> None:
    name = it.theirs.text("tls_letsencrypt_hostname")
    cert, key = it.path("tls_cert_path"), it.path("tls_key_path")
    if name:  # Headscale looks at it before it looks at files
        acme(it, name)
    else:
        it.put("tls.mode", "files" if cert or key else "off")
        for ours, value in (("tls.cert_file", cert), ("tls.key_file", key)):
            if value:
                it.put(ours, value)
    if it.theirs.text("tls_client_auth_mode") == "enforced":
        it.remark("tls_client_auth_mode", "certificates of clients are not asked for", "enforced")


def _socket(it: Conversion) -> None:
    path = it.path("unix_socket")
    if path:
        it.put("socket.path", path)
    value = it.theirs.get("unix_socket_permission")
    if value is None:
        return
    mode = _mode(value)
    if mode is None:
        text = it.theirs.text("unix_socket_permission")
        it.remark("unix_socket_permission", "no octal permissions; Headscale takes 0700", text)
    it.put("socket.mode", mode or "0700")


def _mode(value: object) -> str | None:
    """Return permissions as octal text.

    Headscale reads the digits of a number as octal (``770``). A number of which that makes
    nonsense, a socket that its owner cannot write, was octal in the file (YAML reads ``0770`` as
    504).
    """
    text = str(value).removeprefix("0o").removeprefix("0O").lstrip("0")
    if text and set(text) <= set("01234567") and len(text) == 3 and int(text[0], 8) & 0o6 == 0o6:
        return f"0{text}"
    if isinstance(value, int) and not isinstance(value, bool) and 0o600 <= value <= 0o777:
        return f"0{value:o}"
    return None


# ── nodes, addresses, names ──────────────────────────────────────────────────────────────────────


def _nodes(it: Conversion) -> None:
    it.put("tailnet.ephemeral_timeout", durations.to_text(_ephemeral(it)))
    expiry = it.theirs.text("node.expiry")
    if expiry not in ("", "0"):
        try:
            period = durations.parse(expiry)
        except ValueError:
            it.remark("node.expiry", "no duration; Headscale takes it for none", expiry)
        else:
            if period:
                it.put("tailnet.key_expiry", durations.to_text(period))
    it.put("tailnet.file_sharing", it.flag("taildrop.enabled", default=True))
    it.put("tailnet.client_logs", it.flag("logtail.enabled", default=False))
    if it.flag("randomize_client_port", default=False):
        sentence = 'write "randomizeClientPort": true at the top of the policy'
        it.remark("randomize_client_port", sentence, "true")
    if it.flag("auto_update.enabled", default=False):
        sentence = "nodes are not told to update themselves; turn it on at each node:"
        it.remark("auto_update.enabled", f"{sentence} tailscale set --auto-update", "true")


def _ephemeral(it: Conversion) -> timedelta:
    key = it.theirs.first("node.ephemeral.inactivity_timeout", "ephemeral_node_inactivity_timeout")
    try:
        found = it.theirs.duration(key)
    except ValueError as error:
        it.remark(key, f"not {error}; 2m is taken, Headscale's default", it.theirs.text(key))
        return EPHEMERAL_DEFAULT
    if found is None:
        return EPHEMERAL_DEFAULT
    if found <= EPHEMERAL_FLOOR:
        sentence = "Headscale does not start with 65s or less; 2m is taken, its default"
        it.remark(key, sentence, it.theirs.text(key))
        return EPHEMERAL_DEFAULT
    return found


def _prefixes(it: Conversion) -> None:
    families: dict[int, list[str]] = {4: [], 6: []}
    key = it.theirs.first("prefixes.v4", "prefixes.v6", "ip_prefixes", "ip_prefix")
    new = key.startswith("prefixes.")
    texts = it.theirs.texts("ip_prefixes") + it.theirs.texts("ip_prefix")
    if new:
        texts = it.theirs.texts("prefixes.v4") + it.theirs.texts("prefixes.v6")
    for text in texts:
        try:
            prefix = ip_network(text, strict=False)
        except ValueError:
            it.remark(key, "no prefix; left out", text)
        else:
            families[prefix.version].append(str(prefix))
    if not families[4] and not families[6] and it.theirs.is_old_form:
        families[4] = [OLD_PREFIX]
    if families[4] or families[6]:
        for version, found in families.items():
            it.put(f"tailnet.prefixes.v{version}", found[0] if found else None)
            for text in found[1:]:
                it.remark(key, f"one prefix of a family is used, and that is {found[0]}", text)
    allocation = it.theirs.text("prefixes.allocation")
    if allocation:
        it.put("tailnet.prefixes.allocation", allocation)


# ── DNS ──────────────────────────────────────────────────────────────────────────────────────────


def _dns(it: Conversion) -> None:
    """Read ``dns`` of 0.23 and later and ``dns_config`` of before; a mixed file has both."""
    theirs = it.theirs
    domain = theirs.text(theirs.first("dns.base_domain", "dns_config.base_domain"))
    magic = it.flag(
        theirs.first("dns.magic_dns", "dns_config.magic_dns"), default=not theirs.is_old_form
    )
    domain = domain.strip(".").lower()
    if domain:
        it.put("tailnet.base_domain", domain)
    it.put("dns.magic_dns", magic and bool(domain))
    if magic and not domain and theirs.has("dns.magic_dns", "dns_config.magic_dns"):
        it.remark("dns.magic_dns", "off, as there is no base domain", "true")
    if magic and domain and _had_users_in_names(it):
        it.remark(
            "dns.base_domain",
            "the name of a user is in no node's name: NODE.USER.DOMAIN is NODE.DOMAIN now",
            domain,
        )
    servers = _resolvers(it, theirs.first("dns.nameservers.global", "dns_config.nameservers"))
    override = it.flag(
        theirs.first("dns.override_local_dns", "dns_config.override_local_dns"), default=True
    )
    it.put("dns.override_local_dns", override and bool(servers))
    if servers:
        it.put("dns.nameservers.global", servers)
    _split(it)
    _records(it)
    if theirs.has("dns.extra_records_path"):
        sentence = "list the records under dns.extra_records; SIGHUP reloads them"
        it.remark("dns.extra_records_path", sentence, theirs.text("dns.extra_records_path"))


def _had_users_in_names(it: Conversion) -> bool:
    keys = ("dns.use_username_in_magic_dns", "dns_config.use_username_in_magic_dns")
    if it.theirs.has(*keys):
        return it.flag(it.theirs.first(*keys), default=False)
    return it.theirs.has("dns_config.magic_dns")  # until 0.22 there was no choice


def _resolvers(it: Conversion, key: str, texts: list[str] | None = None) -> list[str]:
    """Keep the resolvers that clients can use."""
    kept = []
    for text in it.theirs.texts(key) if texts is None else texts:
        wrong = refusal(text)
        if wrong:
            it.remark(key, f"left out: {wrong}", text)
        else:
            kept.append(text)
    return kept


def _split(it: Conversion) -> None:
    places = ("dns.nameservers.split", "dns_config.restricted_nameservers", "dns.split")
    key = it.theirs.first(*places)
    found = {}
    for domain, texts in it.theirs.lists(key).items():
        name = domain.strip(".")
        servers = _resolvers(it, f"{key}.{domain}", texts)
        if servers and name:
            found[name] = servers
        else:
            sentence = "left out: no resolver is named, and the whole domain would be dead"
            it.remark(f"{key}.{domain}", sentence)
    if found:
        it.put("dns.nameservers.split", found)
    search = it.theirs.first("dns.search_domains", "dns_config.domains")
    domains = [each.strip(".").lower() for each in it.theirs.texts(search)]
    if key == places[1] and not it.theirs.has("dns.search_domains", "dns_config.domains"):
        domains = list(found)  # 0.17 to 0.22 searched in those
    if domains:
        it.put("dns.search_domains", domains)


def _records(it: Conversion) -> None:
    key = it.theirs.first("dns.extra_records", "dns_config.extra_records")
    value = it.theirs.get(key)
    kept: list[object] = []
    for each in value if isinstance(value, list) else ():
        record = {str(k).lower(): str(v) for k, v in each.items()} if isinstance(each, dict) else {}
        name = record.get("name", "").strip(".").lower()
        kind, target = record.get("type", "").upper(), record.get("value", "")
        try:
            family = "A" if ip_address(target).version == 4 else "AAAA"
        except ValueError:
            it.remark(
                key, "left out: clients answer with addresses only", f"{name} {kind} {target}"
            )
            continue
        if "*" in name or not name:
            it.remark(key, "left out: clients know no wildcards in names", name)
        elif kind not in ("", "A", "AAAA"):
            it.remark(key, "left out: clients answer only A and AAAA", f"{name} {kind}")
        else:
            kept.append({"name": name, "type": family, "value": target})
    if kept:
        it.put("dns.extra_records", kept)


# ── relays ───────────────────────────────────────────────────────────────────────────────────────


def _relays(it: Conversion) -> None:
    enabled = it.flag("derp.server.enabled", default=False)
    for text in it.theirs.texts("derp.urls"):
        it.remark(
            "derp.urls", "maps from URLs are not fetched; list the regions under derp.regions", text
        )
    for text in it.theirs.texts("derp.paths"):
        it.remark("derp.paths", "map files are not read; list the regions under derp.regions", text)
    it.put("derp.server.enabled", True)
    if not enabled:
        it.remark(
            "derp.server.enabled",
            "the relay of this server is turned on, because no other is left and without a relay"
            " no node comes up; let UDP port 3478 through",
            "false",
        )
    it.put("derp.server.verify_clients", it.flag("derp.server.verify_clients", default=True))
    _relay_names(it)
    stun = it.endpoint("derp.server.stun_listen_addr")
    if stun:
        it.put("derp.server.stun_listen", [stun])
    for key in ("derp.server.ipv4", "derp.server.ipv6"):
        _relay_address(it, key, enabled=enabled)
    if not it.flag("derp.server.automatically_add_embedded_derp_region", default=True):
        it.remark(
            "derp.server.automatically_add_embedded_derp_region",
            "nodes are always told of our own relay; if the map file named another host or port"
            " for it, write them under derp.server",
            "false",
        )
    if enabled and it.theirs.has("derp.server.private_key_path"):
        sentence = "copy this key file to STATE_DIR/derp.key if relays elsewhere know it"
        path = it.theirs.text("derp.server.private_key_path")
        it.remark("derp.server.private_key_path", f"{sentence}; else a new one is made", path)


def _relay_address(it: Conversion, key: str, *, enabled: bool) -> None:
    text = it.theirs.text(key)
    if text and not enabled:
        it.remark(key, "left out, as the relay was off; write the server's own address", text)
    elif text:
        it.put(key, text)
        if text in _EXAMPLES:
            it.remark(key, "the address of Headscale's example: nodes would dial it", text)


def _relay_names(it: Conversion) -> None:
    number = it.theirs.get("derp.server.region_id")
    if str(number).isdecimal() and int(str(number)):
        it.put("derp.server.region_id", int(str(number)))
    code = it.theirs.text("derp.server.region_code")
    label = "".join(c if c.isascii() and c.isalnum() else "-" for c in code.lower())
    label = label[:63].strip("-")
    if label:
        it.put("derp.server.region_code", label)
    if label != code:
        it.remark("derp.server.region_code", f"written as {label or 'headwater'}", code)
    name = it.theirs.text("derp.server.region_name")
    if name:
        it.put("derp.server.region_name", name)


# ── database, policy, log ────────────────────────────────────────────────────────────────────────


def _database(it: Conversion) -> None:
    theirs = it.theirs
    kind = theirs.text(theirs.first("database.type", "db_type")).lower()
    new = theirs.has("database.type")

    def at(name: str) -> str:
        return f"database.postgres.{name}" if new else f"db_{name}"

    if kind != "postgres":
        path = theirs.first("database.sqlite.path", "db_path")
        if theirs.has(path):
            sentence = "the database is not converted; ours lives in state_dir"
            it.remark(path, sentence, theirs.text(path))
        return
    host = theirs.text(at("host")) or "localhost"
    port = theirs.text(at("port"))
    port = DATABASE_PORT if port in ("", "0") else port
    user = quote(theirs.text(at("user")), safe="")
    name = quote(theirs.text(at("name")), safe="")
    parameters = []
    place = ""
    if host.startswith("/"):
        parameters.append(f"host={quote(host, safe='/')}")
        if port != DATABASE_PORT:
            parameters.append(f"port={port}")
    else:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    parameters += _sslmode(theirs.text(at("ssl")))
    login = f"{user}@" if user else ""
    query = f"?{'&'.join(parameters)}" if parameters else ""
    it.put("database_url", f"postgresql://{login}{place}/{name}{query}")
    if theirs.has(at("pass")):
        it.put("database_password_file", PASSWORD_CREDENTIAL)
        it.remark(
            at("pass"),
            f"put the password into /etc/headwater/secrets/{PASSWORD_CREDENTIAL}, which is handed"
            " over as a credential, or name another file in database_password_file",
        )
    it.remark(at("name"), "what the database holds is not converted; use an empty one", name)


def _sslmode(text: str) -> list[str]:
    """Return the parameter of libpq's that ``ssl`` means: a truth value or a mode of libpq's."""
    if text.lower() in ("", "prefer"):
        return []
    words = {"true": "require", "t": "require", "1": "require"}
    words |= {"false": "disable", "f": "disable", "0": "disable"}
    return [f"sslmode={quote(words.get(text.lower(), text), safe='')}"]


def _policy(it: Conversion) -> None:
    """Take over where the policy comes from; say what people must do."""
    path = it.path(it.theirs.first("policy.path", "acl_policy_path"))
    if it.theirs.text("policy.mode") == "database":
        it.put("tailnet.policy.mode", "database")
        sentence = "bring the policy over with 'headwater policy set FILE'"
        it.remark("policy.mode", sentence, "database")
        return
    if not path:
        return
    it.put("tailnet.policy.mode", "file")
    it.put("tailnet.policy.path", path)
    if PurePosixPath(path).suffix in (".yaml", ".yml"):
        it.remark("policy.path", "policies are read as HuJSON, not as YAML: rewrite it", path)


_LEVELS = {
    **{word: word for word in ("debug", "info", "error")},
    "trace": "debug",
    "warn": "warning",
    "warning": "warning",
    "fatal": "error",
    "panic": "error",
    "disabled": "error",
}


def _log(it: Conversion) -> None:
    key = it.theirs.first("log.level", "log_level")
    text = it.theirs.text(key).lower()
    if text:
        it.put("log.level", _LEVELS.get(text, "debug"))
    if text == "disabled":
        it.remark(key, "the log cannot be turned off; errors are written", text)
    elif text and text not in _LEVELS:
        it.remark(key, "no level; Headscale takes it for debug", text)
    form = it.theirs.text("log.format")
    if form:
        it.put("log.format", "json" if form == "json" else "text")


def _keys(it: Conversion) -> None:
    if it.theirs.has("noise.private_key_path"):
        sentence = (
            "copy this key file to STATE_DIR/noise.key, so that clients know the server again"
        )
        path = it.theirs.text("noise.private_key_path")
        it.remark("noise.private_key_path", sentence, path)


_STEPS: tuple[Callable[[Conversion], None], ...] = (
    _addresses,
    _certificates,
    _socket,
    _nodes,
    _prefixes,
    _dns,
    _relays,
    _database,
    _policy,
    _log,
    _keys,
    oidc,
)
