"""What the handlers of the API work with: the tailnets and what belongs to them.

Not for requests (``mount``, ``members``) nor for meaning (the nouns).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from aiohttp import web

from appliance.api.shownnodes import ShownNodes
from appliance.errors import NotFound
from appliance.identity.keyuses import KeyUses
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.logins import LiveLogins
from appliance.live.policy import PolicyKeeper
from appliance.loops import Failing
from appliance.records import AuditEntry, TailnetID
from appliance.tailnet.addresses import Rng
from appliance.tls.current import CurrentCertificate


class AuditReader(Protocol):
    """Reads a page of the audit log, newest first; see ``store.Database.audit``."""

    def __call__(
        self,
        tailnet: TailnetID,
        /,
        *,
        before: int | None,
        limit: int,
        act: str,
        by: str,
        kind: str,
        target: int | None,
        since: datetime | None,
    ) -> Awaitable[Sequence[tuple[int, AuditEntry]]]:
        """Give entries with their numbers."""


async def no_provider(name: str) -> str:
    """Refuse every name: a site without identity providers."""
    raise NotFound(
        "provider-unknown", f"the site file names no identity provider {name!r}", concerns=name
    )


@dataclass(frozen=True, slots=True)
class Door:
    """What the handlers work with. ``database_trouble`` asks the database, and says what is wrong with it; the rest is at hand."""

    tailnets: LiveTailnets
    policies: Mapping[TailnetID, PolicyKeeper]
    database_trouble: Callable[[], Awaitable[str]]
    random_bytes: Callable[[int], bytes]
    rng: Rng
    metrics: Callable[[], bytes]
    ssh_checks: SSHChecks
    audit: AuditReader
    logins: LiveLogins
    base_url: str
    """The server's URL, without a slash at its end."""
    release: str = "0.29"
    """The release of Headscale as whose API this one answers."""
    certificate: CurrentCertificate | None = None
    """The one that is served; None without TLS."""
    failing: Callable[[], Sequence[Failing]] = tuple
    """The background loops that fail now."""
    key_uses: KeyUses = field(default_factory=KeyUses)
    shown_nodes: ShownNodes = field(default_factory=ShownNodes)
    issuer_of: Callable[[str], Awaitable[str]] = no_provider
    """Gives the issuer of an identity provider of the site file. Raises NotFound, Conflict."""
    warnings: Callable[[], Sequence[str]] = tuple
    """What is fine by itself in the site file and probably not meant."""

    def tailnet(self, name: str, *, within: TailnetID | None = None) -> LiveTailnet:
        """Give the tailnet of a name; empty and ``-`` mean the default one. Raises NotFound.

        ``within`` is the only one that the caller may know of, and then the default, too.
        """
        if name in ("", "-"):
            mine = None if within is None else self.tailnets.get(within)
            return mine or self.tailnets.default
        for live in self.tailnets:
            if live.snapshot.tailnet.name == name and within in (None, live.id):
                return live
        raise NotFound("tailnet-unknown", f"there is no tailnet named {name!r}", concerns=name)


DOOR = web.AppKey("door", Door)
