"""``python -m tests.conformance FILE.jsonl.gz… --out RESULTS.jsonl``: answer recorded questions.

The form of cases and results is described where the recordings are (FORMAT.md beside them).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conformance.runner import answer, dump, read


def main() -> int:
    """Answer every case of the named files."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.jsonl.gz")
    parser.add_argument("--out", type=Path, required=True, metavar="RESULTS.jsonl")
    options = parser.parse_args()
    count = 0
    with options.out.open("w") as out:
        for path in options.files:
            for case in read(path):
                if "policy" in case:
                    out.write(dump(answer(case)) + "\n")
                    count += 1
    print(f"{count} cases answered", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
