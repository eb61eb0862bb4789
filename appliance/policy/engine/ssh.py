"""SSH rules of a policy as a node is told of them.

Not for answering a check (``control`` does, with ``check_period``). Sits on ``state``.
Source: tailscale 1.102 tailcfg/tailcfg.go (SSHPolicy), ssh/tailssh/tailssh.go; the recorded answers:
rules that check stand first; a rule
with ``localpart:`` is cut into one for each source user, and each of its sources that is no
destination is told of its own; a device with several tags stands once for each of them in
``autogroup:tagged``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from ipaddress import ip_address

from appliance.policy.engine.bits import ones
from appliance.policy.engine.flows import Login
from appliance.policy.engine.state import State
from appliance.policy.text.loginsections import local_part_domain
from appliance.policy.text.selectors import Kind
from appliance.records import Node, NodeID, UserID
from appliance.wire import tailcfg
from appliance.wire.tailcfg.message import address_text

DEFAULT_CHECK_PERIOD = timedelta(hours=12)
RECORDER_PORT = 80
"""Where ``tsrecorder`` listens. Source: tailscale 1.102 sessionrecording/connect.go
(HTTP to the recorder's address)."""
MAX_KEPT = 10_000
"""Rules and policies kept for one state: some for each rule, user and set of tags."""
UNUSED_URL = "https://unused"
"""Clients put the URL of their own control server in its place. Source: tailscale 1.102
ssh/tailssh/tailssh.go (fetchSSHAction)."""
CHECK_PATH = "/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID?local_user=$LOCAL_USER"
_NOBODY = tailcfg.AddrPort(ip_address("127.0.0.1"), 0)
"""A recorder that nobody can reach: a client that is told of none records nothing and asks nobody,
whatever is to happen on failure. Source: tailscale ssh/tailssh/tailssh.go, shouldRecord."""
_NO_RECORDER = "session recording is required and no recorder can be reached"


def ssh_policy(state: State, node_id: NodeID, check_url: str = UNUSED_URL) -> tailcfg.SSHPolicy:
    """Return all SSH rules for a node, those that check before those that accept."""
    if state.kept is None:
        return tailcfg.SSHPolicy(rules=_told(state, node_id, check_url))
    logins = state.kept.logins
    # Nodes of one class are told the same; finding the class is all that most of them cost.
    of_class = ("class", check_url, *_class(state, node_id))
    known = logins.get(of_class)
    if isinstance(known, tailcfg.SSHPolicy):
        return known
    rules = _told(state, node_id, check_url)
    # One object for all nodes with the same rules. It holds them, so their ids stay theirs.
    key = ("policy", *map(id, rules))
    known = logins.get(key)
    if not isinstance(known, tailcfg.SSHPolicy):
        known = tailcfg.SSHPolicy(rules=rules)
    if len(logins) < MAX_KEPT:
        logins[key] = logins[of_class] = known
    return known


def _class(state: State, node_id: NodeID) -> tuple[object, ...]:
    """Return what decides about a node's SSH rules, besides those whom they name."""
    matches, rest = state.matches[node_id], ~state.rule_index.packets
    mine = matches.src & state.rule_index.by_user
    own = matches.self_dst & rest
    teller: object = None
    if mine:
        node = state.nodes[node_id]
        teller = ("tagged", node_id) if node.tags else node.user_id
    return matches.dst & rest, own, matches.owner if own else None, mine, teller


def _told(state: State, node_id: NodeID, check_url: str) -> tuple[tailcfg.SSHRule, ...]:
    logins = in_order(state)
    return tuple(rule for each in logins for rule in rules_of(state, each, node_id, check_url))


def in_order(state: State) -> Iterator[Login]:
    """Return the SSH rules of the policy as nodes ask them: those that check come first."""
    for is_check in (True, False):
        for login in state.rule_index.logins:
            if login.rule.is_check is is_check:
                yield login


def check_period(state: State, src: NodeID, dst: NodeID, user: str) -> timedelta | None:
    """Return how long a check of this login stays good; None if no rule asks for one."""
    texts = {address_text(address) for address in state.nodes[src].addresses}
    for login in in_order(state):
        if not login.rule.is_check:
            break
        if decide(tuple(rules_of(state, login, dst)), texts, user) is not None:
            return period_of(login)
    return None


def period_of(login: Login) -> timedelta:
    """Return how long a check by this rule stays good; zero means that each login needs its own."""
    period = login.rule.check_period
    return DEFAULT_CHECK_PERIOD if period is None else period


def decide(
    rules: tuple[tailcfg.SSHRule, ...], sources: set[str], user: str
) -> tailcfg.SSHAction | None:
    """Return what a node does with a login, as the client's own code decides; None: refused."""
    mine = (r for r in rules if any(each.node_ip in sources for each in r.principals))
    return first_action(mine, user)


def first_action(rules: Iterable[tailcfg.SSHRule], user: str) -> tailcfg.SSHAction | None:
    """Return what rules that all name the source do with a login; None: refused."""
    for rule in rules:
        if rule.ssh_users.get(user, rule.ssh_users.get("*", "")):
            return rule.action
    return None


def rules_of(
    state: State, login: Login, node_id: NodeID, check_url: str = UNUSED_URL
) -> Iterator[tailcfg.SSHRule]:
    """Return what a node is told of one SSH rule of the policy."""
    matches, node = state.matches[node_id], state.nodes[node_id]
    if login.own is not None and matches.self_dst >> login.own.number & 1:
        key: tuple[object, ...] = ("own", login.own.number, matches.owner, check_url)
        yield from _kept(state, key, lambda: _own(state, login, matches.owner, check_url))
    if login.others is None:
        return
    number = login.others.number
    by_user = bool(state.rule_index.by_user >> number & 1)
    if matches.dst >> number & 1:
        key = ("all", number, None, check_url)
        yield from _kept(state, key, lambda: _all(state, login, number, check_url, by_user))
    elif by_user and matches.src >> number & 1:
        teller = node_id if node.tags else None
        key = ("mine", number, node.user_id if teller is None else ("tagged", teller), check_url)
        yield from _kept(state, key, lambda: _mine(state, login, node, number, check_url))


def _kept(
    state: State, key: tuple[object, ...], make: Callable[[], Iterator[tailcfg.SSHRule]]
) -> tuple[tailcfg.SSHRule, ...]:
    """Make rules once for all nodes that are told the same."""
    if state.kept is None:
        return tuple(make())
    known = state.kept.logins.get(key)
    if not isinstance(known, tuple):
        known = tuple(make())
        if len(state.kept.logins) < MAX_KEPT:
            state.kept.logins[key] = known
    return known


def _own(
    state: State, login: Login, owner: UserID | None, check_url: str
) -> Iterator[tailcfg.SSHRule]:
    """Return the rules between a user's own devices."""
    bit = 1 << login.own.number if login.own is not None else 0
    starters = [
        other
        for other in (state.owned.get(owner, ()) if owner is not None else ())
        if state.matches[other].self_src & bit
    ]
    if starters:
        yield from _cut(state, login, {owner: starters}, [], check_url, by_user=True)


def _all(
    state: State, login: Login, number: int, check_url: str, by_user: bool
) -> Iterator[tailcfg.SSHRule]:
    """Return the rules that every destination of a rule is told."""
    users, tagged = _sources(state, state.src_nodes[number])
    yield from _cut(state, login, users, tagged, check_url, by_user=by_user)


def _mine(
    state: State, login: Login, node: Node, number: int, check_url: str
) -> Iterator[tailcfg.SSHRule]:
    """Return the rules that a source is told of itself, or of its owner's devices."""
    if node.tags:
        yield from _cut(state, login, {}, [node.id], check_url, by_user=True)
        return
    users, _ = _sources(state, state.src_nodes[number])
    mine = {node.user_id: users.get(node.user_id, [])}
    yield from _cut(state, login, mine, [], check_url, by_user=True)


def _sources(state: State, bits: int) -> tuple[dict[UserID | None, list[NodeID]], list[NodeID]]:
    users: defaultdict[UserID | None, list[NodeID]] = defaultdict(list)
    tagged: list[NodeID] = []
    for slot in ones(bits):
        node_id = state.ids[slot]
        if node_id is None:
            continue
        node = state.nodes[node_id]
        if node.tags:
            tagged.append(node_id)
        else:
            users[node.user_id].append(node_id)
    return dict(users), tagged


def _cut(
    state: State,
    login: Login,
    users: dict[UserID | None, list[NodeID]],
    tagged: list[NodeID],
    check_url: str,
    *,
    by_user: bool,
) -> Iterator[tailcfg.SSHRule]:
    if not by_user:
        everyone = [node_id for nodes in users.values() for node_id in nodes]
        if everyone or tagged:
            yield _rule(state, login, everyone + tagged, _user_map(login), check_url)
        return
    for user_id in sorted(users, key=lambda each: each or 0):
        if not users[user_id]:
            continue
        yield _rule(state, login, users[user_id], _user_map(login), check_url)
        local = _local_part(state, login, user_id)
        if local:
            yield _rule(state, login, users[user_id], {local: local}, check_url)
    if tagged:
        yield _rule(state, login, tagged, _user_map(login), check_url)


def _rule(
    state: State, login: Login, nodes: list[NodeID], users: dict[str, str], check_url: str
) -> tailcfg.SSHRule:
    repeat = any(selector.kind is Kind.TAGGED for selector in login.rule.src)
    return tailcfg.SSHRule(
        principals=_principals(state, tuple(nodes), repeat=repeat),
        ssh_users=users,
        action=_action(state, login, check_url),
        accept_env=login.rule.accept_env,
    )


def _principals(
    state: State, nodes: tuple[NodeID, ...], *, repeat: bool
) -> tuple[tailcfg.SSHPrincipal, ...]:
    """Name all addresses of some nodes, once for all rules that name the same nodes."""
    key = ("principals", repeat, nodes)
    known = None if state.kept is None else state.kept.principals.get(key)
    if known is None:
        texts = []
        for node_id in nodes:
            node = state.nodes[node_id]
            mine = [address_text(address) for address in node.addresses]
            texts += mine * (max(1, len(node.tags)) if repeat else 1)
        known = tuple(tailcfg.SSHPrincipal(node_ip=text) for text in sorted(texts))
        if state.kept is not None and len(state.kept.principals) < MAX_KEPT:
            state.kept.principals[key] = known
    return known


def _user_map(login: Login) -> dict[str, str]:
    users = login.rule.users
    mapped = {"root": "root" if "root" in users else ""}
    for user in users:
        if user == "autogroup:nonroot":
            mapped["*"] = "="
        elif user != "root" and not local_part_domain(user):
            mapped[user] = user
    return mapped


def _local_part(state: State, login: Login, user_id: UserID | None) -> str:
    user = state.users.get(user_id) if user_id is not None else None
    local, at, domain = (user.login_name if user is not None else "").rpartition("@")
    wanted = {local_part_domain(each) for each in login.rule.users} - {""}
    return local if at and domain.lower() in {each.lower() for each in wanted} else ""


def _action(state: State, login: Login, check_url: str) -> tailcfg.SSHAction:
    recorders = _recorders(state, login)
    failure = None
    if login.rule.enforce_recorder:
        recorders = recorders or (_NOBODY,)
        failure = tailcfg.SSHRecorderFailureAction(
            reject_session_with_message=_NO_RECORDER,
            terminate_session_with_message=_NO_RECORDER,
        )
    if login.rule.is_check:
        return tailcfg.SSHAction(
            hold_and_delegate=check_url + CHECK_PATH,
            recorders=recorders,
            on_recording_failure=failure,
        )
    return tailcfg.SSHAction(
        accept=True,
        allow_agent_forwarding=True,
        allow_local_port_forwarding=True,
        allow_remote_port_forwarding=True,
        recorders=recorders,
        on_recording_failure=failure,
    )


def recorders_of(state: State, login: Login) -> tuple[NodeID, ...]:
    """Return the nodes that record sessions, in the order in which clients try them: the oldest first.

    Not by slot, which says the same only until a node goes and another one takes its place.
    """
    if login.recorders is None:
        return ()
    slots = ones(state.dst_nodes[login.recorders.number])
    return tuple(sorted(each for slot in slots if (each := state.ids[slot]) is not None))


def _recorders(state: State, login: Login) -> tuple[tailcfg.AddrPort, ...]:
    return tuple(
        tailcfg.AddrPort(address, RECORDER_PORT)
        for node_id in recorders_of(state, login)
        for address in state.nodes[node_id].addresses
    )
