"""300 nodes under random edits, lost connections and slow readers all learn what is true."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.bench.converge import converge


async def test_everybody_knows_the_truth_in_the_end(request: pytest.FixtureRequest) -> None:
    """With h2 on asyncio's own loop, with ngh2 on the other: both of both in one go."""
    http2 = "ngh2" if "uvloop" in request.node.name and find_spec("ngh2") else "h2"
    outcome = await converge(300, 150, seed=len(http2), http2=http2)
    assert outcome.wrong == ()
    assert outcome.sessions > 200
    assert outcome.versions > 150
