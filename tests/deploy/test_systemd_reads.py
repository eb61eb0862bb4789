"""What systemd and nft themselves say of the rendered files, where they are installed.

The stories under vm-tests/ run the same units under two systemds; this is the quick look.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.config import load
from appliance.deploy import facts, plan
from appliance.deploy.render import render
from appliance.deploy.units import Host
from tests.deploy.test_render import EXAMPLES

WORST_SCORE = 1.5

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing"
)


def box(home: Path, example: str) -> Path:
    """Render an example below a folder, with a program that is there."""
    settings = load(EXAMPLES / example)
    made = plan.make(settings, role="relay" if example == "relay.yaml" else "server")
    render(made, Host(program="/bin/true")).write(home)
    return home / facts.UNIT_DIR.lstrip("/")


@needs_systemd
@pytest.mark.parametrize(
    ("example", "unit"), [("minimal.yaml", "headwater"), ("relay.yaml", "headwater-relay")]
)
def test_the_sandbox_scores_well(tmp_path: Path, example: str, unit: str) -> None:
    file = box(tmp_path, example) / f"{unit}.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    assert float(score[1]) <= WORST_SCORE


@needs_systemd
@pytest.mark.parametrize("example", ["minimal.yaml", "large.toml", "relay.yaml"])
def test_systemd_knows_every_directive(tmp_path: Path, example: str) -> None:
    folder = box(tmp_path, example)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, folder.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )
    assert not re.findall(r"^.*(?:Unknown|Failed to parse|Invalid).*$", done.stderr, re.MULTILINE)


@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is missing (apt install nftables)")
@pytest.mark.skipif(os.geteuid() != 0, reason="nft checks rules only for root")
def test_nft_takes_the_table_twice(tmp_path: Path) -> None:
    box(tmp_path, "minimal.yaml")
    file = tmp_path / facts.FIREWALL_FILE.lstrip("/")
    done = subprocess.run(
        [
            "unshare",
            "--net",
            "sh",
            "-ec",
            'nft -f "$1" && nft -f "$1" && nft list tables',
            "",
            file,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare failed" in done.stderr:
        pytest.skip("network namespaces are not allowed here")
    assert done.stdout.strip() == f"table inet {facts.FIREWALL_TABLE}", done.stderr
