"""A firewall that is taken back unless somebody comes in through it.

Beside ``headwater-release`` in /opt/headwater. A timer of systemd on the disk, not in memory: who is
locked out restarts the host, and the timer then begins anew. Not for the table itself. Needs only
the system's own Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headwater_state import write

UNIT = "headwater-undo"
PLACE = Path("etc/systemd/system")

SERVICE = """\
[Unit]
Description=Take the last Headwater deploy back: nobody came in through its firewall

[Service]
Type=oneshot
ExecStart={program} undo --reason "nobody came in through the new firewall within {seconds:.0f} s"
"""
TIMER = """\
[Unit]
Description=Wait until somebody comes in through the new firewall

[Timer]
OnActiveSec={seconds:.0f}
AccuracySec=1

[Install]
WantedBy=timers.target
"""


@dataclass(frozen=True)
class Guard:
    """The timer that takes a deploy back, and what is known about who must come in."""

    base: Path
    root: Path
    run: Callable[..., str]

    @property
    def _note(self) -> Path:
        return self.base / "pending.json"

    @property
    def is_armed(self) -> bool:
        """Whether a firewall waits for its proof."""
        return self._note.exists()

    @property
    def client(self) -> str:
        """The other end of the connection by which the firewall was loaded; it proves nothing."""
        return str(json.loads(self._note.read_text())["client"]) if self.is_armed else ""

    def arm(self, seconds: float, limit_s: float, client: str) -> None:
        """Start the timer, or start it anew; ``limit_s`` is what it says to people."""
        folder = self.root / PLACE
        program = self.base / "headwater-release"
        write(folder / f"{UNIT}.service", SERVICE.format(program=program, seconds=limit_s), 0o644)
        write(folder / f"{UNIT}.timer", TIMER.format(seconds=seconds), 0o644)
        write(self._note, json.dumps({"client": client}) + "\n", 0o600)
        self.run("daemon-reload")
        self.run("enable", f"{UNIT}.timer")
        self.run("restart", f"{UNIT}.timer")

    def disarm(self) -> None:
        """Stop the timer and leave nothing of it."""
        if not self.is_armed:
            return
        self.run("disable", "--now", f"{UNIT}.timer")
        for ending in ("timer", "service"):
            (self.root / PLACE / f"{UNIT}.{ending}").unlink(missing_ok=True)
        self._note.unlink()
        self.run("daemon-reload")
