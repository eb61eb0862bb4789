"""``python -m appliance`` is the command ``headwater``. Not for anything else."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    from appliance.cli.root import run  # the console script imports this module first

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
