"""Every command of README's Ansible part, docs/ansible.md and docs/upgrade.md, as it is printed.

What the pages ask people to write, host names and site files, is written here; the rest is read from
the pages. The checkout is overlaid, so what the commands make is gone afterwards.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import yaml
from driver import ansible, network
from driver.ansible import PLAY_S, Controller
from driver.container import Container
from driver.face import Machine, Machines
from driver.machine import StoryFailed
from driver.overlay import mount_overlay
from driver.server import ROOT

HOST = "hw.example.com"
BUMPED = "0.2.0"
COPY_INVENTORY = "cp ansible/inventory.example.yml ansible/inventory.yml"
ON_THE_HOST = ("headwater ", "/opt/headwater/")


def blocks(page: str, language: str) -> list[str]:
    """Give the fenced blocks of a page."""
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who follows the pages, on a machine of their own."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.host = machines[HOST]
        self.node = machines["node"]
        self.controller = Controller(machines)
        self.said: list[str] = []
        over = Path("/run/headwater-checkout")
        for part in ("upper", "work"):
            (over / part).mkdir(parents=True)
        mount_overlay(ROOT, [ROOT], over / "upper", over / "work")

    def follow(self, page: str, blocks: list[str]) -> None:
        """Type what the blocks say, line by line."""
        for block in blocks:
            place = ROOT
            for line in block.splitlines():
                if line.startswith("cd ") and "&&" not in line:
                    place = (place / line.removeprefix("cd ")).resolve()
                    continue
                with self.machines.subtest(f"{page}: {line}"):
                    self.type(line, place)
                if line.startswith(COPY_INVENTORY):
                    self.fill_in()

    def type(self, line: str, place: Path) -> None:
        """Run one line where it belongs."""
        if line.startswith(ON_THE_HOST):
            self.said.append(self.host.succeed(line))
            return
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=place,
            env={
                **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
                "ANSIBLE_CONNECTION_PLUGINS": str(ansible.CONNECTION),
                "ANSIBLE_HOME": "/run/headwater-ansible",
                "ANSIBLE_NOCOLOR": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAY_S,
            check=False,
        )
        self.said.append(done.stdout)
        if done.returncode:
            raise StoryFailed(f"`{line}` ended with {done.returncode}:\n{done.stdout}")

    # What the pages ask people to write

    def fill_in(self) -> None:
        """Name the host in the inventory, and write the site file beside it."""
        site = next(text for text in blocks("docs/ansible.md", "yaml") if "local_ca" in text)
        (ROOT / "ansible" / "site.yaml").write_text(site)
        self.edit_inventory({})

    def edit_inventory(self, changes: dict[str, str], *nodes: Machine) -> None:
        """Say how the machines are reached, and change some variables."""
        path = ROOT / "ansible" / "inventory.yml"
        inventory = yaml.safe_load(path.read_text())
        servers, members = (
            inventory["all"]["children"][g] for g in ("headwater", "headwater_nodes")
        )
        servers["hosts"] = {HOST: self.reached(self.host)}
        servers["vars"] |= changes
        members["hosts"] = {each.name: self.reached(each) for each in nodes}
        members["vars"] |= {
            "headwater_node_packages": [],
            "headwater_node_ca_file": "{{ inventory_dir }}/ca.pem",
        }
        path.write_text(json.dumps(inventory))

    @staticmethod
    def reached(machine: Machine) -> dict[str, object]:
        """Say how Ansible reaches a machine of a story."""
        assert isinstance(machine, Container)
        return {
            "ansible_connection": "headwater_machine",
            "story_leader": machine.leader,
            "ansible_host": network.v4(1, machine.number),
            "ansible_python_interpreter": "/usr/bin/python3",
        }

    def write_key(self) -> None:
        """Put the key that was printed last into its file, and the authority beside it."""
        key = next(each for each in reversed(self.said) if "hskey-auth-" in each)
        match = re.search(r"hskey-auth-\S+", key)
        assert match
        (ROOT / "ansible" / "node.key").write_text(match[0])
        ca = self.host.succeed("cat /var/lib/headwater/tls/ca.pem")
        (ROOT / "ansible" / "ca.pem").write_text(ca)


def story(machines: Machines) -> None:
    """Follow README, then each page to its end."""
    for machine in machines.values():
        machine.wait_for_unit("multi-user.target")
    reader = Reader(machines)
    readme = [each for each in blocks("README.md", "sh") if "playbooks/" in each]
    assert len(readme) == 1
    reader.follow("README.md", readme)
    machines[HOST].succeed("headwater health")

    *upgrading, making = blocks("docs/upgrade.md", "sh")
    assert f"VERSION={BUMPED}" in making
    reader.follow("docs/upgrade.md", [making])
    folder = "{{ inventory_dir }}/../dist/headwater-" + BUMPED
    reader.edit_inventory({"headwater_release_dir": folder})
    before = machines[HOST].succeed("headwater version")
    reader.follow("docs/upgrade.md", upgrading)
    # The page ends with going back to the release before.
    assert machines[HOST].succeed("headwater version") == before
    assert f'"{BUMPED}"' in reader.said[-1]

    pages = blocks("docs/ansible.md", "sh")
    enrol = next(i for i, block in enumerate(pages) if "--limit headwater_nodes" in block)
    reader.follow("docs/ansible.md", pages[:enrol])
    reader.edit_inventory({}, machines["node"])
    reader.write_key()
    reader.follow("docs/ansible.md", pages[enrol : enrol + 1])
    assert "node" in machines[HOST].succeed("headwater nodes list")
    reader.follow("docs/ansible.md", pages[enrol + 1 :])
    machines[HOST].fail("test -e /var/lib/headwater")
