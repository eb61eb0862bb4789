"""Every example of docs/policy.md is a policy that compiles and passes its own tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.policy.answers import selftest
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.policy.engine.ssh import ssh_policy
from appliance.policy.text.document import SECTIONS, decode
from appliance.policy.text.language import Background
from appliance.policy.text.selectors import AUTOGROUPS
from appliance.records import NodeID, Role, UserID
from tests.policy.worlds import node, user

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
EXAMPLES = re.findall(r"^```hujson\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
USERS = {UserID(1): user(1, "alice@example.com"), UserID(2): user(2, "bob@example.com")}
NODES = {
    each.id: each
    for each in (
        node(1, user=UserID(1)),
        node(2, user=UserID(2), os="linux"),
        node(3, tags=("tag:web",)),
        node(4, tags=("tag:db",)),
        node(5, tags=("tag:router-eu",), routes=("10.1.0.0/16",)),
    )
}
BACKGROUND = Background(
    domains=frozenset({"example.com"}), roles={UserID(1): Role.ADMIN, UserID(2): Role.MEMBER}
)


@pytest.mark.parametrize("text", EXAMPLES)
def test_example_compiles_and_passes_its_own_tests(text: str) -> None:
    policy = decode(text, domains=BACKGROUND.domains)
    assert selftest.run(policy, USERS, NODES, BACKGROUND) == ()
    compiled = compile(policy, USERS, NODES, BACKGROUND)
    assert compiled.state is not None
    for node_id in NODES:
        compiled.packet_filter(NodeID(node_id))
        ssh_policy(compiled.state, NodeID(node_id))


def test_page_shows_every_section_and_autogroup() -> None:
    text = "\n".join(EXAMPLES)
    # disableIPv4 and defaultSrcPosture are one word each, told in the text.
    for section in SECTIONS:
        assert section in PAGE
    assert [word for word in AUTOGROUPS if word.removeprefix("autogroup:") not in PAGE] == []
    assert text.count('"tests"') >= 5
