"""The face of a machine, by the names that NixOS' test driver has, and the machines of a story.

A story's body speaks to nothing else, so that it runs under both drivers. Not for how machines are
made (`container.py`, `emulated.py`, or NixOS).
Source: the NixOS manual, "NixOS Tests", machine objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol


class Machine(Protocol):
    """One booted machine."""

    name: str

    def start(self) -> None:
        """Boot it, unless it runs."""

    def execute(self, command: str, *, timeout: int | None = 900) -> tuple[int, str]:
        """Run a shell command as root; give its exit code and what it printed."""

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        """Run commands that must end with 0; give what they printed."""

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        """Run commands that must not end with 0; give what they printed."""

    def wait_until_succeeds(self, command: str, timeout: int = 900) -> str:
        """Repeat a command until it ends with 0."""

    def wait_until_fails(self, command: str, timeout: int = 900) -> str:
        """Repeat a command until it does not end with 0."""

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: int = 900) -> None:
        """Wait until a unit is active; raise at once if it failed."""

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """Give all properties of a unit."""

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Run systemctl."""

    def wait_for_file(self, filename: str, timeout: int = 900) -> None:
        """Wait until a file is there."""

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        """Wait until a TCP port answers."""

    def copy_from_host(self, source: str, target: str) -> None:
        """Copy a file or folder into the machine."""

    def shutdown(self) -> None:
        """Power the machine off."""

    def crash(self) -> None:
        """Take its power away."""

    def block(self) -> None:
        """Pull its cables."""

    def unblock(self) -> None:
        """Plug them in again."""


class Machines(Mapping[str, Machine]):
    """The machines of a story: by name as an item or as an attribute, in the order of names."""

    def __init__(
        self,
        machines: Mapping[str, Machine],
        start_all: Callable[[], None],
        subtest: Callable[[str], AbstractContextManager[object]],
        say: Callable[[str], object],
    ) -> None:
        self._machines = dict(sorted(machines.items()))
        self.start_all = start_all
        self.subtest = subtest
        self.say = say

    def __getitem__(self, name: str) -> Machine:
        return self._machines[name]

    def __getattr__(self, name: str) -> Machine:
        try:
            return self._machines[name]
        except KeyError:
            known = ", ".join(self._machines)
            raise AttributeError(f"no machine {name!r}; there are: {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._machines)

    def __len__(self) -> int:
        return len(self._machines)
