"""Sessions: who is signed in with which browser, and until when.

The browser holds 256 random bits; only their SHA-256 is kept, and found by it, so that no comparison
takes a time that tells anything. Not for cookies (``console``) nor for proving who somebody is. Verbs
over an ``Edit``, pure.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from appliance.errors import NotFound
from appliance.records import Session, SessionID, SignInMethod, UserID
from appliance.tailnet import users
from appliance.tailnet.snapshot import Edit, Snapshot

SECRET_BYTES = 32
TEXT_LENGTH = 43
"""Of 32 bytes in base64 without its padding."""
ABSOLUTE_LIMIT = timedelta(days=7)
"""However busy a session is: then its user proves anew who they are."""
IDLE_LIMIT = timedelta(hours=24)
"""A browser that was not used for a day may have been left somewhere."""
TOUCH_PERIOD = timedelta(minutes=10)
"""How exactly the last use is known: a commit for every page would be too much."""
MAX_SESSIONS = 32
"""Of one user; the one that was not used for longest makes room."""
MAX_AGENT_CHARS = 200
"""Of what a browser says of itself: enough to tell one's own browsers apart."""


def start(
    edit: Edit,
    user_id: UserID,
    method: SignInMethod,
    now: datetime,
    *,
    random_bytes: Callable[[int], bytes],
    expires_at: datetime | None = None,
    agent: str = "",
    source: str = "",
) -> tuple[str, Session]:
    """Sign a user in; give the text for the browser's cookie, which nobody can find out again.

    ``expires_at`` is when the identity provider wants it to end; it is never longer than our own
    limit. Sessions that have run out are forgotten on the way. Raises NotFound for an unknown user.
    """
    users.get(edit, user_id)
    for session in [each for each in edit.sessions.values() if is_over(each, now)]:
        edit.drop(session)
    mine = sorted(of_user(edit, user_id), key=lambda each: each.last_used_at)
    for session in mine[: max(0, len(mine) + 1 - MAX_SESSIONS)]:
        edit.drop(session)
    text = urlsafe_b64encode(random_bytes(SECRET_BYTES)).rstrip(b"=").decode()
    end_at = now + ABSOLUTE_LIMIT
    session = Session(
        id=SessionID(edit.ids.next("sessions")),
        user_id=user_id,
        secret_hash=_hash(text),
        method=method,
        created_at=now,
        expires_at=end_at if expires_at is None else min(expires_at, end_at),
        last_used_at=now,
        login_expires_at=expires_at,
        agent="".join(c for c in agent[:MAX_AGENT_CHARS] if c.isprintable()),
        source=source,
    )
    edit.put(session)
    return text, session


def find(state: Snapshot | Edit, text: str, now: datetime) -> Session | None:
    """Find the session of a cookie's text; None if there is none, or none any more."""
    if len(text) != TEXT_LENGTH:
        return None
    session_id = state.by_session_hash.get(_hash(text))
    session = None if session_id is None else state.sessions[session_id]
    return None if session is None or is_over(session, now) else session


def of_user(state: Snapshot | Edit, user_id: UserID) -> list[Session]:
    """List a user's sessions, the oldest first."""
    return [each for each in state.sessions.values() if each.user_id == user_id]


def touch(edit: Edit, session_id: SessionID, now: datetime) -> None:
    """Note that a session is used; one that is gone is none."""
    session = edit.sessions.get(session_id)
    if session is not None and is_due(session, now):
        edit.put(replace(session, last_used_at=now))


def is_due(session: Session, now: datetime) -> bool:
    """Return whether it is time to note the use."""
    return now - session.last_used_at >= TOUCH_PERIOD


def end(edit: Edit, session_id: SessionID) -> Session:
    """Sign a browser out. Raises NotFound."""
    session = edit.sessions.get(session_id)
    if session is None:
        raise NotFound(
            "session-unknown", f"there is no session with the id {session_id} (any more)"
        )
    edit.drop(session)
    return session


def end_all(edit: Edit, user_id: UserID, *, besides: SessionID | None = None) -> int:
    """Sign out every browser of a user; tell how many those were."""
    gone = [each for each in of_user(edit, user_id) if each.id != besides]
    for session in gone:
        edit.drop(session)
    return len(gone)


def is_over(session: Session, now: datetime) -> bool:
    """Return whether a session has run out, by age or by not being used."""
    return session.expires_at <= now or now - session.last_used_at >= IDLE_LIMIT


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
