"""Machines that Ansible enrols: the client's own service, a key in a file, no trace of the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from driver import releases
from driver.ansible import Controller
from driver.face import Machines
from driver.tailnet import Server


def story(machines: Machines) -> None:
    """Enrol two machines, leave them alone, set an option; put a relay on a third."""
    controller = Controller(machines)
    server = Server(machines["server"])
    server.ready()
    nodes = [machines["node12"], machines["node13"]]
    for node in nodes:
        node.wait_for_unit("multi-user.target")
    folder = Path("/run/headwater-operator")
    folder.mkdir(exist_ok=True)
    (folder / "ca.pem").write_text(server.ca)
    key = server.auth_key()
    (folder / "node.key").write_text(f"{key}\n")
    hosts = {"headwater_nodes": nodes}
    wanted: dict[str, Any] = {
        "headwater_node_login_server": server.url,
        "headwater_node_packages": [],  # the client is there
        "headwater_node_ca_file": str(folder / "ca.pem"),
    }

    with machines.subtest("without a key it says what is missing"):
        played = controller.play("site", hosts, fails=True, **wanted)
        assert "headwater preauthkeys create" in played.text

    with machines.subtest("with one both enrol and reach each other"):
        with_key = {**wanted, "headwater_node_auth_key_file": str(folder / "node.key")}
        controller.play("site", hosts, "--check", "--diff", **with_key)
        nodes[0].fail("tailscale ip -4")
        played = controller.play("site", hosts, "-vvv", "--diff", **with_key)
        for one, other in (nodes, reversed(nodes)):
            one.wait_until_succeeds(f"tailscale ping --c 1 --timeout 5s {other.name}", timeout=60)
            one.succeed(f"ping -c 1 -W 5 $(tailscale ip -4 {other.name})")

    with machines.subtest("the key is nowhere"):
        assert key not in played.text
        for node in nodes:
            assert key not in node.succeed("journalctl --no-pager")
            node.fail("test -e /run/headwater-node")
            # Its second half is the secret, if a part of it were kept.
            node.fail(f"grep -rlF {key[-20:]} /etc /root /run /tmp /var")

    with machines.subtest("a machine that is enrolled is left alone, and needs no key"):
        (folder / "node.key").unlink()
        assert controller.play("site", hosts, **wanted).changed == 0
        assert controller.play("site", hosts, "--check", "--diff", **wanted).changed == 0

    with machines.subtest("an option is set where it was not"):
        options = {**wanted, "headwater_node_options": {"hostname": "gate", "shields-up": True}}
        assert controller.play("site", {"headwater_nodes": nodes[:1]}, **options).changed == 1
        assert controller.play("site", {"headwater_nodes": nodes[:1]}, **options).changed == 0
        nodes[1].wait_until_succeeds("tailscale status | grep -F gate", timeout=30)

    with machines.subtest("the same role makes a host a relay"):
        relay = machines["relay"]
        relay.wait_for_unit("multi-user.target")
        site = {
            "server_url": server.url,
            "tls": {"mode": "local_ca"},
            "derp": {"server": {"region_id": 901, "region_code": "far", "host": "relay"}},
        }
        settings: dict[str, Any] = {
            "headwater_role": "relay",
            "headwater_settings": site,
            "headwater_release_dir": str(releases.current().folder()),
        }
        controller.play("site", {"headwater": [relay]}, **settings)
        relay.succeed("systemctl is-active headwater-relay.service")
        relay.fail("systemctl cat headwater.service")
        assert controller.play("site", {"headwater": [relay]}, **settings).changed == 0
