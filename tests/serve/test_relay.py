"""The relay inside the server: which keys stop being good between two snapshots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from appliance.records import Presence
from appliance.serve.relay import gone_keys, read_mesh_key
from appliance.serve.statedir import StateError
from appliance.tailnet import nodes
from appliance.tailnet.snapshot import Edit
from tests.serve.test_server import plan
from tests.support.builder import build, edit_of, node_key, node_named
from tests.support.clock import NOON


def delete(edit: Edit) -> None:
    nodes.delete(edit, node_named(edit, "phone").id)


def rotate(edit: Edit) -> None:
    edit.put(replace(node_named(edit, "phone"), node_key=node_key("another")))


def expire(edit: Edit) -> None:
    nodes.expire(edit, node_named(edit, "phone").id, NOON + timedelta(days=1))


def rename(edit: Edit) -> None:
    nodes.rename(edit, node_named(edit, "phone").id, "mobile")


def leave(edit: Edit) -> None:
    edit.set_presence(node_named(edit, "phone").id, Presence(online=False))


@pytest.mark.parametrize(
    ("change", "is_gone"),
    [(delete, True), (rotate, True), (expire, True), (rename, False), (leave, False)],
)
def test_keys_that_stop_being_good_are_named(change: Callable[[Edit], None], is_gone: bool) -> None:
    old = build("alice: laptop* phone*")
    edit = edit_of(old)
    change(edit)
    new, _ = edit.finish()
    assert gone_keys(old, new) == ([node_key("phone")] if is_gone else [])
    assert gone_keys(new, new) == []


def test_mesh_key_file_is_read_or_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "mesh.key"
    settings = plan(tmp_path, derp={"server": {"mesh": {"key_file": str(path)}}})
    with pytest.raises(StateError, match="generate mesh-key"):
        read_mesh_key(settings)
    path.write_text("ab" * 31)
    with pytest.raises(StateError, match="generate mesh-key"):
        read_mesh_key(settings)
    path.write_text("ab" * 32 + "\n")
    assert read_mesh_key(settings) is not None
    assert read_mesh_key(plan(tmp_path)) is None
