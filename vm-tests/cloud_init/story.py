"""examples/cloud-init.yaml on a plain Debian: its first boot makes it a server.

As printed, but for where the release is and which it is, which whoever uses it writes too, and for the
certificate: no public authority is reachable from here.
"""

from __future__ import annotations

import hashlib
import re

from driver import releases
from driver.container import Container
from driver.face import Machines
from driver.server import ROOT

HOST = "hw.example.com"
RELEASE = "/srv/release"
SEED = "/var/lib/cloud/seed/nocloud"
FIRST_BOOT_S = 400
# 2: it made no keys for sshd, which this machine has not.
DONE = "cloud-init status --wait || test $? = 2"
NO_ERRORS = """python3 -c 'import json; assert not json.load(open("/run/cloud-init/result.json"))["v1"]["errors"]'"""


def story(machines: Machines) -> None:
    """Seed a machine, boot it, find a server on it."""
    host = machines[HOST]
    assert isinstance(host, Container)
    host.wait_for_unit("multi-user.target")
    folder = releases.current(host.spec.suite).whole()
    host.copy_from_host(str(folder), RELEASE)
    text = (ROOT / "examples" / "cloud-init.yaml").read_text()
    sums = hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()
    for printed, ours in (
        ("https://files.example.com/headwater-0.1.0", f"file://{RELEASE}"),
        ("0" * 64, sums),
        ('--email "$email" --yes', "--tls local-ca --yes"),
    ):
        assert text.count(printed) == 1, printed
        text = text.replace(printed, ours)
    host.write(f"{SEED}/user-data", text)
    host.write(f"{SEED}/meta-data", "instance-id: story-1\n")

    with machines.subtest("cloud-init's own check takes it"):
        host.succeed(f"cloud-init schema --config-file {SEED}/user-data")
        host.succeed(f"sed 's/^runcmd:/runcmds:/' {SEED}/user-data > /tmp/misspelt")
        said = host.fail("cloud-init schema --config-file /tmp/misspelt 2>&1")
        assert "runcmds" in said, said

    with machines.subtest("the first boot makes it a server"):
        host.succeed("cloud-init clean --logs")
        host.shutdown()
        host.start()
        host.wait_until_succeeds(DONE, timeout=FIRST_BOOT_S)
        host.succeed(NO_ERRORS, "headwater health")
        host.succeed("systemctl is-enabled headwater.service headwater.socket")

    with machines.subtest("the line with the key is root's, and in no log"):
        said = host.succeed("cat /root/headwater-release/installed.txt")
        (key,) = set(re.findall(r"hskey-auth-[\w-]+", said))
        assert host.succeed("stat -c %a%U /root/headwater-release/installed.txt") == "600root\n"
        host.fail(f"grep -rlF {key} /var/log /run/log")

    with machines.subtest("the next boot does nothing more"):
        before = host.succeed(
            "headwater preauthkeys list -o json", "cat /etc/headwater/config.yaml"
        )
        host.shutdown()
        host.start()
        host.wait_until_succeeds("headwater health", timeout=FIRST_BOOT_S)
        host.wait_until_succeeds(DONE, timeout=FIRST_BOOT_S)
        after = host.succeed("headwater preauthkeys list -o json", "cat /etc/headwater/config.yaml")
        assert after == before
