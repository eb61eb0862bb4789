"""Why one end of a tailnet may reach another, for people: packets, logins, and the way there.

The question may name nodes, users, tags, groups, hosts and addresses; a word for several nodes is
answered for each of them. Works with a server and without one, like ``commands``. Not for
deciding (``policy.reach`` does). Sits on the ``policy`` package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_address, ip_network
from itertools import islice, product

from msgspec import Struct
from msgspec.structs import replace

from appliance import durations
from appliance.errors import Invalid, NotFound
from appliance.policy.answers import explain as engine
from appliance.policy.answers import loginreasons
from appliance.policy.answers.commands import Subjects
from appliance.policy.engine.compile import Compiled
from appliance.policy.engine.matches import Key
from appliance.policy.engine.reach import Miss
from appliance.policy.engine.routes import RouteTable, elect
from appliance.policy.engine.state import State
from appliance.policy.text import spans
from appliance.policy.text.language import Place
from appliance.policy.text.mistakes import suggestion
from appliance.policy.text.postures import attributes_of
from appliance.policy.text.selectors import ROLES, Kind
from appliance.records import Address, Network, Node, NodeID, UserID
from appliance.wire.tailcfg.message import address_text

MAX_PAIRS = 20
"""Pairs of nodes in one answer; who asks about more wants ``policy diff`` or a list of rules."""

_WITH_PORT = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>.+)):(?P<ports>\*|[0-9][0-9,-]*)")
_AUTOGROUPS: dict[str, Key] = {
    "autogroup:member": (Kind.MEMBER, ""),
    "autogroup:members": (Kind.MEMBER, ""),
    "autogroup:tagged": (Kind.TAGGED, ""),
    "autogroup:shared": (Kind.SHARED, ""),
    **{f"autogroup:{role}": (Kind.ROLE, role) for role in ROLES},
}


class Reason(Struct, frozen=True, kw_only=True):
    """A rule, where it stands, and why it does not match: ``miss`` is empty if it does."""

    section: str
    index: int
    line: int
    rule: str
    miss: str = ""


class Login(Struct, frozen=True, kw_only=True, rename="camel"):
    """A rule that lets the source log in by SSH: "accept" or "check", and as whom.

    ``users`` are the local users that it decides about, before any other rule. "*" matches every
    local user not named by another rule for the source; ``besides`` lists the exceptions. ``check_period`` is how long an approval holds, as policies write it; empty for "accept".
    ``recorders`` null means that sessions are not recorded, an empty list that no node of the
    tailnet is the recorder; sessions are then refused if ``enforce_recorder``. ``own_devices``: the
    rule does not name the destination, which is told of it because it is the owner's own and
    ``localpart:`` is in ``users``.
    """

    action: str
    users: tuple[str, ...]
    besides: tuple[str, ...] = ()
    section: str
    index: int
    line: int
    rule: str
    check_period: str = ""
    recorders: tuple[str, ...] | None = None
    enforce_recorder: bool = False
    own_devices: bool = False


class Way(Struct, frozen=True, kw_only=True):
    """The route to an address that is no node's, and the router that carries it.

    Of several exit nodes the source may choose one.
    """

    route: str
    routers: tuple[str, ...]


class Pair(Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer for one source and one destination.

    ``ssh`` is null unless both are nodes and the port may be SSH's; ``ssh_more`` counts logins that
    are left out. ``ssh_nearest`` are the rules
    that come near where none lets in, or not as the user who was asked about; ``ssh_blocked`` is
    true where one does, but packets to the port of SSH do not get through. ``way`` is null if the
    destination is a node, or if no router carries it: then ``unrouted`` is true.
    ``capabilities`` are what grants give the source at the destination, beside packets.
    """

    src: str
    dst: str
    allowed: bool
    reasons: tuple[Reason, ...] = ()
    ssh: tuple[Login, ...] | None = None
    ssh_more: int = 0
    ssh_nearest: tuple[Reason, ...] = ()
    ssh_blocked: bool = False
    way: Way | None = None
    unrouted: bool = False
    capabilities: tuple[str, ...] = ()


class Explanation(Struct, frozen=True, kw_only=True):
    """The whole answer; ``allowed`` if every pair is, ``more`` counts pairs that are left out.

    With a ``user`` it is ``allowed`` only if every source may also log in as this one.
    """

    src: str
    dst: str
    user: str = ""
    allowed: bool
    pairs: tuple[Pair, ...]
    more: int = 0


def explain(
    compiled: Compiled,
    subjects: Subjects,
    src: str,
    dst: str,
    protocol: str = "",
    *,
    user: str = "",
    is_up: Callable[[NodeID], bool] = lambda _: True,
    table: RouteTable | None = None,
) -> Explanation:
    """Explain whether ``src`` may reach ``dst``, which may carry a port. Raises NotFound, Invalid.

    ``user`` is the local user that is asked about: then only logins as this one are explained.
    ``is_up`` tells which routers are there; ``table`` is the route table where one is at hand.
    """
    state = compiled.state
    if state is None:
        raise ValueError("only policies that were compiled can be explained")
    if table is None or table.state is not state:
        table = RouteTable(state, elect(state, is_up))
    if user in (loginreasons.ANY, "autogroup:nonroot"):
        raise Invalid("user-unclear", f"{user}: name one local user, or none", concerns=user)
    return _Question(compiled, state, subjects, table, user).answer(src, dst, protocol)


class _Question:
    """One question about one tailnet."""

    def __init__(
        self,
        compiled: Compiled,
        state: State,
        subjects: Subjects,
        table: RouteTable,
        user: str,
    ) -> None:
        self._compiled = compiled
        self._state = state
        self._subjects = subjects
        self._table = table
        self._user = user
        self._names = {node.name: node.id for node in subjects.nodes.values()}
        self._keys: dict[tuple[str, ...] | UserID | None, frozenset[Key]] = {}

    def answer(self, src: str, dst: str, protocol: str) -> Explanation:
        host, ports = self._split(dst)
        sources, destinations = self._ends(src), self._ends(host)
        # Nobody asks whether a node reaches itself, but a user's nodes are often on both sides.
        every = ((a, b) for a, b in product(sources, destinations) if a != b)
        answers = tuple(self._pair(a, b, ports, protocol) for a, b in islice(every, MAX_PAIRS))
        if not answers:
            raise Invalid("ends-equal", f"{src} and {host} are the same node", concerns=src)
        total = len(sources) * len(destinations) - len(set(sources) & set(destinations))
        return Explanation(
            src=src,
            dst=dst,
            user=self._user,
            allowed=all(map(self._is_allowed, answers)),
            pairs=answers,
            more=total - len(answers),
        )

    def _is_allowed(self, pair: Pair) -> bool:
        is_in = not self._user or (bool(pair.ssh) and not pair.ssh_blocked)
        return pair.allowed and is_in

    def _pair(self, src: str, dst: str, ports: str, protocol: str) -> Pair:
        target = dst
        if ports:
            target = f"[{dst}]:{ports}" if ":" in dst else f"{dst}:{ports}"
        found = engine.explain(self._state, src, target, protocol, self._names)
        source, destination = self._node(src), self._node(dst)
        way, is_unrouted = None, False
        if destination is None:
            way = self._way(source, _address_of(self._state, dst))
            is_unrouted = way is None
        is_ssh = ports in ("", "*", str(loginreasons.SSH_PORT)) and protocol in ("", "tcp", "6")
        if self._user and not is_ssh:
            raise Invalid("user-unclear", f"no login as {self._user} by this port and protocol")
        pair = Pair(
            src=src,
            dst=target,
            allowed=found.allowed,
            reasons=tuple(self._reason(each, source) for each in found.reasons),
            way=way,
            unrouted=is_unrouted,
            capabilities=self._capabilities(source, destination),
        )
        if not is_ssh or source is None or destination is None:
            return pair
        return self._with_logins(pair, source, destination)

    def _reason(self, reason: engine.Reason, source: Node | None) -> Reason:
        miss = reason.miss
        if miss == Miss.POSTURE and source is not None:
            miss = f"{miss}: {'; '.join(self._unmet(reason.place, source))}"
        return Reason(
            section=reason.place.section,
            index=reason.place.index,
            line=reason.place.spot.line,
            rule=reason.rule,
            miss=miss,
        )

    def _unmet(self, place: Place, node: Node) -> Iterator[str]:
        """Return which conditions of a rule's postures a node does not meet."""
        rule_index = self._state.rule_index
        known = attributes_of(node)
        names = {name for flow in rule_index.flows if flow.place == place for name in flow.postures}
        for name in sorted(names):
            for each in rule_index.policy.postures[name]:
                if not each.holds(known):
                    wanted = ", ".join(map(_shown, each.values))
                    found = _shown(known.get(each.name, "not set"))
                    want = f"{each.name} {each.operator} {wanted}".strip()
                    yield f"{name} wants {want}, it is {found}"

    # ── words ───────────────────────────────────────────────────────────────────────────────────

    def _split(self, text: str) -> tuple[str, str]:
        """Cut a destination into what it names and its port; a name may have colons itself."""
        match = _WITH_PORT.fullmatch(text)
        if match is None or text in self._names or _address(text) is not None:
            return text, ""
        return match["v6"] or match["host"], match["ports"]

    def _ends(self, word: str) -> list[str]:
        """Return the nodes that a word names, or the host or address that it is."""
        if word in self._names or word in self._state.rule_index.policy.hosts:
            return [word]
        if _address(word) is not None:
            return [word]
        key = self._key(word)
        if key is None:
            near = suggestion(word, self._words())
            sentence = f"{word!r} is no node, user, group, tag, host or address{near}"
            raise NotFound("end-unknown", sentence, concerns=word)
        found = [
            node.name
            for node in sorted(self._subjects.nodes.values(), key=lambda node: node.id)
            if key in self._keys_of(node)
        ]
        if not found:
            sentence = f"{word} has no node in this tailnet; the policy's own tests may name it"
            raise NotFound("end-empty", sentence, concerns=word)
        return found

    def _keys_of(self, node: Node) -> frozenset[Key]:
        """Return the words for a node, found once for all with the same user or tags."""
        owner = node.tags or node.user_id
        known = self._keys.get(owner)
        if known is None:
            known = frozenset(self._state.rule_index.keys_of(node, self._subjects.users))
            self._keys[owner] = known
        return known

    def _key(self, word: str) -> Key | None:
        if word.startswith("tag:"):
            return Kind.TAG, word
        if word.startswith("group:"):
            is_own = word in self._state.rule_index.policy.groups
            return (Kind.GROUP if is_own else Kind.SYNCED_GROUP), word
        if word.startswith("autogroup:"):
            return _AUTOGROUPS.get(word)
        login = word.removeprefix("user:").lower()
        if login.startswith("*@"):
            return Kind.DOMAIN, login.removeprefix("*@")
        if "@" in login:
            return Kind.USER, login
        # A user's bare name, as the other commands take it.
        is_user = any(user.name.lower() == login for user in self._subjects.users.values())
        return (Kind.USER, f"{login}@") if is_user else None

    def _words(self) -> Iterator[str]:
        policy = self._state.rule_index.policy
        yield from self._names
        for user in self._subjects.users.values():
            yield user.name
            yield user.login_name
        for words in (policy.hosts, policy.tags, policy.groups, _AUTOGROUPS):
            yield from words

    def _node(self, word: str) -> Node | None:
        """Return the node that an end is, by name or by address."""
        node_id = self._names.get(word)
        if node_id is not None:
            return self._state.nodes.get(node_id)
        address = _address_of(self._state, word)
        return next((n for n in self._state.nodes.values() if address in n.addresses), None)

    # ── beside packets ──────────────────────────────────────────────────────────────────────────

    def _with_logins(self, pair: Pair, src: Node, dst: Node) -> Pair:
        """Add what SSH says of two nodes; a login needs the packets to arrive, too."""
        ends = self._state, src, dst, self._user
        found = loginreasons.granted(*ends)
        if not found:
            near = loginreasons.nearest(*ends)
            return replace(
                pair, ssh=(), ssh_nearest=tuple(self._reason(each, src) for each in near)
            )
        arrives = loginreasons.arrives(self._state, src, dst)
        return replace(
            pair,
            ssh=tuple(map(self._login, found[: engine.MAX_REASONS])),
            ssh_more=len(found[engine.MAX_REASONS :]),
            ssh_blocked=not arrives,
        )

    def _login(self, found: loginreasons.Granted) -> Login:
        place, recorders = found.reason.place, None
        if found.recorders is not None:
            recorders = tuple(self._subjects.nodes[each].name for each in found.recorders)
        return Login(
            action="accept" if found.period is None else "check",
            users=found.users,
            besides=found.besides,
            section=place.section,
            index=place.index,
            line=place.spot.line,
            rule=found.reason.rule,
            check_period="" if found.period is None else _period(found.period),
            recorders=recorders,
            enforce_recorder=found.must_record,
            own_devices=found.is_own,
        )

    def _way(self, src: Node | None, address: Address | None) -> Way | None:
        if address is None:
            return None
        found: list[tuple[Network, NodeID]] = []
        if src is None:
            found = [
                (route, node_id)
                for (route, tags), node_id in self._table.elections.chosen.items()
                if not tags
            ]
        else:
            own = self._state.routes(src.id).subnets
            found = [(route, src.id) for route in own]
            for node_id, routes in self._table.seen(src.id).items():
                found += [(route, node_id) for route in routes.allowed]
        fitting = [(r, n) for r, n in found if r.version == address.version and address in r]
        if not fitting:
            return None
        length = max(route.prefixlen for route, _ in fitting)
        best = [(route, router) for route, router in fitting if route.prefixlen == length]
        routers = sorted({router for _, router in best})
        return Way(
            route=str(best[0][0]), routers=tuple(self._state.nodes[each].name for each in routers)
        )

    def _capabilities(self, src: Node | None, dst: Node | None) -> tuple[str, ...]:
        if src is None or dst is None:
            return ()
        found = (
            name
            for rule in self._compiled.packet_filter(dst.id)
            if rule.cap_grant and _holds(rule.src_ips, src)
            for grant in rule.cap_grant
            for name in grant.cap_map
        )
        return tuple(dict.fromkeys(found))


def _holds(texts: tuple[str, ...], node: Node) -> bool:
    """Return whether a filter's list of sources holds any of a node's addresses."""
    if "*" in texts or any(address_text(address) in texts for address in node.addresses):
        return True
    known = [span for text in texts if (span := spans.parse(text)) and span.low != span.high]
    return any(span.holds(address) for span in known for address in node.addresses)


def _shown(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _address_of(state: State, word: str) -> Address | None:
    """Return the address that a word is, or the one that the policy gives a host."""
    host = state.rule_index.policy.hosts.get(word)
    if host is not None and host.low == host.high:
        return ip_network(host.text).network_address
    return _address(word)


def _period(period: timedelta) -> str:
    """Write a checkPeriod as policies do: ``12h``, ``1h30m``; zero is ``always``."""
    if not period:
        return "always"
    return durations.to_text(period, largest="h")
