"""podman in namespaces of its own, as root and as a user, on one host of a small internet.

For: containers that publish ports on that host's address, of which nothing is left when the tests
end, however they end: the first process of the pid namespace dies with its parent, and all others
with it. Not for images (`builds.py`).

Both engines are told what this kind of machine needs: runc, limits that it may set, no systemd.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.interop.netns import Host

USER_ID = 4711
"""The user of the rootless engine; only this sandbox knows it."""
STORAGE = "6G"
"""At most, in memory: gone with the namespaces, and no disk is waited for."""
COMMAND_S = 120
"""A container that is stopped, started or loaded on a busy machine."""

PROGRAMS = {
    "podman": "podman",
    "buildah": "buildah",
    "runc": "runc",
    "netavark": "netavark",
    "slirp4netns": "slirp4netns",
    "newuidmap": "uidmap",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
}
_PLACES = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib/podman:/usr/libexec/podman"

CONFIG = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_config_dir = "{networks}"
"""

# /etc is a copy that nothing outside sees: of users, and of what pages tell to write there.
SCRIPT = """\
set -eu
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755,size={size} tmpfs {folder}/storage
mount -t tmpfs -o mode=700,size={size},uid={user},gid={user} tmpfs {folder}/home
mkdir /run/etc /run/etc.work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc.work overlay /etc
echo 'runner:x:{user}:{user}::{folder}/home:/bin/sh' >> /etc/passwd
echo 'runner:x:{user}:' >> /etc/group
echo 'runner:100000:65536' | tee /etc/subuid > /etc/subgid
install -d -o {user} -g {user} -m 0700 /run/user/{user}
ip link set lo up
echo ready
exec cat
"""


class Missing(Exception):
    """Containers cannot be run here; the text says why."""


def require() -> None:
    """Raise Missing where a program is not there, or we are not root."""
    if os.geteuid() != 0:
        raise Missing("not root")
    missing = [
        package for name, package in PROGRAMS.items() if shutil.which(name, path=_PLACES) is None
    ]
    if missing:
        raise Missing(f"not installed: {' '.join(missing)}")


class EngineFailed(Exception):
    """A command of the engine ended with a failure; the text has its words."""


class Sandbox:
    """The namespaces, and a folder for storage that goes with them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        # Not below the tests' own folders, which only root may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="headwater-containers-", dir="/var/tmp"))
        self.folder.chmod(0o755)
        for name in ("storage", "home"):
            (self.folder / name).mkdir()
        unshare: tuple[str, ...] = (
            "unshare",
            "--mount",
            "--pid",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
        )
        unshare += ("--mount-proc", "--propagation", "shared")
        self._process = subprocess.Popen(
            [
                # Not `ip netns exec`, which hides the control groups behind a /sys of its own.
                *("setpriv", "--pdeathsig", "KILL"),
                *("nsenter", f"--net=/run/netns/{host.name}", "--", *unshare),
                *("sh", "-c", SCRIPT.format(user=USER_ID, folder=self.folder, size=STORAGE)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.close()
            raise Missing("namespaces are not allowed here")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._inside = children.read_text().split()[0]

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        user: int = 0,
        check: bool = True,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside. Raises EngineFailed."""
        place = f"--wd={cwd or self.folder}"
        enter: tuple[str, ...] = (
            "nsenter",
            "--target",
            self._inside,
            "-m",
            "-n",
            "-p",
            "-u",
            "-i",
            place,
            "--",
        )
        if user:
            who = (f"--reuid={user}", f"--regid={user}", "--clear-groups")
            enter = (*enter, "setpriv", *who, "--")
        done = subprocess.run(
            [*enter, *command],
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"PATH": _PLACES, "LC_ALL": "C.UTF-8", **(env or {})},
        )
        if check and done.returncode:
            words = f"{done.stdout}{done.stderr}"[-4000:]
            raise EngineFailed(f"`{' '.join(command)}` ended with {done.returncode}:\n{words}")
        return done

    def close(self) -> None:
        """End everything inside; remove what it wrote."""
        self._process.kill()
        self._process.wait(timeout=COMMAND_S)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Engine:
    """podman inside of a sandbox, as root or as a user."""

    def __init__(self, sandbox: Sandbox, *, rootless: bool = False) -> None:
        self.sandbox = sandbox
        self._user = USER_ID if rootless else 0
        name = "user" if rootless else "root"
        config = sandbox.folder / f"{name}.conf"
        home = sandbox.folder / "home"
        networks = home / "networks" if rootless else "/run/networks"
        config.write_text(CONFIG.format(networks=networks))
        self._env = {"CONTAINERS_CONF": str(config), "HOME": str(home)}
        self._podman = ["podman", "--storage-driver", "overlay"]
        if rootless:
            self._env["XDG_RUNTIME_DIR"] = f"/run/user/{USER_ID}"
        else:
            self._env["HOME"] = "/root"
            self._podman += ["--root", str(sandbox.folder / "storage"), "--runroot", "/run/root"]
        # What calls `podman` itself, such as podman-compose, finds ours.
        self._bin = sandbox.folder / f"{name}-bin"
        self._bin.mkdir()
        wrapper = self._bin / "podman"
        program = shutil.which("podman", path=_PLACES)
        wrapper.write_text(f'#!/bin/sh\nexec {program} {" ".join(self._podman[1:])} "$@"\n')
        wrapper.chmod(0o755)

    def podman(self, *arguments: str) -> str:
        """Run one command of podman's; give what it printed. Raises EngineFailed."""
        return self.tried(*arguments, check=True).stdout.strip()

    def tried(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run one command of podman's that may end otherwise than with 0."""
        return self.run(*self._podman, *arguments, check=check)

    def run(
        self, *command: str, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run any command in the engine's surroundings."""
        env = {**self._env, "PATH": f"{self._bin}:{_PLACES}"}
        return self.sandbox.run(*command, env=env, user=self._user, check=check, cwd=cwd)

    def load(self, archive: Path) -> None:
        """Take the images of an archive."""
        self.podman("load", "--quiet", "--input", str(archive))

    def clear(self) -> None:
        """Remove all containers; their volumes and images stay."""
        self.podman("rm", "--all", "--force", "--time", "0")

    def close(self) -> None:
        """Remove all containers, and with them their control groups."""
        with suppress(EngineFailed, subprocess.TimeoutExpired):
            self.clear()
