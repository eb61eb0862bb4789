"""A certificate from an authority, in the sandbox and behind the role's firewall; it outlives an upgrade."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, cast

from driver import releases
from driver.ansible import Controller
from driver.face import Machine, Machines
from driver.releases import Release

from tests.support import pebble

OLDER = releases.current()
NEWER = Release(f"{OLDER.version}+story.1")
AUTHORITY, SERVER = "192.168.1.1", "192.168.1.2"
PLACE = "/root/authority"
TRUSTED = "/etc/ssl/authority.pem"
SITE: dict[str, Any] = {
    "server_url": "https://server",
    "tls": {
        "mode": "acme",
        "directory": f"https://{AUTHORITY}:14000/dir",
        "ca_file": TRUSTED,
    },
    "tailnet": {"base_domain": "tail.test"},
}
LOOK = """\
import socket, ssl, sys, urllib.request
unchecked = ssl._create_unverified_context()
root = urllib.request.urlopen("https://ADDRESS:15000/roots/0", context=unchecked).read().decode()
if sys.argv[1:] == ["root"]:
    sys.exit(print(root))
trusting = ssl.create_default_context(cadata=root)
with trusting.wrap_socket(socket.create_connection(("server", 443), 10), server_hostname="server"):
    print("trusted")
""".replace("ADDRESS", AUTHORITY)


def story(machines: Machines) -> None:
    """Set up the authority, install, look from outside, upgrade, renew."""
    controller = Controller(machines)
    server, authority = machines["server"], machines["authority"]
    hosts: dict[str, list[Machine]] = {"headwater": [server]}

    def wanted(release: Release) -> dict[str, Any]:
        folder = str(release.folder())
        told = {"headwater_verify_ca_file": str(trusted)}
        return {"headwater_release_dir": folder, "headwater_settings": SITE, **told}

    for machine in (server, authority):
        machine.wait_for_unit("multi-user.target")
    with machines.subtest("an authority that knows nothing but the way to port 443"):
        set_up(authority, server)

    # The controller knows no more than clients do: it must be told whom to trust.
    trusted = Path(tempfile.mkdtemp(prefix="headwater-vm-")) / "root.pem"
    trusted.write_text(authority.succeed(f"python3 {PLACE}/look.py root"))
    with machines.subtest("the role installs the server, and its certificate comes by itself"):
        controller.play("site", hosts, **wanted(OLDER))
        server.wait_until_succeeds("headwater certificates check", timeout=120)
        first = shown(server)
        assert first["source"] == "acme", first
        assert first["names"] == ["server"], first
        assert "trusted" in authority.succeed(f"python3 {PLACE}/look.py")

    with machines.subtest("nothing but 443 was opened for it"):
        rules = server.succeed("nft list table inet headwater")
        assert "443" in rules
        assert " 80 " not in rules, rules

    with machines.subtest("an upgrade keeps it, and the authority is not asked again"):
        controller.play("upgrade", hosts, **wanted(NEWER))
        assert f"headwater {NEWER.version}\n" == server.succeed("headwater version")
        server.succeed("headwater certificates check")
        assert shown(server)["fingerprint"] == first["fingerprint"]

    with machines.subtest("it is renewed without a restart, while the authority is there"):
        before = server.succeed("systemctl show -P MainPID headwater")
        server.succeed("headwater certificates renew")
        assert shown(server)["fingerprint"] != first["fingerprint"]
        assert server.succeed("systemctl show -P MainPID headwater") == before
        assert "trusted" in authority.succeed(f"python3 {PLACE}/look.py")

    with machines.subtest("without the authority the server starts and serves what it has"):
        authority.succeed("systemctl stop pebble")
        server.succeed("systemctl restart headwater")
        server.wait_until_succeeds("headwater certificates check", timeout=60)
        server.fail("headwater certificates renew")
        assert "cannot be reached" in server.fail("headwater certificates check 2>&1")


def shown(server: Machine) -> dict[str, Any]:
    """Return what the server says of its certificate."""
    found = json.loads(server.succeed("headwater certificates list -o json"))
    return cast(dict[str, Any], found[0])


def set_up(authority: Machine, server: Machine) -> None:
    """Put Pebble on its machine, and what vouches for it on the server."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        pebble.authority(place, AUTHORITY)
        config = {
            "listenAddress": f"{AUTHORITY}:14000",
            "managementListenAddress": f"{AUTHORITY}:15000",
            "certificate": f"{PLACE}/server.pem",
            "privateKey": f"{PLACE}/server.key",
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "profiles": {"default": {"description": "default", "validityPeriod": 7776000}},
        }
        (place / "pebble.json").write_text(json.dumps({"pebble": config}))
        (place / "look.py").write_text(LOOK)
        authority.succeed(f"mkdir -p {PLACE}")
        for file in place.iterdir():
            authority.copy_from_host(str(file), f"{PLACE}/{file.name}")
        server.copy_from_host(str(place / "ca.pem"), TRUSTED)
    for program in pebble.PROGRAMS:
        authority.copy_from_host(str(pebble.programs() / program), f"{PLACE}/{program}")
    server.succeed(f"chmod 644 {TRUSTED}")
    authority.succeed(f"chmod 755 {PLACE}/pebble {PLACE}/pebble-challtestsrv")
    names = f'-dnsserver {AUTHORITY}:8053 -defaultIPv4 {SERVER} -defaultIPv6 "" -doh ""'
    rest = f'-http01 "" -https01 "" -tlsalpn01 "" -management {AUTHORITY}:8055'
    authority.succeed(f"systemd-run --unit names {PLACE}/pebble-challtestsrv {names} {rest}")
    pace = "--setenv=PEBBLE_VA_NOSLEEP=1"
    command = f"{PLACE}/pebble -config {PLACE}/pebble.json -dnsserver {AUTHORITY}:8053"
    authority.succeed(f"systemd-run --unit pebble {pace} {command}")
    authority.wait_for_open_port(14000, AUTHORITY)
