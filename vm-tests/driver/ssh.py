"""The way of an operator into a machine of a story: a real sshd, a user of theirs, sudo with a password.

For: stories about what a playbook does to the way by which it comes. The machine needs `PACKAGES`.
Not for stories that only want tasks to run (`connection/`).
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import network
from driver.container import Container
from driver.face import Machine
from driver.machine import StoryFailed

PACKAGES = ("openssh-server", "sudo")
"""What a machine needs besides what every image has."""

OPERATOR = "ops"
PASSWORD = "a story's own"  # noqa: S105  # of a machine that is gone in a minute
LOGIN_S = 30

CONFIG = """\
Host {address}
  Port {port}
  IdentityFile {key}
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking accept-new
"""


@dataclass(frozen=True, slots=True)
class Door:
    """One machine's sshd, as an operator's `ssh_config` describes it."""

    machine: Machine
    folder: Path
    port: int

    @property
    def address(self) -> str:
        """Where the machine is."""
        assert isinstance(self.machine, Container)
        return network.v4(self.machine.spec.vlans[0], self.machine.number)

    @property
    def variables(self) -> dict[str, Any]:
        """What the inventory says; of the port it says nothing."""
        return {
            "ansible_connection": "ssh",
            "ansible_user": OPERATOR,
            "ansible_become": True,
            "ansible_become_password": PASSWORD,
            "ansible_ssh_common_args": f"-F {self.folder}/ssh_config",
        }

    def login(self, command: str = "true", port: int = 0) -> subprocess.CompletedProcess[str]:
        """Come in by a connection of its own."""
        other = ("-p", str(port)) if port else ()
        config = f"{self.folder}/ssh_config"
        return subprocess.run(
            [
                "ssh",
                "-F",
                config,
                "-o",
                "ConnectTimeout=5",
                *other,
                f"{OPERATOR}@{self.address}",
                command,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LOGIN_S,
            check=False,
        )

    def must_open(self) -> None:
        """Come in, or fail the story."""
        done = self.login()
        if done.returncode:
            raise StoryFailed(f"ssh ended with {done.returncode}: {done.stderr}")


def open_door(machine: Machine, folder: Path, *, sshd: int = 22, port: int = 0) -> Door:
    """Make the operator and let sshd listen on a port; ``port`` is the one by which it is reached."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = folder / "id"
    if not key.exists():
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(make, check=True, timeout=LOGIN_S, stdin=subprocess.DEVNULL)
    public = key.with_suffix(".pub").read_text().strip()
    home = f"/home/{OPERATOR}"
    machine.succeed(
        f"useradd --create-home --shell /bin/bash --groups sudo {OPERATOR}",
        f'echo "{OPERATOR}:{PASSWORD}" | chpasswd',
        f"install -d -m 0700 -o {OPERATOR} -g {OPERATOR} {home}/.ssh",
        f"echo '{public}' > {home}/.ssh/authorized_keys",
        f"echo 'Port {sshd}' > /etc/ssh/sshd_config.d/story.conf",
        "systemctl restart ssh.service",
    )
    machine.wait_for_open_port(sshd)
    door = Door(machine, folder, port or sshd)
    text = CONFIG.format(address=door.address, port=door.port, key=key, folder=folder)
    (folder / "ssh_config").write_text(text)
    return door
