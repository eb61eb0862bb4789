"""Reading of ``ssh``, ``tests`` and ``sshTests``.

Not for what follows from them (``ssh``, ``selftest``). Part of ``document``.
Source: the hosted service's page "Syntax reference for the tailnet policy file"; headscale 0.29
hscontrol/policy/v2/types.go; tailscale 1.102 tailcfg/tailcfg.go (SSHRule, SSHAction); the recorded
error answers.
"""

from __future__ import annotations

from datetime import timedelta

from appliance import durations
from appliance.policy.text import spans
from appliance.policy.text.language import Place, PolicyTest, SSHRule, SSHTest
from appliance.policy.text.mistakes import Reader, name_in
from appliance.policy.text.rulesections import postures, selectors
from appliance.policy.text.selectors import (
    Kind,
    Names,
    Selector,
    Side,
    bare,
    foreign_domain,
)
from appliance.wire.hujson import JSON, Path

MAX_CHECK_PERIOD = timedelta(hours=168)
_FAILED = "test(s) failed"

_SOURCE = Side(lambda word: "[ssh] " if word.startswith("user:") else "")
_DESTINATION = Side(bare)
_RECORDER = Side(
    bare,
    dict.fromkeys(
        (
            Kind.SELF,
            Kind.INTERNET,
            Kind.EVERYONE,
            Kind.DANGER_ALL,
            Kind.SHARED,
            Kind.SERVICE,
        ),
        "a recorder is a node of this tailnet: name its tag, its user or its address",
    ),
)
_FROM = frozenset(
    {
        Kind.USER,
        Kind.GROUP,
        Kind.SYNCED_GROUP,
        Kind.DOMAIN,
        Kind.TAG,
        Kind.MEMBER,
        Kind.TAGGED,
        Kind.ROLE,
        Kind.SHARED,
    }
)
_TO = frozenset({Kind.USER, Kind.TAG, Kind.MEMBER, Kind.TAGGED, Kind.ROLE, Kind.SELF, Kind.DOMAIN})


def ssh(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[SSHRule, ...]:
    """Read ``ssh``."""
    known = (
        "action",
        "src",
        "dst",
        "users",
        "checkPeriod",
        "acceptEnv",
        "recorder",
        "enforceRecorder",
        "srcPosture",
    )
    found = []
    for index, (item, where) in enumerate(reader.items(value, path)):
        fields = reader.fields(item, where, known)
        here = {name: (*where, name_in(fields, name)) for name in known}
        action = reader.text(fields.get("action"), here["action"])
        if not action:
            reader.note(where, "action must be specified: accept or check")
        elif action not in ("accept", "check"):
            reader.note(here["action"], f'"{action}" is not a valid action')
        src = _ends(reader, names, fields, where, "src", _SOURCE, _FROM)
        dst = _ends(reader, names, fields, where, "dst", _DESTINATION, _TO)
        _check_ends(reader, here["dst"], src, dst)
        period = _check_period(reader, fields.get("checkPeriod"), here["checkPeriod"])
        if period is not None and action != "check":
            reader.note(here["checkPeriod"], 'checkPeriod is only valid with action "check"')
        recorders = selectors(reader, names, fields, where, "recorder", _RECORDER)
        must_record = reader.flag(fields.get("enforceRecorder"), here["enforceRecorder"])
        if must_record and not recorders:
            reader.note(here["enforceRecorder"], "enforceRecorder needs a recorder")
        found.append(
            SSHRule(
                Place("ssh", index, reader.spot(where)),
                is_check=action == "check",
                src=src,
                dst=dst,
                users=_users(reader, names, fields, where),
                check_period=period,
                accept_env=_accept_env(reader, fields.get("acceptEnv"), here["acceptEnv"]),
                recorders=recorders,
                enforce_recorder=must_record,
                postures=postures(reader, names, fields.get("srcPosture"), here["srcPosture"]),
            )
        )
    return tuple(found)


def _ends(
    reader: Reader,
    names: Names,
    fields: dict[str, JSON],
    where: Path,
    name: str,
    side: Side,
    allowed: frozenset[Kind],
) -> tuple[Selector, ...]:
    """Read ``src`` or ``dst`` of an SSH rule: no addresses and no wildcard there."""
    found = []
    for word, spot in reader.texts(fields.get(name), (*where, name_in(fields, name))):
        if word != "*" and "@" not in word and ":" not in word:
            # A host, of the policy or not: SSH rules name none.
            reader.note(spot, f'invalid {name} "{word}": {_advice(Kind.ADDRESSES)}')
            continue
        selector = names.read(reader, word, spot, side)
        if selector is None:
            continue
        if selector.kind not in allowed:
            reader.note(spot, f'invalid {name} "{word}": {_advice(selector.kind)}')
            continue
        found.append(selector)
    return tuple(found)


def _advice(kind: Kind) -> str:
    if kind is Kind.EVERYONE:
        return "wildcard (*) is not supported as SSH destination or source; use autogroup:member"
    if kind is Kind.SELF:
        return '"autogroup:self" not valid on the src side of a rule'
    if kind in (Kind.GROUP, Kind.SYNCED_GROUP):
        return "devices of users are open to this user alone: use autogroup:self, or tags"
    return "SSH rules name users, groups, tags and autogroups"


def _check_ends(
    reader: Reader, path: Path, src: tuple[Selector, ...], dst: tuple[Selector, ...]
) -> None:
    """Refuse rules that would let others into devices of users.

    A user's devices are only for this user; tags own no devices of users.
    """
    tagged = any(selector.kind in (Kind.TAG, Kind.TAGGED) for selector in src)
    for selector in dst:
        match selector.kind:
            case Kind.SELF if tagged:
                reader.note(
                    path,
                    "autogroup:self destination requires source to contain only users or groups, "
                    "not tags or autogroup:tagged",
                )
            case Kind.MEMBER | Kind.ROLE | Kind.DOMAIN if tagged:
                reader.note(
                    path,
                    "tags in SSH source cannot access autogroup:member (user-owned devices)",
                )
            case Kind.USER if tagged:
                reader.note(
                    path,
                    f"tags in SSH source cannot access user-owned devices ({selector.written}); "
                    "name tags as destinations",
                )
            case Kind.USER if set(src) != {selector}:
                reader.note(
                    path,
                    "user destination requires source to contain only that same user "
                    f'"{selector.written}"; use autogroup:self',
                )
            case _:
                pass


def _users(reader: Reader, names: Names, fields: dict[str, JSON], where: Path) -> tuple[str, ...]:
    path = (*where, name_in(fields, "users"))
    found = []
    for word, spot in reader.texts(fields.get("users"), path):
        if word in ("", "*"):
            reader.note(spot, f'user "{word}" is not valid; autogroup:nonroot is all but root')
        domain = local_part_domain(word)
        if domain and domain not in names.domains:
            reader.note(spot, foreign_domain(domain))
        found.append(word)
    if not found:
        reader.note(path, "users must be specified")
    return tuple(dict.fromkeys(found))


def local_part_domain(user: str) -> str:
    """Return the domain of ``localpart:*@domain``; empty for any other user name."""
    return user.removeprefix("localpart:*@") if user.startswith("localpart:*@") else ""


def _accept_env(reader: Reader, value: JSON, path: Path) -> tuple[str, ...]:
    found = [word for word, _ in reader.texts(value, path)]
    if "" in found:
        reader.note(path, "acceptEnv values cannot be empty")
    return tuple(found)


def _check_period(reader: Reader, value: JSON, path: Path) -> timedelta | None:
    if value is None:
        return None
    text = reader.text(value, path)
    if text == "always":
        return timedelta(0)
    try:
        period = durations.parse_go(text)
    except ValueError:
        reader.note(path, f'checkPeriod "{text}" is no duration such as 12h or 1h30m, nor "always"')
        return None
    if period < timedelta(0):
        reader.note(path, f"checkPeriod {durations.to_go(period)} must be a positive duration")
    elif period > MAX_CHECK_PERIOD:
        reader.note(path, f"checkPeriod {durations.to_go(period)} is above the max (168h)")
    return period


def tests(reader: Reader, _names: Names, value: JSON, path: Path) -> tuple[PolicyTest, ...]:
    """Read ``tests``; their words are not looked up yet: an unknown one fails its test."""
    known = ("src", "accept", "deny", "proto", "srcPostureAttrs", "user", "allow")
    found = []
    for index, (item, where) in enumerate(reader.items(value, path)):
        fields = reader.fields(item, where, known)
        source = reader.either(fields, where, "src", "user")
        accept = reader.either(fields, where, "accept", "allow")
        here = {name: (*where, name_in(fields, name)) for name in known}
        proto = fields.get("proto")
        attributes: dict[str, str | float | bool] = {}
        extra = here["srcPostureAttrs"]
        for name, part in reader.members(fields.get("srcPostureAttrs"), extra):
            if isinstance(part, str | int | float | bool):
                attributes[name] = part
            else:
                reader.note((*extra, name), "want a string, a number, true or false")
        found.append(
            PolicyTest(
                Place("tests", index, reader.spot(where)),
                reader.text(fields.get(source), here[source]),
                tuple(word for word, _ in reader.texts(fields.get(accept), here[accept])),
                tuple(word for word, _ in reader.texts(fields.get("deny"), here["deny"])),
                str(proto) if isinstance(proto, int) else reader.text(proto, here["proto"]),
                attributes,
            )
        )
    return tuple(found)


def ssh_tests(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[SSHTest, ...]:
    """Read ``sshTests``; destinations that no node can be are mistakes, not failures."""
    known = ("src", "dst", "accept", "deny", "check")
    found = []
    for index, (item, where) in enumerate(reader.items(value, path)):
        fields = reader.fields(item, where, known)
        here = {name: (*where, name_in(fields, name)) for name in known}
        src = reader.text(fields.get("src"), here["src"])
        if not src:
            reader.note(where, f"{_FAILED}: SSH tests entry must have a non-empty src")
        dst = []
        for word, spot in reader.texts(fields.get("dst"), here["dst"]):
            problem = _test_destination_problem(names, word)
            if problem:
                reader.note(spot, f"{_FAILED}: {problem}")
            dst.append(word)
        if not dst:
            reader.note(where, f"{_FAILED}: SSH tests entry must have at least one dst")
        found.append(
            SSHTest(
                Place("sshTests", index, reader.spot(where)),
                src,
                tuple(dst),
                *(
                    tuple(word for word, _ in reader.texts(fields.get(name), here[name]))
                    for name in ("accept", "deny", "check")
                ),
            )
        )
    return tuple(found)


def _test_destination_problem(names: Names, word: str) -> str:
    if word.startswith("tag:"):
        return "" if word in names.tags else f'SSH tests dst contains unknown tag "{word}"'
    span = names.hosts.get(word) or spans.parse(word)
    is_many = span is not None and span.low != span.high
    if is_many or word in ("", "*", "autogroup:internet", "autogroup:danger-all"):
        return f'SSH tests dst contains disallowed element "{word}"'
    return ""
