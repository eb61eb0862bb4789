"""Reading of ``acls`` and ``grants``.

Not for what follows from the rules (``flows``). Part of ``document``.
Source: the hosted service's page "Syntax reference for the tailnet policy file"; headscale 0.29
hscontrol/policy/v2/types.go; the recorded error answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from appliance.policy.text.language import Acl, Grant, Place, ProtoPorts, Target
from appliance.policy.text.mistakes import Reader, name_in
from appliance.policy.text.ports import (
    ALL_PORTS,
    WITH_PORTS,
    PortError,
    parse_ports,
    parse_protocol,
)
from appliance.policy.text.selectors import (
    ACL_DESTINATION,
    GRANT_DESTINATION,
    PEOPLE,
    SOURCE,
    Kind,
    Names,
    Selector,
    Side,
)
from appliance.wire.hujson import JSON, Path

T = TypeVar("T")

OURS = frozenset(
    f"tailscale.com/cap/{name}"
    for name in (
        "data-plane-audit-logs",
        "debug",
        "debug-peer",
        "drive-sharer",
        "file-send",
        "file-sharing",
        "file-sharing-target",
        "funnel",
        "funnel-ports",
        "ingress",
        "is-admin",
        "is-owner",
        "relay-target",
        "ssh",
        "tailnet-lock",
        "wake-on-lan",
        "warn-funnel-no-https",
    )
)
"""Capabilities of the vendor's own domain that are the server's to give, with and without the scheme
that clients write before some: a policy grants none. It may grant any other ``tailscale.com/cap/…``:
programs ask for new ones (golink, tailsql, setec) faster than a list of them could grow.
Source: tailscale 1.103 tailcfg/peercap/peercap.go, tailcfg/nodecap/nodecap.go; the recorded refusals."""
_VENDOR = "tailscale.com/"
_VENDOR_CAPABILITY = re.compile(r"tailscale\.com/cap/\S+")
_SELF_PROBLEM = "autogroup:self can only be used with users, groups, or supported autogroups"


def acls(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[Acl, ...]:
    """Read ``acls``."""
    known = ("action", "src", "dst", "proto", "srcPosture", "users", "ports")
    found = []
    for index, (item, where) in enumerate(reader.items(value, path)):
        fields = reader.fields(item, where, known)
        # The names of the first years, still found in old policies.
        source = reader.either(fields, where, "src", "users")
        target = reader.either(fields, where, "dst", "ports")
        action = reader.text(fields.get("action"), (*where, name_in(fields, "action")))
        if action != "accept":
            reader.note(
                (*where, name_in(fields, "action")),
                f'action="{action}" is not supported: rules only accept, what no rule '
                "accepts is denied",
            )
        src = selectors(reader, names, fields, where, source, SOURCE)
        dst = _targets(reader, names, fields.get(target), (*where, name_in(fields, target)))
        protocols = _protocol(reader, fields, where, dst)
        if any(each.selector.kind is Kind.SELF for each in dst) and _beyond_people(src, PEOPLE):
            reader.note((*where, name_in(fields, source)), _SELF_PROBLEM)
        found.append(
            Acl(
                Place("acls", index, reader.spot(where)),
                src,
                dst,
                protocols,
                _rule_postures(reader, names, fields, where),
            )
        )
    return tuple(found)


def grants(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[Grant, ...]:
    """Read ``grants``."""
    known = ("src", "dst", "ip", "app", "via", "srcPosture")
    found = []
    for index, (item, where) in enumerate(reader.items(value, path)):
        fields = reader.fields(item, where, known)
        src = selectors(reader, names, fields, where, "src", SOURCE)
        dst = selectors(reader, names, fields, where, "dst", GRANT_DESTINATION)
        ip = _internet(reader, fields.get("ip"), (*where, name_in(fields, "ip")))
        app = capabilities(reader, fields, where, _capability_problem)
        if not fields.get("ip") and not fields.get("app"):
            reader.note(where, "ip and app can not both be empty")
        _check_grant_ends(reader, fields, where, src, dst)
        found.append(
            Grant(
                Place("grants", index, reader.spot(where)),
                src,
                dst,
                ip,
                app,
                _via(reader, names, fields.get("via"), (*where, name_in(fields, "via"))),
                _rule_postures(reader, names, fields, where),
            )
        )
    return tuple(found)


def selectors(
    reader: Reader, names: Names, fields: dict[str, JSON], where: Path, name: str, side: Side
) -> tuple[Selector, ...]:
    """Read a field that is a list of selectors."""
    path = (*where, name_in(fields, name))
    found = (
        names.read(reader, word, spot, side) for word, spot in reader.texts(fields.get(name), path)
    )
    return tuple(selector for selector in found if selector is not None)


def postures(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[str, ...]:
    """Read a list of names of postures."""
    found = []
    for word, where in reader.texts(value, path):
        if word not in names.postures:
            near = reader.suggest(word, names.postures)
            reader.note(where, f'posture not found: "{word}"{near}')
        found.append(word)
    return tuple(found)


def capabilities(
    reader: Reader,
    fields: dict[str, JSON],
    where: Path,
    problem_of: Callable[[str], str],
) -> dict[str, tuple[msgspec.Raw, ...]]:
    """Read ``app``: capabilities and their lists of values, kept as JSON text."""
    path = (*where, name_in(fields, "app"))
    found: dict[str, tuple[msgspec.Raw, ...]] = {}
    for name, part in reader.members(fields.get("app"), path):
        problem = problem_of(name)
        if problem:
            reader.note((*path, name), f"{problem}: {name!r}", at_name=True)
        found[name] = tuple(
            msgspec.Raw(json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode())
            for item, _ in reader.items(part, (*path, name))
        )
    return found


def no_check(_name: str) -> str:
    """Allow any capability."""
    return ""


def _capability_problem(name: str) -> str:
    if "://" in name or not re.fullmatch(r"[^/\s]+/\S+", name):
        return "capability name must have the form {domain}/{path}"
    folded = name.lower().partition("?")[0].rstrip("/")
    if not folded.startswith(_VENDOR):
        return ""
    if folded in OURS or not _VENDOR_CAPABILITY.fullmatch(name):
        return "capability name must not be in the tailscale.com domain"
    return ""


def _beyond_people(src: Iterable[Selector], allowed: frozenset[Kind]) -> bool:
    return any(selector.kind not in allowed for selector in src)


def _check_grant_ends(
    reader: Reader,
    fields: dict[str, JSON],
    where: Path,
    src: tuple[Selector, ...],
    dst: tuple[Selector, ...],
) -> None:
    path = (*where, name_in(fields, "dst"))
    kinds = {selector.kind for selector in dst}
    if Kind.INTERNET in kinds and fields.get("app"):
        reader.note(path, "cannot use app grants with autogroup:internet")
    for selector in dst:
        if any(span.low == 0 and span.text.endswith("/0") for span in selector.spans):
            text = f'dst "{selector.spans[0].text}": to allow all IP addresses, use "*" or '
            reader.note(path, f'{text}"autogroup:internet"')
    if Kind.SELF in kinds and _beyond_people(src, PEOPLE - {Kind.EVERYONE}):
        reader.note((*where, name_in(fields, "src")), _SELF_PROBLEM)


def _rule_postures(
    reader: Reader, names: Names, fields: dict[str, JSON], where: Path
) -> tuple[str, ...]:
    path = (*where, name_in(fields, "srcPosture"))
    return postures(reader, names, fields.get("srcPosture"), path)


def split_target(word: str) -> tuple[str, str]:
    """Cut ``HOST:PORTS``; brackets around an IPv6 address are dropped. Raises PortError."""
    match = re.fullmatch(r"\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\](/[0-9]+)?:(.*)", word)
    if match is not None:
        return match[1] + (match[2] or ""), match[3]
    if word.startswith("["):
        raise PortError("square brackets are only valid around IPv6 addresses")
    host, colon, ports = word.rpartition(":")
    if not colon or not host:
        raise PortError('hostport must contain a colon (":"), then ports or * for all')
    return host, ports


def _targets(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[Target, ...]:
    found = []
    for word, where in reader.texts(value, path):
        try:
            host, text = split_target(word)
            ports = parse_ports(text)
        except PortError as error:
            reader.note(where, f'dst="{word}": {error}')
            continue
        selector = names.read(reader, host, where, ACL_DESTINATION)
        if selector is not None:
            found.append(Target(selector, ports, text))
    return tuple(found)


def _protocol(
    reader: Reader, fields: dict[str, JSON], where: Path, dst: tuple[Target, ...]
) -> tuple[int, ...]:
    path = (*where, name_in(fields, "proto"))
    value = fields.get("proto")
    text = str(value) if isinstance(value, int) else reader.text(value, path)
    try:
        protocols = parse_protocol(text)
    except PortError as error:
        reader.note(path, str(error))
        return ()
    special = any(ports != ALL_PORTS for target in dst for ports in target.ports)
    if special and not WITH_PORTS.issuperset(protocols):
        reader.note(
            path, f'protocol does not support specific ports: "{text}", only "*" is allowed'
        )
    return protocols


def _internet(reader: Reader, value: JSON, path: Path) -> tuple[ProtoPorts, ...]:
    found = []
    for word, where in reader.texts(value, path):
        protocol, colon, ports = word.rpartition(":")
        if ":" in protocol:
            reader.note(
                where, f'"{word}": expected only one colon in Internet protocol and port type'
            )
            continue
        try:
            protocols = parse_protocol(protocol)
        except PortError as error:
            reader.note(where, str(error))
            continue
        if colon and not protocols:
            reader.note(where, f'"{word}": empty protocol')
            continue
        if not word:
            reader.note(where, "empty string: want ports, such as 443, tcp:443 or *")
            continue
        try:
            found.append(ProtoPorts(protocols, parse_ports(ports)))
        except PortError as error:
            reader.note(where, str(error))
            continue
    return tuple(found)


def _via(reader: Reader, names: Names, value: JSON, path: Path) -> tuple[str, ...]:
    found = []
    for word, where in reader.texts(value, path):
        if not word.startswith("tag:"):
            reader.note(where, f'via can only be a tag, not "{word}"')
        elif word not in names.tags:
            near = reader.suggest(word, names.tags)
            reader.note(where, f'tag "{word}" not found{near}')
        found.append(word)
    return tuple(found)
