"""A Containerfile's instructions by stage, for tests that look at them. Not a builder.

Source: Dockerfile reference: comments are whole lines, also between continued ones.
"""

from __future__ import annotations

Stage = dict[str, list[str]]


def stages(text: str) -> list[Stage]:
    """Give each stage's instructions: by name what stands behind it, in order."""
    kept = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    found: list[Stage] = []
    for line in "\n".join(kept).replace("\\\n", " ").splitlines():
        name, _, words = line.strip().partition(" ")
        if name == "FROM":
            found.append({})
        if found:
            found[-1].setdefault(name, []).append(" ".join(words.split()))
    return found
