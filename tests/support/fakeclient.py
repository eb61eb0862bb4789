"""A model of how the Go client applies map responses; pure, for the tests of ``netmap``.

Not a client: it speaks no protocol and keeps no time. ``apply(state, response) -> state`` does
what a map session of the client does, with its odd corners: a peer in ``PeersChanged`` that is
already known is first turned into a patch if only patchable fields differ, and a patch cannot
say everything. ``ClientState()`` is the start of a session; a new session starts from nothing.
``state.netmap()`` is what the rest of the client gets to see: compare that.
Source: tailscale v1.104.5 control/controlclient/{direct,map}.go; reading only, own model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import msgspec

from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

# Fields of a Node in which a difference makes the client take the whole new Node.
_WHOLE = (
    "id",
    "stable_id",
    "name",
    "user",
    "sharer",
    "machine",
    "addresses",
    "allowed_ips",
    "hostinfo",
    "created",
    "tags",
    "primary_routes",
    "machine_authorized",
    "unsigned_peer_api_only",
    "is_wireguard_only",
    "is_jailed",
    "expired",
    "self_node_v4_masq_addr_for_this_peer",
    "self_node_v6_masq_addr_for_this_peer",
    "exit_node_dns_resolvers",
)


class ClientAborts(Exception):
    """The client ends the session over this message and starts again."""


@dataclass(frozen=True, slots=True)
class Netmap:
    """What the client acts on; two sessions with equal netmaps behave the same.

    ``user_profiles`` are those that WhoIs finds, ``status_profiles`` those that ``tailscale
    status`` shows: since 1.102 the profiles of the last netmap that was rebuilt as a whole.
    """

    node: tailcfg.Node | None
    peers: Mapping[int, tailcfg.Node]
    packet_filter: tuple[tailcfg.FilterRule, ...]
    dns_config: tailcfg.DNSConfig
    derp_map: tailcfg.DERPMap | None
    user_profiles: Mapping[int, tailcfg.UserProfile]
    status_profiles: Mapping[int, tailcfg.UserProfile]
    domain: str
    domain_data_plane_audit_log_id: str
    messages: Mapping[str, tailcfg.DisplayMessage]
    ssh_policy: tailcfg.SSHPolicy | None
    collect_services: bool | None
    tka_head: str
    tka_enabled: bool


@dataclass(frozen=True, slots=True)
class ClientState:
    """A map session's memory, and below the line what it passed on to other parts."""

    node: tailcfg.Node | None = None
    peers: Mapping[int, tailcfg.Node] = field(default_factory=dict)
    packet_filters: Mapping[str, tuple[tailcfg.FilterRule, ...]] = field(default_factory=dict)
    dns_config: tailcfg.DNSConfig = field(default_factory=tailcfg.DNSConfig)
    derp_map: tailcfg.DERPMap | None = None
    user_profiles: Mapping[int, tailcfg.UserProfile] = field(default_factory=dict)
    rebuilt_profiles: Mapping[int, tailcfg.UserProfile] = field(default_factory=dict)
    domain: str = ""
    domain_data_plane_audit_log_id: str = ""
    health: tuple[str, ...] = ()
    display_messages: Mapping[str, tailcfg.DisplayMessage] = field(default_factory=dict)
    ssh_policy: tailcfg.SSHPolicy | None = None
    collect_services: bool | None = None
    tka_info: tailcfg.TKAInfo | None = None

    messages_seen: int = 0  # without keep-alives
    pings: tuple[tailcfg.PingRequest, ...] = ()  # those that the client answered
    opened_urls: tuple[str, ...] = ()
    client_version: tailcfg.ClientVersion | None = None
    control_time: datetime | None = None
    control_dial_plan: tailcfg.ControlDialPlan | None = None
    default_auto_update: bool | None = None
    debug: tailcfg.Debug | None = None  # of the last message that had one

    def netmap(self) -> Netmap:
        """Give what the rest of the client sees: profiles of visible owners only, one filter."""
        info = self.tka_info
        return Netmap(
            node=self.node,
            peers=self.peers,
            packet_filter=tuple(
                rule for name in sorted(self.packet_filters) for rule in self.packet_filters[name]
            ),
            dns_config=self.dns_config,
            derp_map=self.derp_map,
            user_profiles=self._visible(self.user_profiles),
            status_profiles=self._visible(self.rebuilt_profiles),
            domain=self.domain,
            domain_data_plane_audit_log_id=self.domain_data_plane_audit_log_id,
            messages=self._messages(),
            ssh_policy=self.ssh_policy,
            collect_services=self.collect_services,
            tka_head=info.head if info is not None else "",
            tka_enabled=info is not None and not info.disabled,
        )

    def _visible(
        self, profiles: Mapping[int, tailcfg.UserProfile]
    ) -> dict[int, tailcfg.UserProfile]:
        owners = {self.node.user} if self.node is not None else set()
        for peer in self.peers.values():
            owners |= {peer.user, peer.sharer}
        return {user: profiles[user] for user in sorted(owners - {0}) if user in profiles}

    def rebuilt(self) -> ClientState:
        """Return the state with the profiles of which the whole netmap is made anew."""
        return replace(self, rebuilt_profiles=self._visible(self.user_profiles))

    def _messages(self) -> Mapping[str, tailcfg.DisplayMessage]:
        if self.display_messages:
            return self.display_messages
        return {
            f"health: {text}": tailcfg.DisplayMessage(text=text, severity="medium")
            for text in self.health
        }


def apply(
    state: ClientState,
    response: tailcfg.MapResponse,
    *,
    now: datetime = EPOCH,
    distrusts_old_disco: bool = True,
) -> ClientState:
    """Apply one message.

    ``now`` is what PeerSeenChange writes. ``distrusts_old_disco`` is the rule of 1.98 to 1.102:
    a patch with a disco key and Online false must have a LastSeen newer than the known one.
    Raises ClientAborts where the client would.
    """
    state = _pass_on(state, response)
    if response.keep_alive:
        return state
    if state.messages_seen == 0 and response.node is None:
        raise ClientAborts("initial message lacks Node")
    patches, changed = _patchify(state.peers, response)
    known = replace(
        state,
        messages_seen=state.messages_seen + 1,
        peers=_apply_peers(state.peers, response, changed, patches, now, distrusts_old_disco),
        node=state.node if response.node is None else _upgrade_self(response.node),
        user_profiles={**state.user_profiles, **{u.id: u for u in response.user_profiles or ()}},
        derp_map=_apply_derp_map(state.derp_map, response.derp_map),
        packet_filters=_apply_filters(state.packet_filters, response),
        dns_config=response.dns_config or state.dns_config,
        ssh_policy=response.ssh_policy or state.ssh_policy,
        collect_services=_unless_none(response.collect_services, state.collect_services),
        domain=response.domain or state.domain,
        domain_data_plane_audit_log_id=(
            response.domain_data_plane_audit_log_id or state.domain_data_plane_audit_log_id
        ),
        health=state.health if response.health is None else response.health,
        display_messages=_apply_messages(state.display_messages, response.display_messages),
        tka_info=response.tka_info or state.tka_info,
        default_auto_update=_unless_none(response.default_auto_update, state.default_auto_update),
        debug=response.debug or state.debug,
    )
    return known.rebuilt() if _needs_rebuild(response) else known


_REBUILDS = (
    "node",
    "derp_map",
    "dns_config",
    "collect_services",
    "health",
    "display_messages",
    "ssh_policy",
    "tka_info",
    "debug",
    "control_dial_plan",
    "client_version",
    "peers",
    "default_auto_update",
)


def _needs_rebuild(response: tailcfg.MapResponse) -> bool:
    """Whether clients since 1.102 rebuild their netmap, rather than change peers one by one.

    Source: tailscale v1.102.5 types/netmap/nodemut.go (mapResponseContainsNonPatchFields).
    """
    return bool(response.domain or response.domain_data_plane_audit_log_id) or any(
        getattr(response, name) is not None for name in _REBUILDS
    )


def _unless_none(new: bool | None, old: bool | None) -> bool | None:
    return old if new is None else new


def _pass_on(state: ClientState, response: tailcfg.MapResponse) -> ClientState:
    """Do what happens for keep-alives too."""
    ping, url = response.ping_request, response.pop_browser_url
    answers = ping is not None and not (state.pings and state.pings[-1].url == ping.url)
    opens = url != "" and not (state.opened_urls and state.opened_urls[-1] == url)
    return replace(
        state,
        pings=(*state.pings, ping) if ping is not None and answers else state.pings,
        opened_urls=(*state.opened_urls, url) if opens else state.opened_urls,
        client_version=response.client_version or state.client_version,
        control_time=response.control_time or state.control_time,
        control_dial_plan=response.control_dial_plan or state.control_dial_plan,
    )


# ── peers ────────────────────────────────────────────────────────────────────────────────────


def upgrade(node: tailcfg.Node) -> tailcfg.Node:
    """Bring older forms of a Node to the newest, and zero keys to None.

    Endpoints that are absent stay None: a patch made of this Node must not have them.
    """
    allowed = node.allowed_ips
    if allowed is None or node.unsigned_peer_api_only:
        allowed = node.addresses
    return msgspec.structs.replace(
        node,
        allowed_ips=allowed,
        cap_map=node.cap_map or {},
        machine=node.machine if node.machine and not node.machine.is_zero else None,
        disco_key=_known(node.disco_key),
        computed_name="",
        computed_name_with_host="",
    )


def _known(key: DiscoKey | None) -> DiscoKey | None:
    return None if key is None or key.is_zero else key


def settle(node: tailcfg.Node) -> tailcfg.Node:
    """Bring a Node into the form in which a state keeps it."""
    return _keep(upgrade(node))


def _keep(node: tailcfg.Node) -> tailcfg.Node:
    return msgspec.structs.replace(node, endpoints=node.endpoints or ())


def _upgrade_self(node: tailcfg.Node) -> tailcfg.Node:
    return settle(node)


def _patchify(
    peers: Mapping[int, tailcfg.Node], response: tailcfg.MapResponse
) -> tuple[tuple[tailcfg.PeerChange, ...], tuple[tailcfg.Node, ...]]:
    """Turn changed peers into patches where possible; against the peers *before* the message.

    So a peer that is removed and added again in one message can be lost altogether.
    """
    patches = list(response.peers_changed_patch or ())
    changed = []
    for new in map(upgrade, response.peers_changed or ()):
        old = peers.get(new.id)
        if old is None or not _is_patchable(old, new):
            changed.append(_keep(new))
        elif (patch := difference(old, new)) is not None:
            patches.append(patch)
    return tuple(patches), tuple(changed)


def _is_patchable(old: tailcfg.Node, new: tailcfg.Node) -> bool:
    return all(getattr(old, name) == getattr(new, name) for name in _WHOLE)


def difference(old: tailcfg.Node, new: tailcfg.Node) -> tailcfg.PeerChange | None:
    """Give the patch that the client makes of a changed peer, with all that gets lost.

    Lost are: Online and LastSeen that come or go, Endpoints that are absent, and HomeDERP, Cap
    and KeySignature that become nothing. Not lost: keys, KeyExpiry and CapMap that do.
    """
    disco = new.disco_key or DiscoKey.zero()
    expiry = new.key_expiry or tailcfg.NEVER
    seen_before, online_before = old.last_seen is not None, old.online is not None
    patch = tailcfg.PeerChange(
        node_id=new.id,
        key=new.key if old.key != new.key else None,
        key_expiry=expiry if old.key_expiry != new.key_expiry else None,
        key_signature=new.key_signature or None if old.key_signature != new.key_signature else None,
        disco_key=disco if old.disco_key != new.disco_key else None,
        endpoints=new.endpoints if old.endpoints != (new.endpoints or ()) else None,
        derp_region=new.home_derp if old.home_derp != new.home_derp else 0,
        cap=new.cap if old.cap != new.cap else 0,
        cap_map=new.cap_map if old.cap_map != new.cap_map else None,
        online=new.online if online_before and old.online != new.online else None,
        last_seen=new.last_seen if seen_before and old.last_seen != new.last_seen else None,
    )
    return None if patch == tailcfg.PeerChange(node_id=new.id) else patch


def _apply_peers(
    peers: Mapping[int, tailcfg.Node],
    response: tailcfg.MapResponse,
    changed: Sequence[tailcfg.Node],
    patches: Sequence[tailcfg.PeerChange],
    now: datetime,
    distrusts_old_disco: bool,
) -> dict[int, tailcfg.Node]:
    if response.peers:
        return _sorted({peer.id: settle(peer) for peer in response.peers})
    after = dict(peers)
    for gone in response.peers_removed or ():
        after.pop(gone, None)
    for peer in changed:
        after[peer.id] = peer
    for node_id, seen in (response.peer_seen_change or {}).items():
        if node_id in after:
            last_seen = now if seen else None
            after[node_id] = msgspec.structs.replace(after[node_id], last_seen=last_seen)
    for node_id, online in (response.online_change or {}).items():
        if node_id in after:
            after[node_id] = msgspec.structs.replace(after[node_id], online=online)
    for patch in patches:
        old = after.get(patch.node_id)
        if old is not None and not (distrusts_old_disco and _is_old_disco(old, patch)):
            after[patch.node_id] = _patched(old, patch)
    return _sorted(after)


def _sorted(peers: dict[int, tailcfg.Node]) -> dict[int, tailcfg.Node]:
    return dict(sorted(peers.items()))


def _is_old_disco(old: tailcfg.Node, patch: tailcfg.PeerChange) -> bool:
    if patch.disco_key is None or patch.online is not False or old.last_seen is None:
        return False
    return patch.last_seen is None or patch.last_seen <= old.last_seen


def _patched(old: tailcfg.Node, patch: tailcfg.PeerChange) -> tailcfg.Node:
    new: dict[str, object] = {
        name: value
        for name, value in (
            ("home_derp", patch.derp_region or None),
            ("cap", patch.cap or None),
            ("cap_map", patch.cap_map),
            ("endpoints", patch.endpoints),
            ("key", patch.key),
            ("key_signature", patch.key_signature),
            ("online", patch.online),
            ("last_seen", patch.last_seen),
            ("key_expiry", patch.key_expiry),  # NEVER becomes None inside Node
        )
        if value is not None
    }
    if patch.disco_key is not None:
        new["disco_key"] = _known(patch.disco_key)
    return msgspec.structs.replace(old, **new)


# ── everything else ──────────────────────────────────────────────────────────────────────────


def _apply_derp_map(
    old: tailcfg.DERPMap | None, new: tailcfg.DERPMap | None
) -> tailcfg.DERPMap | None:
    if new is None or old is None:
        return new or old
    regions, omit = new.regions, new.omit_default_regions
    if regions is None:
        regions, omit = old.regions, old.omit_default_regions
    home = new.home_params
    if home is None or (home.region_score is None and old.home_params is not None):
        home = old.home_params
    return tailcfg.DERPMap(home_params=home, regions=regions, omit_default_regions=omit)


def _apply_filters(
    old: Mapping[str, tuple[tailcfg.FilterRule, ...]], response: tailcfg.MapResponse
) -> Mapping[str, tuple[tailcfg.FilterRule, ...]]:
    new = dict(old)
    named = response.packet_filters or {}
    if named.get("*", ()) is None:
        new.clear()
    for name, rules in named.items():
        if name == "*":
            continue
        if rules is None:
            new.pop(name, None)
        else:
            new[name] = rules
    return new


def _apply_messages(
    old: Mapping[str, tailcfg.DisplayMessage],
    changes: Mapping[str, tailcfg.DisplayMessage | None] | None,
) -> Mapping[str, tailcfg.DisplayMessage]:
    if changes is None:
        return old
    new = {} if "*" in changes and changes["*"] is None else dict(old)
    for name, message in changes.items():
        if name == "*":
            continue
        if message is None:
            new.pop(name, None)
        else:
            new[name] = message
    return new
