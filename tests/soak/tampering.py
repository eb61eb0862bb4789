"""A host is changed at random, once at a time, and each run of the playbook mends it or stops with a name.

Runs the story `vm-tests/ansible_tampering` with more changes than CI has time for; it needs what stories
need. ``python -m tests.soak.tampering --count 40 --seed 1``
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STORY = "ansible_tampering"


def main() -> int:
    """Run the story and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.tampering", description=__doc__)
    parser.add_argument("--count", type=int, default=40, help="how many changes")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same changes")
    options = parser.parse_args()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'vm-tests'}:{ROOT}",
        "HEADWATER_TAMPERINGS": str(options.count),
        "HEADWATER_TAMPERING_SEED": str(options.seed),
    }
    command = [sys.executable, "-m", "driver", "run", STORY]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
