"""What works, and deserves a word: settings that an operator would want to be told of.

``config check`` prints it, ``serve`` logs it once at its start and ``/health`` repeats it. Not for
what cannot work (``checks``), nor for what depends on the machine. Pure.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from appliance import durations
from appliance.config import databaseurl, hosts, tlschecks
from appliance.config.settings import Settings

SHORT_EPHEMERAL_TIMEOUT = timedelta(minutes=1)
"""A client that lost its connection waits up to half a minute between its tries."""
HIDDEN_PLACES = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # named, not used
"""What the units hide from the service (``ProtectHome=``, ``PrivateTmp=``)."""


@dataclass(frozen=True, slots=True)
class SiteWarning:
    """One thing to know: the key, what follows from it, and what to do."""

    path: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.path}: {self.what}"
        return f"{text}; {self.fix}" if self.fix else text


def warnings(settings: Settings) -> tuple[SiteWarning, ...]:
    """Return what is worth a word in settings that passed every check."""
    return tuple(each for look in _LOOKS for each in look(settings))


def hidden_files(settings: Settings) -> tuple[SiteWarning, ...]:
    """Return the files that a service in the units' sandbox would not see.

    Only a warning: a server that is started otherwise sees them. ``deploy`` refuses them.
    """
    return tuple(
        SiteWarning(
            key,
            f"{path} is hidden from the service that 'headwater deploy' sets up",
            f"put it elsewhere, not below {', '.join(HIDDEN_PLACES)}, or hand it over as a credential"
            if re.sub(r"\[\d+]", "", key) in CREDENTIALS
            else f"put it elsewhere, not below {', '.join(HIDDEN_PLACES)}",
        )
        for key, path in site_files(settings).items()
        if is_hidden(path)
    )


CREDENTIALS = frozenset(
    {
        "database_password_file",
        "tls.cert_file",
        "tls.key_file",
        "tls.eab.key_file",
        "tls.dns.rfc2136.key_file",
        "derp.server.mesh.key_file",
        "oidc.client_secret_file",
    }
)
"""Keys of files that may be handed over by name."""


def is_hidden(path: str) -> bool:
    """Tell whether a path lies where the units hide it."""
    whole = os.path.normpath(path)
    return any(whole == place or whole.startswith(place + "/") for place in HIDDEN_PLACES)


def site_files(settings: Settings) -> dict[str, str]:
    """Return every absolute path of a file that the settings name, by its key."""
    server, tls = settings.derp.server, settings.tls
    updates = tls.dns.rfc2136
    files: dict[str, Path | None] = {
        "database_password_file": settings.database_password_file,
        "tls.cert_file": settings.tls.cert_file,
        "tls.key_file": settings.tls.key_file,
        "tls.ca_file": tls.ca_file,
        "tls.dns.hook": tls.dns.hook,
        "tls.eab.key_file": None if tls.eab is None else tls.eab.key_file,
        "tls.dns.rfc2136.key_file": None if updates is None else updates.key_file,
        "derp.server.mesh.key_file": server.mesh.key_file,
        "derp.server.mesh.ca_file": server.mesh.ca_file,
    }
    for i, provider in enumerate(settings.oidc):
        files[f"oidc[{i}].client_secret_file"] = provider.client_secret_file
        files[f"oidc[{i}].ca_file"] = provider.ca_file
    for i, tailnet in enumerate(settings.all_tailnets):
        place = f"tailnets[{i - 1}]" if i else "tailnet"
        files[f"{place}.policy.path"] = tailnet.policy.path
    if server.separate:
        files["socket.path"] = settings.socket.path  # the relay's process asks there
    found = {key: str(path) for key, path in files.items() if path and path.is_absolute()}
    inside = databaseurl.sockets_and_files(settings.database_url)
    return found | {f"database_url ({name})": path for name, path in inside.items()}


def _transport(settings: Settings) -> Iterator[SiteWarning]:
    url = hosts.url(settings.server_url)
    if url is None or settings.tls.mode != "off":
        return
    server = settings.derp.server
    if url.scheme == "http" and server.enabled and not (server.host or server.port):
        yield SiteWarning(
            "derp.server",
            "clients dial relays with TLS only, and this server speaks none, so its relay serves"
            " nobody: nodes reach one another only where they find a direct way",
            "turn TLS on, or name host and port of a proxy that speaks it under derp.server",
        )
    if url.scheme == "https" and not settings.trusted_proxies:
        yield SiteWarning(
            "trusted_proxies",
            "a proxy speaks TLS for this server and is not named, so all clients share the limits"
            " of one source",
            "name the proxy's addresses",
        )


def _tailnets(settings: Settings) -> Iterator[SiteWarning]:
    files: dict[Path, str] = {}
    for i, tailnet in enumerate(settings.all_tailnets):
        place = f"tailnets[{i - 1}]" if i else "tailnet"
        if tailnet.ephemeral_timeout < SHORT_EPHEMERAL_TIMEOUT:
            told = durations.to_text(tailnet.ephemeral_timeout)
            yield SiteWarning(
                f"{place}.ephemeral_timeout",
                f"with {told} an ephemeral node may be removed while it reconnects, or while this"
                " server restarts",
                "a minute or more is safe; 30m is usual",
            )
        if tailnet.base_domain == "local" or tailnet.base_domain.endswith(".local"):
            yield SiteWarning(
                f"{place}.base_domain",
                "names below .local belong to multicast DNS, and many systems never ask MagicDNS",
                "choose another domain, like tailnet.internal",
            )
        path = tailnet.policy.path
        if path is not None and path in files:
            yield SiteWarning(
                f"{place}.policy.path",
                f"{files[path]} has the same policy: who edits the file changes both tailnets",
                "give each tailnet a file of its own if that is not meant",
            )
        elif path is not None:
            files[path] = place


def _mesh(settings: Settings) -> Iterator[SiteWarning]:
    server = settings.derp.server
    if not server.enabled:
        return
    ours = {
        (node.host.lower(), node.port): node.host
        for region in settings.derp.regions
        if region.id == server.region_id
        for node in region.nodes
        if not node.stun_only
    }
    peers = [hosts.url(text) for text in server.mesh.peers]
    meshed = {(peer.host, peer.port) for peer in peers if peer is not None}
    for i, text in enumerate(server.mesh.peers):
        peer = peers[i]
        if peer is not None and (peer.host, peer.port) not in ours:
            yield SiteWarning(
                f"derp.server.mesh.peers[{i}]",
                f"no node is told of this relay ({text}): it stands in no region",
                f"list it under derp.regions with id {server.region_id}, unless this is the file of"
                " a host that runs the relay only",
            )
    for place, host in ours.items():
        if place not in meshed:
            yield SiteWarning(
                "derp.server.mesh.peers",
                f"{host} stands in our own region {server.region_id} and is not meshed with our"
                " relay: a node at the one does not reach a node at the other",
                "name it among the peers, and this one there, or give it a region of its own",
            )


def _database(settings: Settings) -> Iterator[SiteWarning]:
    if settings.database_url in {"sqlite://", "sqlite:///:memory:"}:
        fix = "leave it out for a file in state_dir"
        yield SiteWarning("database_url", "everything is forgotten at the end of the process", fix)


def _certificates(settings: Settings) -> Iterator[SiteWarning]:
    if settings.tls.mode != "acme":
        return
    if settings.tls.staging:
        yield SiteWarning(
            "tls.staging",
            "no client trusts a certificate of this authority",
            "take it away once a certificate has come",
        )
    server = settings.derp.server
    if server.enabled and server.host and server.host not in settings.certificate_names:
        yield SiteWarning(
            "derp.server.host",
            f"nodes dial the relay as {server.host}, and the certificate is not for that name",
            "add it to tls.names",
        )
    possible = tlschecks.kinds(settings)
    if possible == ("http-01",) and all(each.port != 80 for each in settings.listen_plain):
        yield SiteWarning(
            "listen_plain",
            "the authority asks on port 80, and no address has it",
            "listen there, or see to it that port 80 leads to one of the addresses",
        )


_LOOKS: tuple[Callable[[Settings], Iterator[SiteWarning]], ...] = (
    _transport,
    _tailnets,
    _mesh,
    _database,
    _certificates,
)
