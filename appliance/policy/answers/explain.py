"""Why one address may reach another, or what is nearest to letting it: an answer for people.

Not for deciding (``reach`` does). Sits on ``reach``; the CLI and the API print it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from appliance.errors import Invalid, NotFound
from appliance.policy.engine.reach import End, Miss, Verdict, end_of, verdicts
from appliance.policy.engine.state import State
from appliance.policy.text.language import Place
from appliance.policy.text.ports import ALL_PORTS, PortError, Ports, parse_ports, parse_protocol
from appliance.policy.text.rulesections import split_target
from appliance.records import Address, NodeID

MAX_REASONS = 50
MAX_WORDS = 12
"""Rules, and words at one side of a rule, that an explanation names."""
NEAREST = 3
"""Rules that an answer names when none lets the packet through."""
_DISTANCE = {miss: distance for distance, miss in enumerate(reversed(Miss), 1)}


@dataclass(frozen=True, slots=True)
class Reason:
    """One rule and why it does not match; ``miss`` "" means that it does."""

    place: Place
    rule: str
    miss: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.rule}" + (f": {self.miss}" if self.miss else "")


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: for ``allowed`` the rules that let it through, else the nearest ones."""

    src: str
    dst: str
    allowed: bool
    reasons: tuple[Reason, ...]

    def __str__(self) -> str:
        head = f"{self.src} -> {self.dst}: {'allowed' if self.allowed else 'denied'}"
        if not self.reasons:
            return f"{head}\n  no rule comes near"
        word = "by" if self.allowed else "nearest"
        return "\n".join((head, *(f"  {word} {reason}" for reason in self.reasons)))


def explain(
    state: State,
    src: str,
    dst: str,
    protocol: str = "",
    names: Mapping[str, NodeID] | None = None,
) -> Explanation:
    """Explain whether ``src`` may reach ``dst``, which may carry a port: ``web:443``, ``10.0.0.1``.

    Both are names or addresses of nodes, or any address. ``names`` are the nodes by their present
    names; without it those count that they had when they last mattered to the policy.
    Raises NotFound or Invalid.
    """
    question = _Question(state, names)
    return question.answer(src, dst, protocol)


class _Question:
    """One question, and the names that it may use."""

    def __init__(self, state: State, names: Mapping[str, NodeID] | None) -> None:
        self._state = state
        if names is None:
            names = {node.name: node.id for node in state.nodes.values()}
        self._names = names

    def answer(self, src: str, dst: str, protocol: str) -> Explanation:
        host, port = self._split(dst)
        try:
            protocols = parse_protocol(protocol)
        except PortError as error:
            raise Invalid("protocol-unknown", str(error), concerns=protocol) from error
        pairs = [
            (one, other)
            for one in self._ends(src)
            for other in self._ends(host)
            if one.address.version == other.address.version
        ]
        if not pairs:
            sentence = f"{src} and {host} have no addresses of the same family"
            raise Invalid("families-differ", sentence)
        found = [
            verdict
            for one, other in pairs
            for verdict in verdicts(self._state, one, other, port, protocols)
        ]
        best = [verdict for verdict in found if verdict.miss is None]
        is_allowed = bool(best)
        if not is_allowed:
            near = [
                verdict
                for verdict in found
                # A rule that misses the source is near if it ends at the destination at least.
                if verdict.miss is not Miss.SOURCE or verdict.is_end
            ]
            best = sorted(near, key=distance)
        shown = MAX_REASONS if is_allowed else NEAREST
        reasons: dict[Reason, None] = {}
        for verdict in best:
            reasons[_reason(verdict)] = None
            if len(reasons) >= shown:
                break
        return Explanation(src, dst, is_allowed, tuple(reasons))

    def _split(self, text: str) -> tuple[str, int | None]:
        if text in self._names or _address(text) is not None:
            return text, None
        try:
            host, ports = split_target(text)
            found = parse_ports(ports)
        except PortError:
            return text, None
        if ports == "*":
            return host, None
        if len(found) != 1 or found[0].first != found[0].last:
            raise Invalid("port-unclear", f"{text}: name one port, or none", concerns=text)
        return host, found[0].first

    def _ends(self, text: str) -> list[End]:
        state = self._state
        node = state.nodes.get(self._names[text]) if text in self._names else None
        if node is not None:
            return [end_of(state, address, node) for address in node.addresses]
        address = _address(text)
        if address is None:
            host = state.rule_index.policy.hosts.get(text)
            if host is None or host.low != host.high:
                sentence = f"{text} is no node, host or address"
                raise NotFound("node-unknown", sentence, concerns=text)
            address = host.networks()[0].network_address
        owner = next((n for n in state.nodes.values() if address in n.addresses), None)
        return [end_of(state, address, owner)]


def _address(text: str) -> Address | None:
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def distance(verdict: Verdict) -> int:
    """Return how far a flow is from letting through; 0 does."""
    return _DISTANCE[verdict.miss] if verdict.miss is not None else 0


def _reason(verdict: Verdict) -> Reason:
    flow = verdict.flow
    src = shortened([selector.written for selector in flow.src])
    dst = "autogroup:self" if flow.is_self else shortened([each.written for each in flow.dst])
    ports = shortened([_port_text(each) for each in flow.ports], ",")
    via = f" via {', '.join(sorted(flow.via))}" if flow.via else ""
    protocols = f" proto {','.join(map(str, flow.protocols))}" if flow.protocols else ""
    posture = f" in {', '.join(flow.postures)}" if flow.postures else ""
    rule = f"{src}{posture} -> {dst}:{ports}{protocols}{via}"
    return Reason(flow.place, rule, "" if verdict.miss is None else str(verdict.miss))


def _port_text(ports: Ports) -> str:
    if ports == ALL_PORTS:
        return "*"
    return f"{ports.first}-{ports.last}" if ports.first < ports.last else str(ports.first)


def shortened(words: list[str], between: str = ", ") -> str:
    """Put words in a row, the last of many counted only."""
    rest = len(words) - MAX_WORDS
    more = [f"and {rest} more"] if rest > 0 else []
    return between.join((*words[:MAX_WORDS], *more))
