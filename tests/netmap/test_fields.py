"""The table of fields has every field of a map response, once in each place."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields as dataclass_fields

import msgspec

from appliance.netmap import Netmap, fields
from appliance.wire import tailcfg

ALL = {field.name for field in msgspec.structs.fields(tailcfg.MapResponse)}
OWN, SHARED, PEERS = (
    [row.field for row in rows] for rows in (fields.OWN, fields.SHARED, fields.PEERS)
)
ROWS = {*OWN, *SHARED, *PEERS}


def test_every_field_has_a_row_or_a_reason() -> None:
    """A4: a field that is in no row is not told by the encoder nor by the model."""
    assert ROWS | fields.ELSEWHERE.keys() == ALL
    assert not ROWS & fields.ELSEWHERE.keys()


def test_a_field_has_one_row_in_each_part() -> None:
    """Two parts may share a field of which some nodes are told their own."""
    for part in (OWN, SHARED, PEERS):
        assert max(Counter(part).values()) == 1


def test_the_model_has_the_value_of_every_field() -> None:
    only_in_deltas = {row.field for row in fields.PEERS if row.full is None}
    assert {field.name for field in dataclass_fields(Netmap)} == ROWS - only_in_deltas
