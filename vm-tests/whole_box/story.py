"""The whole box on a kernel of its own: its limits hold, and it survives a loss of power.

A container has no memory or task limits to show, and shares its host's limit on open files.
"""

from __future__ import annotations

from pathlib import Path

from driver.face import Machine, Machines
from driver.tailnet import UNIT, Server

TASKS_MAX = 128
LIMIT_NOFILE = 131072
# MemoryMax=80%, of what the kernel left of the machine's memory.
MEMORY_SHARE = 0.8


def story(machines: Machines) -> None:
    """Boot, let nodes talk, reach for every limit, pull the plug."""
    server = Server(machines.server)
    server.ready()
    with machines.subtest("two nodes on other machines talk"):
        laptop, desktop = server.join(machines.laptop, machines.desktop)
        laptop.sees(desktop.name)
        desktop.sees(laptop.name)
        laptop.reaches(desktop)
        desktop.reaches(laptop)
    with machines.subtest("the kernel knows the server's limits"):
        group = machines.server.get_unit_info(UNIT)["ControlGroup"]
        limits = machines.server.succeed(f"cd /sys/fs/cgroup{group}; cat memory.max pids.max")
        memory_max, tasks_max = (int(word) for word in limits.split())
        kib = machines.server.succeed("grep MemTotal: /proc/meminfo").split()[1]
        share = memory_max / (int(kib) * 1024)
        machines.say(f"MemoryMax {memory_max >> 20} MiB, {share:.0%} of the machine's")
        assert abs(share - MEMORY_SHARE) < 0.01, share
        assert tasks_max == TASKS_MAX
        pid = machines.server.get_unit_info(UNIT)["MainPID"]
        files = machines.server.succeed(f"grep 'Max open files' /proc/{pid}/limits").split()
        assert files[3:5] == [str(LIMIT_NOFILE)] * 2, files
    with machines.subtest("they hold"):
        _limits(machines.server)
        server.online(laptop, desktop)
    with machines.subtest("the machine loses power, and everybody is there again"):
        before = [client.identity() for client in (laptop, desktop)]
        laptop.stream_start("direct", desktop)
        machines.server.crash()
        laptop.stream_moves("direct")
        machines.server.start()
        machines.server.wait_for_unit(UNIT)
        server.online(laptop, desktop, timeout_s=120)
        laptop.stream_moves("direct")
        stats = laptop.stream_stop("direct")
        machines.say(f"longest silence {stats['max_gap_s']:.2f} s")
        assert [client.identity() for client in (laptop, desktop)] == before


def _limits(machine: Machine) -> None:
    """Run what reaches for more as units with the limits of the server's own."""
    machine.succeed("mkdir -p /run/story")
    machine.copy_from_host(str(Path(__file__).parent / "limits.py"), "/run/story/limits.py")
    unit = machine.get_unit_info(UNIT)
    assert unit["OOMPolicy"] == "stop"
    properties = " ".join(
        f"-p {name}={unit[name]}" for name in ("MemoryMax", "TasksMax", "LimitNOFILE", "OOMPolicy")
    )
    run = f"systemd-run --wait --quiet {properties} -p MemorySwapMax=0"
    program = "$(command -v python3) /run/story/limits.py"
    for what, most in (("tasks", TASKS_MAX), ("files", LIMIT_NOFILE)):
        machine.succeed(f"{run} {program} {what} /run/story/{what}")
        assert int(machine.succeed(f"cat /run/story/{what}")) == most, what
    machine.fail(f"{run} --unit=greedy {program} memory /run/story/memory")
    assert machine.get_unit_info("greedy.service")["Result"] == "oom-kill"
    # It alone was ended: the server is the process that it was.
    assert machine.get_unit_info(UNIT)["MainPID"] == unit["MainPID"]
