"""Writes docs/nixos-options.md from the modules: ``python -m tests.nix.reference``."""

from __future__ import annotations

from typing import cast

from tests.nix.evaluation import HERE, ROOT, evaluate

PAGE = ROOT / "docs" / "nixos-options.md"

HEAD = """# Options of the NixOS modules

*This page is generated from `nix/module/` (`make docs`); a test keeps the two equal.*

[nixos.md](nixos.md) says how to use them. `services.headwater.settings` takes every key of
[configuration.md](configuration.md).

"""

Option = dict[str, str | None]


def page() -> str:
    """Give the page. Raises EvaluationError."""
    options = cast("list[Option]", evaluate(HERE / "options.nix"))
    return HEAD + "\n".join(_entry(option) for option in options)


def _entry(option: Option) -> str:
    lines = [f"### `{option['name']}`\n", " ".join((option["meaning"] or "").split()) + "\n"]
    facts = [f"* type: {option['type']}"]
    if option["default"] is None:
        facts.append("* required")
    else:
        facts.append(f"* default: `{option['default']}`")
    if option["example"] is not None:
        facts.append(f"* example: `{option['example']}`")
    return "\n".join([*lines, *facts]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
