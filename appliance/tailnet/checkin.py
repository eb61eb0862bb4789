"""What a node says of itself, taken over into its record: endpoints, keys, Hostinfo, NetInfo.

Not for the map poll that may come with it, and not for what peers are told (``netmap``). Sits on
``snapshot``. Everything here was written by a stranger's machine, so everything is bounded.
Source: tailscale control/controlclient/direct.go (what is sent when).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from appliance.errors import NotFound
from appliance.records import Node, NodeID
from appliance.tailnet import names, policies, routes
from appliance.tailnet.snapshot import Edit
from appliance.wire import tailcfg

MAX_TEXT_CHARS = 512
"""For every text of Hostinfo: the longest real ones (build versions) have about 100 characters."""
MAX_SSH_KEY_CHARS = 4096
"""A public RSA key of 16,384 bits, the largest that OpenSSH makes, has about 2,800."""
MAX_SSH_KEYS = 16
MAX_SERVICES = 256
"""Listening ports; only the peerapi ones matter to others, and they come first."""
MAX_ROUTES = 4096
"""Offered routes: app connectors offer thousands of single addresses."""
MAX_REQUEST_TAGS = 64
MAX_WOL_MACS = 32
MAX_DERP_LATENCIES = 1024
"""Two for each region; the hosted service has about 30 regions."""
MAX_ENDPOINTS = 64
"""A host with many container networks shows some dozens; each goes to every peer that sees it."""
MAX_DERP_REGION = 65535
"""Region ids must fit a port number: clients fake one of it."""
MAX_CAPVER = 2**31 - 1

LOCAL_ENDPOINT = 1
"""``MapRequest.endpoint_types``: an address of the machine's own interface."""

_TEXTS = tuple(
    name
    for name, value in msgspec.structs.asdict(tailcfg.Hostinfo()).items()
    if isinstance(value, str)
)

_texts_of = attrgetter(*_TEXTS)

Text = TypeVar("Text", tailcfg.Location, tailcfg.TPMInfo, tailcfg.Service)


def check_in(edit: Edit, node_id: NodeID, request: tailcfg.MapRequest) -> Node:
    """Take over a lite update; an absent Hostinfo, NetInfo or disco key stays as it was.

    Not for streaming requests, whose endpoints mean nothing. An update that says nothing new
    changes nothing; the policy may approve routes that are offered anew. Raises NotFound.
    """
    node = edit.nodes.get(node_id)
    if node is None:
        raise NotFound("node-unknown", f"there is no node with the id {node_id}")
    if request.hostinfo is not None:
        before, node = node, with_hostinfo(edit, node, request.hostinfo)
        if routes.differ(before, node):
            node = policies.with_approved_routes(edit, node)
    disco_key = node.disco_key if request.disco_key.is_zero else request.disco_key
    endpoints = merge_endpoints(node.endpoints, request.endpoints, request.endpoint_types)
    capver = bounded_capver(request.version)
    if capver != node.capver or endpoints is not node.endpoints or disco_key != node.disco_key:
        node = replace(node, capver=capver, endpoints=endpoints, disco_key=disco_key)
    edit.put(node)
    return edit.nodes[node_id]


def with_hostinfo(edit: Edit, node: Node, said: tailcfg.Hostinfo) -> Node:
    """Return the node with a new Hostinfo, its NetInfo, and the name that follows from them.

    The record comes back changed, not yet put; the same object if nothing differs.
    """
    hostinfo = msgspec.structs.replace(said, net_info=None)
    if hostinfo != node.hostinfo:
        hostinfo = bounded_hostinfo(hostinfo)
        if hostinfo != node.hostinfo:
            name = node.name
            label = names.wanted(hostinfo)
            if not node.name_pinned and label != names.wanted(node.hostinfo):
                name = names.choose(edit, label, keep=node.id)
            node = replace(node, hostinfo=hostinfo, hostname=hostinfo.hostname, name=name)
    if said.net_info is not None:
        net_info = _merge_net_info(node.net_info, said.net_info)
        if net_info != node.net_info:
            home_derp = net_info.preferred_derp or node.home_derp
            node = replace(node, net_info=net_info, home_derp=home_derp)
    return node


def merge_endpoints(
    old: tuple[tailcfg.AddrPort, ...],
    said: tuple[tailcfg.AddrPort, ...],
    types: tuple[int, ...],
) -> tuple[tailcfg.AddrPort, ...]:
    """Return the endpoints to keep: once each, usable, in the order said, at most MAX_ENDPOINTS.

    The old object comes back if the new list says the same in any order: a mere shuffle is not
    worth a message to every peer. When there are too many, addresses of local interfaces go first.
    """
    kept = dict.fromkeys(
        endpoint
        for endpoint in said
        if endpoint.port
        and not endpoint.address.is_unspecified
        and not endpoint.address.is_multicast
    )
    if len(kept) > MAX_ENDPOINTS:
        local = {
            endpoint
            for endpoint, type_ in zip(said, types, strict=False)
            if type_ == LOCAL_ENDPOINT
        }
        best = sorted(kept, key=lambda endpoint: endpoint in local)[:MAX_ENDPOINTS]
        kept = dict.fromkeys(endpoint for endpoint in kept if endpoint in set(best))
    if len(kept) == len(old) and all(endpoint in kept for endpoint in old):
        return old
    return tuple(kept)


def bounded_hostinfo(said: tailcfg.Hostinfo) -> tailcfg.Hostinfo:
    """Return a Hostinfo within the bounds above, without control characters and NetInfo."""
    changes: dict[str, object] = {"net_info": None} if said.net_info is not None else {}
    texts = _texts_of(said)
    if not _is_plain("".join(texts)):
        changes |= dict(zip(_TEXTS, map(plain, texts), strict=True))
    for name, bound in _LISTS.items():
        values = getattr(said, name)
        if values:
            changes[name] = bound(values)
    if said.location is not None:
        changes["location"] = _bounded_texts(said.location)
    if said.tpm is not None:
        changes["tpm"] = _bounded_texts(said.tpm)
    return msgspec.structs.replace(said, **changes) if changes else said


def _bounded_services(said: tuple[tailcfg.Service, ...]) -> tuple[tailcfg.Service, ...]:
    if len(said) > MAX_SERVICES:
        said = tuple(sorted(said, key=lambda s: not s.proto.startswith("peerapi")))
    return tuple(map(_bounded_texts, said[:MAX_SERVICES]))


_LISTS: dict[str, Callable[[Any], object]] = {
    "routable_ips": lambda said: tuple(dict.fromkeys(said[:MAX_ROUTES])),
    "request_tags": lambda said: tuple(map(plain, said[:MAX_REQUEST_TAGS])),
    "wol_macs": lambda said: tuple(map(plain, said[:MAX_WOL_MACS])),
    "ssh_host_keys": lambda said: tuple(
        plain(key, MAX_SSH_KEY_CHARS) for key in said[:MAX_SSH_KEYS]
    ),
    "services": _bounded_services,
}
"""How each list of Hostinfo is bounded; most are empty in most."""


def bounded_capver(version: int) -> int:
    """Return a capability version that every column can hold."""
    return min(max(version, 0), MAX_CAPVER)


def plain(text: str, max_chars: int = MAX_TEXT_CHARS) -> str:
    """Return the text within its bound and without control characters; the same object if it is so.

    They could steer the terminal of whoever lists nodes, and PostgreSQL takes no NUL.
    """
    if len(text) > max_chars:
        text = text[:max_chars]
    if text.isprintable():
        return text
    return "".join(" " if c.isspace() else c for c in text if c.isspace() or c.isprintable())


def _is_plain(text: str) -> bool:
    """Tell whether ``plain`` would change nothing in it, nor in any part of it."""
    return len(text) <= MAX_TEXT_CHARS and text.isprintable()


def _bounded_texts(said: Text) -> Text:
    texts = {
        name: value
        for name in said.__struct_fields__
        if isinstance(value := getattr(said, name), str)
    }
    if _is_plain("".join(texts.values())):
        return said
    changes = {name: plain(value) for name, value in texts.items()}
    return msgspec.structs.replace(said, **changes) if changes else said


def _merge_net_info(old: tailcfg.NetInfo | None, said: tailcfg.NetInfo) -> tailcfg.NetInfo:
    """Return the new NetInfo; a node that knows no home region right now keeps its last one."""
    preferred = said.preferred_derp
    if not 0 < preferred <= MAX_DERP_REGION:
        preferred = 0 if old is None else old.preferred_derp
    latencies = said.derp_latency
    if len(latencies) > MAX_DERP_LATENCIES or any(plain(name) is not name for name in latencies):
        latencies = {}
    return msgspec.structs.replace(
        said,
        preferred_derp=preferred,
        derp_latency=latencies,
        link_type=plain(said.link_type),
        firewall_mode=plain(said.firewall_mode),
    )
