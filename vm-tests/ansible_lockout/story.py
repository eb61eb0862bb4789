"""The only way in is closed by the new firewall: nobody can come in, and the host takes it back alone."""

from __future__ import annotations

import json
from pathlib import Path

from driver import releases
from driver.ansible import Controller
from driver.face import Machines
from driver.ssh import open_door

SITE = json.loads((Path(__file__).parent / "site.json").read_text())
PORT = 2222

# A door in front of sshd that nothing on the host knows to be one: who comes in by it comes to sshd
# from the host itself, on another port.
FRONT = 8022
SOCKET = f"""\
[Socket]
ListenStream=0.0.0.0:{FRONT}
"""
SERVICE = f"""\
[Service]
ExecStart=/usr/lib/systemd/systemd-socket-proxyd 127.0.0.1:{PORT}
"""

LOOK = "nft list ruleset; systemctl list-unit-files --no-legend"


def story(machines: Machines) -> None:
    """Come in by a door that nobody can know, and be let in by it again."""
    server = machines["server"]
    controller = Controller(machines)
    server.wait_for_unit("multi-user.target")
    server.succeed(
        f"printf %s '{SOCKET}' > /etc/systemd/system/front.socket",
        f"printf %s '{SERVICE}' > /etc/systemd/system/front.service",
        "systemctl daemon-reload",
        "systemctl start front.socket",
    )
    door = open_door(server, Path("/run/headwater-operator"), sshd=PORT, port=FRONT)
    controller.doors[server.name] = door
    door.must_open()
    fresh = server.succeed(LOOK)
    wanted = {
        "headwater_release_dir": str(releases.current().folder()),
        "headwater_settings": SITE,
        "headwater_firewall_timeout": 15,
        # Each task is a connection of its own, so there is no old one that could help.
        "ansible_ssh_args": "-o ControlMaster=no",
    }
    with machines.subtest("who cannot come in again is let in again, by the host alone"):
        played = controller.play("site", {"headwater": [server]}, fails=True, **wanted)
        played.says(
            f"Closed to strangers: {FRONT}",
            "No new connection came in through the new firewall",
            "The change was taken back",
        )
        door.must_open()
        assert server.succeed(LOOK) == fresh
        server.fail("test -e /etc/headwater/firewall.nft")
        server.fail("test -e /opt/headwater/pending.json")
