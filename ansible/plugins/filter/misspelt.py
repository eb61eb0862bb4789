"""Find variables whose names nobody knows, and the name that was probably meant.

Not for their values, which the roles' argument specifications check. Runs on the controller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

DOCUMENTATION = r"""
name: misspelt
short_description: Say which variables the roles of this collection do not know
description: For each name that is in no specification, a sentence that says so, with the name that is alike.
options:
  _input: {description: Names of variables., type: list, elements: str, required: true}
  specs:
    description: What meta/argument_specs.yml of each role holds.
    type: list
    elements: dict
    required: true
author: [The Headwater authors]
"""
EXAMPLES = r"""
- name: Refuse what is misspelt
  ansible.builtin.assert:
    that: query('ansible.builtin.varnames', '^example_') | headwater.headwater.misspelt(specs) | length == 0
"""
RETURN = r"""
_value: {description: A sentence for each unknown name., type: list, elements: str}
"""

PREFIX = "headwater_"


def misspelt(names: Iterable[str], specs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each name that no role has an option for."""
    known = {
        name
        for spec in specs
        for entry in spec["argument_specs"].values()
        for name in entry.get("options", {})
    }
    # All begin alike; what follows is compared.
    tails = {name.removeprefix(PREFIX): name for name in known}
    said = []
    for name in sorted(set(names) - known):
        alike = get_close_matches(name.removeprefix(PREFIX), tails, n=1)
        meant = f"; did you mean {tails[alike[0]]}?" if alike else ""
        said.append(f"{name} is not a variable of these roles{meant}")
    return said


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Return the filters by name."""
        return {"misspelt": misspelt}
