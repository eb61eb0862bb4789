"""A machine that is a booted Debian in systemd-nspawn, on an overlay that is gone afterwards.

For: boot, commands, reboot, power off, crash and cables. Not for images (`images.py`) or for a
kernel of its own (`emulated.py`).
Source: systemd-nspawn(1); reference of what nspawn needs without systemd around it, found by trial.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from driver import disk, network, sandbox
from driver.log import Log
from driver.machine import BaseMachine, StoryFailed
from driver.spec import Spec

BOOT_S = 60
POWER_OFF_S = 60

# With --keep-unit nspawn ends with this where the machine asks for a reboot.
REBOOT_CODE = 133

# CAP_BPF and CAP_PERFMON, with the system call: device policies and SocketBindDeny are BPF programs.
_CAPABILITIES = "CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON"

_ENVIRONMENT = {
    "TERM": "dumb",
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
}

JOURNAL_LINES = 25


class Container(BaseMachine):
    """One container."""

    def __init__(
        self,
        name: str,
        spec: Spec,
        number: int,
        log: Log,
        *,
        layers: list[Path],
        hosts: str,
        gateway: str,
        owner: str,
    ) -> None:
        super().__init__(name, spec, number, log)
        self.root = sandbox.WORK / name / "root"
        self._layers = layers
        self._hosts = hosts
        self._gateway = gateway
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        self.leader = 0
        """The container's first process, as the sandbox numbers it."""

    @property
    def _console(self) -> Path:
        return self.root.parent / "console.log"

    def prepare(self) -> None:
        """Lay out its disk and its network, without booting."""
        disk.lay_out(self.root.parent, self.name, self.spec, self._layers, self._hosts)
        network.plug(self.name, self.number, self.spec, self._gateway)

    def start(self) -> None:
        """Boot it, unless it runs."""
        if self.started:
            return
        self.started = True
        if not self.root.exists():
            self.prepare()
        self._spawn()

    def _spawn(self) -> None:
        group = sandbox.cgroup(self._owner, self.name)
        arguments = [
            *("sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{group}/cgroup.procs"),
            *("systemd-nspawn", "--quiet", "--keep-unit", "--register=no"),
            *(f"--machine={self.name}", f"--directory={self.root}"),
            f"--network-namespace-path=/run/netns/{network.namespace(self.name)}",
            # Together with the path: else /proc/sys/net is read-only.
            "--private-network",
            *(f"--capability={_CAPABILITIES}", "--system-call-filter=bpf"),
            *(["--bind=/dev/net/tun"] if Path("/dev/net/tun").exists() else []),
            *("--link-journal=no", "--console=read-only"),
            *("--resolv-conf=off", "--timezone=off", "--boot"),
        ]
        with self._console.open("ab") as console:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
        began = time.monotonic()
        self.leader = self._await_leader()
        self.log.say(self.name, f"boots; systemd answers after {time.monotonic() - began:.2f} s")

    def _await_leader(self) -> int:
        assert self._process is not None
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        ends = time.monotonic() + BOOT_S
        while time.monotonic() < ends:
            if self._process.poll() is not None:
                break
            with suppress(FileNotFoundError):
                for child in children.read_text().split():
                    if self._has_systemd(child):
                        return int(child)
            time.sleep(0.03)
        raise StoryFailed(f"{self.name} does not boot:\n{self._console.read_text()[-4000:]}")

    @staticmethod
    def _has_systemd(child: str) -> bool:
        look = ["nsenter", "-t", child, "-m", "-p", "test", "-S", "/run/systemd/private"]
        return subprocess.run(look, capture_output=True, check=False, timeout=30).returncode == 0

    def run(
        self, command: str, timeout: float | None, data: bytes | None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one shell command in it."""
        arguments = [
            *("nsenter", "--target", str(self.leader)),
            *("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"),
            *("/bin/bash", "-c", f"set -euo pipefail; {command}"),
        ]
        try:
            return subprocess.run(
                arguments,
                env=_ENVIRONMENT,
                input=data,
                stdin=subprocess.DEVNULL if data is None else None,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if data is not None else None,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return subprocess.CompletedProcess(arguments, 124, late.stdout or b"")

    def shutdown(self) -> None:
        """Power it off."""
        self._leave("poweroff", 0)
        self.started = False

    def reboot(self) -> None:
        """Restart it (our driver only; in NixOS: shutdown and start)."""
        self._leave("reboot", REBOOT_CODE)
        self._spawn()

    def _leave(self, verb: str, expected: int) -> None:
        assert self._process is not None
        with self.log.step(self.name, verb):
            self.execute(f"systemctl {verb} --no-block || true")
            try:
                code = self._process.wait(POWER_OFF_S)
            except subprocess.TimeoutExpired:
                raise StoryFailed(f"{self.name} does not {verb} in {POWER_OFF_S} s") from None
        if code != expected:
            raise StoryFailed(f"{self.name}: nspawn ended with {code} after {verb}")

    def crash(self) -> None:
        """Take its power away."""
        assert self._process is not None
        os.kill(self.leader, signal.SIGKILL)
        self._process.wait(POWER_OFF_S)
        self.started = False

    def block(self) -> None:
        """Pull its cables."""
        network.cables(self.number, self.spec, up=False)

    def unblock(self) -> None:
        """Plug them in again."""
        network.cables(self.number, self.spec, up=True)

    def last_words(self) -> str:
        """Give what its console and its journal say last."""
        if not self.started:
            return "it was not started"
        assert self._process is not None
        if self._process.poll() is not None:
            return self._console.read_text(errors="replace")[-2000:]
        # The boot itself is not interesting once systemd answered.
        command = f"journalctl -b -q --no-pager -o short-precise -n {JOURNAL_LINES} 2>&1 || true"
        command = f"systemctl --failed --no-legend; {command}"
        return self.run(command, 30, None).stdout.decode(errors="replace")

    def end(self) -> None:
        """Take everything of it away."""
        if self._process is not None and self._process.poll() is None:
            # All processes of the machine end with its first one; nspawn's end alone would not do.
            with suppress(ProcessLookupError):
                os.kill(self.leader or self._process.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait(POWER_OFF_S)
