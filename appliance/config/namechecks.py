"""What makes a tailnet useless by its names and addresses: prefixes, periods, domains, DNS, policy.

Free text that clients interpret is read here as they read it. Not for resolvers by themselves
(``resolvers``). Source: tailscale ipn/ipnlocal dnsConfigForNetmap, net/dns/resolver, net/tsaddr.
"""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from appliance import durations
from appliance.config import hosts, resolvers
from appliance.config.reader import Reader
from appliance.config.settings import Dns, ExtraRecord, Policy, Prefixes, Settings, Tailnet

CGNAT = IPv4Network("100.64.0.0/10")
ULA = IPv6Network("fd7a:115c:a1e0::/48")
MAX_BASE_DOMAIN = 189
"""A node's own label of 63 and a dot must fit before it into the 253 of a name of DNS."""
MIN_EPHEMERAL_TIMEOUT = timedelta(seconds=2)
"""A client asks for its first map in the second after it has registered. Headscale wants more than
65 s; what is too short for reconnecting nodes is a warning (``warnings``)."""
MIN_KEY_EXPIRY = timedelta(minutes=1)
"""With less, a node has to log in again before it is through with logging in."""
NAME = "a name in lower case, without dots at its ends and without *"

_DOMAIN = re.compile(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")


def check_tailnet(settings: Settings, tailnet: Tailnet, path: str, reader: Reader) -> None:
    """Check one tailnet by itself."""
    _check_domain(settings, tailnet, path, reader)
    _check_prefixes(tailnet.prefixes, f"{path}.prefixes", reader)
    _check_periods(tailnet, path, reader)
    _check_policy(tailnet.policy, f"{path}.policy", reader)
    for k, owned in enumerate(tailnet.email_domains):
        if not _DOMAIN.fullmatch(owned):
            reader.refuse(f"{path}.email_domains[{k}]", owned, "a lower-case domain")
    if tailnet.dns is not None:
        check_dns(tailnet.dns, f"{path}.dns", reader)


def check_dns(dns: Dns, path: str, reader: Reader) -> None:
    """Check what nodes are told about DNS, as clients will read it."""
    if dns.override_local_dns and not dns.nameservers.global_:
        fix = "or turn override_local_dns off"
        reader.refuse(f"{path}.nameservers.global", [], "at least one resolver", fix)
    _check_resolvers(dns.nameservers.global_, f"{path}.nameservers.global", reader)
    for domain, servers in dns.nameservers.split.items():
        where = f"{path}.nameservers.split.{domain}"
        if not hosts.is_domain(domain):
            reader.refuse(where, domain, NAME, "everything below the domain is meant")
        if not servers:
            fix = (
                "name one, or leave the domain out: clients would answer that no name in it exists"
            )
            reader.refuse(where, [], "at least one resolver", fix)
        _check_resolvers(servers, where, reader)
    for i, domain in enumerate(dns.search_domains):
        if not hosts.is_domain(domain):
            reader.refuse(f"{path}.search_domains[{i}]", domain, NAME)
    for i, record in enumerate(dns.extra_records):
        _check_record(record, f"{path}.extra_records[{i}]", reader)


def _check_resolvers(servers: tuple[str, ...], path: str, reader: Reader) -> None:
    for i, text in enumerate(servers):
        wrong = resolvers.refusal(text)
        if wrong:
            reader.refuse(f"{path}[{i}]", text, resolvers.FORMS, wrong)


def _check_record(record: ExtraRecord, path: str, reader: Reader) -> None:
    if not hosts.is_domain(record.name):
        fix = "clients compare whole names and know no wildcards: write a record for each"
        reader.refuse(f"{path}.name", record.name, NAME, fix)
    kind = IPv4Address if record.type == "A" else IPv6Address
    try:
        kind(record.value)
    except ValueError:
        told = f"an address for a record of type {record.type}"
        reader.refuse(f"{path}.value", record.value, told)


def _check_domain(settings: Settings, tailnet: Tailnet, path: str, reader: Reader) -> None:
    domain = tailnet.base_domain
    if not hosts.is_host(domain) or not hosts.is_domain(domain) or len(domain) > MAX_BASE_DOMAIN:
        told = f"{NAME}, of at most {MAX_BASE_DOMAIN} characters"
        reader.refuse(f"{path}.base_domain", domain, told)
        return
    relays = [n.host for region in settings.derp.regions for n in region.nodes]
    what = {settings.host: "the server itself", settings.derp.server.host: "the relay"}
    for host in (settings.host, settings.derp.server.host, *relays):
        name = host.lower()
        if name == domain or name.endswith("." + domain):
            fix = (
                f"nodes would ask MagicDNS for {what.get(host, 'the relay')}; choose another domain"
            )
            reader.refuse(f"{path}.base_domain", domain, f"a domain that {host} is not in", fix)
            return


def _check_prefixes(prefixes: Prefixes, path: str, reader: Reader) -> None:
    fix = "clients route and filter only this range"
    if prefixes.v4 is None and prefixes.v6 is None:
        reader.refuse(path, None, "an IPv4 or an IPv6 prefix")
    if prefixes.v4 is not None and not prefixes.v4.subnet_of(CGNAT):
        reader.refuse(f"{path}.v4", str(prefixes.v4), f"a prefix inside {CGNAT}", fix)
    if prefixes.v6 is not None and not prefixes.v6.subnet_of(ULA):
        reader.refuse(f"{path}.v6", str(prefixes.v6), f"a prefix inside {ULA}", fix)
    for key, prefix in (("v4", prefixes.v4), ("v6", prefixes.v6)):
        if prefix is not None and not reader.has_mistake(f"{path}.{key}") and not _room(prefix):
            fix = "clients keep that range for themselves: choose another, or a larger one"
            told = "a prefix with an address for a node"
            reader.refuse(f"{path}.{key}", str(prefix), told, fix)


def _room(prefix: IPv4Network | IPv6Network) -> int:
    """Count the addresses that a prefix has for nodes."""
    from appliance.tailnet.addresses import pool  # the policy with it; most commands need no checks

    return pool(prefix).size


def _check_periods(tailnet: Tailnet, path: str, reader: Reader) -> None:
    if tailnet.ephemeral_timeout < MIN_EPHEMERAL_TIMEOUT:
        fix = "an ephemeral node would be removed before it has its first map; 30m is usual"
        found = durations.to_text(tailnet.ephemeral_timeout)
        told = f"at least {durations.to_text(MIN_EPHEMERAL_TIMEOUT)}"
        reader.refuse(f"{path}.ephemeral_timeout", f"({found})", told, fix)
    if tailnet.key_expiry is not None and tailnet.key_expiry < MIN_KEY_EXPIRY:
        fix = "leave it out, or write null, if nodes never have to log in again"
        found = durations.to_text(tailnet.key_expiry)
        told = f"at least {durations.to_text(MIN_KEY_EXPIRY)}"
        reader.refuse(f"{path}.key_expiry", f"({found})", told, fix)


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
