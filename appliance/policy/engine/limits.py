"""How large a policy may be: bounds on what its rules come to, checked before they are compiled.

A text of 1 MB can name products that no server could send: every destination of a rule with every
port of it, every rule with every device. Part of reading (``problems``) and of ``admission``
(``heaviest``). Sits on ``language`` and ``state``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from appliance.policy.engine.bits import ones
from appliance.policy.engine.flows import COMPANIONS
from appliance.policy.engine.state import State
from appliance.policy.text.language import Acl, Grant, Policy
from appliance.policy.text.selectors import Kind, Selector
from appliance.wire.hujson import Spot

MAX_RULES = 8192
"""Rules as they are sent: one for each protocol of a grant and for each port text of an ACL. Twenty
times what large sites have; compiling these takes a second or two at 1,000 nodes."""
MAX_SPELLED = 250_000
"""Addresses and words that all rules together spell out, destinations once for each port."""
MAX_TOLD = 1_000_000
"""Source addresses that the rules of one node may list; 15 MB on the wire, where a usual node of
5,000 is told of some ten thousand."""
MAX_LOGINS_TOLD = 250_000
"""The same for SSH rules, a rule counted as some addresses; 10 MB on the wire, where a usual node
is told of some thousand."""
ADDRESSES_A_RULE = 4


def problems(policy: Policy) -> Iterator[tuple[Spot, str]]:
    """Return where a policy passes a bound, and what to do."""
    rules = spelled = 0
    every: tuple[Grant | Acl, ...] = (*(policy.grants or ()), *(policy.acls or ()))
    for rule in every:
        more, words = _of_grant(rule) if isinstance(rule, Grant) else _of_acl(rule)
        rules, spelled = rules + more, spelled + words
        if rules > MAX_RULES:
            yield (
                rule.place.spot,
                f"more than {MAX_RULES} rules up to here, with one for each protocol and list of "
                "ports: join rules that have the same sources",
            )
            break
        if spelled > MAX_SPELLED:
            yield (
                rule.place.spot,
                f"more than {MAX_SPELLED} addresses and ports up to here, each destination "
                "counted once for each port: use prefixes and ranges",
            )
            break


def _of_grant(grant: Grant) -> tuple[int, int]:
    protocols = {part.protocols for part in grant.ip}
    ports = sum(len(part.ports) for part in grant.ip)
    parts = len({selector.kind is Kind.SELF for selector in grant.dst})
    told = 1 + len(COMPANIONS.keys() & grant.app.keys()) if grant.app else 0
    spelled = _size(grant.src) + _size(grant.dst) * ports
    if grant.app:
        # Capabilities name prefixes: a range becomes several.
        cut = sum(_prefixes(span) for selector in grant.dst for span in selector.spans)
        spelled += told * (_size(grant.dst) + cut + len(grant.app))
    return parts * (len(protocols) + told), spelled


def _of_acl(acl: Acl) -> tuple[int, int]:
    texts = {(target.port_text, target.selector.kind is Kind.SELF) for target in acl.dst}
    ends = sum(_size((target.selector,)) * len(target.ports) for target in acl.dst)
    return len(texts), _size(acl.src) + ends


def _size(selectors: Iterable[Selector]) -> int:
    return sum(max(1, len(selector.spans)) for selector in selectors)


def _prefixes(span: tuple[int, int, int]) -> int:
    """Return how many prefixes a span comes to at most."""
    _, low, high = span
    size = high - low + 1
    is_prefix = size & (size - 1) == 0 and low % size == 0
    return 1 if is_prefix else 2 * size.bit_length()


def heaviest(state: State) -> int:
    """Return how many source addresses the rules of a node list, for the node with most.

    Cheap if all rules together list no more than one node may be told of: then it is their sum.
    """
    packets = state.rule_index.packets
    picked = (
        v4.bit_count() + v6.bit_count() for v4, v6 in zip(state.picked4, state.picked6, strict=True)
    )
    listed = [
        2 * nodes.bit_count() + more for nodes, more in zip(state.listed_nodes, picked, strict=True)
    ]
    sizes = [
        listed[flow.source] + len(state.words[flow.source]) if flow.source >= 0 else 0
        for flow in state.rule_index.flows
    ]
    total = sum(sizes)
    if total <= MAX_TOLD:
        return total
    return max(
        (sum(sizes[number] for number in ones(each.dst & packets)) for each in state.sizes),
        default=0,
    )


def heaviest_logins(state: State) -> int:
    """Return what the SSH rules of a node come to, in addresses, for the node with most."""
    rule_index = state.rule_index
    sizes: dict[int, int] = {}
    for login in rule_index.logins:
        more = ADDRESSES_A_RULE
        if login.recorders is not None:
            more += 2 * state.dst_nodes[login.recorders.number].bit_count()
        if login.others is not None:
            number = login.others.number
            nodes = state.src_nodes[number].bit_count()
            # Cut by user there may be two rules for every source.
            is_cut = rule_index.by_user >> number & 1
            sizes[number] = nodes * 2 * (2 + more) if is_cut else 2 * nodes + more
        if login.own is not None:
            nodes = max(map(len, state.owned.values()), default=0)
            sizes[login.own.number] = 4 * nodes + 2 * more
    total = sum(sizes.values())
    if total <= MAX_LOGINS_TOLD:
        return total
    rest = ~rule_index.packets
    return max(
        (
            # A source is told of the rules that are cut by user, too.
            sum(sizes.get(number, 0) for number in ones(told & rest))
            for each in state.sizes
            for told in (each.dst | each.self_dst | each.src & rule_index.by_user,)
        ),
        default=0,
    )
