"""Who is asking: the one value that every change carries for logs and the audit trail.

Not for deciding what they may do and not for proving who they are. Imports nothing of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class PrincipalKind(StrEnum):
    """Where a principal comes from."""

    SYSTEM = "system"
    LOCAL = "local"
    NODE = "node"
    USER = "user"
    """A person who signed in; the name is the login name."""
    API_KEY = "api-key"
    """A program; the name is the public prefix of its key."""
    OAUTH_CLIENT = "oauth-client"
    """A program with a token; the name is the client's id."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Someone or something that changes the tailnet; ``name`` is for people."""

    kind: PrincipalKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


SYSTEM = Principal(PrincipalKind.SYSTEM, "headwater")
"""The server itself: expiry, grace times, configuration."""

LOCAL = Principal(PrincipalKind.LOCAL, "socket")
"""Whoever may open the local socket; the file system decided that."""
