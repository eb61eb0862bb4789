"""What the site file says of one identity provider, as plain values.

Not for asking the provider (``remote``) nor for judging what it says (``judgement``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from appliance.records import Role

CALLBACK_PATH = "/oidc/callback"
"""Where providers send browsers back to: the path that Headscale has, so that one registration at a
provider serves both."""
OUR_PARAMETERS = frozenset(
    {
        "client_id",
        "code_challenge",
        "code_challenge_method",
        "nonce",
        "redirect_uri",
        "response_mode",
        "response_type",
        "scope",
        "state",
    }
)
"""Parameters that every login has already, and on which its safety rests: the site file may not replace them."""


class ClientAuth(StrEnum):
    """How this server shows at the token endpoint that it is the registered client."""

    AUTO = "auto"
    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNames:
    """Which claims hold what; a dotted one leads into objects (``realm_access.roles``)."""

    username: str = "preferred_username"
    email: str = "email"
    email_verified: str = "email_verified"
    display_name: str = "name"
    picture: str = "picture"
    groups: str = "groups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider. ``name`` is a short word for addresses and logs, ``title`` is for people.

    ``allowed_*`` are conditions that must all hold; an empty one is none. ``roles`` maps a group to
    the role of its members; where several fit, the mightiest counts. ``key_expiry`` is how long the
    key of a node lives that joins by a login; None leaves it to the tailnet's settings.
    """

    name: str
    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    title: str = ""
    tailnet: str = ""
    client_auth: ClientAuth = ClientAuth.AUTO
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    extra_params: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    pkce: bool = True
    claims: ClaimNames = ClaimNames()
    allowed_domains: tuple[str, ...] = ()
    allowed_users: tuple[str, ...] = ()
    allowed_groups: tuple[str, ...] = ()
    email_verified_required: bool = True
    roles: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType({}))
    use_expiry_from_token: bool = False
    key_expiry: timedelta | None = None
    logout_expires_nodes: bool = False
    ca_file: str = ""

    @property
    def label(self) -> str:
        """Return the name of the provider for people."""
        return self.title or self.name
