"""MagicDNS labels: made from what machines call themselves, unique in the tailnet; and tag names.

Not for the DNS configuration (``netmap.dns``). Sits on ``snapshot``.
Source: RFC 1123 §2.1 (what a label may be); tailscale util/dnsname (what becomes a dash).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from appliance.errors import Conflict, Invalid
from appliance.records import Node, NodeID
from appliance.tailnet.snapshot import Edit, Snapshot
from appliance.wire import tailcfg

MAX_LABEL_CHARS = 63
"""RFC 1035 §2.3.4."""
MAX_TAG_CHARS = 100
"""Longer than any tag in use; bounds what a tag costs in every netmap."""

FALLBACK = "node"
"""The label of a machine whose name has nothing that a label may have."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_TAG = re.compile(r"tag:[a-z][a-z0-9_.-]*", re.ASCII)
_SEPARATORS = re.compile(r"[\s._@/\\:,;+&|-]+")
_NOT_IN_LABEL = re.compile(r"[^a-z0-9-]")
_LOCAL_SUFFIXES = (".local", ".localdomain", ".lan")
_NO_NAMES = frozenset({"", "localhost"})


def sanitise(text: str) -> str:
    """Make a label of a host name: ``Zoë's MacBook.local`` becomes ``zoes-macbook``.

    Accents are taken off, runs of separators become one dash, the rest is left out.
    """
    text = text[: 4 * MAX_LABEL_CHARS].lower()
    for suffix in _LOCAL_SUFFIXES:
        text = text.removesuffix(suffix)
    plain = unicodedata.normalize("NFKD", text).casefold()
    label = _NOT_IN_LABEL.sub("", _SEPARATORS.sub("-", plain))
    return label.strip("-")[:MAX_LABEL_CHARS].rstrip("-") or FALLBACK


def wanted(hostinfo: tailcfg.Hostinfo) -> str:
    """Give the label that a machine asks for; phones that say ``localhost`` go by their model."""
    name = hostinfo.hostname
    if name.strip().lower() in _NO_NAMES and hostinfo.device_model:
        name = hostinfo.device_model
    return sanitise(name)


def choose(edit: Edit, label: str, *, keep: NodeID | None = None) -> str:
    """Give ``label``, or ``label-1``, ``label-2`` and so on if others have it.

    ``keep`` is the node that the name is for: what it has counts as free. Costs the logarithm of
    the number of nodes with that label.
    """
    if _is_free(edit.by_name, label, keep):
        return label
    taken, free = 0, 1
    while not _is_free(edit.by_name, _numbered(label, free), keep):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        if _is_free(edit.by_name, _numbered(label, middle), keep):
            free = middle
        else:
            taken = middle
    return _numbered(label, free)


def check_label(text: str) -> str:
    """Read a label that a person chose, in either case. Raises Invalid."""
    label = text.strip().lower()
    if not _LABEL.fullmatch(label):
        raise Invalid(
            "node-name-invalid",
            f"{text[:MAX_LABEL_CHARS]!r} cannot be a node's name: use 1 to {MAX_LABEL_CHARS} "
            "letters a to z, digits and dashes, with no dash at the ends",
            concerns=text[:MAX_LABEL_CHARS],
        )
    return label


def check_free(edit: Edit, label: str, node_id: NodeID) -> None:
    """Raise Conflict if another node than ``node_id`` has this label."""
    if not _is_free(edit.by_name, label, node_id):
        raise Conflict(
            "node-name-taken",
            f"the name {label!r} belongs to another node; choose a different one",
            concerns=label,
        )


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Read tags that a person chose; they come back sorted and once each. Raises Invalid."""
    for tag in tags:
        if not is_tag(tag):
            raise Invalid(
                "tag-invalid",
                f"{tag[:MAX_TAG_CHARS]!r} is not a tag: write tag: and then a lower-case letter, "
                "followed by lower-case letters, digits, dashes, dots or underscores, as in tag:web",
                concerns=tag[:MAX_TAG_CHARS],
            )
    return tuple(sorted(set(tags)))


def is_tag(text: str) -> bool:
    """Tell whether a text has the form of a tag."""
    return len(text) <= MAX_TAG_CHARS and _TAG.fullmatch(text) is not None


def fqdn(state: Snapshot | Edit, node: Node) -> str:
    """Give the node's full name with the dot at its end: ``laptop.example.net.``."""
    domain = state.tailnet.domain
    return f"{node.name}.{domain}." if domain else f"{node.name}."


def _is_free(by_name: Mapping[str, NodeID], label: str, keep: NodeID | None) -> bool:
    holder = by_name.get(label)
    return holder is None or holder == keep


def _numbered(label: str, number: int) -> str:
    suffix = f"-{number}"
    return label[: MAX_LABEL_CHARS - len(suffix)].rstrip("-") + suffix
