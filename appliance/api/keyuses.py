"""Writes when keys were last used, in bulk: one change for all keys of a tailnet.

Not for taking note of it (``gate``, ``identity.keyuses``).
"""

from __future__ import annotations

from functools import partial

from appliance.api.door import Door
from appliance.identity.keyuses import WRITE_EVERY_S
from appliance.identity.principals import SYSTEM
from appliance.live import CommitFailed, LiveTailnet
from appliance.loops import Loop
from appliance.records import ApiKey, ApiKeyID, OAuthClient, OAuthClientID
from appliance.tailnet import apikeys, oauthclients


def loops(door: Door) -> tuple[Loop, ...]:
    """Return what must run."""
    return tuple(
        Loop("key uses", partial(write, door, live), WRITE_EVERY_S, live.snapshot.tailnet.name)
        for live in door.tailnets
    )


async def write(door: Door, live: LiveTailnet) -> None:
    """Write what was noted; what cannot be written is forgotten, and noted again by the next use."""
    used = door.key_uses.take(live.id)
    if not used:
        return
    try:
        async with live.edit(by=SYSTEM, act="apikey.use") as edit:
            apikeys.note_uses(
                edit, [(ApiKeyID(i), at) for (kind, i), at in used.items() if kind is ApiKey]
            )
            oauthclients.note_uses(
                edit,
                [(OAuthClientID(i), at) for (kind, i), at in used.items() if kind is OAuthClient],
            )
    except CommitFailed:
        return  # logged where it happened
