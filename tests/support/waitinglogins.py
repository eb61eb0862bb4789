"""The table of logins that wait, for doors in tests."""

from __future__ import annotations

from random import Random

from appliance.live import LiveTailnets
from appliance.live.logins import LiveLogins

URL = "https://control.example"


def logins_of(tailnets: LiveTailnets) -> LiveLogins:
    """Make the table of these tailnets; its ids are the same in every run."""
    return LiveLogins(tailnets, URL, random_bytes=Random(3).randbytes, rng=Random(4))
