"""What must never be read where it does not belong: in logs, arguments, answers, or by other users."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.wire.keys import MachineKey, NodeKey, PrivateKey
from tests.bench.simclient import Server, SimulatedNode, tls_context
from tests.fuzz.harness import mutate
from tests.hostile.attacks_members import REGISTER, ask, registration
from tests.hostile.raw import (
    member,
    open_http2,
    open_relay,
    open_relay_door,
    open_tls,
    request,
)
from tests.hostile.victim import Victim, unix_request

pytestmark = pytest.mark.system

PUBLIC = {"ca.pem", "ports.json"}
"""Files that others may read, if they may open the directory."""


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """A server that says all it can say."""
    server = Victim(tmp_path_factory.mktemp("talkative"), log_level="debug")
    yield server
    server.stop()


def secrets_of(victim: Victim) -> list[str]:
    """Give every secret text of a server: keys of all kinds, whole and in parts."""
    state = Path(victim.about["state_dir"])
    found = [victim.about["auth_key"], victim.about["auth_key"].rpartition("-")[2]]
    for path in (*state.glob("*.key"), *state.glob("tls/*.key"), state / "tls" / "server.pem"):
        text = path.read_text()
        if "PRIVATE KEY" in text:
            text = text[text.index("PRIVATE KEY") :].split("-----")[1]
            found += [line for line in text.splitlines() if len(line) > 20]
        else:
            found += [text.strip(), text.strip().rpartition(":")[2]]
    assert len(found) > 6
    return found


async def use_everything(victim: Victim) -> bytes:
    """Use good and bad keys at every door; give all that came back."""
    target, heard = victim.target, b""
    server = Server(target.port, MachineKey.parse(target.machine_key), tls_context())
    node = SimulatedNode(server, member(0))
    await node.connect()
    heard += repr(await node.register(target.auth_key)).encode()
    await node.poll()
    relay = await open_relay(target, key_number=0)
    relay.close()
    rng = random.Random(3)
    for _ in range(20):
        wrong = mutate(rng, target.auth_key.encode()).decode("latin-1")
        line = await open_http2(target)
        line.say(ask(1, REGISTER, registration(wrong, NodeKey(rng.randbytes(32)))))
        heard += await line.hear(5.0)
        line.close()
        stranger, _ = await open_relay_door(target)
        stranger.send(b"\x02\x00\x00\x00\x40" + bytes(64))
        heard += await stranger.rest(5.0)
    asking = await open_tls(target)
    asking.send(request("GET", f"/{target.auth_key}?{target.auth_key}", close=True) + b"\0\0")
    await asking.rest(5.0)
    heard += unix_request(target.socket, "/metrics")
    heard += unix_request(target.socket, "/api/v1/preauthkey")
    node.drop()
    return heard


def command(victim: Victim, *arguments: str) -> str:
    """Run the command line against the server; give all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "appliance", "--socket", victim.target.socket, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout + done.stderr


def test_secrets_stay_where_they_belong(talkative: Victim) -> None:
    heard = asyncio.run(use_everything(talkative))
    made = command(talkative, "preauthkeys", "create", "--user", "1", "-o", "json")
    new_key = json.loads(made)["key"]
    listed = command(talkative, "preauthkeys", "list", "-o", "json")
    arguments = Path(f"/proc/{talkative.pid}/cmdline").read_bytes().decode()
    environment = Path(f"/proc/{talkative.pid}/environ").read_bytes().decode()
    assert talkative.log.stat().st_size
    log = talkative.log.read_text()
    assert "refused" in log  # it really says much
    places = {
        "log": log,
        "answers": heard.decode("latin-1"),
        "list of keys": listed,
        "arguments": arguments,
        "environment": environment,
    }
    for secret in (*secrets_of(talkative), new_key, new_key.rpartition("-")[2]):
        for place, text in places.items():
            assert secret not in text, f"a secret in the {place}"
    # Whatever it is: a text as long as a key, in the log, must be shortened or public.
    assert not re.findall(r"[0-9a-f]{64}", log)


def test_state_is_for_its_owner_alone(talkative: Victim) -> None:
    state = Path(talkative.about["state_dir"])
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for directory, _, names in os.walk(state.parent):
        if Path(directory) != state.parent:
            assert stat.S_IMODE(Path(directory).stat().st_mode) == 0o700, directory
        for name in names:
            mode = stat.S_IMODE((Path(directory) / name).lstat().st_mode)
            assert mode == 0o600 or (name in PUBLIC and mode == 0o644), (name, oct(mode))
    assert stat.S_IMODE(Path(talkative.target.socket).stat().st_mode) == 0o600


def test_private_keys_do_not_show_themselves() -> None:
    key = PrivateKey.generate(os.urandom)
    text = key.reveal_text()
    for shown in (repr(key), f"{key}", f"{[key]!r}", "%s" % key):  # noqa: UP031  # as logging does
        assert text.rpartition(":")[2] not in shown
