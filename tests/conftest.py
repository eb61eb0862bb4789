"""What all tests share: event loops of asynchronous tests, profiles of property tests.

``--hypothesis-profile=deep`` looks harder, for a nightly run.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import settings

try:
    import uvloop
except ImportError:  # the program then runs on asyncio, and so do the tests
    uvloop = None  # type: ignore[assignment]

# No deadline: how long a case takes says more about the machine than about the program.
settings.register_profile("ci", deadline=None)
settings.register_profile("deep", deadline=None, max_examples=3_000)
settings.load_profile("ci")

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

ON_BOTH_LOOPS = frozenset({"front", "relay", "control", "live"})
"""Tests of code that sits on sockets, or counts on the order in which tasks wake."""


@pytest.hookimpl
def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, LoopFactory]:
    """Run tests of code near sockets on asyncio and on uvloop, the rest on asyncio."""
    factories: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    folder = item.path.relative_to(config.rootpath / "tests").parts[0]
    if uvloop is not None and folder in ON_BOTH_LOOPS:
        factories["uvloop"] = uvloop.new_event_loop
    return factories


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a test's server or command set up, or others see its level and its handler."""
    loggers = (logging.getLogger(), logging.getLogger("appliance"))
    before = [(each.level, each.propagate, list(each.handlers)) for each in loggers]
    yield
    for each, (level, propagate, handlers) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.propagate = propagate
        for handler in list(each.handlers):
            if handler not in handlers and not type(handler).__module__.startswith("_pytest"):
                each.removeHandler(handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped, loudly and once a reason, with how many."""
    reasons = Counter(
        str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        for report in terminalreporter.stats.get("skipped", ())
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(
            f"SKIPPED {count}: {reason.removeprefix('Skipped: ')}", red=True
        )
