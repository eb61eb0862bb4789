"""What the pages work with, and the ways to sign in. Not for requests (``visits``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from appliance.console.attempts import Attempts
from appliance.console.pages import Pages
from appliance.identity.passkeys import Passkeys
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnets
from appliance.live.logins import LiveLogins
from appliance.tailnet.addresses import Rng


@dataclass(frozen=True, slots=True)
class SignInWay:
    """A way to sign in, as the page offers it: ``url`` is a path of ours, opened by a link.

    ``next`` is appended to it as a query: where the browser goes afterwards.
    """

    name: str
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class Console:
    """What the pages work with. ``ways`` are asked for at every page: a provider may come and go."""

    tailnets: LiveTailnets
    base_url: str
    """The server's URL, without a slash at its end."""
    random_bytes: Callable[[int], bytes]
    rng: Rng
    logins: LiveLogins
    ssh_checks: SSHChecks
    passkeys: Passkeys
    ways: list[Callable[[], list[SignInWay]]] = field(default_factory=list)
    pages: Pages = field(default_factory=Pages)
    attempts: Attempts = field(default_factory=Attempts)
    monotonic: Callable[[], float] = time.monotonic

    @property
    def is_secure(self) -> bool:
        """Return whether browsers reach us by TLS; only then do they keep cookies for TLS."""
        return self.base_url.startswith("https:")

    def sign_in_ways(self) -> list[SignInWay]:
        """List the ways to sign in that are open now."""
        return [way for ways in self.ways for way in ways()]


CONSOLE = web.AppKey("console", Console)
