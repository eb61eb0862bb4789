"""The polite refusals: answers that a door gives when a request cannot be granted. And ``Fatal``.

Not for broken protocol (``wire.errors.ProtocolError`` closes a link) and not for bugs (those raise
whatever they raise, and the supervisor retries what they ended). Sits below everything else; imports nothing of ours.
"""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What sort of refusal this is; each door maps it once (to HTTP status, exit code, text)."""

    NOT_FOUND = "not-found"
    CONFLICT = "conflict"
    INVALID = "invalid"
    FORBIDDEN = "forbidden"
    TOO_MANY = "too-many"


class Rejected(Exception):
    """A refusal with a stable ``code`` for programs and a sentence for people.

    ``concerns`` names the object that the refusal is about (a node name, a key id), or is empty.
    """

    kind: Kind

    def __init__(self, code: str, sentence: str, *, concerns: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.concerns = concerns


class NotFound(Rejected):
    """The thing that the request names does not exist."""

    kind = Kind.NOT_FOUND


class Conflict(Rejected):
    """The request contradicts what is there already."""

    kind = Kind.CONFLICT


class Invalid(Rejected):
    """The request makes no sense as it was written."""

    kind = Kind.INVALID


class Forbidden(Rejected):
    """The one who asks may not do this."""

    kind = Kind.FORBIDDEN


class TooMany(Rejected):
    """A bound is reached; the same request may succeed later."""

    kind = Kind.TOO_MANY


class Fatal(Exception):
    """Going on would be wrong: a background loop that raises it ends the server.

    For what a retry cannot mend and what makes every later answer a lie, such as a database that
    belongs to another server by now. The text says why, for people, and what to do.
    """
