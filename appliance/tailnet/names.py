"""MagicDNS labels: made from what machines call themselves, unique in the tailnet; and tag names.

A label is free if no other node has it, no static record of the site stands for it, and no software
gives it a meaning of its own: whoever enrols a machine chooses what it calls itself.
Not for the DNS configuration (``netmap.dns``). Sits on ``snapshot``.
Source: RFC 1123 §2.1 (what a label may be); tailscale util/dnsname (what becomes a dash).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

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

RESERVED = frozenset(
    {
        "wpad",  # browsers fetch their proxy from http://wpad.<search domain>/wpad.dat
        "isatap",  # Windows builds a tunnel to whoever has this name
        "localhost",  # the machine itself (RFC 6761 §6.3); browsers trust it without TLS
        "ip6-localhost",  # as localhost, in the hosts file of Debian and its kin
        "ip6-loopback",
        "broadcasthost",  # 255.255.255.255 in the hosts file of macOS
    }
)
"""Labels that no node gets, because resolvers and programs mean something else by the short name."""

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
    """Return the label that a machine asks for; phones that say ``localhost`` go by their model."""
    name = hostinfo.hostname
    if name.strip().lower() in _NO_NAMES and hostinfo.device_model:
        name = hostinfo.device_model
    return sanitise(name)


def choose(edit: Edit, label: str, *, keep: NodeID | None = None) -> str:
    """Return ``label``, or ``label-1``, ``label-2`` and so on if it is not free.

    ``keep`` is the node that the name is for: that it has a label does not count. Costs the logarithm
    of the number of nodes with that label.
    """
    if _is_free(edit, label, keep):
        return label
    taken, free = 0, 1
    while not _is_free(edit, _numbered(label, free), keep):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        if _is_free(edit, _numbered(label, middle), keep):
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
    """Raise Conflict if the node ``node_id`` cannot have this label."""
    if label in RESERVED:
        raise Conflict(
            "node-name-reserved",
            f"no node can be called {label!r}: programs mean something else by it; choose another name",
            concerns=label,
        )
    if label in recorded(edit.settings.extra_records, edit.tailnet.domain):
        raise Conflict(
            "node-name-recorded",
            f"the name {label!r} belongs to a static record of the site file (dns.extra_records); "
            "choose another name",
            concerns=label,
        )
    if not _is_free(edit, label, node_id):
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
    """Return whether a text has the form of a tag."""
    return len(text) <= MAX_TAG_CHARS and _TAG.fullmatch(text) is not None


def fqdn(state: Snapshot | Edit, node: Node) -> str:
    """Return the node's full name with the dot at its end: ``laptop.example.net.``."""
    domain = state.tailnet.domain
    return f"{node.name}.{domain}." if domain else f"{node.name}."


@lru_cache(maxsize=64)
def recorded(records: tuple[tailcfg.DNSRecord, ...], domain: str) -> frozenset[str]:
    """Return the labels that static records stand for: clients would answer with both addresses.

    Records of other domains, and of names below a node's, are none of ours.
    """
    names = (record.name.strip(".").lower() for record in records)
    labels = {name.removesuffix(f".{domain}") for name in names if name.endswith(f".{domain}")}
    return frozenset(label for label in labels if "." not in label)


def _is_free(edit: Edit, label: str, keep: NodeID | None) -> bool:
    holder = edit.by_name.get(label)
    if holder is not None and holder != keep:
        return False
    if label in RESERVED:
        return False
    return label not in recorded(edit.settings.extra_records, edit.tailnet.domain)


def _numbered(label: str, number: int) -> str:
    suffix = f"-{number}"
    return label[: MAX_LABEL_CHARS - len(suffix)].rstrip("-") + suffix
