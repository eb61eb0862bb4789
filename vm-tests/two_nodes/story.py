"""Two nodes talk: the whole of what a tailnet is for, on three machines."""

from __future__ import annotations

from driver.client import Client, ClientError
from driver.face import Machines
from driver.tailnet import Server


def story(machines: Machines) -> None:
    """Enrol two stock clients and let them find and reach each other."""
    server = Server(machines.server)
    with machines.subtest("the server serves"):
        server.ready()
    with machines.subtest("two nodes enrol with a pre-auth key"):
        left, right = server.join(machines.laptop, machines.desktop)
    with machines.subtest("they see and reach each other over both families"):
        left.sees(right.name)
        right.sees(left.name)
        left.reaches(right)
        right.reaches(left)
    with machines.subtest("by name too"):
        v4, _ = right.addresses()
        assert left.resolve(f"{right.name}.tail.test.") == [v4]
        assert left.get(f"http://{right.name}.tail.test/")["login"].split("@")[0] == "alice"
    with machines.subtest("the path becomes direct"):
        endpoint = left.ping_until_direct(v4).endpoint
        assert endpoint.startswith(("192.168.1.", "[2001:db8:1::")), endpoint
    with machines.subtest("a key that nobody made opens nothing"):
        stranger = Client(machines.desktop, "stranger")
        stranger.start(server.ca)
        try:
            stranger.join(server.url, "hskey-auth-000000000000-nobody-made-this", timeout_s=10)
        except ClientError as refusal:
            machines.say(f"refused: {refusal}")
        else:
            raise AssertionError("a stranger got in")
        assert sorted(row["givenName"] for row in server.cli("nodes", "list")) == [
            "desktop",
            "laptop",
        ]
