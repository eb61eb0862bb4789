"""300 nodes under random edits, lost connections and slow readers all learn what is true."""

from __future__ import annotations

import pytest

from tests.bench.converge import converge


@pytest.mark.parametrize("http2", ["h2", "ngh2"])
async def test_everybody_knows_the_truth_in_the_end(http2: str) -> None:
    if http2 == "ngh2":
        pytest.importorskip("ngh2")
    outcome = await converge(300, 150, seed=len(http2), http2=http2)
    assert outcome.wrong == ()
    assert outcome.sessions > 200
    assert outcome.versions > 150
