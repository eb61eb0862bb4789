"""What auth keys and node keys may do: rotate, expire, end, tag, be refused."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.interop import build
from tests.interop.lab import USER, Lab, site
from tests.interop.node import Node, NodeError

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

BOTH = pytest.mark.parametrize("client", build.CLIENTS)

EPHEMERAL_TIMEOUT_S = 3
TAGGED_LOGIN = "tagged-devices"


@dataclass
class Watched:
    """A lab with one node in it to which things are shown."""

    lab: Lab
    watcher: Node


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(empty_lab: Lab) -> Watched:
    """A lab that removes ephemeral nodes soon."""
    settings = site(empty_lab.directory)
    settings["tailnet"]["ephemeral_timeout"] = f"{EPHEMERAL_TIMEOUT_S}s"
    await empty_lab.serve(settings)
    return Watched(empty_lab, await empty_lab.join("watcher"))


async def test_own_key_is_refused_with_a_sentence(watched: Watched) -> None:
    node = await watched.lab.node("stranger")
    with pytest.raises(NodeError, match="key"):
        await node.up(watched.lab.server.address.url, "hskey-auth-nobody-ever-made-this-one")


async def test_single_use_key_enrols_once_and_only_once(watched: Watched) -> None:
    key = await watched.lab.auth_key("--expiration", "1h")
    await watched.lab.join("first", key=key)
    second = await watched.lab.node("second")
    with pytest.raises(NodeError, match=r"used"):
        await second.up(watched.lab.server.address.url, key)


async def test_used_key_still_restarts_its_own_node(watched: Watched) -> None:
    """A client repeats its auth key at every start; its node is known, so the key does not matter."""
    key = await watched.lab.auth_key("--expiration", "1h")
    node = await watched.lab.join("restarted", key=key)
    before = await node.status()
    await node.call("close")
    await node.up(watched.lab.server.address.url, key)
    after = await node.status()
    assert after["Self"]["PublicKey"] == before["Self"]["PublicKey"]
    assert after["TailscaleIPs"] == before["TailscaleIPs"]


async def test_expired_key_is_refused(watched: Watched) -> None:
    key = await watched.lab.auth_key("--expiration", "1s")
    node = await watched.lab.node("late")
    await asyncio.sleep(1.1)  # the key's own lifetime; nothing says when it is over
    with pytest.raises(NodeError, match="expired"):
        await node.up(watched.lab.server.address.url, key)


@BOTH
async def test_node_key_rotates_and_the_node_stays_the_same(watched: Watched, client: str) -> None:
    node = await watched.lab.join("rotating", client=client)
    v4, _ = await node.addresses()
    listed = await watched.lab.listed(node)
    await watched.watcher.sees(node.name)
    keys = await node.call("rotate", auth_key=await watched.lab.auth_key())
    await watched.watcher.sees(node.name, key=keys["new"])
    assert (await node.addresses())[0] == v4
    again = await watched.lab.listed(node)
    assert again["id"] == listed["id"]
    assert again["nodeKey"] == keys["new"]
    assert (await watched.watcher.get(f"http://{v4}/"))["node"].startswith(watched.watcher.name)


@BOTH
async def test_expired_node_must_log_in_again_and_then_is_the_same(
    watched: Watched, client: str
) -> None:
    node = await watched.lab.join("expiring", client=client)
    v4, _ = await node.addresses()
    listed = await watched.lab.listed(node)
    await watched.watcher.sees(node.name)
    began = time.time()
    await watched.lab.server.cli("nodes", "expire", "-i", node.name)
    await node.event("state", lambda event: event["state"] == "NeedsLogin", since=began)
    with pytest.raises(NodeError):
        await watched.watcher.get(f"http://{v4}/", timeout_s=2)
    await node.call("login", auth_key=await watched.lab.auth_key())
    assert (await node.addresses())[0] == v4
    assert (await watched.lab.listed(node))["id"] == listed["id"]
    await watched.watcher.sees(node.name, key=await node.node_key())
    assert (await watched.watcher.get(f"http://{v4}/"))["host"] == v4


@BOTH
async def test_logged_out_node_is_gone_for_the_others_until_it_comes_back(
    watched: Watched, client: str
) -> None:
    node = await watched.lab.join("leaving", client=client)
    v4, _ = await node.addresses()
    await watched.watcher.sees(node.name)
    began = time.time()
    await node.call("logout")
    await node.event("state", lambda event: event["state"] == "NeedsLogin", since=began)
    with pytest.raises(NodeError):
        await watched.watcher.get(f"http://{v4}/", timeout_s=2)
    await node.call("login", auth_key=await watched.lab.auth_key())
    assert (await node.addresses())[0] == v4
    await watched.watcher.sees(node.name, key=await node.node_key())
    assert (await watched.watcher.get(f"http://{v4}/"))["host"] == v4


@BOTH
async def test_tagged_key_gives_a_tagged_node(watched: Watched, client: str) -> None:
    key = await watched.lab.auth_key("--reusable", "--tags", "tag:web,tag:prod")
    node = await watched.lab.join("tagged", client=client, key=key)
    status = await node.status()
    assert sorted(status["Self"]["Tags"]) == ["tag:prod", "tag:web"]
    seen = await watched.watcher.sees(node.name)
    assert sorted(seen["peer"]["tags"]) == ["tag:prod", "tag:web"]
    v4, _ = await node.addresses()
    who = await watched.watcher.call("whois", addr=f"{v4}:1")
    assert who["UserProfile"]["LoginName"] == TAGGED_LOGIN
    assert sorted((await watched.lab.listed(node))["tags"]) == ["tag:prod", "tag:web"]
    asker = await watched.watcher.get(f"http://{v4}/")
    assert asker["login"].split("@")[0] == USER


@pytest.mark.parametrize("how", ["logout", "killed"])
async def test_ephemeral_node_is_removed_after_it_left(watched: Watched, how: str) -> None:
    key = await watched.lab.auth_key("--reusable", "--ephemeral")
    node = await watched.lab.join("passing", key=key)
    seen = await watched.watcher.sees(node.name)
    if how == "logout":
        await node.call("logout")
    else:
        node.kill()
    gone = await watched.watcher.event(
        "peer_gone", lambda event: event["stable_id"] == seen["stable_id"]
    )
    assert gone["at"] >= seen["at"]
    names = [row["givenName"] for row in await watched.lab.server.cli("nodes", "list")]
    assert node.name not in names


@BOTH
async def test_the_secret_of_an_oauth_client_lets_a_machine_in(
    watched: Watched, client: str
) -> None:
    """Stock clients ask the API for an auth key themselves, and only for tags that it may give."""
    lab, url = watched.lab, watched.lab.server.address.url
    made = await lab.server.cli(
        "oauth-clients", "create", "--scope", "auth_keys", "--tags", "tag:ci", "--tags", "tag:db"
    )
    secret = f"{made['key']}?baseURL={url}&ephemeral=true&preauthorized=true"
    node = await lab.node(f"robot-{client.replace('.', '-')}", client=client)
    status = await node.up(url, secret, tags=["tag:ci"])
    assert status["Self"]["Tags"] == ["tag:ci"]
    shown = next(
        each for each in await lab.server.cli("nodes", "list") if each["name"] == node.name
    )
    assert (shown["tags"], shown["preAuthKey"]["ephemeral"]) == (["tag:ci"], True)
    other = await lab.node(f"thief-{client.replace('.', '-')}", client=client)
    with pytest.raises(NodeError, match=r"tag:web"):
        await other.up(url, secret, tags=["tag:web"])
