"""What the interop tests share: a lab per module, its last words on failure, a table of times.

Where clients cannot be built or namespaces cannot be made, the tests that need them skip with the
same words, so that pytest's summary is one loud line each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.interop import build, netns
from tests.interop.lab import Lab
from tests.interop.netns import Net

FOLDER = "tests/interop/"
ABSENT = "NOT HERE"

Figure = Callable[[str, float], None]


@pytest.fixture(scope="session")
def stock_clients() -> None:
    """Build the stock clients, or skip what needs them."""
    try:
        for client in build.CLIENTS:
            build.node_binary(client)
    except build.Unavailable as reason:
        pytest.skip(f"STOCK CLIENTS ARE {ABSENT}: {reason}")


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip what needs a network of its own where none can be made."""
    try:
        netns.require()
    except netns.Missing as reason:
        pytest.skip(f"NETWORK NAMESPACES ARE {ABSENT}: {reason}")


@pytest.fixture(scope="session")
def derper(stock_clients: None) -> Path:  # noqa: ARG001  # builds before us
    """The official relay."""
    return build.derper_binary()


@pytest.fixture
def net(namespaces: None) -> Iterator[Net]:  # noqa: ARG001  # skips before us
    """A network without anything on it."""
    made = Net()
    yield made
    made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def empty_lab(
    namespaces: None,  # noqa: ARG001  # skips before us
    stock_clients: None,  # noqa: ARG001  # skips before us
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Lab]:
    """A network and an authority; the module starts the server that it wants."""
    lab = Lab(tmp_path_factory.mktemp("lab"))
    try:
        yield lab
    finally:
        await lab.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(empty_lab: Lab) -> Lab:
    """A lab whose server runs with a certificate file."""
    await empty_lab.serve()
    return empty_lab


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Figure:
    """Note a measured time; the summary shows it."""

    def note(what: str, seconds: float) -> None:
        record_property("figure", f"{what} {seconds:.2f} s")

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last words of the lab to a failed test; let all skips of one reason be one line."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and ABSENT in report.longrepr[2]:
        report.longrepr = (FOLDER, 0, report.longrepr[2])
    lab = getattr(item, "funcargs", {}).get("empty_lab") or getattr(item, "funcargs", {}).get("lab")
    if report.failed and lab is not None:
        report.sections.append(("last words of the lab", lab.last_words()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how long each interop test took, and what it measured."""
    rows: dict[str, tuple[float, list[str]]] = {}
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            if report.nodeid.startswith(FOLDER):
                figures = [str(value) for name, value in report.user_properties if name == "figure"]
                rows[report.nodeid] = (report.duration, figures)
    if not rows:
        return
    terminalreporter.section("interop: time per test (without set-up)")
    for name, (seconds, figures) in sorted(rows.items()):
        words = f"   [{'; '.join(figures)}]" if figures else ""
        terminalreporter.write_line(f"{seconds:7.2f} s  {name.removeprefix(FOLDER)}{words}")
