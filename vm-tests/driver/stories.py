"""The stories: which there are, what each needs, and running one from its first machine to its end.

A story is a folder with `story.py` (the body, for both drivers) and `debian.py` (its machines under
ours): `MACHINES`, and where it has them `prepare(machines)`, run after all machines have booted,
`NEEDS`, a function that says why it cannot run here, `AHEAD`, one that fetches and builds what it needs
besides machines, and `LIMIT_S`. Not for sandboxes (`sandbox.py`)
or for running many (`__main__.py`).
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from driver import archive, clientprogram, images, network, sandbox, server
from driver.container import Container
from driver.emulated import Emulated
from driver.face import Machines
from driver.log import Log
from driver.machine import BaseMachine
from driver.spec import Spec

HERE = Path(__file__).resolve().parent.parent

# A story that takes longer hangs.
LIMIT_S = 240

_LAYERS: Mapping[str, Callable[[images.Image], Path]] = {
    "server": server.installed,
    "client": clientprogram.installed,
    "tailscaled": clientprogram.service_installed,
    "archive": archive.installed,
}


@dataclass(frozen=True, slots=True)
class Story:
    """One story, as its folder says it."""

    name: str
    machines: Mapping[str, Spec]
    prepare: Callable[[Mapping[str, BaseMachine]], None] | None
    limit_s: int
    missing: str
    """Why it cannot run on this machine, or nothing."""
    ahead: Callable[[], object] | None = None
    """What must be done before, with the network. May raise NoImage."""

    def body(self) -> Callable[[Machines], None]:
        """The part that both drivers run."""
        found: Callable[[Machines], None] = importlib.import_module(f"{self.name}.story").story
        return found


def names() -> list[str]:
    """All stories."""
    return sorted(path.parent.name for path in HERE.glob("*/debian.py"))


def load(name: str) -> Story:
    """Read a story's folder."""
    module = importlib.import_module(f"{name}.debian")
    needs = getattr(module, "NEEDS", None)
    return Story(
        name,
        module.MACHINES,
        getattr(module, "prepare", None),
        getattr(module, "LIMIT_S", LIMIT_S),
        needs() if needs else "",
        getattr(module, "AHEAD", None),
    )


def plan(story: Story) -> dict[str, list[str]]:
    """Find or make what each machine boots; this needs the network. Raises NoImage."""
    if story.ahead is not None:
        story.ahead()
    found = {}
    for name, spec in story.machines.items():
        image = images.find(spec)
        layers = [_LAYERS[role](image) for role in spec.roles]
        found[name] = [str(each) for each in (*reversed(layers), image.root)]
    return found


@contextmanager
def in_sandbox(
    story: Story, planned: Mapping[str, list[str]], out: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a story in a sandbox of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as plan_file:
        json.dump(planned, plan_file)
        plan_file.flush()
        arguments = [
            "inside",
            story.name,
            "--plan",
            plan_file.name,
            "--owner",
            f"{os.getpid()}-{story.name}",
        ]
        yield subprocess.Popen(
            sandbox.command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment(),
        )


def run_inside(name: str, plan_file: Path, owner: str) -> int:
    """Run a story in the sandbox that this process is in; give its exit code."""
    sandbox.lay_out()
    sandbox.sweep()
    story = load(name)
    log = Log()
    machines = _make(story, json.loads(plan_file.read_text()), log, owner)
    network.make_bridges({vlan for spec in story.machines.values() for vlan in spec.vlans})
    failed = True
    try:
        face = Machines(
            machines, lambda: _start(machines), lambda what: log.step("", what), _say(log)
        )
        face.start_all()
        if story.prepare is not None:
            with log.step("", "preparing the machines"):
                story.prepare(machines)
        story.body()(face)
        failed = False
    except Exception:  # noqa: BLE001  # whatever it is, the machines' last words explain it
        why = traceback.format_exc()
        for machine in machines.values():
            log.say(machine.name, f"last words:\n{machine.last_words()}")
        log.say("", f"FAILED:\n{why}")
    finally:
        for machine in machines.values():
            machine.end()
        sandbox.sweep(owner)
    return 1 if failed else 0


def _say(log: Log) -> Callable[[str], None]:
    return lambda text: log.say("", text)


def _start(machines: Mapping[str, BaseMachine]) -> None:
    for machine in machines.values():
        machine.start()


def _make(
    story: Story, planned: Mapping[str, list[str]], log: Log, owner: str
) -> dict[str, BaseMachine]:
    hosts = network.hosts(story.machines)
    numbers = {name: number for number, name in enumerate(sorted(story.machines), 1)}
    made: dict[str, BaseMachine] = {}
    for name, spec in sorted(story.machines.items()):
        layers = [Path(layer) for layer in planned[name]]
        if spec.kind == "emulated":
            made[name] = Emulated(name, spec, numbers[name], log, layers=layers, hosts=hosts)
            continue
        made[name] = Container(
            name,
            spec,
            numbers[name],
            log,
            layers=layers,
            hosts=hosts,
            # The router's address in the network that the two share.
            gateway=network.v4(spec.vlans[0], numbers[spec.via]) if spec.via else "",
            owner=owner,
        )
    return made


def environment() -> dict[str, str]:
    """The environment in which this program finds itself again."""
    return {**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}", "PYTHONUNBUFFERED": "1"}
