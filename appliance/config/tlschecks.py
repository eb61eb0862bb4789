"""What keeps a certificate from ever coming: files that are not named, names that nobody can prove.

Not for what an authority says, which only asking shows (``tls.acme``). Pure.
Source: RFC 8555 section 8; RFC 8737; RFC 8738; Let's Encrypt's documentation of challenge types.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from appliance.config import hosts, sockets
from appliance.config.reader import Reader
from appliance.config.settings import Settings

TLS_PORT, HTTP_PORT = 443, 80
MAX_NAMES = 100
"""Of one certificate: what public authorities allow."""
MAX_WAIT = timedelta(minutes=5)
"""The attempt as a whole has a quarter of an hour."""
OWN_AUTHORITY = "or name an authority that knows it in tls.directory"
_SPECIAL_USE = ("local", "localhost", "internal", "test", "example", "invalid", "onion", "arpa")
_HOME_MADE = ("corp", "home", "intranet", "lan", "localdomain", "private")
_NEVER_PUBLIC = frozenset({*_SPECIAL_USE, *_HOME_MADE})
"""Last labels that nobody owns in the public DNS. Source: IANA's special-use names; RFC 6762 appendix G."""


def check_tls(settings: Settings, reader: Reader) -> None:
    """Check that a mode has what it needs, and nothing that belongs to another."""
    tls = settings.tls
    if tls.mode == "files":
        for name, path in (("cert_file", tls.cert_file), ("key_file", tls.key_file)):
            if path is None:
                fix = (
                    "or set tls.mode to 'acme' for a certificate of Let's Encrypt, 'off' behind a TLS"
                    " proxy, 'local_ca' for development"
                )
                reader.refuse(f"tls.{name}", None, "the path of a PEM file", fix)
    elif tls.cert_file or tls.key_file:
        fix = "set tls.mode to 'files' or remove the files"
        reader.refuse("tls.mode", tls.mode, "'files' when certificate files are named", fix)
    if tls.mode != "acme":
        for key in acme_keys(settings):
            fix = "set tls.mode to 'acme' or remove the key"
            reader.refuse(f"tls.{key}", "(set)", "nothing unless tls.mode is 'acme'", fix)


def check_acme(settings: Settings, reader: Reader) -> None:
    """Check what the mode ``acme`` needs."""
    if settings.tls.mode != "acme":
        return
    _check_authority(settings, reader)
    _check_records(settings, reader)
    if not kinds(settings):
        _refuse_kind(settings, reader)
    if len(settings.certificate_names) > MAX_NAMES:
        reader.refuse("tls.names", f"{len(settings.tls.names)} names", f"at most {MAX_NAMES}")
    if settings.host:  # else the mistake is server_url's
        _check_name(settings, "server_url", settings.host, reader)
    for i, name in enumerate(settings.tls.names):
        _check_name(settings, f"tls.names[{i}]", name, reader)


def acme_keys(settings: Settings) -> Iterator[str]:
    """Name the keys of the mode ``acme`` that do not have their defaults."""
    tls = settings.tls
    default = type(tls)()
    for key in (
        *("email", "staging", "directory", "ca_file", "challenge"),
        *("names", "profile", "eab", "dns"),
    ):
        if getattr(tls, key) != getattr(default, key):
            yield key


def kinds(settings: Settings) -> tuple[str, ...]:
    """Return the challenges that this site can answer, the best first."""
    tls = settings.tls
    possible = {
        "tls-alpn-01": settings.port == TLS_PORT
        or _listens(settings, TLS_PORT)
        or _is_own(settings),
        "http-01": bool(settings.listen_plain),
        "dns-01": tls.dns.rfc2136 is not None or tls.dns.hook is not None,
        "dns-persist-01": tls.challenge == "dns-persist-01",
    }
    wanted = possible if tls.challenge == "auto" else (tls.challenge,)
    return tuple(kind for kind in wanted if possible[kind])


def _check_authority(settings: Settings, reader: Reader) -> None:
    tls = settings.tls
    if tls.directory:
        found = hosts.url(tls.directory)
        if found is None or found.scheme != "https":
            fix = "the authority's documentation names it"
            reader.refuse("tls.directory", tls.directory, "the https URL of an ACME directory", fix)
        if tls.staging:
            fix = "staging is Let's Encrypt's; name the directory of the other authority's own"
            reader.refuse("tls.staging", True, "false when tls.directory is set", fix)
    if tls.email and (tls.email.count("@") != 1 or any(c.isspace() for c in tls.email)):
        reader.refuse("tls.email", tls.email, "one e-mail address, or nothing")
    if tls.eab is not None and not tls.eab.key_id:
        reader.refuse("tls.eab.key_id", "", "the name that the authority gave you")


def _check_records(settings: Settings, reader: Reader) -> None:
    dns = settings.tls.dns
    if dns.rfc2136 is not None and dns.hook is not None:
        fix = "remove one of them"
        reader.refuse("tls.dns.hook", str(dns.hook), "nothing beside tls.dns.rfc2136", fix)
    if dns.hook is not None and not dns.hook.is_absolute():
        reader.refuse("tls.dns.hook", str(dns.hook), "a path that begins with /")
    if not timedelta() <= dns.wait <= MAX_WAIT:
        reader.refuse("tls.dns.wait", str(dns.wait), "at most 5m")
    server = dns.rfc2136
    if server is None:
        return
    if not sockets.is_place(server.server) or server.server.port == 0:
        told = "HOST:PORT of a name server"
        reader.refuse("tls.dns.rfc2136.server", str(server.server), told)
    if server.zone and not hosts.is_domain(server.zone):
        reader.refuse("tls.dns.rfc2136.zone", server.zone, "a lower-case domain, or nothing")
    if bool(server.key_name) != (server.key_file is not None):
        fix = "a key has a name and a secret; leave both out for a server that trusts addresses"
        reader.refuse("tls.dns.rfc2136.key_file", "(one of two)", "key_name and key_file", fix)
    elif server.key_name and not hosts.is_domain(server.key_name.lower().rstrip(".")):
        reader.refuse("tls.dns.rfc2136.key_name", server.key_name, "a name as DNS has it")


def _refuse_kind(settings: Settings, reader: Reader) -> None:
    challenge = settings.tls.challenge
    told = {
        "http-01": "an address in listen_plain, like 0.0.0.0:80: the authority asks on port 80",
        "dns-01": "tls.dns.rfc2136 or tls.dns.hook, which set the record",
    }.get(
        challenge,
        "port 443: the authority asks there, and neither 'server_url' nor 'listen' has it",
    )
    fix = "listen on 443, or let it ask on port 80 (listen_plain), or in the DNS (tls.dns)"
    reader.refuse("tls.challenge", challenge, told, fix)


def _check_name(settings: Settings, key: str, name: str, reader: Reader) -> None:
    """Check that a name can be proved by the challenges at hand, and be certified at all."""
    literal, bare = hosts.address(name), name.removeprefix("*.")
    if literal is None and (not hosts.is_domain(bare) or "_" in bare or not hosts.is_host(bare)):
        reader.refuse(key, name, "a lower-case name of DNS, *.NAME or an address")
        return
    possible = kinds(settings)
    if literal is not None:
        if possible and not {"tls-alpn-01", "http-01"} & set(possible):
            fix = "addresses are proved by tls-alpn-01 or http-01: set tls.challenge to one of them"
            reader.refuse(key, name, "a name when tls.challenge asks the DNS", fix)
        elif not literal.is_global and not _is_own(settings):
            fix = f"use a public address or a name, {OWN_AUTHORITY}"
            reader.refuse(key, name, "an address that is public", fix)
        return
    if bare != name and possible and not {"dns-01", "dns-persist-01"} & set(possible):
        fix = "wildcards are proved in the DNS only: set up tls.dns, or challenge dns-persist-01"
        reader.refuse(key, name, "a name without *", fix)
    last = bare.rpartition(".")[2]
    if not _is_own(settings) and ("." not in bare or last in _NEVER_PUBLIC):
        fix = f"use a name of your own below a public domain, {OWN_AUTHORITY}"
        reader.refuse(key, name, "a name that the public DNS has", fix)


def _listens(settings: Settings, port: int) -> bool:
    return any(endpoint.port == port for endpoint in settings.listen)


def _is_own(settings: Settings) -> bool:
    """Return whether another authority than Let's Encrypt is asked: it may be a site's own."""
    return bool(settings.tls.directory)
