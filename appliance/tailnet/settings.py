"""What the site's configuration says about a tailnet, taken over into the snapshot.

Not for reading configuration (``config``). Sits on ``snapshot``.
"""

from __future__ import annotations

from dataclasses import replace

from appliance.errors import Invalid
from appliance.records import Node, Settings
from appliance.tailnet import addresses, names
from appliance.tailnet.snapshot import Edit


def take_over(edit: Edit, settings: Settings, *, domain: str = "") -> list[tuple[str, Node]]:
    """Take over settings and, if given, the MagicDNS suffix. Raises Invalid.

    Nodes keep the addresses that they have; ``addresses.backfill`` makes them fit the new
    prefixes. A node whose name a static record now stands for gets another name, also one that an
    administrator chose: the record is what the site file says, and clients would mix the two.
    Returns the nodes that were renamed, each with its old name.
    """
    check(settings)
    edit.set_settings(settings)
    domain = domain.strip(".").lower()
    if domain:
        edit.put(replace(edit.tailnet, domain=domain))
    return _yield_names(edit)


def _yield_names(edit: Edit) -> list[tuple[str, Node]]:
    """Rename nodes that have a name which no node may have now."""
    kept = names.RESERVED | names.recorded(edit.settings.extra_records, edit.tailnet.domain)
    renamed = []
    for label in sorted(kept & edit.by_name.keys()):
        node_id = edit.by_name[label]
        edit.put(replace(edit.nodes[node_id], name=names.choose(edit, label, keep=node_id)))
        renamed.append((label, edit.nodes[node_id]))
    return renamed


def check(settings: Settings) -> None:
    """Raise Invalid if no node could get an address."""
    prefixes = [p for p in (settings.prefix_v4, settings.prefix_v6) if p is not None]
    if not prefixes:
        raise Invalid("prefixes-missing", "a tailnet needs an IPv4 or an IPv6 prefix, or both")
    for prefix in prefixes:
        if addresses.pool(prefix).size < 1:
            raise Invalid(
                "prefix-empty", f"{prefix} has no address for a node", concerns=str(prefix)
            )
