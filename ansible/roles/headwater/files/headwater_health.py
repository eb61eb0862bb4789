"""Whether the services of a deploy are well, and if not, why: judged by looking again and again.

Beside ``headwater-release`` in /opt/headwater. Changes nothing. Needs only the system's own Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from headwater_live import wanted_ports
from headwater_state import Deployed, Manifest, ask
from headwater_system import System

MAIN_SERVICE = "headwater.service"
POLL_S = 0.25
MAX_STARTS = 3
"""A service that was started so often and is not up will not become well by waiting."""
QUESTION_TIMEOUT_S = 10
"""No question to a release takes longer on a host that is well."""


@dataclass
class Health:
    """The eye on the services."""

    system: System
    base: Path
    root: Path
    timeout_s: float
    settle_s: float
    pause: Callable[[float], None] = time.sleep

    def wait(self, state: Deployed) -> str:
        """Wait until all services are up, answer, and stay so; return the reason if they do not."""
        if state.manifest.firewall and not self.system.table():
            return f"the firewall's table is not loaded: systemctl status {state.manifest.firewall}"
        deadline = time.monotonic() + self.timeout_s
        well_since: float | None = None
        pids: dict[str, str] = {}
        starts: dict[str, set[str]] = {}
        reason = "it was not asked"
        while time.monotonic() < deadline:
            reason, now = self._look(state, starts)
            if reason.startswith("!"):
                return reason[1:]
            if reason or now != pids:
                well_since, pids = None, now
            if not reason:
                well_since = time.monotonic() if well_since is None else well_since
                if time.monotonic() - well_since >= self.settle_s:
                    return ""
            self.pause(POLL_S)
        return f"not well after {self.timeout_s:.0f} s: {reason or 'it does not stay up'}"

    def _look(self, state: Deployed, starts: dict[str, set[str]]) -> tuple[str, dict[str, str]]:
        """Return why it is not well (a leading ! means that waiting is no use), and the processes."""
        failed = self._failed_sockets(state)
        if failed:
            return f"!{self._why_not_bound(state, failed[0])}", {}
        pids = {}
        for unit in state.manifest.services:
            properties = self.system.show(unit)
            active = properties.get("ActiveState", "unknown")
            # The manager's own counter of restarts begins anew with every start by a socket.
            seen = starts.setdefault(unit, set())
            seen.add(properties.get("ExecMainPID", ""))
            if active == "failed" or (active != "active" and len(seen) > MAX_STARTS):
                return f"!{unit} does not stay up ({active})", {}
            if active != "active":
                return f"{unit} is {active}", {}
            pids[unit] = properties.get("MainPID", "")
        if MAIN_SERVICE in pids and not self._answers(state):
            return "it does not answer 'headwater health'", pids
        return "", pids

    def _failed_sockets(self, state: Deployed) -> list[str]:
        shown = {unit: self.system.show(unit) for unit in state.manifest.sockets}
        return [unit for unit, each in shown.items() if each.get("ActiveState") == "failed"]

    def _why_not_bound(self, state: Deployed, unit: str) -> str:
        alone = replace(state, manifest=Manifest(sockets=[unit], services=state.manifest.services))
        held = [each for each in self.system.listeners() if each.unit not in state.manifest.units]
        for protocol, address, port in wanted_ports(alone):
            for each in held:
                if each.collides(protocol, address, port):
                    return f"{unit} cannot listen: port {port} is taken by {each.who}"
        return f"{unit} cannot listen, see its journal"

    def _answers(self, state: Deployed) -> bool:
        command = str(self.base / "releases" / state.version / "bin/headwater")
        return (
            ask(
                [command, "health", "-c", str(self.root / state.manifest.config.lstrip("/"))],
                QUESTION_TIMEOUT_S,
            )
            is not None
        )

    def journal(self, state: Deployed, since: float) -> list[str]:
        """Return the journal of what failed: a socket's own, where it is the socket."""
        units = self._failed_sockets(state) or [*state.manifest.services, *state.manifest.sockets]
        return self.system.journal(units, since)
