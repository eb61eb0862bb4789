"""Packet filters and SSH rules as pieces of messages; long lists of sources are pieces of their own.

A rule that lets a group of thousands in differs from node to node by its destination, while the
list of its sources is one object for all: it is written and compressed once. Not for what the
rules say (``policy`` does). Sits on ``texts``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from appliance.netmap.capver import Band
from appliance.netmap.fields import BASE_FILTER
from appliance.netmap.texts import Fragment, Fragments, Pieces, compress
from appliance.policy.engine.filters import fit_rules
from appliance.wire import tailcfg

LONG_LIST = 64
"""Sources from which on a list is a piece of its own: its text has a kilobyte then."""
OWN_FRAME_BYTES = 1024
"""Pieces from which on a frame of their own is cheaper than compressing them for each viewer."""
MAX_FILTER_BYTES = 16 << 20
"""Packet filters kept as text and frame, without their long lists."""
MAX_SSH_BYTES = 16 << 20
"""SSH rules kept likewise."""
MAX_LIST_BYTES = 48 << 20
"""Long lists kept likewise: 300 kB for 4,000 devices, one for each group that rules name."""

_Part: TypeAlias = "tuple[object, tailcfg.Message] | bytes"
"""A shared list and a message that holds nothing else, or a text between."""


class RuleTexts:
    """The texts of filters and SSH rules, by the objects that they are of."""

    def __init__(
        self, long_list: int = LONG_LIST, max_filter_bytes: int = MAX_FILTER_BYTES
    ) -> None:
        self._long_list = long_list
        self._filters = Fragments(max_filter_bytes)
        self._ssh = Fragments(MAX_SSH_BYTES)
        self._lists = Fragments(MAX_LIST_BYTES)

    @property
    def held_bytes(self) -> int:
        """What all that is kept costs."""
        return self._filters.held_bytes + self._ssh.held_bytes + self._lists.held_bytes

    def __len__(self) -> int:
        return self.filters + len(self._ssh)

    @property
    def filters(self) -> int:
        """How many packet filters are kept."""
        return len(self._filters)

    @property
    def filter_bytes(self) -> int:
        """What the packet filters cost, without their long lists."""
        return self._filters.held_bytes

    def grow_older(self) -> None:
        """Forget what is of a policy before the last: to be called when there is another one."""
        for kept in (self._filters, self._ssh, self._lists):
            kept.grow_older()

    def filter(self, rules: tuple[tailcfg.FilterRule, ...], of: Band) -> Pieces:
        """Return a packet filter as a field without a comma."""
        return self._filters.pieces_of(rules, of, lambda: self._joined(self._of_filter(rules, of)))

    def ssh(self, policy: tailcfg.SSHPolicy, _: Band) -> Pieces:
        """Return SSH rules as a field without a comma."""
        return self._ssh.pieces_of(policy, 0, lambda: self._joined(self._of_ssh(policy)))

    def _of_filter(self, rules: tuple[tailcfg.FilterRule, ...], of: Band) -> Iterator[_Part]:
        rules = fit_rules(rules, of)
        if not self._has_pieces([rule.src_ips for rule in rules]):
            yield tailcfg.encode(tailcfg.MapResponse(packet_filters={BASE_FILTER: rules}))[1:-1]
            return
        yield b'"PacketFilters":{"%s":[' % BASE_FILTER.encode()
        for number, rule in enumerate(rules):
            yield b"," if number else b""
            alone = tailcfg.FilterRule(src_ips=rule.src_ips)
            yield from self._of_rule(rule, rule.src_ips, alone, replace(rule, src_ips=()))
        yield b"]}"

    def _of_ssh(self, policy: tailcfg.SSHPolicy) -> Iterator[_Part]:
        if not self._has_pieces([rule.principals for rule in policy.rules]):
            yield tailcfg.encode(tailcfg.MapResponse(ssh_policy=policy))[1:-1]
            return
        yield b'"SSHPolicy":{"rules":['
        for number, rule in enumerate(policy.rules):
            yield b"," if number else b""
            alone = tailcfg.SSHRule(principals=rule.principals)
            yield from self._of_rule(rule, rule.principals, alone, replace(rule, principals=()))
        yield b"]}"

    def _of_rule(
        self,
        rule: tailcfg.Message,
        sources: Sequence[object],
        alone: tailcfg.Message,
        rest: tailcfg.Message,
    ) -> Iterator[_Part]:
        if len(sources) < self._long_list:
            yield tailcfg.encode(rule)
            return
        yield b"{"
        yield sources, alone
        text = tailcfg.encode(rest)
        yield b"," + text[1:] if text != b"{}" else b"}"

    def _has_pieces(self, lists: Iterable[Sequence[object]]) -> bool:
        """Return whether long lists are to be pieces: not if one comes twice, for the second one is
        nothing in a frame that holds the first."""
        long = [id(each) for each in lists if len(each) >= self._long_list]
        return bool(long) and len(long) == len(set(long))

    def _joined(self, parts: Iterator[_Part]) -> Pieces:
        """Return texts and shared lists by turns."""
        pieces: list[Fragment] = []
        between = b""
        for part in parts:
            if isinstance(part, bytes):
                between += part
                continue
            sources, alone = part
            shared = self._lists.of(sources, 0, lambda it=alone: tailcfg.encode(it)[1:-1])  # type: ignore[misc]  # bound at once
            pieces += (Fragment(between), shared)
            between = b""
        return (*pieces, Fragment(between))


def packed(pieces: Iterable[bytes | Fragment], *, zstd: bool) -> list[bytes]:
    """Return pieces as parts of a message: large ones as the frames they have, all between as one."""
    parts: list[bytes] = []
    between: list[bytes] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            between.append(piece)
        elif len(piece.text) < OWN_FRAME_BYTES:
            between.append(piece.text)
        else:
            if between:
                parts.append(_one(between, zstd=zstd))
                between = []
            parts.append(piece.data(zstd=zstd))
    if between:
        parts.append(_one(between, zstd=zstd))
    return parts


def _one(texts: list[bytes], *, zstd: bool) -> bytes:
    text = b"".join(texts)
    return compress(text) if zstd else text
