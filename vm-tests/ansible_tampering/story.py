"""A configured host is tampered with, once at a time: each run mends it, or stops with a name.

A few changes here; `python -m tests.soak.tampering` makes many. Equal means: files with contents, modes
and owners, links, unit states, the loaded table, kernel settings and the account.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

from driver import releases
from driver.ansible import Controller
from driver.face import Machines

from ansible_tampering.tampering import Target, choose

SITE = json.loads((Path(__file__).parent / "site.json").read_text())
COUNT = int(os.environ.get("HEADWATER_TAMPERINGS") or 6)
SEED = int(os.environ.get("HEADWATER_TAMPERING_SEED") or 321)

SECRET = "mesh-key"  # noqa: S105  # its name

LOOK = """
places='/etc /opt/headwater /usr/local /var/lib/headwater'
find $places ! -path '*/__pycache__*' ! -path '/var/lib/headwater/*' ! -path '/etc/*-' \\
  ! -path '/opt/headwater/*.json' ! -path '/opt/headwater/secrets/*' ! -name .lock ! -name .updated \\
  \\( -type f -printf '%p %m %u %g ' -exec sha256sum {} \\; -o -printf '%p %y %m %u %g %l\\n' \\) \\
  | sed -E 's/^(\\S+ \\S+ \\S+ \\S+) (\\S+)  .*$/\\1 \\2/' | grep -vE '^/etc/(passwd|group|g?shadow|sub.id)' | sort
for unit in $UNITS; do
  echo "$unit $(systemctl is-enabled $unit) $(systemctl is-active $unit)"
done
nft list ruleset
sysctl net.core.somaxconn net.ipv4.tcp_max_syn_backlog net.ipv4.tcp_mtu_probing
getent passwd headwater | cut -d : -f 1,6,7
id -Gn headwater
systemctl list-units --failed --no-legend
"""


def story(machines: Machines) -> None:
    """Install, remember, tamper and mend, again and again."""
    server = machines["server"]
    controller = Controller(machines)
    hosts = {"headwater": [server]}
    wanted: dict[str, Any] = {
        "headwater_release_dir": str(releases.current().folder()),
        "headwater_settings": {
            **SITE,
            "derp": {"server": {"mesh": {"key_file": SECRET}}},
        },
        "headwater_secrets": {SECRET: "0123456789abcdef" * 4 + "\n"},
        "headwater_health_timeout": 120,
    }
    server.wait_for_unit("multi-user.target")
    controller.play("site", hosts, **wanted)
    manifest = json.loads(server.succeed("cat /opt/headwater/deployed.json"))
    target = Target(
        tuple(manifest["files"]),
        tuple(manifest["sockets"]),
        tuple(manifest["services"]),
        tuple(manifest["watched"]),
    )
    units = " ".join((*target.units, manifest["firewall"]))

    def look() -> list[str]:
        return server.succeed(f"UNITS='{units}'; {LOOK}").splitlines()

    fresh = look()
    rng = random.Random(SEED)  # noqa: S311  # chance that can be repeated
    for number in range(1, COUNT + 1):
        change = choose(rng, target)
        with machines.subtest(f"seed {SEED}, {number} of {COUNT}: {change.what}"):
            server.execute(change.command)
            if change.stops_with:
                played = controller.play("site", hosts, fails=True, **wanted)
                played.says(change.stops_with)
                server.succeed(change.undo)
            controller.play("site", hosts, **wanted)
            found = look()
            wrong = sorted({*fresh} ^ {*found})
            assert found == fresh, "\n".join((change.what, *wrong))
            server.succeed("headwater health")
    with machines.subtest("and then there is nothing to do"):
        assert controller.play("site", hosts, **wanted).changed == 0
