"""Two nodes talk on Debian 12, and a reload there ends when it is done."""

from __future__ import annotations

from driver.face import Machines
from driver.tailnet import UNIT
from two_nodes import story as two_nodes


def story(machines: Machines) -> None:
    """The story of `two_nodes`, on the older system; there a reload is a signal and a question."""
    two_nodes.story(machines)
    with machines.subtest("a reload keeps the process"):
        before = machines.server.get_unit_info(UNIT)["MainPID"]
        machines.server.succeed(f"systemctl reload {UNIT}", "headwater health")
        assert machines.server.get_unit_info(UNIT)["MainPID"] == before
