"""Words of a policy for people of whom the tailnet knows nobody: not wrong, but worth a look.

Somebody may log in for the first time tomorrow, so a policy may name him today; more often the word
is misspelt, and the rule lets in nobody. Not for mistakes (``document`` finds those), nor for tags
and groups, which a document must define. Sits on ``wire.hujson``, for the places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from appliance.policy.engine.standing import names_of
from appliance.policy.text.language import Policy
from appliance.policy.text.mistakes import Mistake, suggestion
from appliance.policy.text.selectors import Kind, Selector
from appliance.records import User, UserID
from appliance.wire.hujson import JSON, Path, decode_document

MAX_NOTES = 10
"""Named one by one; people of whom many have not logged in yet would fill the screen."""
_SECTIONS = frozenset(
    {"groups", "tagowners", "autoapprovers", "acls", "grants", "nodeattrs", "ssh"}
)


def strangers(text: str, policy: Policy, users: Mapping[UserID, User]) -> tuple[Mistake, ...]:
    """Note each word that could be a user and is none, where it stands first.

    ``policy`` is what ``text`` says.
    """
    known = set().union(*map(names_of, users.values()))
    missing = set(_people(policy)) - known
    if not missing:
        return ()
    logins = sorted(word for word in known if word[-1] != "@")
    document = decode_document(text)
    found: list[Mistake] = []
    for word, path in _texts(document.value):
        login = word.strip().lower().removeprefix("user:")
        # A destination of an ACL ends in its ports.
        name = next((each for each in (login, login.rpartition(":")[0]) if each in missing), None)
        if name is None:
            continue
        if len(found) == MAX_NOTES:
            words = f"{len(missing)} more words match no user now"
            return (*found, Mistake(document.spot(*path), words))
        missing.remove(name)
        near = suggestion(name, logins)
        words = f'nobody is called "{name}" here: the word matches no user now{near}'
        found.append(Mistake(document.spot(*path), words))
    return tuple(found)


def _people(policy: Policy) -> Iterator[str]:
    for members in policy.groups.values():
        yield from members
    for selector in _selectors(policy):
        if selector.kind is Kind.USER:
            yield selector.name


def _selectors(policy: Policy) -> Iterator[Selector]:
    for rule in policy.acls or ():
        yield from rule.src
        yield from (target.selector for target in rule.dst)
    for grant in policy.grants or ():
        yield from grant.src
        yield from grant.dst
    for login in policy.ssh:
        yield from login.src
        yield from login.dst
    for entry in policy.attributes:
        yield from entry.targets
    owners: Iterable[tuple[Selector, ...]] = policy.tags.values()
    for some in (*owners, *(who for _, who in policy.approvers.routes)):
        yield from some
    yield from policy.approvers.exit_node


def _texts(value: JSON) -> Iterator[tuple[str, Path]]:
    """Walk over the texts of the sections that name people, in the order of the document."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name.lower() in _SECTIONS:
                yield from _inside(part, (name,))


def _inside(value: JSON, path: Path) -> Iterator[tuple[str, Path]]:
    if isinstance(value, str):
        yield value, path
    elif isinstance(value, dict):
        for name, part in value.items():
            yield from _inside(part, (*path, name))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _inside(part, (*path, index))
