"""A machine with a kernel of its own, in QEMU without hardware help: slow, and whole.

For: what containers cannot show, such as memory and task limits and a file system that loses power.
Commands go through a shell on a virtual console. Not for stories that a container can tell.
"""

from __future__ import annotations

import base64
import contextlib
import os
import platform
import shlex
import shutil
import socket
import subprocess
import time
from pathlib import Path

from driver import disk, initrd, network, sandbox
from driver.log import Log
from driver.machine import BaseMachine, StoryFailed
from driver.spec import Spec

EMULATOR_VARIABLE = "HEADWATER_VM_QEMU"
EMULATOR = "qemu-system-x86_64"

# Some 20 s on a quiet machine; every instruction is translated.
BOOT_S = 240
DISK_GB = 3
MACHINE_CORES = 2

READY = b"story shell is ready\n"

_SHELL = """\
[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service dev-hvc0.device
[Service]
Environment=HOME=/root TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
ExecStart=/bin/bash -c 'exec </dev/hvc0 >/dev/hvc0 2>/dev/ttyS0; stty -F /dev/hvc0 raw -echo; \
echo story shell is ready; exec bash --norc'
[Install]
WantedBy=multi-user.target
"""

_NETWORK = """\
[Unit]
DefaultDependencies=no
After=systemd-udevd.service
Before=network-pre.target network.target
Wants=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -e /usr/local/lib/story-network
[Install]
WantedBy=sysinit.target
"""


def missing() -> str:
    """Say what is missing for emulated machines, or nothing."""
    emulator = os.environ.get(EMULATOR_VARIABLE, EMULATOR)
    if platform.machine() != "x86_64":
        return f"machines are emulated on x86_64 only, and this is {platform.machine()}"
    for program in (emulator, "mke2fs"):
        if shutil.which(program) is None:
            return f"no {program} here (Debian: qemu-system-x86, e2fsprogs)"
    return ""


class Emulated(BaseMachine):
    """One emulated machine; its disk lives until the story ends."""

    def __init__(
        self, name: str, spec: Spec, number: int, log: Log, *, layers: list[Path], hosts: str
    ) -> None:
        super().__init__(name, spec, number, log)
        self._folder = sandbox.WORK / name
        self._layers = layers
        self._hosts = hosts
        self._taps: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: socket.socket | None = None
        self._began = 0.0
        self._connected = False

    @property
    def _console(self) -> Path:
        return self._folder / "console.log"

    def start(self) -> None:
        """Boot it, unless it runs; commands wait until it has a shell."""
        if self.started:
            return
        self.started = True
        if not self._taps:
            self._prepare()
        self._spawn()

    def _prepare(self) -> None:
        self._taps = [network.plug_tap(self.number, vlan) for vlan in self.spec.vlans]
        root = disk.lay_out(self._folder, self.name, self.spec, self._layers, self._hosts)
        units = root / "etc/systemd/system"
        (units / "story-shell.service").write_text(_SHELL)
        (units / "story-network.service").write_text(_NETWORK)
        (root / "usr/local/lib/story-network").write_text(self._addresses())
        for unit, target in (("story-shell", "multi-user"), ("story-network", "sysinit")):
            wanted = units / f"{target}.target.wants"
            wanted.mkdir(exist_ok=True)
            (wanted / f"{unit}.service").symlink_to(f"../{unit}.service")
        (root / "etc/fstab").write_text("/dev/vda / ext4 rw 0 1\n")
        # Given, so that the first boot is like every other.
        (root / "etc/machine-id").write_text(f"{self.number:032x}\n")
        (self._folder / "initrd").write_bytes(initrd.make(root))
        (kernel,) = (root / "boot").glob("vmlinuz-*")
        (self._folder / "kernel").write_bytes(kernel.read_bytes())
        with self.log.step(self.name, "writing its disk"):
            image = self._folder / "disk"
            made = ["mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image), f"{DISK_GB}G"]
            subprocess.run(made, check=True, timeout=BOOT_S)
        subprocess.run(["umount", "-l", str(root)], check=True, timeout=30)

    def _addresses(self) -> str:
        # The kernel counts interfaces from 0, stories from 1: the last one is renamed first.
        lines = ["modprobe virtio_net"]
        for index, vlan in reversed(list(enumerate(self.spec.vlans, 1))):
            lines += [
                f"ip link set eth{index - 1} name eth{index}",
                f"ip addr add {network.v4(vlan, self.number)}/24 dev eth{index}",
                f"ip addr add {network.v6(vlan, self.number)}/64 dev eth{index} nodad",
                f"ip link set eth{index} up",
            ]
        return "\n".join(lines) + "\n"

    def _spawn(self) -> None:
        path = self._folder / "shell"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as door, self._console.open("ab") as console:
            door.bind(str(path))
            door.listen(1)
            door.settimeout(60)
            self._began = time.monotonic()
            self._process = subprocess.Popen(
                self._command(path),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )
            try:
                shell, _ = door.accept()
            except TimeoutError:
                words = self._console.read_text(errors="replace")
                raise StoryFailed(f"{self.name}: QEMU does not start:\n{words}") from None
        self._shell = shell
        self._connected = False

    def _command(self, shell: Path) -> list[str]:
        words = (
            "root=/dev/vda rw console=ttyS0 quiet panic=-1 net.ifnames=0 mitigations=off"
            " systemd.getty_auto=no systemd.show_status=0 systemd.mask=systemd-hwdb-update.service"
        )
        command = [
            os.environ.get(EMULATOR_VARIABLE, EMULATOR),
            # cx16: this kernel's allocator trips over how older QEMUs emulate it.
            *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,-cx16"),
            *("-smp", str(MACHINE_CORES), "-m", str(self.spec.memory_mb)),
            *("-kernel", str(self._folder / "kernel"), "-initrd", str(self._folder / "initrd")),
            *("-append", words),
            *("-drive", f"file={self._folder / 'disk'},if=virtio,format=raw,cache=unsafe"),
            *("-device", "virtio-serial", "-device", "virtconsole,chardev=shell"),
            *("-chardev", f"socket,id=shell,path={shell}", "-device", "virtio-rng-pci"),
            *("-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"),
        ]
        for vlan, tap in zip(self.spec.vlans, self._taps, strict=True):
            card = f"virtio-net-pci,netdev=n{vlan},mac=52:54:00:48:{vlan:02x}:{self.number:02x}"
            command += ["-netdev", f"tap,id=n{vlan},ifname={tap},script=no,downscript=no"]
            command += ["-device", card]
        return command

    def _connect(self) -> socket.socket:
        assert self._shell is not None
        if self._connected:
            return self._shell
        seen = b""
        self._shell.settimeout(BOOT_S)
        with self.log.step(self.name, "waiting for its shell"):
            while not seen.endswith(READY):
                try:
                    got = self._shell.recv(4096)
                except TimeoutError:
                    got = b""
                if not got:
                    words = self._console.read_text(errors="replace")[-4000:]
                    raise StoryFailed(f"{self.name} does not boot:\n{words}")
                seen += got
        self._connected = True
        self.log.say(self.name, f"a shell after {time.monotonic() - self._began:.1f} s")
        return self._shell

    def run(
        self, command: str, timeout: float | None, data: bytes | None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one shell command in it."""
        shell = self._connect()
        shell.settimeout(None if timeout is None else timeout + 60)
        limit = "" if timeout is None else f"timeout {timeout:g} "
        source = "</dev/null"
        if data is not None:
            encoded = base64.encodebytes(data)
            shell.sendall(b"base64 -d > /run/story-input << 'E'\n" + encoded + b"E\n")
            source = "</run/story-input"
        inner = shlex.quote(f"set -euo pipefail; {command}")
        line = f"{limit}bash -c {inner} {source} | (base64 -w0; echo); echo ${{PIPESTATUS[0]}}\n"
        shell.sendall(line.encode())
        answer = b""
        while answer.count(b"\n") < 2:
            got = shell.recv(65536)
            if not got:
                raise StoryFailed(f"{self.name} ended while it ran `{command}`")
            answer += got
        printed, code = answer.split(b"\n")[:2]
        return subprocess.CompletedProcess([], int(code), base64.b64decode(printed))

    def shutdown(self) -> None:
        """Power it off."""
        assert self._process is not None
        self._connect().sendall(b"systemctl poweroff\n")
        self._process.wait(BOOT_S)
        self.started = False

    def crash(self) -> None:
        """Take its power away."""
        self.end()
        self.started = False

    def block(self) -> None:
        """Pull its cables."""
        network.cables(self.number, self.spec, up=False)

    def unblock(self) -> None:
        """Plug them in again."""
        network.cables(self.number, self.spec, up=True)

    def last_words(self) -> str:
        """Give what its console and its journal say last."""
        words = self._console.read_text(errors="replace")[-2000:] if self._console.exists() else ""
        journal = ""
        if self._shell is not None and self._connected:
            with contextlib.suppress(StoryFailed, OSError):
                said = self.run("journalctl -b -q --no-pager -n 25", 60, None).stdout
                journal = said.decode(errors="replace")
        return f"{words}\n{journal}"

    def end(self) -> None:
        """Take everything of it away."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
        if self._shell is not None:
            self._shell.close()
