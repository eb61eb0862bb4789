"""A mapping of a snapshot while it is being changed: shared until its first write.

Not for records or rules (``snapshot``). Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

K = TypeVar("K")
V = TypeVar("V")


class Draft(Generic[K, V]):
    """A mapping that is copied at its first write, or written to in place; remembers what was."""

    __slots__ = ("_in_place", "_was", "is_mine", "now")

    def __init__(self, base: Mapping[K, V], *, in_place: bool) -> None:
        self.now: Mapping[K, V] = base
        self._in_place = in_place
        self.is_mine = in_place
        self._was: dict[K, V | None] = {}

    def before(self, key: K) -> V | None:
        """Return what a key had when the draft began; None: nothing."""
        return self._was[key] if key in self._was else self.now.get(key)

    def changes(self) -> Iterator[tuple[K, V | None, V | None]]:
        """List the keys that have another object than before, with both."""
        for key, old in self._was.items():
            new = self.now.get(key)
            if new is not old:
                yield key, old, new

    def put(self, key: K, value: V) -> bool:
        """Set a value; an equal one keeps the old object. Tell whether anything changed."""
        old = self.now.get(key)
        if old is not None and old == value:
            return False
        self._writable(key, old)[key] = value
        return True

    def drop(self, key: K) -> V | None:
        """Remove a key; give what it had."""
        old = self.now.get(key)
        if old is not None:
            del self._writable(key, old)[key]
        return old

    def take_back(self) -> None:
        """Undo all writes, if they went to a mapping that is not ours alone."""
        if not self._in_place:
            return
        shared = cast(dict[K, V], self.now)  # in place means that it is one
        for key, old in self._was.items():
            if old is None:
                shared.pop(key, None)
            else:
                shared[key] = old

    def _writable(self, key: K, old: V | None) -> dict[K, V]:
        self._was.setdefault(key, old)
        if not self.is_mine:
            self.now = dict(self.now)
            self.is_mine = True
        return cast(dict[K, V], self.now)  # made two lines up, or at an earlier write
