"""What policy commands say to people: differences and explanations as lines.

Not for asking (``policydesk``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from appliance.cli.client import Plain

MAX_WORDS = 12
"""Local users that one line names."""

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
    lines = [line for pair in pairs for line in _pair(pair, str(answer["user"]))]
    if answer["more"]:
        lines.append(f"… and {answer['more']} more pair(s): name nodes to see them")
    return "\n".join(lines)


def _pair(pair: Plain, user: str) -> Iterator[str]:
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
    yield from _logins(pair, user)


def _logins(pair: Plain, user: str) -> Iterator[str]:
    """Show what SSH allows: each rule that lets in, or those that come near and why they do not."""
    logins = cast(list[Plain] | None, pair["ssh"])
    nearest = cast(list[Plain], pair["sshNearest"])
    if logins is None:
        if user:
            yield "  SSH: only nodes log in, and only at nodes"
        return
    for login in logins:
        yield f"  SSH: {_login(login)} by {_place(login)}: {login['rule']}{_recording(login)}"
    if pair["sshMore"]:
        yield f"  SSH: … and by {pair['sshMore']} more rule(s): ask with --user"
    if logins and pair["sshBlocked"]:
        yield "  SSH: but no rule lets packets to port 22 through, so nobody gets that far"
    # Nobody asks about SSH who does not name its port, unless there are rules to tell of.
    if not logins and (user or nearest or str(pair["dst"]).endswith(":22")):
        yield f"  SSH: no rule lets the source log in{f' as {user}' if user else ''}"
    for each in nearest:
        yield f"  SSH: nearest {_place(each)}: {each['rule']}: {each['miss']}"


def _login(login: Plain) -> str:
    """Say how and as whom: ``check (good for 12h) as any user but root``."""
    period = login["checkPeriod"]
    how = str(login["action"])
    if period:
        how += " (at every login)" if period == "always" else f" (good for {period})"
    users, besides = cast(list[str], login["users"]), cast(list[str], login["besides"])
    whom = _shortened(users)
    if "*" in users:
        whom = f"any user but {_shortened(besides)}" if besides else "any user"
    return f"{how} as {whom}"


def _shortened(words: list[str]) -> str:
    more = len(words) - MAX_WORDS
    return ", ".join(words[:MAX_WORDS]) + (f" and {more} more" if more > 0 else "")


def _recording(login: Plain) -> str:
    """Say who records the sessions, and what a rule does not say itself."""
    said = ""
    recorders = cast(list[str] | None, login["recorders"])
    if recorders:
        or_not = " or refused" if login["enforceRecorder"] else ""
        said = f"; recorded at {_shortened(recorders)}{or_not}"
    elif recorders is not None:
        what = "every session is refused" if login["enforceRecorder"] else "nothing is recorded"
        said = f"; no node is the recorder: {what}"
    if login["ownDevices"]:
        said += "; with localpart: the owner's own devices are told of it, too"
    return said


def _place(reason: Plain) -> str:
    """Name a rule's place; where there are no rules at all, the engine's words say so."""
    section = str(reason["section"])
    if " " in section:
        return section
    return f"{section}[{reason['index']}] (line {reason['line']})"
