"""The generated list of options is the one of the modules."""

from __future__ import annotations

from tests.nix.evaluation import needs_nix
from tests.nix.reference import PAGE, page


@needs_nix
def test_the_page_of_options_is_current() -> None:
    assert PAGE.read_text() == page(), "write it anew: make docs"
