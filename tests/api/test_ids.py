"""Ids out of paths and bodies: whatever text comes, a number or a refusal."""

from __future__ import annotations

import pytest

from appliance.api.routes import number
from appliance.config.reader import Endpoint
from appliance.errors import Invalid


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("7", 7), ("007", 7), (str(2**63 - 1), 2**63 - 1)]
)
def test_ids_are_read(text: str, value: int) -> None:
    assert number(text, "node") == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "1.0",
        " 1",
        "1_0",
        "\u00b2",
        "\u0661",
        str(2**63),
        "9" * 20,
        "0" * 20 + "9" * 5000,
    ],
)
def test_other_texts_are_refused_in_a_short_sentence(text: str) -> None:
    """D6: the bound looked at the first twenty digits, int() at all of them."""
    with pytest.raises(Invalid) as refusal:
        number(text, "node")
    assert len(str(refusal.value)) < 200


def test_endless_port_is_refused_in_our_words() -> None:
    """D6, elsewhere: Python's own sentence about its limit is no help."""
    with pytest.raises(ValueError, match="a port up to 65535"):
        Endpoint.parse("0.0.0.0:" + "9" * 5000)
