"""Ansible over a real ssh, as another user with sudo and a password: nobody is locked out, drift is mended."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from driver import releases
from driver.ansible import Controller, Played
from driver.face import Machines
from driver.ssh import PASSWORD, open_door

SITE = json.loads((Path(__file__).parent / "site.json").read_text())
HOME = Path("/run/headwater-operator")

# Known to the operator's ssh_config alone: no variable of Ansible's says it.
PORT = 2222


def story(machines: Machines) -> None:
    """Install by ssh; drift, and be mended."""
    operator = Operator(machines)
    machines["server"].wait_for_unit("multi-user.target")
    operator.other_port()
    operator.drift()


class Operator:
    """Somebody with an inventory and an ssh_config."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.controller = Controller(machines)

    def play(self, *arguments: str) -> Played:
        """Run site.yml."""
        return self.controller.play(
            "site",
            {"headwater": [self.machines["server"]]},
            *arguments,
            headwater_release_dir=str(releases.current().folder()),
            headwater_settings=SITE,
        )

    def other_port(self) -> None:
        """The port of sshd is none that anybody told the role."""
        server = self.machines["server"]
        door = open_door(server, HOME / "server", sshd=PORT)
        self.controller.doors[server.name] = door
        with self.machines.subtest("the port by which Ansible comes in stays open"):
            played = self.play()
            played.says(f"Stays open: {PORT}, by which operators come in")
            door.must_open()
            table = server.succeed("nft list table inet headwater")
            assert str(PORT) in table, table
        with self.machines.subtest("it was proved, and nothing waits any more"):
            server.fail("test -e /opt/headwater/pending.json")
            server.fail("ls /etc/systemd/system/headwater-undo.timer")
            server.succeed("headwater health")
        with self.machines.subtest("by hand, behind sudo, the way in is known too"):
            command = f"echo {shlex.quote(PASSWORD)} | sudo -S -p '' /opt/headwater/headwater-release look"
            done = door.login(command)
            assert json.loads(done.stdout)["way_in"] == PORT, done

    def drift(self) -> None:
        """What others change on the host, the next run shows and mends."""
        server = self.machines["server"]
        table = server.succeed("nft list table inet headwater")
        wanted = server.succeed("sysctl -n net.core.somaxconn")
        server.succeed(
            "nft flush ruleset",
            "systemctl disable --quiet headwater.service headwater.socket",
            "sysctl -q -w net.core.somaxconn=128",
            "chmod 0666 /etc/systemd/system/headwater.service",
            "usermod --shell /bin/bash headwater",
        )
        with self.machines.subtest("--check --diff shows drift and mends none of it"):
            played = self.play("--check", "--diff")
            assert played.changed
            played.says("tcp dport", "net.core.somaxconn", "mode 0666", "-disabled", "/bin/bash")
            server.fail("nft list table inet headwater")
        with self.machines.subtest("the run mends it"):
            assert self.play().changed
            assert server.succeed("nft list table inet headwater") == table
            assert server.succeed("sysctl -n net.core.somaxconn") == wanted
            server.succeed("systemctl is-enabled headwater.service headwater.socket")
            mode = server.succeed("stat -c %a /etc/systemd/system/headwater.service")
            assert mode == "644\n"
            assert "nologin" in server.succeed("getent passwd headwater")
        with self.machines.subtest("and the next one changes nothing"):
            assert self.play().changed == 0
