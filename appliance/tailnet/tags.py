"""Which tags there are, and who may claim one, as the policy in force says.

Not for the form of a tag (``names``) nor for putting it on a node (``nodes``, ``enrolment``).
Without a policy no tag is defined: whoever writes the first one would else find tagged nodes that
nobody thought of. Sits on ``policies``.
Source: headscale 0.28 (an administrator may set every tag that the policy defines, and no other; a
chain of tags makes the owner of the first the owner of the last).
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from appliance.errors import Invalid
from appliance.policy.engine.matches import groups_by_login, user_keys
from appliance.policy.text.language import UNWRITTEN
from appliance.policy.text.selectors import Kind
from appliance.records import User
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Snapshot

MAX_TAGS_TOLD = 8
"""Tags named in a refusal."""


def check_defined(state: Snapshot | Edit, tags: Iterable[str]) -> None:
    """Raise Invalid if the policy in force does not define one of the tags."""
    defined = state.policy.tags
    strange = [tag for tag in tags if tag not in defined]
    if not strange:
        return
    near = get_close_matches(strange[0], defined, n=1)
    if state.policy is UNWRITTEN:
        why = "no policy is in force: set one whose tagOwners define them (headwater policy set)"
    else:
        why = (
            "the policy in force does not define them; "
            + (f"did you mean {near[0]}? If not, add" if near else "add")
            + " them to its tagOwners first"
        )
    raise Invalid(
        "tag-undefined",
        f"requested tags [{listed(strange)}] are invalid or not permitted: {why}",
        concerns=strange[0],
    )


def may_claim(state: Snapshot | Edit, user: User, tag: str) -> bool:
    """Return whether a user owns a tag: by name, group, role or domain, or through other tags."""
    policy = state.policy
    keys = set(user_keys(groups_by_login(policy), policies.background(state), user))
    waiting, seen = [tag], {tag}
    while waiting:
        for owner in policy.tags.get(waiting.pop(), ()):
            if (owner.kind, owner.name) in keys:
                return True
            if owner.kind is Kind.TAG and owner.name not in seen:
                seen.add(owner.name)
                waiting.append(owner.name)
    return False


def listed(tags: list[str]) -> str:
    """Name tags in a sentence, not too many of them."""
    return " ".join(tags[:MAX_TAGS_TOLD])
