"""Other people's programs over the network with an API key: one as it is, others by their calls."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.identity.principals import LOCAL
from appliance.tailnet import keys, nodes
from tests.api.conftest import Remote

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HSAPI = "0.9.9"
PYTHONS = ("python3.14", "python3.13", "python3.12")
"""Its sources need 3.12."""


def environment() -> Path:
    """Install the client into an environment of its own, once. Skips where that cannot be."""
    folder = ROOT / ".cache" / "tools" / f"hsapi-client-{HSAPI}"
    python = folder / "bin" / "python"
    if (folder / "done").exists():
        return python
    own = (sys.executable,) if sys.version_info >= (3, 12) else ()
    there = [path for name in PYTHONS if (path := shutil.which(name))]
    found = next((path for path in (*own, *there) if _runs(path)), None)
    if found is None:
        pytest.skip("hsapi-client needs Python 3.12 or newer beside ours")
    shutil.rmtree(folder, ignore_errors=True)
    steps = (
        [found, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "-q", "--disable-pip-version-check", "install",
         f"hsapi-client=={HSAPI}"],
    )  # fmt: skip
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"hsapi-client cannot be installed here: {done.stderr.strip()[-200:]}")
    (folder / "done").touch()
    return python


def _runs(python: str) -> bool:
    """Tell whether this is more than the name of a Python (pyenv has names of what it lacks)."""
    return not subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode


@pytest.mark.interop
async def test_hsapi_client_does_what_it_can(remote: Remote) -> None:
    """PyPI's hsapi-client, unmodified."""
    python = await asyncio.to_thread(environment)
    node = await remote.house.node("alice", "laptop")
    live = remote.house.live
    async with live.edit(by=LOCAL, act="test.change") as edit:
        nodes.expire(edit, node.id, live.clock(), at=live.clock() + timedelta(days=1))
        for key_id in list(edit.auth_keys):
            keys.delete(edit, key_id)
    url = str(remote.client.make_url("")).rstrip("/")
    process = await asyncio.create_subprocess_exec(
        python, HERE / "clients" / "hsapi.py", url, await remote.key(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    said, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()[-2000:]
    assert json.loads(said) == {
        "users": ["alice", "bob"],
        "renamed": "robert",
        "node": ["laptop", "alice", 2],
        "node renamed": "desk",
        "nodes": 0,
        "policy": {"acls": []},
        "api keys": 2,
        "expired": 401,
    }


HEADPLANE: tuple[tuple[str, str, object], ...] = (
    ("GET", "/api/v1/node", None),
    ("GET", "/api/v1/user", None),
    ("GET", "/api/v1/policy", None),
    ("GET", "/api/v1/apikey", None),
    ("GET", "/api/v1/preauthkey?user=1", None),
    ("POST", "/api/v1/user", {"name": "carol", "email": "", "displayName": "", "pictureUrl": ""}),
    ("POST", "/api/v1/preauthkey", {"user": "1", "reusable": True, "ephemeral": False,
                                    "expiration": None, "aclTags": None}),
    ("PUT", "/api/v1/policy", {"policy": '{"tagOwners": {"tag:ci": []}}'}),
    ("POST", "/api/v1/node/1/rename/desk", None),
    ("POST", "/api/v1/node/1/tags", {"tags": ["tag:ci"]}),
    ("POST", "/api/v1/node/1/approve_routes", {"routes": []}),
    ("POST", "/api/v1/node/1/expire", None),
    ("DELETE", "/api/v1/node/1", None),
)  # fmt: skip
"""What Headplane calls, written down from its client (tale/headplane, main)."""


async def test_headplanes_calls_are_answered(remote: Remote) -> None:
    await remote.house.node("alice", "laptop")
    key = await remote.key()
    for path in ("/version", "/health"):
        assert (await remote.call("GET", path))[0] == 200, "asked before a key is there"
    for method, path, body in HEADPLANE:
        status, answer = await remote.call(method, path, key, body)
        is_new = (method, path) == ("GET", "/api/v1/policy")
        assert status == (500 if is_new else 200), (path, answer)
        assert not is_new or "acl policy not found" in answer["message"]
