"""What the stories of containers share: the images, a small internet, an engine on one of its hosts.

Where containers cannot be run, or clients cannot be built, one line says so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio

from tests.images.sandbox import Missing, require
from tests.images.town import Town
from tests.interop import build, netns

# The stories' driver is a root of its own: systems and releases are made by it.
sys.path.append(str(Path(__file__).resolve().parents[2] / "vm-tests"))

REQUIRED = "stories" in os.environ.get("HEADWATER_REQUIRE", "").split(",")


def absent(what: str, reason: Exception) -> NoReturn:
    """Skip what cannot run here, or fail where it must."""
    if REQUIRED:
        pytest.fail(f"{what} must run here, says HEADWATER_REQUIRE: {reason}")
    pytest.skip(f"{what} ARE NOT HERE: {reason}")


@pytest.fixture(scope="session")
def containers() -> None:
    """Skip where no container can be run, or no client built."""
    try:
        require()
        netns.require()
        build.node_binary(build.NEWEST)
    except (Missing, netns.Missing) as reason:
        absent("CONTAINERS", reason)
    except build.Unavailable as reason:
        absent("STOCK CLIENTS", reason)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def town(
    containers: None,  # noqa: ARG001  # skips before us
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Town]:
    """A host for containers, which has the images, and a network for clients."""
    from tests.images import builds

    images = builds.archives()
    try:
        made = Town(tmp_path_factory.mktemp("town"))
    except Missing as reason:
        absent("CONTAINERS", reason)
    try:
        made.root.load(images.everything)
        yield made
    finally:
        await made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the last words of containers and clients to a failed test."""
    report = yield
    town = getattr(item, "funcargs", {}).get("town")
    if report.failed and town is not None:
        report.sections.append(("last words of the town", town.last_words()))
    return report
