"""``python -m appliance.deploy …`` is the same as ``headwater deploy …``. Not for anything else."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from appliance.cli.root import run

    sys.exit(run(["deploy", *sys.argv[1:]]))
