"""The command `python -m driver`: make the machines' systems, run stories, say how each ended.

Not for a single story's course (`stories.py`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from driver import images, killed, sandbox, stories
from driver.images import NoImage
from driver.stories import Story

# Of a failed story's log, this much is shown at once; the file has everything.
SHOWN_LINES = 160

# The story within which the driver is killed; any will do.
KILLED = "two_nodes"

REQUIRE = "HEADWATER_REQUIRE"
"""Names, with commas between them, of what must run; a story that is skipped fails if `stories` is there."""

LOGS = stories.HERE.parent / ".cache" / "vm"


def main() -> int:
    """Run one command line and give its exit code."""
    options = _parse()
    if options.command == "inside":
        return stories.run_inside(options.story, options.plan, options.owner)
    wanted = [KILLED] if options.command == "killed" else options.story or stories.names()
    chosen = [stories.load(name) for name in wanted]
    if options.command == "list":
        for story in chosen:
            print(f"{story.name}: {', '.join(story.machines)}")
        return 0
    try:
        sandbox.require()
    except sandbox.Forbidden as reason:
        print(f"vm: SKIPPED, ALL {len(chosen)} STORIES: machines cannot be booted here: {reason}")
        return _sum_up(["SKIPPED"] * len(chosen), 0.0)
    try:
        plans = {story.name: stories.plan(story) for story in chosen if not story.missing}
    except NoImage as reason:
        print(f"vm: FAILED to make the machines' systems: {reason}")
        return 1
    images.prune()
    if options.command == "images":
        return 0
    if options.command == "killed":
        return killed.check(chosen[0], plans[chosen[0].name])
    return _run_all(chosen, plans, options.jobs)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m driver", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="the stories and their machines")
    making = commands.add_parser("images", help="make what the machines boot, ahead of the stories")
    running = commands.add_parser("run", help="run stories, all of them if none is named")
    for each in (listing, making, running):
        each.add_argument("story", nargs="*", choices=[[], *stories.names()])
    running.add_argument("--jobs", type=int, default=1, help="stories at a time")
    commands.add_parser("killed", help="end the driver within a story, look for what it left")
    inside = commands.add_parser("inside")
    inside.add_argument("story")
    inside.add_argument("--plan", type=Path, required=True)
    inside.add_argument("--owner", required=True)
    return parser.parse_args()


def _run_all(chosen: list[Story], plans: dict[str, dict[str, list[str]]], jobs: int) -> int:
    began = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        results = list(pool.map(lambda story: _run(story, plans.get(story.name, {})), chosen))
    return _sum_up(results, time.monotonic() - began)


def _sum_up(results: list[str], took: float) -> int:
    passed, failed, skipped = (results.count(how) for how in ("passed", "failed", "SKIPPED"))
    print(f"vm: {passed} passed, {failed} failed, {skipped} skipped, {took:.0f} s altogether")
    if skipped and "stories" in os.environ.get(REQUIRE, "").split(","):
        print(f"vm: FAILED: {skipped} skipped, and {REQUIRE} says that stories must run here")
        return 1
    return 1 if failed else 0


def _run(story: Story, planned: dict[str, list[str]]) -> str:
    """Run one story in a sandbox of its own; print and give how it ended."""
    if story.missing:
        print(f"vm: {'SKIPPED':8}         {story.name}: {story.missing.upper()}", flush=True)
        return "SKIPPED"
    began = time.monotonic()
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{story.name}.log"
    with log.open("wb") as out, stories.in_sandbox(story, planned, out) as process:
        try:
            code = process.wait(story.limit_s)
        except subprocess.TimeoutExpired:
            code = -1
            process.kill()
            process.wait(30)
    took = time.monotonic() - began
    how = "passed" if code == 0 else "failed"
    print(f"vm: {how:8} {took:6.1f} s  {story.name}", flush=True)
    if code:
        why = f"it took longer than {story.limit_s} s; " if code == -1 else ""
        lines = log.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
        print("\n".join(f"  | {line}" for line in lines))
        print(f"vm: {story.name}: {why}the whole log is in {log}", flush=True)
    return how


if __name__ == "__main__":
    sys.exit(main())
