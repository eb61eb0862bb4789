"""How Ansible reaches a machine of a story: into its namespaces, by the pid of its first process.

Ansible loads this file by its name. Not for the driver's own commands (`container.py`).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: headwater_machine
short_description: Run tasks in a booted container of a story
description: [Enters the namespaces of the container, as root.]
author: [The Headwater authors]
options:
  leader:
    description: The container's first process, as the sandbox numbers it.
    type: int
    default: 0
    vars: [{name: story_leader}]
  leaders:
    description: The same of every machine by its name, as JSON, where no variable says it.
    type: str
    default: "{}"
    env: [{name: STORY_LEADERS}]
"""

ENVIRONMENT = {
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
NAMESPACES = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")


class Connection(ConnectionBase):  # type: ignore[misc]  # ansible has no types
    """One machine."""

    transport = "headwater_machine"
    has_pipelining = True

    def _connect(self) -> Connection:
        self._connected = True
        return self

    def _run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        named = json.loads(self.get_option("leaders"))
        leader = self.get_option("leader") or named[self._play_context.remote_addr]
        target = ("--target", str(leader))
        nsenter = str(shutil.which("nsenter"))
        return subprocess.run(
            [nsenter, *target, *NAMESPACES, *command],
            env=ENVIRONMENT,
            cwd="/",
            check=False,
            **options,
        )

    def exec_command(
        self, cmd: str, in_data: bytes | None = None, sudoable: bool = True
    ) -> tuple[int, bytes, bytes]:
        """Run one command."""
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        done = self._run("/bin/sh", "-c", cmd, input=in_data or b"", capture_output=True)
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path: str, out_path: str) -> None:
        """Copy a file into the machine."""
        super().put_file(in_path, out_path)
        with Path(in_path).open("rb") as file:
            write = ("/bin/sh", "-c", 'cat > "$1"', "_", out_path)
            done = self._run(*write, stdin=file, capture_output=True)
        if done.returncode:
            raise AnsibleConnectionFailure(done.stderr.decode(errors="replace"))

    def fetch_file(self, in_path: str, out_path: str) -> None:
        """Copy a file out of the machine."""
        super().fetch_file(in_path, out_path)
        with Path(out_path).open("wb") as file:
            done = self._run("cat", in_path, stdout=file, stderr=subprocess.PIPE)
        if done.returncode:
            raise AnsibleConnectionFailure(done.stderr.decode(errors="replace"))

    def close(self) -> None:
        """Forget it."""
        self._connected = False
