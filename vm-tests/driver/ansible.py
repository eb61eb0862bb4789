"""Our playbooks, run from the sandbox against machines of a story, as an operator would.

For: the controller (Ansible, an inventory, a place in the machines' network) and the releases that it
deploys. Not for servers that are only the ground of a story (`server.py`).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import images, network, releases
from driver.container import Container
from driver.face import Machine, Machines
from driver.machine import StoryFailed
from driver.server import ROOT
from driver.ssh import Door

ANSIBLE = ROOT / ".venv" / "ansible" / "bin" / "ansible-playbook"
PLAYBOOKS = ROOT / "ansible" / "playbooks"
CONNECTION = Path(__file__).parent / "connection"
NUMBER = 254
"""The controller's address in each network; machines count from 1."""
PLAY_S = 300
"""One playbook against one machine, on a busy host."""


@dataclass(frozen=True, slots=True)
class Played:
    """How a playbook ended."""

    code: int
    text: str

    @property
    def changed(self) -> int:
        """How many tasks changed something."""
        return sum(int(number) for number in re.findall(r"\bchanged=(\d+)", self.text))

    def says(self, *words: str) -> None:
        """Fail the story, with all that was printed, unless each of these is in it."""
        flat = " ".join(self.text.split())
        for each in words:
            if each not in self.text and each not in flat:
                raise StoryFailed(f"the play does not say {each!r}:\n{self.text}")


def make(*targets: str) -> None:
    """Make targets of the checkout. Raises NoImage."""
    done = subprocess.run(
        # ARGS of an outer make are names of stories.
        ["make", "--no-print-directory", *targets, "ARGS="],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PLAY_S,
        check=False,
    )
    if done.returncode:
        words = f"{done.stdout}{done.stderr}"[-3000:]
        raise images.NoImage(f"make {' '.join(targets)} ended with {done.returncode}:\n{words}")


def ahead(*wanted: releases.Release) -> None:
    """Install Ansible and build releases; needs the network. Raises NoImage."""
    make("ansible")
    for release in wanted:
        release.folder()


class Controller:
    """The operator's machine: the sandbox itself, plugged into the machines' first network."""

    def __init__(self, machines: Machines, vlan: int = 1) -> None:
        self._say = machines.say
        self.environment: dict[str, str] = {}
        """What Ansible is told besides, as by an operator's own shell."""
        self.doors: dict[str, Door] = {}
        self._home = Path("/run/headwater-controller")
        self._home.mkdir(exist_ok=True)
        address = f"{network.v4(vlan, NUMBER)}/24"
        network.ip(f"addr replace {address} dev br{vlan}")

    def play(
        self,
        playbook: str,
        hosts: Mapping[str, Sequence[Machine]],
        *arguments: str,
        fails: bool = False,
        **variables: Any,
    ) -> Played:
        """Run a playbook on groups of machines; it must end well, or with ``fails`` badly.

        Ours go by their name, others by their path or by the full name that a collection gives them.
        """
        inventory = self._home / "inventory.json"
        inventory.write_text(json.dumps(self._inventory(hosts, variables)))
        inventory.chmod(0o600)
        done = subprocess.run(
            [str(ANSIBLE), "-i", str(inventory), self._book(playbook), *arguments],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAY_S,
            check=False,
        )
        played = Played(done.returncode, done.stdout)
        recap = [line for line in played.text.splitlines() if "changed=" in line]
        self._say(f"ansible-playbook {playbook} {' '.join(arguments)}: {'; '.join(recap)}")
        if fails != bool(played.code):
            hoped = "fails" if fails else "ends well"
            raise StoryFailed(f"{playbook}: ended with {played.code}, not {hoped}:\n{played.text}")
        return played

    def cut_off(
        self, playbook: str, hosts: Mapping[str, Sequence[Machine]], when: str, **variables: Any
    ) -> None:
        """Run a playbook, and take the controller away once a command succeeds on the first host."""
        machine = next(iter(hosts.values()))[0]
        inventory = self._home / "inventory.json"
        inventory.write_text(json.dumps(self._inventory(hosts, variables)))
        process = subprocess.Popen(
            [str(ANSIBLE), "-i", str(inventory), str(PLAYBOOKS / f"{playbook}.yml")],
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            machine.wait_until_succeeds(when, timeout=PLAY_S)
            assert process.poll() is None, "it ended before it could be cut off"
        finally:
            # With it go its workers, and the local ends of its connections.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._say(f"ansible-playbook {playbook}.yml: cut off")

    @staticmethod
    def _book(playbook: str) -> str:
        return playbook if "." in playbook else str(PLAYBOOKS / f"{playbook}.yml")

    def _inventory(
        self, hosts: Mapping[str, Sequence[Machine]], variables: Mapping[str, Any]
    ) -> dict[str, Any]:
        groups: dict[str, Any] = {"headwater": {"hosts": {}}, "headwater_nodes": {"hosts": {}}}
        for group, members in hosts.items():
            for machine in members:
                groups[group]["hosts"][machine.name] = self._reached(machine)
        return {"all": {"children": groups, "vars": dict(variables)}}

    def _reached(self, machine: Machine) -> dict[str, Any]:
        """Say how a machine is reached: by ssh where the story has opened a door, else directly."""
        assert isinstance(machine, Container)
        how = {
            "ansible_host": network.v4(machine.spec.vlans[0], machine.number),
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        if machine.name in self.doors:
            return {**how, **self.doors[machine.name].variables}
        return {
            **how,
            "ansible_connection": "headwater_machine",
            "story_leader": machine.leader,
        }

    def _environment(self) -> dict[str, str]:
        ours = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
        return {
            **ours,
            "ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg"),
            "ANSIBLE_CONNECTION_PLUGINS": str(CONNECTION),
            "ANSIBLE_HOME": str(self._home / "ansible"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
            "ANSIBLE_INVENTORY_UNPARSED_WARNING": "0",
            "ANSIBLE_NOCOLOR": "1",
            **self.environment,
        }
