"""Every block of README's Ansible part, docs/ansible.md and docs/upgrade.md, as it is printed.

Commands are typed and files are written as the pages have them; a file's first line says where it
belongs. What readers bring themselves is here: names that resolve, a certificate, ssh to their machines
(which enters the namespaces here). The checkout is overlaid, so what the commands make is gone afterwards.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from driver import ansible, network
from driver.ansible import PLAY_S, Controller
from driver.container import Container
from driver.face import Machine, Machines
from driver.machine import StoryFailed
from driver.overlay import mount_overlay
from driver.server import ROOT

HOST = "hw.example.com"
VPS = "vps.example.com"
LAPTOP = "laptop.example.com"
DESKTOP = "desktop.example.com"
BUMPED = "0.2.0"
ON_THE_HOST = ("headwater ", "/opt/headwater/")
INHERITED = ("PYTHONPATH", "MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "ARGS")
AWAY = Path("/run/headwater-reader")

ENTER = 'nsenter -t "$(cat {place}/$host)" -m -u -i -n -p -C env -i HOME=/root PATH={path}'
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SSH = f"""#!/bin/sh
host=${{1#root@}}
shift
exec {ENTER} sh -c "cd; $*"
"""
SCP = f"""#!/bin/sh
[ "$1" = -r ] || exit 2
host=${{3#root@}} host=${{host%:}}
tar -C "$(dirname "$2")" -cf - "$(basename "$2")" | {ENTER} tar -C /root --no-same-owner -xf -
"""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    section: str
    language: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    """Read the shell and YAML blocks of a page, in its order."""
    section = ""
    pattern = re.compile(r"^## ([^\n]*)\n|^```(sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for match in pattern.finditer((ROOT / page).read_text()):
        section = match[1] or section
        if match[2]:
            yield Block(section, match[2], match[3])


class Reader:
    """Somebody who follows the pages, on a machine of their own."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.controller = Controller(machines)
        self.said: list[str] = []
        self.environment: dict[str, str] = {}
        over = Path("/run/headwater-checkout")
        for part in (over / "upper", over / "work", AWAY / "bin", AWAY / "leaders"):
            part.mkdir(parents=True)
        mount_overlay(ROOT, [ROOT], over / "upper", over / "work")
        leaders = {}
        for name, machine in machines.items():
            assert isinstance(machine, Container)
            leaders[name] = machine.leader
            (AWAY / "leaders" / name).write_text(str(machine.leader))
        for name, script in (("ssh", SSH), ("scp", SCP)):
            text = script.replace("{place}", str(AWAY / "leaders")).replace("{path}", PATH)
            (AWAY / "bin" / name).write_text(text)
            (AWAY / "bin" / name).chmod(0o755)
        hosts = AWAY / "hosts"
        hosts.write_text(network.hosts({m.name: m.spec for m in machines.values()}))  # type: ignore[attr-defined]  # ours have a spec
        subprocess.run(["mount", "--bind", str(hosts), "/etc/hosts"], check=True)
        self.leaders = json.dumps(leaders)

    def follow(self, page: str, *sections: str) -> None:
        """Do what the blocks of some sections say."""
        for block in blocks(page):
            if block.section not in sections:
                continue
            if block.language == "yaml":
                self.write(block.text)
            elif "tailscale up" in block.text:
                self.type_on(self.machines[LAPTOP], block.text)
            else:
                self.type_all(page, block.text)

    def write(self, text: str) -> None:
        """Write a file where its first line says."""
        name = re.match(r"# ([\w./-]+)", text)
        if name is None:
            raise StoryFailed(f"a block says nowhere which file it is:\n{text}")
        path = ROOT / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def type_all(self, page: str, text: str) -> None:
        """Type the lines of a block, in the checkout or on the host."""
        place = ROOT
        for line in text.splitlines():
            if line.startswith("cd ") and "&&" not in line:
                place = (place / line.removeprefix("cd ")).resolve()
                continue
            with self.machines.subtest(f"{page}: {line}"):
                if line.startswith(ON_THE_HOST):
                    self.said.append(self.machines[HOST].succeed(line))
                else:
                    self.said.append(self.type(line, place))

    def type_on(self, node: Machine, text: str) -> None:
        """Type the lines of a block on a node, with the key that was printed last."""
        assert isinstance(node, Container)
        for printed in text.splitlines():
            line = printed.replace("hskey-auth-…", self.key)
            with self.machines.subtest(f"on {node.name}: {printed}"):
                fetched = re.fullmatch(r"ssh root@(\S+) (.+) > (\S+)", line)
                if fetched:
                    node.write(fetched[3], self.machines[fetched[1]].succeed(fetched[2]))
                else:
                    node.succeed(line, timeout=60)

    @property
    def key(self) -> str:
        """The key that was printed last."""
        found = re.findall(r"hskey-auth-[\w-]+", "\n".join(self.said))
        return str(found[-1])

    def type(self, line: str, place: Path) -> str:
        """Run one line in the checkout; give what it printed."""
        # Not what the make that runs the stories hands down.
        ours = {key: value for key, value in os.environ.items() if key not in INHERITED}
        done = subprocess.run(
            ["bash", "-ec", line],
            cwd=place,
            env={
                **ours,
                "HOME": str(AWAY),
                "PATH": f"{AWAY}/bin:{ours['PATH']}",
                "ANSIBLE_TRANSPORT": "headwater_machine",
                "ANSIBLE_CONNECTION_PLUGINS": str(ansible.CONNECTION),
                "STORY_LEADERS": self.leaders,
                "ANSIBLE_NOCOLOR": "1",
                **self.environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PLAY_S,
            check=False,
        )
        if done.returncode:
            raise StoryFailed(f"`{line}` ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    # What readers do of their own

    def name_release(self, old: str, new: str) -> None:
        """Name another release in the inventory."""
        path = ROOT / "ansible" / "inventory.yml"
        path.write_text(path.read_text().replace(f"headwater-{old}", f"headwater-{new}"))

    def bring_certificate(self) -> None:
        """Put a certificate beside the inventory, from an authority that this machine knows."""
        read = self.machines[HOST].succeed
        pair = read("cat /var/lib/headwater/tls/server.pem")
        for name in ("fullchain.pem", "key.pem"):
            (ROOT / "ansible" / name).write_text(pair)
        known = AWAY / "authorities.pem"
        known.write_text(read("cat /var/lib/headwater/tls/ca.pem"))
        self.environment["SSL_CERT_FILE"] = str(known)


def story(machines: Machines) -> None:
    """Follow README, then each page to its end."""
    for machine in machines.values():
        machine.wait_for_unit("multi-user.target")
    for node in (machines[LAPTOP], machines[DESKTOP]):
        node.succeed("systemctl start tailscaled")
    reader = Reader(machines)
    host = machines[HOST]

    reader.follow("README.md", "Deploy it", "Join a node")
    host.succeed("headwater health")
    assert "laptop" in host.succeed("headwater nodes list")

    reader.follow("docs/upgrade.md", "Make a release")
    reader.name_release("0.1.0", BUMPED)
    before = host.succeed("headwater version")
    reader.follow("docs/upgrade.md", "With Ansible")
    # The page ends with going back to the release before.
    assert host.succeed("headwater version") == before
    assert f'"{BUMPED}"' in reader.said[-1]

    page = "docs/ansible.md"
    sections = list(dict.fromkeys(block.section for block in blocks(page)))
    certificates = sections.index("Certificates")
    reader.follow(page, *sections[:certificates])
    assert "desktop" in host.succeed("headwater nodes list")
    assert "tailscale up --login-server" in "".join(reader.said)
    machines[VPS].succeed("headwater health")
    reader.bring_certificate()
    reader.follow(page, "Certificates")
    assert "fullchain.pem" in host.succeed("ls /etc/headwater/secrets")
    reader.follow(page, *sections[certificates + 1 :])
    host.fail("test -e /var/lib/headwater")
