"""What policy commands say to people: differences and explanations as lines.

Not for asking (``policydesk``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from appliance.cli.client import Plain

_SIGNS = (
    ("peersGained", "+ sees"),
    ("peersLost", "- sees"),
    ("letsIn", "+ lets in"),
    ("keepsOut", "- lets in"),
    ("attributesGained", "+ attribute"),
    ("attributesLost", "- attribute"),
    ("routesApproved", "+ approved route"),
)


def difference(answer: Plain) -> str:
    """Show what a policy would change, node by node."""
    changes = cast(list[Plain], answer["changes"])
    if not changes:
        return f"no change for any of {answer['nodes']} node(s)"
    lines = [line for change in changes for line in _change(change)]
    return "\n".join([*lines, f"{len(changes)} of {answer['nodes']} node(s) would change"])


def _change(change: Plain) -> Iterator[str]:
    yield str(change["node"])
    for member, sign in _SIGNS:
        for word in cast(list[str], change[member]):
            yield f"  {sign} {word}"
    if change["sshChanges"]:
        yield "  ~ its SSH rules"
    if change["more"]:
        yield f"  … and {change['more']} more"


def explanation(answer: Plain) -> str:
    """Show why one end may reach another, pair by pair."""
    pairs = cast(list[Plain], answer["pairs"])
    lines = [line for pair in pairs for line in _pair(pair)]
    if answer["more"]:
        lines.append(f"… and {answer['more']} more pair(s): name nodes to see them")
    return "\n".join(lines)


def _pair(pair: Plain) -> Iterator[str]:
    is_allowed = bool(pair["allowed"])
    yield f"{pair['src']} -> {pair['dst']}: {'allowed' if is_allowed else 'denied'}"
    reasons = cast(list[Plain], pair["reasons"])
    word = "by" if is_allowed else "nearest"
    for each in reasons:
        miss = f": {each['miss']}" if each["miss"] else ""
        yield f"  {word} {_place(each)}: {each['rule']}{miss}"
    if not reasons:
        yield "  no rule comes near"
    way = cast(Plain | None, pair["way"])
    if way is not None:
        routers = " or ".join(cast(list[str], way["routers"]))
        yield f"  by way of {routers}, which routes {way['route']}"
    elif pair["unrouted"]:
        yield "  no approved route that the source may use leads there"
    capabilities = cast(list[str], pair["capabilities"])
    if capabilities:
        yield f"  with the capabilities {', '.join(capabilities)}"
    if pair["ssh"] == [] and str(pair["dst"]).endswith(":22"):
        yield "  SSH: no rule lets the source log in"
    for login in cast(list[Plain], pair["ssh"] or []):
        yield f"  SSH: {login['action']} as {', '.join(cast(list[str], login['users']))}"


def _place(reason: Plain) -> str:
    """Name a rule's place; where there are no rules at all, the engine's words say so."""
    section = str(reason["section"])
    if " " in section:
        return section
    return f"{section}[{reason['index']}] (line {reason['line']})"
