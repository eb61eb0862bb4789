"""Stock clients that enrol under a policy: which tags they get, and which address."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio

from tests.interop import build
from tests.interop.lab import USER, Lab
from tests.interop.node import NodeError
from tests.interop.server import ServerFailed

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

POLICY = {
    "tagOwners": {"tag:web": [f"{USER}@"], "tag:db": ["tag:web"]},
    "acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],
    "nodeAttrs": [{"target": ["tag:db"], "ipPool": ["100.81.0.0/24"]}],
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ruled(lab: Lab) -> Lab:
    """A lab with a policy in force."""
    file = lab.directory / "policy.hujson"
    file.write_text(json.dumps(POLICY))
    await lab.server.said("policy", "set", str(file))
    return lab


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_tags_that_a_key_does_not_give_are_refused_in_words(ruled: Lab, client: str) -> None:
    node = await ruled.node("claimant", client=client)
    url = ruled.server.address.url
    # The user owns the tag; a key speaks for nobody all the same.
    words = r"requested tags \[tag:web\] are invalid or not permitted"
    with pytest.raises(NodeError, match=words):
        await node.up(url, await ruled.auth_key(), tags=["tag:web"])
    await node.call("close")
    key = await ruled.auth_key("--reusable", "--tags", "tag:web,tag:other")
    status = await node.up(url, key, tags=["tag:web"])
    assert status["Self"]["Tags"] == ["tag:other", "tag:web"]


async def test_an_administrator_sets_the_tags_that_the_policy_defines(ruled: Lab) -> None:
    node = await ruled.join("plain")
    node_id = (await ruled.listed(node))["id"]
    with pytest.raises(ServerFailed, match=r"requested tags \[tag:wep\].*did you mean tag:web"):
        await ruled.server.cli("nodes", "tag", "-i", node_id, "-t", "tag:wep")
    await ruled.server.cli("nodes", "tag", "-i", node_id, "-t", "tag:web")
    assert (await ruled.listed(node))["tags"] == ["tag:web"]


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_tagged_node_that_logs_in_with_a_users_key_stays_what_it_is(
    ruled: Lab, client: str
) -> None:
    """X3: ``tailscale up --force-reauth`` with a user's key on a node that was tagged since."""
    node = await ruled.join("steadfast", client=client)
    listed = await ruled.listed(node)
    await ruled.server.cli("nodes", "tag", "-i", listed["id"], "-t", "tag:web")
    keys = await node.call("rotate", auth_key=await ruled.auth_key())
    again = await ruled.listed(node)
    assert again["nodeKey"] == keys["new"]
    lasting = ("id", "givenName", "ipAddresses")
    assert [again[each] for each in lasting] == [listed[each] for each in lasting]
    assert again["tags"] == ["tag:web"]
    assert (await node.status())["Self"]["Tags"] == ["tag:web"]


async def test_new_nodes_take_addresses_from_their_pool(ruled: Lab) -> None:
    key = await ruled.auth_key("--reusable", "--tags", "tag:db")
    first, second = [await ruled.join(name, key=key) for name in ("one", "two")]
    assert (await first.addresses())[0] == "100.81.0.1"
    assert (await second.addresses())[0] == "100.81.0.2"
    await first.sees(second.name)
    await second.sees(first.name)
    await first.ping("100.81.0.2")
