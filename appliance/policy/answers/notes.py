"""Notes on a policy that is good: words that match nobody, and parts that have no effect here.

Somebody may log in for the first time tomorrow, so a policy may name that person today; more often
the word is misspelt, and the rule lets in nobody. Documents of the hosted service set things that
come from elsewhere here. Not for mistakes (``document`` finds those), nor for tags and groups,
which a document must define. Sits on ``wire.hujson``, for the places.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from appliance.policy.engine.matches import names_of
from appliance.policy.text.language import Policy
from appliance.policy.text.mistakes import Mistake, parse, suggestion
from appliance.policy.text.ports import PortError
from appliance.policy.text.rulesections import split_target
from appliance.policy.text.selectors import Kind, Selector
from appliance.records import User, UserID
from appliance.wire.hujson import JSON, Document, Path

MAX_NOTES = 10
"""Users named one by one; people of whom many have not logged in yet would fill the screen."""
_SECTIONS = frozenset(
    {
        "groups",
        "tagowners",
        "autoapprovers",
        "acls",
        "grants",
        "nodeattrs",
        "ssh",
        "tests",
        "sshtests",
    }
)
_WITHOUT_EFFECT = {
    (
        "derpmap",
    ): "derpMap is kept, and has no effect here: relays are in the site file (derp.regions)",
    ("attrconfig",): "attrConfig is kept, and has no effect here: attributes need no declaration",
    ("autoapprovers", "services"): "autoApprovers.services is kept, and has no effect here yet: no "
    "node can offer a service",
}
"""By the folded names of their path."""


def notes(text: str, policy: Policy, users: Mapping[UserID, User]) -> tuple[Mistake, ...]:
    """Return what is worth a look in a policy, each note with its place.

    ``policy`` is what ``text`` says.
    """
    missing = set(_people(policy)) - set().union(*map(names_of, users.values()))
    document = parse(text)
    return (*_without_effect(document), *_unknown_users(document, missing, users))


def _without_effect(document: Document) -> Iterator[Mistake]:
    value = document.value
    if not isinstance(value, dict):
        return
    for name, part in value.items():
        words = _WITHOUT_EFFECT.get((name.lower(),))
        if words is not None and part is not None:
            yield Mistake(document.name_spot(name), words)
        for inner, _ in part.items() if isinstance(part, dict) else ():
            words = _WITHOUT_EFFECT.get((name.lower(), inner.lower()))
            if words is not None:
                yield Mistake(document.name_spot(name, inner), words)


def _unknown_users(
    document: Document, missing: set[str], users: Mapping[UserID, User]
) -> Iterator[Mistake]:
    """Note each word that could be a user and is none, where it stands first."""
    known: set[str] = set().union(*map(names_of, users.values()))
    logins = sorted(word for word in known if word[-1] != "@")
    named = 0
    for word, path in _texts(document.value) if missing else ():
        login = word.strip().lower().removeprefix("user:")
        # A destination of an ACL or a test ends in its ports.
        name = next((each for each in (login, login.rpartition(":")[0]) if each in missing), None)
        if name is None:
            continue
        if named == MAX_NOTES:
            words = f"{len(missing)} more words match no user now"
            yield Mistake(document.spot(*path), words)
            return
        named += 1
        missing.remove(name)
        near = suggestion(name, logins)
        words = f'nobody is called "{name}" here: the word matches no user now{near}'
        yield Mistake(document.spot(*path), words)


def tested_users(policy: Policy) -> Iterator[str]:
    """List the words of ``tests`` and ``sshTests`` that mean one user each, folded as users are."""
    for test in policy.tests:
        words = [test.src]
        for target in (*test.accept, *test.deny):
            try:
                words.append(split_target(target)[0])
            except PortError:
                continue  # its test says so
        yield from filter(None, map(_login, words))
    for login in policy.ssh_tests:
        yield from filter(None, map(_login, (login.src, *login.dst)))


def _login(word: str) -> str:
    login = word.strip().lower()
    if login.startswith("user:"):
        login = login.removeprefix("user:")
    elif ":" in login:
        return ""
    return login if login.count("@") == 1 and not login.startswith(("*@", "@")) else ""


def _people(policy: Policy) -> Iterator[str]:
    yield from tested_users(policy)
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
    approvers = policy.approvers
    offers = (*(who for _, who in approvers.routes), *(who for _, who in approvers.services))
    for some in (*owners, *offers):
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
