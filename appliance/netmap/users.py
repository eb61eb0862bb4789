"""The people behind the nodes, as clients see them: user profiles.

Every owner of a node that a client knows needs one, its own included, or WhoIs and with it SSH
and Taildrop fail there. Tagged nodes belong to a pseudo user with a profile of its own.

Source: tailscale tailcfg/tailcfg.go (UserProfile); headscale (id and name of the pseudo user).
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.records import TAGGED_USER_ID, User, UserID
from appliance.tailnet.snapshot import Snapshot
from appliance.tailnet.users import TAGGED_PROFILE
from appliance.wire import tailcfg


def profile(user: User) -> tailcfg.UserProfile:
    """Return a user as peers see them."""
    return tailcfg.UserProfile(
        id=user.id,
        login_name=user.login_name,
        display_name=user.display_name or user.name,
        profile_pic_url=user.profile_pic_url,
    )


def profile_of(snapshot: Snapshot, owner: UserID) -> tailcfg.UserProfile | None:
    """Return the profile of a node's owner; None if there is no such user."""
    if owner == TAGGED_USER_ID:
        return TAGGED_PROFILE
    user = snapshot.users.get(owner)
    return None if user is None else profile(user)


def profiles(snapshot: Snapshot, owners: Iterable[UserID]) -> tuple[tailcfg.UserProfile, ...]:
    """Return the profiles of these owners, by id."""
    found = (profile_of(snapshot, owner) for owner in sorted(owners))
    return tuple(known for known in found if known is not None)
