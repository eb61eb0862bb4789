"""Which entries differ between two mappings of two snapshots: by identity, for that is the law.

Snapshots share every record that did not change, so "is not the same object" means "changed".
Not for what follows from it (``policies``, ``netmap.changes``). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import compress
from operator import is_not
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def compare(
    old: Mapping[K, V], new: Mapping[K, V]
) -> tuple[frozenset[K], frozenset[K], Iterable[K]]:
    """Return keys added, keys dropped, and common keys whose value is another object."""
    if old is new:
        return frozenset(), frozenset(), ()
    known, keys = list(old), list(new)
    if known == keys[: len(known)]:
        # The rule: a copied mapping keeps its order, and what is new stands at its end.
        same_place = map(is_not, new.values(), old.values())
        return frozenset(keys[len(known) :]), frozenset(), list(compress(known, same_place))
    find = old.get
    return (
        frozenset(new.keys() - old.keys()),
        frozenset(old.keys() - new.keys()),
        [key for key, value in new.items() if find(key, value) is not value],
    )


def differing(old: Mapping[K, V], new: Mapping[K, V]) -> frozenset[K]:
    """Return the keys that are new, gone, or have another object as their value."""
    return frozenset().union(*compare(old, new))
