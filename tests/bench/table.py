"""Figures: measured, set against their targets, printed as one table, written as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured thing. ``target`` is the most that it may be, or the least if ``at_least``."""

    bench: str
    name: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None
    at_least: bool = False

    @property
    def median(self) -> float:
        """The value that counts."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool | None:
        """Tell whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.median >= self.target if self.at_least else self.median <= self.target


_HEADS = ("figure", "median", "min … max", "target", "ratio", "")


def show(figures: Sequence[Figure]) -> str:
    """Give the table. ``ratio`` is median over target."""
    rows = [_HEADS, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = []
    for row in rows:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join((first, *rest)).rstrip())
    lines.insert(1, "─" * max(map(len, lines)))
    return "\n".join(lines)


def _cells(figure: Figure) -> tuple[str, ...]:
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.is_met]
    sign = "≥" if figure.at_least else "≤"
    target = "" if figure.target is None else f"{sign} {number(figure.target)}"
    ratio = "" if not figure.target else f"{figure.median / figure.target:.2f}"
    spread = f"{number(min(figure.values))} … {number(max(figure.values))}"
    median = f"{number(figure.median)} {figure.unit}"
    return (figure.name, median, spread if len(figure.values) > 1 else "", target, ratio, verdict)


def number(value: float) -> str:
    """Write a number with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write figures as JSON; those of benches that did not run now stay from an earlier run."""
    kept: list[dict[str, object]] = []
    ran = {figure.bench for figure in figures}
    if path.exists():
        earlier = json.loads(path.read_text())["figures"]
        kept = [figure for figure in earlier if figure["bench"] not in ran]
    path.parent.mkdir(parents=True, exist_ok=True)
    told = [
        {
            "bench": figure.bench,
            "name": figure.name,
            "unit": figure.unit,
            "median": figure.median,
            "values": figure.values,
            "target": figure.target,
            "at_least": figure.at_least,
            "met": figure.is_met,
        }
        for figure in figures
    ]
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    path.write_text(json.dumps({"machine": machine, "figures": kept + told}, indent=1) + "\n")
