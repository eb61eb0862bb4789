"""What makes settings wrong together, though each key by itself is right.

Each check notes mistakes in the reader. Not for types and limits of single values (``reader``).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from appliance.config import databaseurl, hosts
from appliance.config.reader import Reader
from appliance.config.settings import Dns, Policy, Prefixes, Region, Settings, Tailnet

_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
CGNAT = IPv4Network("100.64.0.0/10")
ULA = IPv6Network("fd7a:115c:a1e0::/48")


def _check_urls(settings: Settings, reader: Reader) -> None:
    found = hosts.url(settings.server_url)
    if found is None or found.path not in ("", "/"):
        fix = "a host that clients can dial, in lower case; no login, path or question mark"
        reader.refuse("server_url", settings.server_url, "https://HOST or https://HOST:PORT", fix)
    if not settings.listen:
        reader.refuse("listen", [], "at least one HOST:PORT")
    if settings.listen_plain and settings.tls.mode == "off":
        fix = "without TLS every address of 'listen' is plain: put it there"
        reader.refuse("listen_plain", "[…]", "nothing when tls.mode is off", fix)


def _check_database(settings: Settings, reader: Reader) -> None:
    wrong = databaseurl.wrong(settings.database_url or "sqlite://")
    if "?" in str(settings.state_dir) and not settings.database_url:
        reader.refuse("state_dir", str(settings.state_dir), "a path without a question mark")
    if wrong is not None:
        reader.refuse("database_url", wrong.found, wrong.allowed, wrong.fix)
    elif settings.database_password_file and not databaseurl.is_password_for(settings.database):
        fix = "leave it out, or name the PostgreSQL database in 'database_url'"
        reader.refuse("database_password_file", "a file", "nothing with SQLite", fix)


def _check_tls(settings: Settings, reader: Reader) -> None:
    tls = settings.tls
    if tls.mode == "files":
        for name, path in (("cert_file", tls.cert_file), ("key_file", tls.key_file)):
            if path is None:
                fix = "or set tls.mode to 'off' behind a TLS proxy, 'local_ca' for development"
                reader.refuse(f"tls.{name}", None, "the path of a PEM file", fix)
    elif tls.cert_file or tls.key_file:
        fix = "set tls.mode to 'files' or remove the files"
        reader.refuse("tls.mode", tls.mode, "'files' when certificate files are named", fix)
    if tls.mode != "off" and settings.server_url.startswith("http:"):
        fix = "write https://, or set tls.mode to 'off'"
        reader.refuse("server_url", settings.server_url, "an https URL while TLS is on", fix)


def _check_proxies(settings: Settings, reader: Reader) -> None:
    for i, network in enumerate(settings.trusted_proxies):
        if network.prefixlen == 0:
            fix = "name the addresses of your proxies"
            reader.refuse(f"trusted_proxies[{i}]", str(network), "a prefix that is not all", fix)
    if settings.proxy_protocol and not settings.trusted_proxies:
        fix = "name the proxies, or turn proxy_protocol off"
        reader.refuse("trusted_proxies", [], "at least one proxy with proxy_protocol", fix)


def _check_tailnets(settings: Settings, reader: Reader) -> None:
    names: set[str] = set()
    domains: set[str] = set()
    for i, tailnet in enumerate(settings.all_tailnets):
        path = f"tailnets[{i - 1}]" if i else "tailnet"
        if tailnet.name in names:
            reader.refuse(f"{path}.name", tailnet.name, "a name that no other tailnet has")
        if tailnet.base_domain in domains:
            reader.refuse(f"{path}.base_domain", tailnet.base_domain, "a domain of its own")
        names.add(tailnet.name)
        domains.add(tailnet.base_domain)
        _check_domain(settings, tailnet, path, reader)
        _check_prefixes(tailnet.prefixes, f"{path}.prefixes", reader)
        _check_policy(tailnet.policy, f"{path}.policy", reader)
        for k, owned in enumerate(tailnet.email_domains):
            if not _DOMAIN.fullmatch(owned):
                reader.refuse(f"{path}.email_domains[{k}]", owned, "a lower-case domain")
        if tailnet.dns is not None:
            _check_dns(tailnet.dns, f"{path}.dns", reader)
    _check_dns(settings.dns, "dns", reader)


def _check_domain(settings: Settings, tailnet: Tailnet, path: str, reader: Reader) -> None:
    domain, host = tailnet.base_domain, settings.host
    if not domain or domain != domain.strip(".").lower() or len(domain) > 190:
        reader.refuse(f"{path}.base_domain", domain, "a lower-case domain without dots at the ends")
    elif host == domain or host.endswith("." + domain):
        fix = "nodes would ask MagicDNS for the server itself; choose another domain"
        reader.refuse(f"{path}.base_domain", domain, f"a domain that {host} is not in", fix)


def _check_prefixes(prefixes: Prefixes, path: str, reader: Reader) -> None:
    fix = "clients route and filter only this range"
    if prefixes.v4 is None and prefixes.v6 is None:
        reader.refuse(path, None, "an IPv4 or an IPv6 prefix")
    if prefixes.v4 is not None and not prefixes.v4.subnet_of(CGNAT):
        reader.refuse(f"{path}.v4", str(prefixes.v4), f"a prefix inside {CGNAT}", fix)
    if prefixes.v6 is not None and not prefixes.v6.subnet_of(ULA):
        reader.refuse(f"{path}.v6", str(prefixes.v6), f"a prefix inside {ULA}", fix)


def _check_policy(policy: Policy, path: str, reader: Reader) -> None:
    wanted = policy.mode
    if wanted == "file" and (policy.path is None or not policy.path.is_absolute()):
        found = None if policy.path is None else str(policy.path)
        reader.refuse(f"{path}.path", found, "the whole path of a file")
    if wanted == "settings" and (not policy.text) == (policy.document is None):
        reader.refuse(f"{path}.mode", wanted, "either 'text' or 'document' with it")
    for key, mode in (("path", "file"), ("text", "settings"), ("document", "settings")):
        if getattr(policy, key) not in (None, "") and wanted != mode:
            reader.refuse(f"{path}.mode", wanted, f"{mode!r} when '{key}' is given")


def _check_dns(dns: Dns, path: str, reader: Reader) -> None:
    if dns.override_local_dns and not dns.nameservers.global_:
        fix = "or turn override_local_dns off"
        reader.refuse(f"{path}.nameservers.global", [], "at least one resolver", fix)
    for i, record in enumerate(dns.extra_records):
        try:
            (IPv4Address if record.type == "A" else IPv6Address)(record.value)
        except ValueError:
            where = f"{path}.extra_records[{i}].value"
            reader.refuse(where, record.value, f"an address for a record of type {record.type}")


def _check_derp(settings: Settings, reader: Reader) -> None:
    server = settings.derp.server
    numbers: set[int] = set()
    codes = {server.region_code} if server.enabled else set()
    names = {f"{server.region_id}a"} if server.enabled else set()
    for i, region in enumerate(settings.derp.regions):
        path = f"derp.regions[{i}]"
        if region.id in numbers:
            reader.refuse(f"{path}.id", region.id, "a number that no other region has")
        if server.enabled and region.id == server.region_id:
            if region.code != server.region_code:
                wanted = f"{server.region_code!r}, the code of our own region {region.id}"
                reader.refuse(f"{path}.code", region.code, wanted)
        elif region.code in codes:
            reader.refuse(f"{path}.code", region.code, "a code that no other region has")
        numbers.add(region.id)
        codes.add(region.code)
        _check_relays(region, path, names, reader)


def _check_relay_server(settings: Settings, reader: Reader) -> None:
    server = settings.derp.server
    if server.separate and not server.listen:
        fix = "the addresses of the top level belong to the server"
        reader.refuse("derp.server.listen", [], "at least one HOST:PORT with 'separate'", fix)
    for i, url in enumerate(server.mesh.peers):
        if hosts.url(url) is None:
            reader.refuse(f"derp.server.mesh.peers[{i}]", url, "https://HOST/derp")
    if server.mesh.peers and server.mesh.key_file is None:
        reader.refuse("derp.server.mesh.key_file", None, "a key file when there are peers")
    if server.can_port80 and not settings.listen_plain and not settings.trusted_proxies:
        reader.refuse("listen_plain", [], "an address with port 80 when can_port80 is set")
    if server.can_port80 and server.ipv4 is None:
        reader.refuse("derp.server.ipv4", None, "an address when can_port80 is set")


def _check_relays(region: Region, path: str, names: set[str], reader: Reader) -> None:
    if not region.nodes:
        reader.refuse(f"{path}.nodes", [], "at least one relay")
    for j, node in enumerate(region.nodes):
        if node.name and node.name in names:
            reader.refuse(f"{path}.nodes[{j}].name", node.name, "a name used only once")
        names.add(node.name)


CHECKS = (
    _check_urls,
    _check_database,
    _check_tls,
    _check_proxies,
    _check_tailnets,
    _check_derp,
    _check_relay_server,
)
