"""The NixOS-evaluated unit under a real systemd, with its own sandbox: two nodes talk.

What needs NixOS itself is not shown: packages come from our release, the evaluation from a stand-in
for nixpkgs in our tests.
"""

from __future__ import annotations

from driver.face import Machines
from driver.tailnet import UNIT
from two_nodes import story as two_nodes


def story(machines: Machines) -> None:
    """Look that it is NixOS' unit that runs, and let two nodes talk."""
    machines.server.wait_for_unit(UNIT)
    with machines.subtest("the unit is the evaluated one"):
        started = machines.server.get_unit_info(UNIT)["ExecStart"]
        assert "/nix/store/" in started, started
        said = machines.server.succeed(f"systemd-analyze security --no-pager {UNIT} | tail -n 1")
        machines.say(said.strip())
    with machines.subtest("changed sockets are taken over by a reload of their unit"):
        # What NixOS does in a switch: new unit files, then the units whose triggers changed.
        before = machines.server.get_unit_info(UNIT)["InvocationID"]
        machines.server.succeed(
            "sed -i 's/^Backlog=/ListenStream=0.0.0.0:444\\n&/' /etc/systemd/system/headwater.socket",
            "systemctl daemon-reload",
            "systemctl reload headwater-sockets.service",
        )
        machines.server.wait_for_unit(UNIT)
        assert machines.server.get_unit_info(UNIT)["InvocationID"] != before
        machines.server.wait_for_open_port(444)
    with machines.subtest("no unit of ours failed"):
        failed = machines.server.succeed(
            "systemctl list-units --failed --plain --no-legend 'headwater*'"
        )
        assert failed.strip() == "", failed
    two_nodes.story(machines)
