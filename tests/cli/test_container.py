"""In a container the same failures have another way out, and the sentence names it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from appliance.cli import root
from appliance.cli.root import run
from appliance.cli.serve import _refusal
from tests.cli.test_serve import write_site
from tests.support.pace import patience
from tests.support.polling import until


@pytest.fixture(autouse=True)
def nothing_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No site file of the machine that runs the tests; its signals stay as they are."""
    monkeypatch.delenv("container", raising=False)
    monkeypatch.setattr(root, "CONFIG_PLACES", (tmp_path / "etc" / "config.yaml",))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert run(list(words)) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("verb", ["serve", "relay"])
def test_without_a_site_file_it_says_how_one_comes_in(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    assert "-v ./config.yaml" not in told(capsys, verb)
    monkeypatch.setenv("container", "podman")
    said = told(capsys, verb)
    assert "-v ./config.yaml:/etc/headwater/config.yaml:ro" in said
    assert f"readable for user {os.geteuid()}" in said


def test_folder_in_the_place_of_the_file_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker makes one when the file to be mounted is missing."""
    (tmp_path / "etc" / "config.yaml").mkdir(parents=True)
    assert "Docker" not in told(capsys, "serve")
    monkeypatch.setenv("container", "oci")
    assert "Docker makes a folder" in told(capsys, "serve")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_volume_of_somebody_else_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = write_site(tmp_path)
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 65534, -1)
    assert "chown" not in told(capsys, "serve", "-c", str(site))
    monkeypatch.setenv("container", "oci")
    said = told(capsys, "serve", "-c", str(site))
    assert "belongs to nobody" in said
    assert f"chown -R {os.geteuid()}:{os.getegid()}" in said


def test_ports_below_1024_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = PermissionError(13, "cannot listen on 0.0.0.0:443: Permission denied")
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    on_a_host = _refusal(refused)
    assert on_a_host is not None
    assert "CAP_NET_BIND_SERVICE" in on_a_host.advice
    monkeypatch.setenv("container", "oci")
    in_one = _refusal(refused)
    assert in_one is not None
    assert "--sysctl net.ipv4.ip_unprivileged_port_start=0" in in_one.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes the first process of a namespace")
@pytest.mark.parametrize("verb", ["serve", "relay"])
async def test_first_process_ends_also_before_it_serves(tmp_path: Path, verb: str) -> None:
    """It has no default for SIGTERM, so an engine would have waited for its limit."""
    site = tmp_path / "site.json"
    os.mkfifo(site)  # reading it takes until somebody writes
    program = (sys.executable, "-m", "appliance", verb, "-c", str(site))
    unshare = ("unshare", "--pid", "--fork", "--kill-child")
    process = await asyncio.create_subprocess_exec(*unshare, *program)
    try:
        await until(lambda: bool(children(process.pid)))
        (first,) = children(process.pid)
        await until(lambda: handles(first, signal.SIGTERM))
        os.kill(first, signal.SIGTERM)
        async with asyncio.timeout(patience(5)):
            assert await process.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def children(process: int) -> list[int]:
    """Give the processes that a process has started."""
    return [
        int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def handles(process: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    (mask,) = re.findall(r"^SigCgt:\s+(\w+)$", status, re.MULTILINE)
    return bool(int(mask, 16) & 1 << (number - 1))
