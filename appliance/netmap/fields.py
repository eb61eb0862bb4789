"""What a map response says, field by field: the one table that all who make responses walk.

A row says what a viewer should know (``value``), in which form a band of clients is told
(``form``), and when it need not be looked at. From the same rows ``model`` makes whole messages
and ``encoded`` the bytes that are sent, so a new field is one row here and one case of the law.

* ``OWN``: what one viewer is told of itself.
* ``SHARED``: what follows from the tailnet and its settings: the same for every viewer of a band.
* ``PEERS``: what follows from the peers that viewers of one ``Outlook`` see.
* ``ELSEWHERE``: fields that follow from no snapshot, and who fills them.

A full map says the value; a delta says it when it differs. A value None is not told, and is never
what something becomes: what can go has an empty value of its own.

Source: tailscale tailcfg/tailcfg.go (MapResponse), control/controlclient/map.go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from appliance.netmap import owndns, selfnode
from appliance.netmap.capver import Band, fit_derp_map
from appliance.netmap.relays import derp_map
from appliance.netmap.scene import Scene
from appliance.netmap.steps import Steps
from appliance.netmap.users import profiles
from appliance.policy.engine import ssh
from appliance.policy.engine.filters import fit_rules
from appliance.records import NodeID, UserID
from appliance.wire import tailcfg

T = TypeVar("T")

NO_SSH_RULES = tailcfg.SSHPolicy()
BASE_FILTER = "base"
"""The name of the one filter that we send. Clients may hold several."""


def _as_it_is(value: object, _: Band) -> object:
    return value


def _always(_old: Scene, _new: Scene, _viewer: NodeID) -> bool:
    return True


def _never(_old: Scene, _new: Scene) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRow(Generic[T]):
    """A field that each viewer is told its own of.

    ``may_differ`` is asked before two values are made and compared. ``concerns_all`` is true when
    viewers may be concerned that are neither touched themselves nor seen differently by the
    policy: a delta then looks at every viewer. ``expired`` is told in place of the value to a
    viewer whose key has expired; None: the value.
    """

    field: str
    value: Callable[[Scene, NodeID], T | None]
    form: Callable[[T, Band], object] = _as_it_is
    may_differ: Callable[[Scene, Scene, NodeID], bool] = _always
    concerns_all: Callable[[Scene, Scene], bool] = _never
    expired: T | None = None

    def told(self, scene: Scene, viewer: NodeID) -> T | None:
        """Return the value for a viewer, expired or not."""
        if self.expired is not None and viewer in scene.snapshot.expired:
            return self.expired
        return self.value(scene, viewer)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRow(Generic[T]):
    """A field that all viewers of a band are told the same of."""

    field: str
    value: Callable[[Scene], T | None]
    form: Callable[[T, Band], object] = _as_it_is


class Crowd(NamedTuple):
    """The peers of a full map, and all owners whose profiles go along."""

    ids: Sequence[NodeID]
    owners: Collection[UserID]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeersRow:
    """A field about the peers that viewers of one outlook see.

    ``nodes`` marks a list of whole nodes, of which the functions return the ids: the encoder has
    the text of each node already.
    """

    field: str
    full: Callable[[Scene, Crowd], object] | None = None
    delta: Callable[[Scene, Steps], object] | None = None
    nodes: bool = False


def ssh_rules(scene: Scene, viewer: NodeID) -> tailcfg.SSHPolicy:
    """Return the SSH rules that a node enforces.

    Rules that went away must be said, so a node without any is told an empty list from the start.
    """
    state = scene.snapshot.compiled.state
    if state is None or not state.rule_index.logins or viewer not in state.matches:
        return NO_SSH_RULES
    return ssh.ssh_policy(state, viewer)


def _debug(_: bool, _of: Band) -> tailcfg.Debug:
    return tailcfg.Debug(disable_log_tail=True)


OWN: tuple[OwnRow[Any], ...] = (  # each row's own type
    OwnRow(
        field="node",
        value=selfnode.told,
        may_differ=selfnode.may_differ,
        concerns_all=selfnode.concerns_all,
    ),
    OwnRow(field="ssh_policy", value=ssh_rules, expired=NO_SSH_RULES),
    OwnRow(
        field="packet_filters",
        value=lambda scene, viewer: scene.snapshot.compiled.packet_filter(viewer),
        form=lambda rules, of: {BASE_FILTER: fit_rules(rules, of)},
        expired=(),
    ),
    OwnRow(
        field="dns_config",
        value=owndns.told,
        may_differ=owndns.may_differ,
        concerns_all=owndns.concerns_all,
        expired=tailcfg.DNSConfig(),
    ),
)

SHARED: tuple[SharedRow[Any], ...] = (  # each row's own type
    SharedRow(field="derp_map", value=lambda scene: derp_map(scene.snapshot), form=fit_derp_map),
    SharedRow(field="dns_config", value=owndns.told_to_all),
    SharedRow(field="domain", value=lambda scene: scene.snapshot.tailnet.domain or None),
    # Can be turned on in a session, never off again, so off is not a value.
    SharedRow(
        field="debug", value=lambda scene: scene.snapshot.settings.disable_logs or None, form=_debug
    ),
    # Newer clients read the node attribute instead.
    SharedRow(
        field="default_auto_update",
        value=lambda _: False,
        form=lambda value, of: value if of < Band.AUTO_UPDATE_ATTRIBUTE else None,
    ),
)

PEERS: tuple[PeersRow, ...] = (
    PeersRow(field="peers", full=lambda _, crowd: crowd.ids, nodes=True),
    PeersRow(field="peers_changed", delta=lambda _, steps: steps.whole, nodes=True),
    PeersRow(
        field="peers_removed",
        delta=lambda _, steps: () if steps.again else steps.gone,
    ),
    PeersRow(field="peers_changed_patch", delta=lambda _, steps: steps.patches),
    PeersRow(field="peer_seen_change", delta=lambda _, steps: dict.fromkeys(steps.unseen, False)),
    PeersRow(
        field="user_profiles",
        full=lambda scene, crowd: profiles(scene.snapshot, crowd.owners),
        delta=lambda scene, steps: steps.owners and profiles(scene.snapshot, steps.owners),
    ),
)

ELSEWHERE: Mapping[str, str] = {
    "keep_alive": "the session's, when nothing else was to say",
    "control_time": "the session's clock, in the first message",
    "ping_request": "the session's mailbox",
    "pop_browser_url": "not sent: clients are told where to log in when they register",
    "map_session_handle": "not sent: sessions are not resumed",
    "seq": "not sent: sessions are not resumed",
    "online_change": "not sent: a patch says it",
    "collect_services": "not sent: clients keep their choice",
    "health": "not sent",
    "display_messages": "not sent",
    "tka_info": "not sent: there is no tailnet lock yet",
    "domain_data_plane_audit_log_id": "not sent: no flow logs are collected",
    "control_dial_plan": "not sent: clients resolve the name of the server",
    "client_version": "not sent: we do not know the newest release",
}


# ── walking the table ────────────────────────────────────────────────────────────────────────


def shared_fields(scene: Scene, of: Band) -> dict[str, object]:
    """Return what every viewer of a band is told in a full map."""
    return {
        row.field: row.form(value, of) for row in SHARED if (value := row.value(scene)) is not None
    }


def shared_changes(old: Scene, new: Scene, of: Band) -> dict[str, object]:
    """Return what every viewer of a band is told between two snapshots."""
    if new.basis is old.basis:
        return {}
    return {
        row.field: row.form(value, of)
        for row in SHARED
        if (value := row.value(new)) is not None and value != row.value(old)
    }


def own_values(scene: Scene, viewer: NodeID) -> dict[str, Any]:
    """Return the values that one viewer is told of itself in a full map, by field."""
    return {row.field: value for row in OWN if (value := row.told(scene, viewer)) is not None}


def own_changes(old: Scene, new: Scene, viewer: NodeID) -> dict[str, Any]:
    """Return the values that one viewer is told of itself between two snapshots, by field."""
    told: dict[str, object] = {}
    for row in OWN:
        if row.may_differ(old, new, viewer):
            value = row.told(new, viewer)
            before = row.told(old, viewer)
            if value is not None and value is not before and value != before:
                told[row.field] = value
    return told


def own_form(field: str, value: object, of: Band) -> object:
    """Return the form of an own value for a band."""
    return _OWN_BY_FIELD[field].form(value, of)


_OWN_BY_FIELD = {row.field: row for row in OWN}


def peers_changes(new: Scene, steps: Steps) -> dict[str, object]:
    """Return what viewers of one outlook are told of others, but for whole nodes."""
    return {field: value for field, delta in _PEERS_DELTAS if (value := delta(new, steps))}


_PEERS_DELTAS = [(row.field, row.delta) for row in PEERS if row.delta is not None and not row.nodes]


def with_rebuild(told: dict[str, object], new: Scene) -> dict[str, object]:
    """Add ``domain`` to a delta that has profiles.

    Since 1.102 a client applies a message of peers and profiles alone one by one, and ``tailscale
    status`` goes on to show the profiles of the last netmap that was rebuilt as a whole:
    ``userid:3`` instead of a name. Any field that is neither makes it rebuild; this one is short.
    Source: tailscale v1.102.5 types/netmap/nodemut.go (mapResponseContainsNonPatchFields).
    """
    if "user_profiles" in told and new.snapshot.tailnet.domain:
        told.setdefault("domain", new.snapshot.tailnet.domain)
    return told


def response(told: Mapping[str, object]) -> tailcfg.MapResponse:
    """Return a message of these fields."""
    return tailcfg.MapResponse(**told)  # type: ignore[arg-type]  # the fields of the rows
