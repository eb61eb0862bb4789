"""Durations as text: the one parser and the one writer of the whole program.

Two dialects: ours, of site files and the command line (``30d``, ``1h30m``, ``120s``; no sign), and
Go's, of policies and of Headscale's files (``1h30m``, ``-5s``, ``0``; nothing above hours). Pure;
knows nothing of what is timed. Source: Go time.ParseDuration and Duration.String.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

LONGEST = timedelta(days=100 * 365)
"""Longer than anything here lives; keeps a moment plus a duration inside what ``datetime`` has."""

GO_LONGEST_S = (2**63 - 1) / 1e9
"""Go counts nanoseconds in 64 bits."""

_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0
_SHARED = {"ms": 0.001, "s": 1.0, "m": _MINUTE_S, "h": _HOUR_S}
_OURS = {**_SHARED, "d": _DAY_S, "w": 7 * _DAY_S, "y": 365 * _DAY_S}
_GOS = {**_SHARED, "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_OUR_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_GO_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"


def _part(number: str, units: dict[str, float]) -> re.Pattern[str]:
    longest_first = sorted(units, key=len, reverse=True)
    return re.compile(f"({number})({'|'.join(longest_first)})")


_OUR_PART, _GO_PART = _part(_OUR_NUMBER, _OURS), _part(_GO_NUMBER, _GOS)


def parse(text: str) -> timedelta:
    """Read ``30d``, ``1h30m``, ``120s``. Raises ValueError with what is allowed."""
    seconds = _seconds(text, _OUR_PART, _OURS)
    if seconds is None:
        raise ValueError("a duration like 30d, 12h, 1h30m or 90s (units: y w d h m s ms)")
    if seconds > LONGEST.total_seconds():
        raise ValueError("a duration of at most 100y")
    return timedelta(seconds=seconds)


def parse_go(text: str) -> timedelta:
    """Read a duration as Go writes it, with an optional sign. Raises ValueError."""
    sign = -1 if text.startswith("-") else 1
    rest = text[1:] if text[:1] in ("-", "+") else text
    seconds = 0.0 if rest == "0" else _seconds(rest, _GO_PART, _GOS)
    if seconds is None or seconds > GO_LONGEST_S:
        raise ValueError("a duration such as 12h or 1h30m (units: h m s ms us ns)")
    return timedelta(seconds=sign * seconds)


def to_text(value: timedelta, largest: str = "d") -> str:
    """Write a duration in the form that ``parse`` reads, in units up to the ``largest``: d, h or m."""
    rest = value.total_seconds()
    parts: list[str] = []
    for unit in "dhm"["dhm".index(largest) :]:
        count, rest = divmod(rest, _OURS[unit])
        if count:
            parts.append(f"{int(count)}{unit}")
    if rest or not parts:
        parts.append(f"{rest:.6f}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)


def to_go(value: timedelta) -> str:
    """Write the whole seconds of a duration as Go does: ``168h0m1s``."""
    seconds = int(abs(value).total_seconds())
    hours, minutes, rest = seconds // 3600, seconds // 60 % 60, seconds % 60
    text = (
        f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"
    )
    return f"-{text}" if value < timedelta(0) else text


def _seconds(text: str, part: re.Pattern[str], units: dict[str, float]) -> float | None:
    """Add up the parts of a text; None if it is not made of parts alone."""
    found = part.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        return None
    return math.fsum(float(number) * units[unit] for number, unit in found)
