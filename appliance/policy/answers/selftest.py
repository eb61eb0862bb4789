"""The policy's own ``tests`` and ``sshTests``, which must hold before it is applied.

Not for refusing (the verb that sets a policy does). A user or tag without any device is tested with
a device that is made up for it, and so is a user who has not logged in yet, so that a policy can be
written before the devices come. Sits on ``reach`` and ``ssh``.
Source: the recorded answers. A test destination is one host and one port: prefixes, port lists,
ranges and ``*`` fail the test, whatever the rules say, and so does a word that means nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from itertools import chain, compress
from typing import TypeAlias

from appliance.policy.answers.notes import tested_users
from appliance.policy.engine import reach
from appliance.policy.engine.filters import Kept
from appliance.policy.engine.limits import MAX_LOGINS_TOLD, heaviest_logins
from appliance.policy.engine.matches import Key, RuleIndex, names_of, spans_of
from appliance.policy.engine.ssh import first_action, ssh_policy
from appliance.policy.engine.state import first_state
from appliance.policy.text import spans
from appliance.policy.text.language import Background, Place, Policy, PolicyTest, SSHTest
from appliance.policy.text.mistakes import Reader
from appliance.policy.text.ports import PortError, parse_ports, parse_protocol
from appliance.policy.text.rulesections import split_target
from appliance.policy.text.selectors import Kind, Names, Selector, Side, bare
from appliance.records import Address, AttributeValue, Node, NodeID, User, UserID
from appliance.wire import tailcfg
from appliance.wire.hujson import decode_document
from appliance.wire.keys import MachineKey, NodeKey
from appliance.wire.tailcfg.message import address_text

SSHRules: TypeAlias = "tuple[tailcfg.SSHRule, ...]"

MAX_WORK = 500_000
"""Comparisons that all tests together may take; half a second of work. Sources that the rules do
not tell apart count once, so a policy would need thousands of tests about every device."""
KINDS_A_STEP = 4
"""Ends whose rules are looked at in the time of one comparison."""
HITS_A_STEP = 8
"""Addresses that are looked up in the time of one comparison."""
RULES_A_STEP = 4
"""SSH rules that are asked about a login in that time."""
PRINCIPALS_A_STEP = 16
"""Sources of an SSH rule that are made ready for looking up in that time."""
MADE_UP_ID = 1 << 60
"""Above any id that a store gives, so that made-up nodes meet no real ones."""
MAX_MADE_UP_USERS = 1000
"""Users who are made up for words of the tests that nobody is called by; more fail their tests."""
TESTED_PROTOCOLS = frozenset({6, 17, 132})
_FAILED = "test(s) failed"
_TOO_MUCH = "the tests ask for too much: let fewer of them name all devices on both sides"
_TOO_MUCH_TOLD = (
    "with a made-up device for each tag and user that has none, the SSH rules of one device come to "
    "more sources than it could be told of"
)
_SIDE = Side(bare)


@dataclass(frozen=True, slots=True)
class Failure:
    """A test that failed, and why."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def run(
    policy: Policy,
    users: Mapping[UserID, User],
    nodes: Mapping[NodeID, Node],
    background: Background,
    rule_index: RuleIndex | None = None,
) -> tuple[Failure, ...]:
    """Run every test of a policy against it; () means that all hold.

    ``rule_index`` is what was made of this policy and background already, if anything was.
    """
    if not policy.tests and not policy.ssh_tests:
        return ()
    bench = _Bench(policy, users, nodes, background, rule_index)
    found: list[Failure] = []
    if policy.ssh_tests and bench.is_told_too_much:
        return (Failure(policy.ssh_tests[0].place, _TOO_MUCH_TOLD),)
    tests: tuple[PolicyTest | SSHTest, ...] = (*policy.tests, *policy.ssh_tests)
    for test in tests:
        found += bench.run_test(test) if isinstance(test, PolicyTest) else bench.run_ssh_test(test)
        if bench.is_tired:
            return *found, Failure(test.place, _TOO_MUCH)
    return tuple(found)


def describe(failures: Iterable[Failure]) -> str:
    """Return what a person is told, beginning with the hosted service's words."""
    return "\n".join((_FAILED, *(str(failure) for failure in failures)))


@dataclass(frozen=True, slots=True)
class _Ends:
    """Ends that are answered alike, but for what each owner may do with own devices."""

    end: reach.End
    owners: set[UserID | None]


class _Bench:
    """The tailnet with made-up devices, and the words of the policy."""

    def __init__(
        self,
        policy: Policy,
        users: Mapping[UserID, User],
        nodes: Mapping[NodeID, Node],
        background: Background,
        rule_index: RuleIndex | None,
    ) -> None:
        self._names = Names(
            groups=dict(policy.groups),
            tags=dict(policy.tags),
            hosts=dict(policy.hosts),
            ipsets=dict(policy.ipsets),
            domains=policy.domains,
            providers=policy.providers,
        )
        self._reader = Reader(decode_document("{}"))
        self._users, self._nodes = dict(users), dict(nodes)
        self._make_up(policy)
        self._state = first_state(policy, background, self._users, self._nodes, rule_index)
        self._state.kept = Kept()
        self._by_address: dict[Address, Node] = {
            address: node for node in self._nodes.values() for address in node.addresses
        }
        self._by_key: defaultdict[Key, list[Node]] = defaultdict(list)
        for node in self._nodes.values():
            for key in self._state.rule_index.keys_of(node, self._users):
                self._by_key[key].append(node)
        self._owned: defaultdict[UserID, list[NodeID]] = defaultdict(list)
        for node in self._nodes.values():
            if not node.tags and node.user_id is not None:
                self._owned[node.user_id].append(node.id)
        self._work = 0
        self._known: dict[str, list[reach.End]] = {}
        self._kinds_of: dict[int, tuple[list[reach.End], list[_Ends]]] = {}
        self._end_of: dict[Address, reach.End] = {}
        self._openings = reach.Openings(self._state)
        self._ports: dict[tuple[int, tuple[int, ...]], int] = {}
        self._alike: dict[int, tuple[list[reach.End], list[_Ends]]] = {}
        self._left: dict[tuple[int, int, bool], tuple[list[_Ends], set[tuple[int, int]]]] = {}
        self._asked: dict[NodeID, object] = {}
        self._texts: dict[int, list[str]] = {}
        self._told: dict[NodeID, SSHRules] = {}
        self._names_of: dict[int, tuple[object, frozenset[str]]] = {}
        self._hits: dict[tuple[int, int], list[bool]] = {}
        # By identity: the sources of a word are kept, and so are the rules of a device.
        self._told_where: dict[
            tuple[tuple[str, ...], int], tuple[list[tuple[SSHRules, str]], list[str]]
        ] = {}
        self._matching: dict[tuple[int, int], list[tuple[int, ...]]] = {}

    def _make_up(self, policy: Policy) -> None:
        """Give a device to every user and tag that has none, and make up users who may come.

        A login that no user has may be misspelt: ``notes`` names it. Rules that name it let in no
        one who is there, so a test about it lets in no one either.
        """
        known = set().union(*map(names_of, self._users.values()))
        strange = sorted(set(tested_users(policy)) - known)
        for number, login in enumerate(strange[:MAX_MADE_UP_USERS]):
            user_id = UserID(MADE_UP_ID + number)
            name, email = (login[:-1], "") if login[-1] == "@" else (f"made-up-{number}", login)
            self._users[user_id] = User(user_id, name, _NEVER, email=email)
        owners = {node.user_id for node in self._nodes.values() if not node.tags}
        for user_id in self._users:
            if user_id not in owners:
                self._add(user_id, ())
        used = {tag for node in self._nodes.values() for tag in node.tags}
        for tag in policy.tags:
            if tag not in used:
                self._add(None, (tag,))

    def _add(self, owner: UserID | None, tags: tuple[str, ...]) -> None:
        number = len(self._nodes)
        seed = number.to_bytes(32, "big")
        node = Node(
            id=NodeID(MADE_UP_ID + number),
            stable_id=f"made-up-{number}",
            machine_key=MachineKey(seed),
            node_key=NodeKey(seed),
            name=f"made-up-{number}",
            hostname=f"made-up-{number}",
            created_at=_NEVER,
            user_id=owner,
            tags=tags,
            # From the far ends of CGNAT and the ULA.
            ipv4=IPv4Address("100.127.255.254") - number,
            ipv6=IPv6Address("fd7a:115c:a1e0:ffff::") + number,
        )
        self._nodes[node.id] = node

    @property
    def is_tired(self) -> bool:
        """Return whether the tests asked for too much; then the rest is not tested."""
        return self._work > MAX_WORK

    @property
    def is_told_too_much(self) -> bool:
        """Return whether a device would be told of more SSH rules than it could be."""
        return heaviest_logins(self._state) > MAX_LOGINS_TOLD

    # ── tests ───────────────────────────────────────────────────────────────────────────────────

    def run_test(self, test: PolicyTest) -> Iterator[Failure]:
        """Run one entry of ``tests``."""
        sources, problem = self._sources(test.src)
        if problem:
            yield Failure(test.place, problem)
            return
        try:
            protocols = parse_protocol(test.protocol)
        except PortError as error:
            yield Failure(test.place, str(error))
            return
        if not TESTED_PROTOCOLS.issuperset(protocols):
            text = f'"{test.protocol}" has no ports: a test is for tcp, udp or sctp'
            yield Failure(test.place, text)
            return
        if not test.accept and not test.deny:
            yield Failure(test.place, "neither accept nor deny: nothing is tested")
        kinds = self._kinds(sources)
        if test.attributes:
            kinds = self._kinds_with(sources, test.attributes)
        for is_accept, words in ((True, test.accept), (False, test.deny)):
            for word in words:
                ends, port, problem = self._destinations(word, sources)
                if problem:
                    yield Failure(test.place, f'"{word}": {problem}')
                    continue
                others, opened = self._kinds(ends), self._opened(port, protocols)
                problem = self._test(test, word, kinds, others, opened, is_accept=is_accept)
                if problem:
                    yield Failure(test.place, problem)

    def _test(
        self,
        test: PolicyTest,
        word: str,
        kinds: list[_Ends],
        others: list[_Ends],
        opened: int,
        *,
        is_accept: bool,
    ) -> str:
        answers = self._answered(kinds, others, opened)
        is_open = answers != {True} if is_accept else True not in answers
        if is_open and opened & self._state.rule_index.selves:
            answers = self._answered_by_owner(kinds, others, opened, is_accept=is_accept)
        if self.is_tired:
            return ""
        if is_accept and answers != {True}:
            return f"{test.src} -> {word}: expected ALLOWED, got DENIED"
        if not is_accept and True in answers:
            return f"{test.src} -> {word}: expected DENIED, got ALLOWED"
        return ""

    def _answered(self, kinds: list[_Ends], others: list[_Ends], opened: int) -> set[bool]:
        """Return whether all, some or none reach the others, own devices aside.

        With one port most rules fall out, and most sources are alike in what is left.
        """
        starts = self._masked(kinds, opened, is_src=True)
        ends = self._masked(others, opened, is_src=False)
        self._work += len(starts) * len(ends)
        return {
            bool(start & end)
            for version, start in starts
            for other, end in ends
            if version == other
        }

    def _masked(self, kinds: list[_Ends], opened: int, *, is_src: bool) -> set[tuple[int, int]]:
        """Return what is left of the rules of some ends, by family."""
        key = id(kinds), opened, is_src
        known = self._left.get(key)
        if known is None:
            self._work += len(kinds) // KINDS_A_STEP
            mask = opened & ~self._state.rule_index.selves
            found: set[tuple[int, int]] = {
                (end.address.version, (end.starts & ~end.missed if is_src else end.ends) & mask)
                for end in (kind.end for kind in kinds)
            }
            # Kept with its list, so that no other gets its id.
            known = self._left[key] = kinds, found
        return known[1]

    def _answered_by_owner(
        self, kinds: list[_Ends], others: list[_Ends], opened: int, *, is_accept: bool
    ) -> set[bool]:
        """Return the same with own devices counted; of interest only where not all reach all."""
        if is_accept:
            self._work += len(kinds) * len(others)
            if self.is_tired:
                return set()
            return {
                answer
                for src in kinds
                for dst in others
                if src.end.address.version == dst.end.address.version
                for answer in self._answers(src, dst, opened)
            }
        mask = opened & self._state.rule_index.selves
        starts: defaultdict[tuple[int, UserID | None], int] = defaultdict(int)
        for kind in kinds:
            self._work += len(kind.owners) // KINDS_A_STEP
            for owner in kind.owners:
                end = kind.end
                starts[end.address.version, owner] |= end.starts & ~end.missed & mask
        for kind in others:
            self._work += len(kind.owners) // KINDS_A_STEP
            for owner in kind.owners:
                if starts.get((kind.end.address.version, owner), 0) & kind.end.ends:
                    return {True, False}
        return {False}

    def _answers(self, src: _Ends, dst: _Ends, opened: int) -> set[bool]:
        """Return whether ends of one kind reach ends of another: all, none, or each its own."""
        found = src.end.starts & ~src.end.missed & dst.end.ends & opened
        selves = self._state.rule_index.selves
        if found & ~selves:
            return {True}
        if not found or src.owners.isdisjoint(dst.owners):
            return {False}
        return {True} if len(src.owners) == len(dst.owners) == 1 else {True, False}

    def _kinds(self, ends: list[reach.End]) -> list[_Ends]:
        """Put those together that are answered alike."""
        known = self._kinds_of.get(id(ends))
        if known is None:
            self._work += len(ends)
            by_matches: dict[tuple[int, int, int, int], _Ends] = {}
            for end in ends:
                kind = by_matches.setdefault(end.matches, _Ends(end, set()))
                kind.owners.add(end.owner)
            # Kept with its list, so that no other gets its id.
            known = self._kinds_of[id(ends)] = ends, list(by_matches.values())
        return known[1]

    def _kinds_with(
        self, ends: list[reach.End], attributes: Mapping[str, AttributeValue]
    ) -> list[_Ends]:
        """Put those together that are answered alike, when these attributes are said of all."""
        known = self._alike.get(id(ends))
        if known is None:
            self._work += len(ends)
            alike: dict[tuple[object, ...], _Ends] = {}
            for end in ends:
                key = (end.address.version, end.starts, end.ends, self._asked_of(end.node))
                alike.setdefault(key, _Ends(end, set())).owners.add(end.owner)
            known = self._alike[id(ends)] = ends, list(alike.values())
        rule_index = self._state.rule_index
        self._work += len(known[1]) * (1 + rule_index.conditions)
        return [
            _Ends(
                replace(kind.end, missed=rule_index.missed(kind.end.node, attributes)), kind.owners
            )
            for kind in known[1]
        ]

    def _asked_of(self, node: Node | None) -> object:
        """Return what the postures ask of a node."""
        if node is None:
            return None
        if node.id not in self._asked:
            self._asked[node.id] = self._state.rule_index.asked_of(node)
        return self._asked[node.id]

    def _opened(self, port: int, protocols: tuple[int, ...]) -> int:
        """Return the flows that let packets to a port through."""
        key = port, protocols
        if key not in self._ports:
            self._ports[key] = self._openings.at(port, protocols)
        return self._ports[key]

    def _sources(self, word: str) -> tuple[list[reach.End], str]:
        selector = self._read(word)
        if selector is None:
            return [], f'source "{word}" means nothing'
        ends = self._ends(selector)
        return ends, "" if ends else f'source "{word}" has no addresses'

    def _destinations(
        self, word: str, sources: list[reach.End]
    ) -> tuple[list[reach.End], int, str]:
        try:
            host, text = split_target(word)
            ports = parse_ports(text)
        except PortError as error:
            return [], 0, str(error)
        if len(ports) != 1 or ports[0].first != ports[0].last:
            return [], 0, "a test is for one port, not for a list, a range or *"
        if "/" in host:
            return [], 0, "a test is for one host, not for a prefix"
        selector = self._read(host)
        if selector is None:
            return [], 0, "the destination means nothing"
        if selector.kind in (Kind.INTERNET, Kind.EVERYONE, Kind.DANGER_ALL):
            return [], 0, f'"{host}" is no host that can be tested'
        if selector.kind is Kind.ADDRESSES and any(s.low != s.high for s in selector.spans):
            return [], 0, "a test is for one host, not for a network"
        ends = self._own(sources) if selector.kind is Kind.SELF else self._ends(selector)
        return ends, ports[0].first, "" if ends else "the destination has no addresses"

    def _read(self, word: str) -> Selector | None:
        return self._names.read(self._reader, word, (), _SIDE) if word else None

    def _ends(self, selector: Selector) -> list[reach.End]:
        key = f"{selector.kind} {selector.name} {selector.written}"
        if key not in self._known:
            self._known[key] = [self._end(each) for each in self._addresses(selector)]
            self._work += len(self._known[key])
        return self._known[key]

    def _addresses(self, selector: Selector) -> list[Address]:
        if selector.kind in (Kind.ADDRESSES, Kind.SERVICE):
            known = spans_of(selector, self._state.rule_index.background)
            return [network.network_address for span in known for network in span.networks()]
        if selector.kind is Kind.EVERYONE:
            return list(self._by_address)
        nodes = self._by_key.get((selector.kind, selector.name), ())
        return [address for node in nodes for address in node.addresses]

    def _own(self, sources: list[reach.End]) -> list[reach.End]:
        owners = {end.owner for end in sources} - {None}
        return [
            self._end(address)
            for owner in owners
            if owner is not None
            for node_id in self._owned.get(owner, ())
            for address in self._nodes[node_id].addresses
        ]

    def _end(self, address: Address) -> reach.End:
        end = self._end_of.get(address)
        if end is None:
            node = self._by_address.get(address)
            end = self._end_of[address] = reach.end_of(self._state, address, node)
        return end

    # ── sshTests ────────────────────────────────────────────────────────────────────────────────

    def run_ssh_test(self, test: SSHTest) -> Iterator[Failure]:
        """Run one entry of ``sshTests``: every login name, from every source, at every device."""
        sources, problem = self._sources(test.src)
        if problem:
            yield Failure(test.place, problem)
            return
        if not (test.accept or test.deny or test.check):
            yield Failure(test.place, "neither accept, deny nor check: nothing is tested")
        told, strange = self._told_at(test.dst, sources)
        for word in strange:
            yield Failure(test.place, f'destination "{word}" is no device')
        for rules, name in told:
            for problem in self._logins_of(test, sources, rules, name):
                yield Failure(test.place, problem)

    def _told_at(
        self, words: tuple[str, ...], sources: list[reach.End]
    ) -> tuple[list[tuple[SSHRules, str]], list[str]]:
        """Return the rules at the named devices, and the words that name none.

        Devices with the same rules answer alike; the first speaks for all.
        """
        key = words, id(sources)
        if key not in self._told_where:
            found = {word: self._devices(word, sources) for word in words}
            devices = {each for named in found.values() for each in named}
            self._work += len(devices)
            told = {
                id(rules): (rules, self._nodes[each].name)
                for each in sorted(devices, reverse=True)
                for rules in (self._rules(each),)
            }
            strange = [word for word in words if not found[word]]
            self._told_where[key] = list(reversed(told.values())), strange
        return self._told_where[key]

    def _devices(self, word: str, sources: list[reach.End]) -> list[NodeID]:
        span = spans.parse(word)
        if span is not None and span.family == 6:
            # Recorded: a bare IPv6 address fails its test.
            return []
        selector = self._read(word)
        if selector is None:
            return []
        ends = self._own(sources) if selector.kind is Kind.SELF else self._ends(selector)
        return [end.node.id for end in ends if end.node is not None]

    def _logins_of(
        self, test: SSHTest, sources: list[reach.End], rules: SSHRules, name: str
    ) -> Iterator[str]:
        ends = self._matches(sources, rules)
        wanted = (
            *(("ALLOWED", user) for user in test.accept),
            *(("DENIED", user) for user in test.deny),
            *(("ALLOWED via check", user) for user in test.check),
        )
        for numbers in ends:
            self._work += len(wanted) * (1 + len(numbers) // RULES_A_STEP)
            if self.is_tired:
                return
            mine = tuple(rules[number] for number in numbers)
            for expected, user in wanted:
                action = first_action(mine, user) if user else None
                got = "DENIED" if action is None else "ALLOWED"
                if action is not None and action.hold_and_delegate:
                    got = "ALLOWED via check"
                if got != expected and not (expected == "ALLOWED" and action is not None):
                    yield f"{test.src}/{user or chr(34) * 2} -> {name}: expected {expected}, got {got}"

    def _matches(self, sources: list[reach.End], rules: SSHRules) -> list[tuple[int, ...]]:
        """Return which rules name a source, by their numbers, for every kind of source there is."""
        key = id(sources), id(rules)
        known = self._matching.get(key)
        if known is None:
            by_list: defaultdict[int, list[int]] = defaultdict(list)
            for number, rule in enumerate(rules):
                by_list[id(rule.principals)].append(number)
            hits = []
            for numbers in by_list.values():
                if self.is_tired:
                    return []
                hits.append(self._named(sources, rules[numbers[0]].principals))
            self._work += len(sources) * len(hits) // HITS_A_STEP
            patterns = set(zip(*hits, strict=True)) if hits else {()}
            known = self._matching[key] = [
                tuple(sorted(chain.from_iterable(compress(by_list.values(), pattern))))
                for pattern in patterns
            ]
        return known

    def _named(
        self, sources: list[reach.End], principals: tuple[tailcfg.SSHPrincipal, ...]
    ) -> list[bool]:
        """Return for every source whether a list names it; rules that name the same share the list."""
        key = id(sources), id(principals)
        known = self._hits.get(key)
        if known is None:
            if id(sources) not in self._texts:
                self._texts[id(sources)] = [address_text(end.address) for end in sources]
            if id(principals) not in self._names_of:
                self._work += len(principals) // PRINCIPALS_A_STEP
                named = frozenset(each.node_ip for each in principals)
                # Kept with its list, so that no other gets its id.
                self._names_of[id(principals)] = principals, named
            self._work += len(sources) // HITS_A_STEP
            names = self._names_of[id(principals)][1]
            known = self._hits[key] = [text in names for text in self._texts[id(sources)]]
        return known

    def _rules(self, node_id: NodeID) -> SSHRules:
        """Return the rules that a device is told of."""
        rules = self._told.get(node_id)
        if rules is None:
            rules = self._told[node_id] = ssh_policy(self._state, node_id).rules
            self._work += len(self._state.rule_index.logins) + len(rules)
        return rules


_NEVER = datetime(1, 1, 1, tzinfo=UTC)
