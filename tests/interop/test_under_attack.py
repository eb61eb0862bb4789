"""Stock clients with a running stream, while somebody else attacks the server that relays it."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import pytest

from appliance.wire.keys import MachineKey, PrivateKey
from tests.hostile.victim import Target
from tests.interop import build
from tests.interop.conftest import Figure
from tests.interop.lab import ECHO_PORT, Lab
from tests.interop.netns import SERVER_V4, Host
from tests.interop.server import ROOT

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

ATTACKS = (
    "bytes_that_are_no_tls",
    "questions_without_reading",
    "wrong_handshakes",
    "questions_of_strangers",
    "windows_that_stay_shut",
    "members_who_never_read",
    "damaged_relay_frames",
    "fights_over_a_key",
    "garbage_for_stun",
)
"""One or two for each door; all of them are in ``tests/hostile``."""
TOGETHER = 3
GAP_S = 2.0
"""The longest silence that the stream may have: a stock client sends it through the relay."""
ATTACK_S = 60.0


async def carry_out(lab: Lab, attacker: Host, name: str) -> None:
    """Run one attack on a host of its own."""
    settings = lab.server.address
    path = f"{settings.state_dir}/noise.key"
    with open(path) as file:  # noqa: ASYNC230, PTH123  # one line
        key = MachineKey(PrivateKey.parse(file.read()).public_raw)
    target = Target(443, str(key), await lab.auth_key(), settings.socket, SERVER_V4, 3478)
    process = await asyncio.create_subprocess_exec(
        *attacker.prefix,
        *(sys.executable, "-m", "tests.hostile.attacks", name, target.text()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    async with asyncio.timeout(ATTACK_S):
        _, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2000:]


async def test_stock_clients_notice_no_attack(lab: Lab, figure: Figure) -> None:
    one, two = await asyncio.gather(
        *(lab.join(f"calm{i}", client=c, block_udp="peers") for i, c in enumerate(build.CLIENTS))
    )
    await asyncio.gather(one.sees(two.name), two.sees(one.name))
    v4, _ = await two.addresses()
    assert not (await one.ping(v4)).direct
    await one.call("stream_start", name="stream", addr=f"{v4}:{ECHO_PORT}")
    await one.stream_moves("stream")
    attacker = lab.net.host("attacker")
    began = time.time()
    for first in range(0, len(ATTACKS), TOGETHER):
        some = ATTACKS[first : first + TOGETHER]
        await asyncio.gather(*(carry_out(lab, attacker, name) for name in some))
    figure("under attack for", time.time() - began)
    joined = time.monotonic()
    late = await lab.join("late")
    await asyncio.gather(one.sees(late.name), two.sees(late.name))
    figure("a newcomer joined and was seen after", time.monotonic() - joined)
    stats = await one.call("stream_stop", name="stream")
    figure("longest silence of the stream", stats["max_gap_s"])
    assert stats["failure"] == ""
    assert stats["sent"] == stats["received"] > 0
    assert stats["max_gap_s"] < GAP_S
    for node in (one, two):
        states = {
            event["state"]
            for event in node.events
            if event["event"] == "state" and event["at"] > began
        }
        assert states <= {"Running"}
    assert "Traceback" not in lab.server.log.read_text(errors="replace")
