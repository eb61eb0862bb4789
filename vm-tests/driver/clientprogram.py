"""Stock clients as layers: our client program, or the client's own service. Not for driving them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from driver import images
from driver.client import PROGRAM
from driver.images import Image
from driver.server import ROOT

# A cold build of the whole client on two cores.
BUILD_S = 900


# As the client's own packages install it: the command is the service's program by another name.
SERVICE = """\
[Unit]
Description=Tailscale client

[Service]
Type=notify
ExecStart=/usr/sbin/tailscaled --state=/var/lib/tailscale/tailscaled.state
Environment=TS_NO_LOGS_NO_SUPPORT=true
RuntimeDirectory=tailscale
StateDirectory=tailscale
Restart=on-failure

[Install]
WantedBy=multi-user.target
"""


def binary() -> Path:
    """Find or build our program on the newest client release. Raises NoImage."""
    return _built("build.node_binary(build.NEWEST)")


def service_binary() -> Path:
    """Find or build the newest client release itself. Raises NoImage."""
    module = Path(__file__).parent / "stockclient"
    return _built(f"build.client_binary(Path({str(module)!r}))")


def _built(expression: str) -> Path:
    script = f"from pathlib import Path; from tests.interop import build; print({expression})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode:
        raise images.NoImage(f"the stock client cannot be built: {done.stderr[-2000:]}")
    return Path(done.stdout.strip().splitlines()[-1])


def installed(image: Image) -> Path:
    """Find or make the layer with the program."""
    program = binary()

    def put(root: Path) -> None:
        target = root / "usr/local/bin" / PROGRAM
        shutil.copy(program, target)
        target.chmod(0o755)

    return images.layer(image, "client", program.name.rpartition("-")[2], put)


def service_installed(image: Image) -> Path:
    """Find or make the layer with the client's own service, which does not run yet."""
    program = service_binary()

    def put(root: Path) -> None:
        target = root / "usr/sbin/tailscaled"
        shutil.copy(program, target)
        target.chmod(0o755)
        (root / "usr/bin/tailscale").symlink_to("../sbin/tailscaled")
        (root / "etc/systemd/system/tailscaled.service").write_text(SERVICE)

    digest = images.digest_of(program.name, SERVICE)
    return images.layer(image, "tailscaled", digest, put)
