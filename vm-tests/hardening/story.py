"""Hardening: the score that systemd gives the unit, and what is really refused inside of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from driver.face import Machine, Machines
from driver.tailnet import UNIT, Server

WORST_SCORE = 1.5

OWN = {"own state", "own socket", "own settings", "own temporary files"}

# systemd 252 does not load its BPF program for SocketBindDeny= in a container.
BIND_DENIED_SINCE = 253
BINDING = {"listen on a high port"}

# Directives of a running server that an attempt has no use for.
_UNSUITABLE = (
    *("Type", "ExecStart", "ExecReload", "Restart", "RestartSec", "WatchdogSec", "NotifyAccess"),
    *("Sockets", "Requires", "After", "Wants", "X-Restart-Digest"),
)


def story(machines: Machines) -> None:
    """Judge the unit on two systemds, from inside and from outside."""
    nodes = []
    for machine in (machines.server, machines.older):
        server = Server(machine)
        server.ready()
        with machines.subtest(f"score on {machine.name}"):
            said = machine.succeed(f"systemd-analyze security --no-pager {UNIT} | tail -n 1")
            machines.say(said.strip())
            match = re.search(r": ([0-9.]+) ", said)
            assert match is not None, said
            assert float(match[1]) <= WORST_SCORE, said
        with machines.subtest(f"the running process on {machine.name}"):
            _process(machine)
        with machines.subtest(f"what is refused on {machine.name}"):
            _attempts(machines, machine)
        with machines.subtest(f"who may do what on {machine.name}"):
            _permissions(machine)
        if machine is machines.server:
            nodes = server.join(machines.laptop, machines.desktop)
    with machines.subtest("a port that nobody opened is dropped, the others are not"):
        machines.server.succeed("systemd-run --quiet --collect --unit=stray nc -lk -p 9999")
        machines.server.wait_for_open_port(9999, "127.0.0.1")
        machines.laptop.fail("nc -z -w 2 server 9999")
        machines.laptop.succeed("nc -z -w 2 server 443")
        machines.laptop.succeed("curl -fsSk https://server/health")
    with machines.subtest("and nodes talk all the while"):
        left, right = nodes
        left.sees(right.name)
        right.sees(left.name)
        left.reaches(right)
        right.reaches(left)


def _process(machine: Machine) -> None:
    pid = machine.get_unit_info(UNIT)["MainPID"]
    lines = machine.succeed(f"cat /proc/{pid}/status").splitlines()
    status = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    assert "0" not in status["Uid"].split(), status["Uid"]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, (kind, status[kind])
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def _attempts(machines: Machines, machine: Machine) -> None:
    """Run the attempts as a unit that is the server's own, but for what it starts."""
    machine.succeed("mkdir -p /run/story")
    machine.copy_from_host(str(Path(__file__).parent / "attempts.py"), "/run/story/attempts.py")
    dropped = "|".join(_UNSUITABLE)
    started = "Type=oneshot\\nExecStart=$(command -v python3) /run/story/attempts.py"
    printed = "StandardOutput=file:/run/story/printed"
    machine.succeed(
        f"sed -E '/^({dropped})=/d' $(systemctl show -P FragmentPath {UNIT})"
        f' | sed "s|^\\[Service\\]|&\\n{started}\\n{printed}|"'
        " > /run/systemd/system/attempts.service",
        "systemctl daemon-reload && systemctl start attempts.service",
    )
    found = json.loads(machine.succeed("cat /run/story/printed"))
    version = int(machine.succeed("systemctl --version").split()[1])
    possible = {name for name, result in found.items() if result == "possible"}
    excused = BINDING if version < BIND_DENIED_SINCE else set()
    machines.say(f"{len(found) - len(possible)} of {len(found)} attempts refused")
    assert possible - excused == OWN, (possible, found)


def _permissions(machine: Machine) -> None:
    assert machine.succeed("stat -c '%a %U' /var/lib/headwater").split() == ["700", "headwater"]
    # Where the platform keeps them there; NixOS' users have a place of their own.
    secrets = "/etc/headwater/secrets"
    machine.succeed(f"test ! -e {secrets} || test $(stat -c %a {secrets}) = 700")
    socket = machine.succeed("stat -c '%a %U %G' /run/headwater/headwater.sock").split()
    assert socket == ["770", "headwater", "headwater"], socket
    nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups"
    machine.fail(f"{nobody} headwater users list")
    machine.fail(f"{nobody} cat /var/lib/headwater/noise.key")
    machine.succeed("headwater users list")
