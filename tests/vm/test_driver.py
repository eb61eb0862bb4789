"""The driver's own decisions, without booting anything."""

from __future__ import annotations

import gzip
import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from driver import __main__, images, initrd, network, sandbox, stories
from driver.face import Machines
from driver.log import Log
from driver.machine import BaseMachine, StoryFailed, retry
from driver.spec import Spec

Answer = Callable[[str], tuple[int, str]]


class Scripted(BaseMachine):
    """A machine that answers commands as the test says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("box", Spec(), 1, Log())
        self._answer = answer
        self.asked: list[str] = []

    def start(self) -> None:
        self.started = True

    def run(
        self, command: str, timeout: float | None, data: bytes | None
    ) -> subprocess.CompletedProcess[bytes]:
        del timeout, data
        self.asked.append(command)
        code, printed = self._answer(command)
        return subprocess.CompletedProcess([], code, printed.encode())

    def shutdown(self) -> None: ...
    def crash(self) -> None: ...
    def block(self) -> None: ...
    def unblock(self) -> None: ...
    def end(self) -> None: ...

    def last_words(self) -> str:
        return ""


def test_succeed_gives_what_all_commands_printed() -> None:
    machine = Scripted(lambda command: (0, f"<{command}>"))
    assert machine.succeed("one", "two") == "<one><two>"


def test_succeed_stops_at_the_first_failure_and_shows_it() -> None:
    machine = Scripted(lambda command: (int(command == "one"), "its words"))
    with pytest.raises(StoryFailed, match="`one` ended with 1:\nits words"):
        machine.succeed("one", "two")
    assert machine.asked == ["one"]


def test_fail_refuses_success() -> None:
    machine = Scripted(lambda _: (0, ""))
    with pytest.raises(StoryFailed, match="`one` succeeded"):
        machine.fail("one")


def test_waiting_ends_with_the_first_success() -> None:
    machine = Scripted(lambda _: (int(len(machine.asked) < 3), "there"))
    assert machine.wait_until_succeeds("look", timeout=5) == "there"
    assert len(machine.asked) == 3


def test_waiting_ends_at_its_deadline() -> None:
    machine = Scripted(lambda _: (1, ""))
    with pytest.raises(StoryFailed, match="not within"):
        machine.wait_until_succeeds("look", timeout=0.1)


def test_last_look_is_told_that_it_is_the_last() -> None:
    seen: list[bool] = []

    def holds(last: bool) -> bool:
        seen.append(last)
        return False

    with pytest.raises(StoryFailed):
        retry(holds, 0.05, "something")
    assert seen[-1] is True
    assert not any(seen[:-1])


def test_wait_for_unit_gives_up_at_once_on_a_failed_unit() -> None:
    machine = Scripted(
        lambda command: (0, "its journal" if "journal" in command else "ActiveState=failed\n")
    )
    with pytest.raises(StoryFailed, match=r"web.service failed:\nits journal"):
        machine.wait_for_unit("web.service", timeout=60)


def test_wait_for_unit_gives_up_when_nothing_will_start_it() -> None:
    def answer(command: str) -> tuple[int, str]:
        return 0, "No jobs running." if "list-jobs" in command else "ActiveState=inactive\n"

    with pytest.raises(StoryFailed, match="nothing will start it"):
        Scripted(answer).wait_for_unit("web.service", timeout=60)


def test_wait_for_unit_waits_while_a_job_is_under_way() -> None:
    states = iter(["inactive", "activating", "active"])

    def answer(command: str) -> tuple[int, str]:
        return 0, "1 jobs listed." if "list-jobs" in command else f"ActiveState={next(states)}\n"

    Scripted(answer).wait_for_unit("web.service", timeout=5)


def test_unknown_machine_is_refused_with_those_that_are_there() -> None:
    machine = Scripted(lambda _: (0, ""))
    machines = Machines({"box": machine}, lambda: None, lambda _: io.BytesIO(), lambda _: None)
    assert machines.box is machine
    with pytest.raises(AttributeError, match="no machine 'bax'; there are: box"):
        machines.bax  # noqa: B018  # the look alone is the test


def test_addresses_follow_the_sorted_names_as_in_nixos() -> None:
    specs = {"server": Spec(), "desktop": Spec(vlans=(2, 1))}
    assert network.hosts(specs).splitlines()[2:] == [
        "192.168.2.1 desktop",
        "2001:db8:2::1 desktop",
        "192.168.1.2 server",
        "2001:db8:1::2 server",
    ]


def apt(folder: Path, **files: str) -> Path:
    parts = folder / "sources.list.d"
    parts.mkdir()
    for name, text in files.items():
        place = folder / "sources.list" if name == "main" else parts / name.replace("_", ".")
        place.write_text(text)
    return folder


def test_sources_are_those_of_the_host(tmp_path: Path) -> None:
    place = apt(
        tmp_path,
        debian_sources="""\
Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main contrib

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
""",
        docker_list="deb [arch=amd64] https://packages.example/linux/debian bookworm stable\n",
    )
    assert images.debian_sources("trixie", place) == [
        "deb http://mirror.example/debian trixie main",
        "deb http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security trixie-security main",
    ]


def test_sources_of_one_line_are_read_too(tmp_path: Path) -> None:
    place = apt(tmp_path, main="# old form\ndeb [signed-by=/x] http://m.example/debian sid main\n")
    assert images.debian_sources("trixie", place)[0] == "deb http://m.example/debian trixie main"


def test_a_host_that_is_not_debian_leaves_it_to_mmdebstrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(images.MIRROR_VARIABLE, raising=False)
    place = apt(tmp_path, main="deb http://archive.example/ubuntu noble main\n")
    assert images.debian_sources("trixie", place) == []


def test_mirror_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(images.MIRROR_VARIABLE, "http://near.example/debian")
    place = apt(tmp_path, main="deb http://far.example/debian bookworm main\n")
    assert images.debian_sources("trixie", place)[0] == (
        "deb http://near.example/debian trixie main"
    )


def test_initial_file_system_unpacks_to_what_was_packed(tmp_path: Path) -> None:
    driver = tmp_path / "lib/modules/6.12/kernel/drivers/block/virtio_blk.ko"
    busybox = tmp_path / "bin/busybox"
    for file, data in ((driver, b"a module"), (busybox, b"a shell")):
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
    found = unpack(gzip.decompress(initrd.make(tmp_path)))
    assert found["bin/busybox"] == (0o100755, b"a shell")
    assert found["virtio_blk.ko"] == (0o100644, b"a module")
    assert found["bin"] == (0o040755, b"")
    mode, script = found["init"]
    assert mode == 0o100755
    assert script.startswith(b"#!/bin/busybox sh\n")


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read the kernel's "newc" format."""
    found: dict[str, tuple[int, bytes]] = {}
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * i : place + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        begin = place + 110
        name = data[begin : begin + name_size - 1].decode()
        begin = -(-(begin + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[begin : begin + size])
        place = -(-(begin + size) // 4) * 4


@pytest.mark.parametrize(
    ("required", "code"), [("", 0), ("stories", 1), ("pebble,stories", 1), ("pebble", 0)]
)
def test_skipped_stories_fail_where_they_are_required(
    required: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def forbid() -> None:
        raise sandbox.Forbidden("no systemd-nspawn (Debian: systemd-container)")

    monkeypatch.setattr(sandbox, "require", forbid)
    monkeypatch.setenv("HEADWATER_REQUIRE", required)
    for command in ("run", "images", "killed"):
        monkeypatch.setattr("sys.argv", ["driver", command])
        assert __main__.main() == code
        printed = capsys.readouterr().out
        assert "no systemd-nspawn" in printed
        assert " 0 passed, 0 failed, " in printed


def test_one_story_whose_tools_are_missing_fails_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = stories.Story("box", {}, None, 1, "no qemu")
    monkeypatch.setattr(sandbox, "require", lambda: None)
    monkeypatch.setattr(images, "prune", lambda: None)
    monkeypatch.setattr(stories, "load", lambda _name: lacking)
    monkeypatch.setattr("sys.argv", ["driver", "run", stories.names()[0]])
    monkeypatch.delenv("HEADWATER_REQUIRE", raising=False)
    assert __main__.main() == 0
    monkeypatch.setenv("HEADWATER_REQUIRE", "stories")
    assert __main__.main() == 1
    assert "0 passed, 0 failed, 1 skipped" in capsys.readouterr().out
