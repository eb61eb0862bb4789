"""Every kind of record has its row in each of the tables that are made of them."""

from __future__ import annotations

from typing import get_args

from appliance import records
from appliance.store.kinds import KEPT
from appliance.tailnet import audit
from appliance.tailnet.kinds import KINDS
from appliance.tailnet.snapshot import Edit, Snapshot
from tests.support.builder import build, edit_of, key_for


def test_every_plain_kind_has_a_row_and_its_mappings() -> None:
    assert {kind.of for kind in KINDS} == set(get_args(records.Kept))
    names = {kind.records for kind in KINDS} | {kind.index for kind in KINDS if kind.index}
    fields = set(Snapshot.__dataclass_fields__)
    assert names <= fields
    assert names <= set(vars(Edit)), "read as drafted, too"


def test_every_record_is_kept_and_audited() -> None:
    everything = set(get_args(records.Record))
    assert {kept.of for kept in KEPT} == everything
    assert set(audit.TOLD) == everything
    assert len({told.noun for told in audit.TOLD.values()}) == len(everything)


def test_names_of_mappings_are_those_of_the_tables() -> None:
    tables = {kept.of: kept.table.name for kept in KEPT}
    assert {kind.of: kind.records for kind in KINDS} == {kind.of: tables[kind.of] for kind in KINDS}


def test_what_no_draft_touched_stays_private() -> None:
    """A later draft of the same round may write to it in place, and so may the one after it."""
    first = edit_of(build("alice: laptop*"))
    key_for(first, "alice")
    tip = first.finish()[0]
    assert first.private == {"auth_keys", "by_key_prefix"}
    second = Edit(tip, first.ids, private=first.private)
    assert second.private == first.private
    key_for(second, "alice")
    assert second.finish()[0].auth_keys is tip.auth_keys
    assert second.private == first.private


def test_what_was_written_in_place_is_taken_back() -> None:
    first = edit_of(build("alice: laptop*"))
    key_for(first, "alice")
    tip = first.finish()[0]
    before = dict(tip.auth_keys), dict(tip.by_key_prefix)
    second = Edit(tip, first.ids, private=first.private)
    key_for(second, "alice")
    second.abandon()
    assert (tip.auth_keys, tip.by_key_prefix) == before
