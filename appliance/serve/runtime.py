"""One tailnet as it runs: the live tailnet, its policy in force, its encoder, its map sessions.

A runtime is made with the settings of its tailnet, so that no node, and no verb, ever meets a
tailnet whose settings are not the site's. Not for the rules (``tailnet``), nor for the doors that
use the parts (``server`` joins them). Leadership, when there is a standby, is a state of it.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, replace

from appliance.config import Settings, Tailnet, resolved
from appliance.control.mapsession import MapSessions
from appliance.identity.principals import SYSTEM
from appliance.live import LiveTailnet
from appliance.live.policy import PolicyKeeper, PolicySource, restore
from appliance.live.tailnet import Store
from appliance.netmap.encoded import Encoder
from appliance.records import Settings as TailnetSettings
from appliance.records import TailnetID
from appliance.serve.supervise import Supervisor
from appliance.tailnet import settings as tailnet_settings
from appliance.tailnet.snapshot import Sequences, Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of the site file that concerns one tailnet, in the types of the parts."""

    settings: TailnetSettings
    domain: str
    policy: PolicySource

    @classmethod
    def of(cls, settings: Settings, tailnet: Tailnet, ports: resolved.Ports) -> Wanted:
        """Resolve the settings of one tailnet. Raises Invalid if no node could get an address."""
        derp_map = resolved.derp_map(settings, ports)
        values = resolved.tailnet_settings(settings, tailnet, derp_map)
        tailnet_settings.check(values)
        return cls(values, tailnet.base_domain, resolved.policy_source(tailnet))


class TailnetRuntime:
    """Everything of one tailnet that runs. Complete once ``start`` has returned."""

    def __init__(self, snapshot: Snapshot, store: Store, ids: Sequences, wanted: Wanted) -> None:
        self.wanted = wanted
        snapshot = replace(snapshot, settings=wanted.settings)
        values = wanted.settings
        restored, trouble = restore(snapshot, wanted.policy, values.email_domains, values.providers)
        self.live = LiveTailnet(restored, store, ids)
        self.policy = PolicyKeeper(self.live, wanted.policy, trouble=trouble)
        self.encoder = Encoder()
        self.sessions = MapSessions(
            self.live, self.encoder, clock=time.monotonic, jitter=random.random
        )

    @property
    def id(self) -> TailnetID:
        """The tailnet's id."""
        return self.live.id

    @property
    def name(self) -> str:
        """The tailnet's name."""
        return self.live.snapshot.tailnet.name

    async def start(self, supervisor: Supervisor) -> None:
        """Start the loops, and bring the tailnet to the state in which nodes may meet it.

        All expiries that are due have been applied, the policy is the newest of its source, and the
        first map of a large tailnet is prepared (0.3 s for 5,000 nodes). A bug that one tailnet
        meets here is logged and left to the loops; it does not keep the others from being served.
        """
        supervisor.start(*self.live.loops())
        await self._apply()
        for step in (self.live.tick, self.policy.look, self._warm):
            try:
                await step()
            except Exception:
                log.exception("tailnet is served without what failed", extra={"tailnet": self.name})
        supervisor.start(*self.sessions.loops(), *self.policy.loops())

    async def _warm(self) -> None:
        self.encoder.warm(self.live.snapshot)

    async def reload(self, wanted: Wanted) -> None:
        """Apply changed settings; nodes are told of what changes for them."""
        self.wanted = wanted
        await self._apply()

    async def reload_policy(self) -> None:
        """Read the policy again from where the settings say; also one that was refused before."""
        await self.policy.take_over(self.wanted.policy)

    async def _apply(self) -> None:
        async with self.live.edit(by=SYSTEM, act="settings.apply") as edit:
            renamed = tailnet_settings.take_over(
                edit, self.wanted.settings, domain=self.wanted.domain
            )
        for old, node in renamed:
            why = f"{old} is reserved, or a static record of the site file"
            log.warning("node renamed", extra={"node": node.name, "reason": why})
