"""Device postures: conditions on what is known of a node.

Not for who may set attributes, and which (``tailnet.attributes``). Sits on ``records``.
Source: the hosted service's public description of posture conditions
(operators ``== != < <= > >= IN, NOT IN, IS SET, NOT SET``; all conditions of one posture hold
together, a rule with several postures needs one of them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from appliance.records import AttributeValue, Node

_CONDITION = re.compile(
    r"\s*(?P<name>[A-Za-z][\w:.-]*)\s*"
    r"(?P<op>==|!=|>=|<=|>|<|\bNOT\s+IN\b|\bIN\b|\bIS\s+SET\b|\bNOT\s+SET\b)"
    r"\s*(?P<rest>.*)",
    re.DOTALL,
)
_VALUE = re.compile(r"\s*(?:'([^']*)'|\"([^\"]*)\"|(-?[0-9]+(?:\.[0-9]+)?)|(true|false))\s*")
REPORTED = "node:"
"""The namespace of what nodes report themselves."""
GIVEN = ("custom:", "ip:", "intune:", "jamf:", "fleet:", "falcon:", "kandji:")
"""The namespaces of what others say of a node: administrators, integrations."""
_NAMESPACES = (REPORTED, *GIVEN)
_VERSIONS = frozenset({"node:osVersion", "node:tsVersion"})


class ConditionError(ValueError):
    """Text that is no condition; the message says why."""


@dataclass(frozen=True, slots=True)
class Condition:
    """An attribute, an operator and its operands."""

    name: str
    operator: str
    values: tuple[AttributeValue, ...] = ()

    def holds(self, attributes: Mapping[str, AttributeValue]) -> bool:
        """Return whether the condition is true; of an unknown attribute only NOT SET is."""
        known = attributes.get(self.name)
        match self.operator:
            case "IS SET":
                return known is not None
            case "NOT SET":
                return known is None
            case _ if known is None:
                return False
            case "==" | "IN":
                return any(_is_same(known, value) for value in self.values)
            case "!=" | "NOT IN":
                return not any(_is_same(known, value) for value in self.values)
            case _:
                return self._compare(known, self.values[0])

    def _compare(self, known: AttributeValue, value: AttributeValue) -> bool:
        if self.name in _VERSIONS or (isinstance(known, str) and isinstance(value, str)):
            left, right = version_key(str(known)), version_key(str(value))
            if not left or not right:
                return False  # what is no version is neither older nor newer
            # What is not said is zero: 1.80 is 1.80.0.
            longest = max(len(left), len(right))
            left, right = (each + (0,) * (longest - len(each)) for each in (left, right))
            order = (left > right) - (left < right)
        elif isinstance(known, str | bool) or isinstance(value, str | bool):
            return False
        else:
            order = (known > value) - (known < value)
        return {
            ">": order > 0,
            ">=": order >= 0,
            "<": order < 0,
            "<=": order <= 0,
        }[self.operator]


def _is_same(known: AttributeValue, value: AttributeValue) -> bool:
    """Compare two values; Python takes true for 1, postures do not."""
    return known == value and isinstance(known, bool) == isinstance(value, bool)


def version_key(text: str) -> tuple[int, ...]:
    """Return what versions are compared by: their numbers up to the first other text."""
    numbers = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,7}", text)
    return tuple(int(part) for part in numbers.group().split(".")) if numbers else ()


def parse(text: str) -> Condition:
    """Read one condition. Raises ConditionError."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ConditionError("not a condition: want ATTRIBUTE OPERATOR VALUE")
    name, rest = match["name"], match["rest"]
    operator = " ".join(match["op"].split())
    if not name.startswith(_NAMESPACES):
        raise ConditionError(f'unknown attribute "{name}": names start with node:, ip: or custom:')
    if operator in ("IS SET", "NOT SET"):
        if rest.strip():
            raise ConditionError(f"{operator} takes no value")
        return Condition(name, operator)
    if operator in ("IN", "NOT IN"):
        inner = rest.strip()
        if not (inner.startswith("[") and inner.endswith("]")):
            raise ConditionError(f"{operator} wants a list: ['a', 'b']")
        return Condition(name, operator, _folded(name, _values(inner[1:-1])))
    values = _values(rest)
    if len(values) != 1:
        raise ConditionError(f"{operator} wants one value")
    if operator not in ("==", "!=") and not _has_order(values[0]):
        raise ConditionError(f"{operator} wants a number or a version such as '1.60'")
    return Condition(name, operator, _folded(name, values))


def _has_order(value: AttributeValue) -> bool:
    return bool(version_key(value)) if isinstance(value, str) else not isinstance(value, bool)


def _folded(name: str, values: tuple[AttributeValue, ...]) -> tuple[AttributeValue, ...]:
    """Write names of systems as ``attributes_of`` does: ``!= 'Windows'`` must not let it in."""
    if name != "node:os":
        return values
    return tuple(_os_name(value) if isinstance(value, str) else value for value in values)


def _values(text: str) -> tuple[AttributeValue, ...]:
    found: list[AttributeValue] = []
    at = 0
    while at < len(text.rstrip()) or not found:
        match = _VALUE.match(text, at)
        if match is None:
            raise ConditionError("a value is 'text', a number, true or false")
        single, double, number, word = match.groups()
        if number is not None:
            found.append(float(number))
        elif word is not None:
            found.append(word == "true")
        else:
            found.append(single if single is not None else double)
        at = match.end()
        if at < len(text) and text[at] == ",":
            at += 1
        elif at < len(text):
            raise ConditionError("values are separated by commas")
    return tuple(found)


def _os_name(text: str) -> str:
    name = text.lower()
    return "macos" if name == "darwin" else name


NO_MORE: Mapping[str, AttributeValue] = {}


def attributes_of(
    node: Node, more: Mapping[str, AttributeValue] = NO_MORE
) -> dict[str, AttributeValue]:
    """Return everything that is known of a node: what it was given, what it reports, and ``more``.

    The later ones go before the earlier ones.
    """
    hostinfo = node.hostinfo
    known = {each.name: each.value for each in node.attributes}
    if hostinfo.os:
        known["node:os"] = hostinfo.os
    if hostinfo.os_version:
        known["node:osVersion"] = hostinfo.os_version
    version = version_key(hostinfo.ipn_version)
    if len(version) >= 2:
        known["node:tsVersion"] = ".".join(map(str, version))
        known["node:tsReleaseTrack"] = "unstable" if version[1] % 2 else "stable"
        known["node:tsAutoUpdate"] = hostinfo.allows_update
    if hostinfo.state_encrypted is not None:
        known["node:tsStateEncrypted"] = hostinfo.state_encrypted
    known.update(more)
    system = known.get("node:os")
    if isinstance(system, str):
        known["node:os"] = _os_name(system)
    return known
