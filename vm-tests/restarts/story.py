"""Restart, reload and kill -9 keep nodes: sessions come back, streams live on, nobody enrols again."""

from __future__ import annotations

import time

from driver import routers
from driver.client import Client
from driver.face import Machines
from driver.tailnet import UNIT, Server

# A direct path does not go through the server; a pause there would be the client's own doing.
DIRECT_SILENCE_S = 1.0
# A relayed one waits for the relay and then for the client's own back-off.
RELAYED_SILENCE_S = 15.0


def story(machines: Machines) -> None:
    """Take the server away in every way, under two streams, one of which needs its relay."""
    server = Server(machines.server)
    server.ready()
    for machine in (machines.tablet, machines.phone):
        routers.block_udp(machine)
    laptop, desktop, tablet, phone = server.join(
        machines.laptop, machines.desktop, machines.tablet, machines.phone
    )
    laptop.sees(desktop.name)
    tablet.sees(phone.name)
    laptop.ping_until_direct(desktop.addresses()[0])
    assert not tablet.ping(phone.addresses()[0]).direct
    clients = (laptop, desktop, tablet, phone)

    pid = _pid(machines)
    with machines.subtest("reload"):
        _under_traffic(machines, server, clients, f"systemctl reload {UNIT}")
        assert _pid(machines) == pid, "a reload keeps the process"
    with machines.subtest("restart"):
        _under_traffic(machines, server, clients, f"systemctl restart {UNIT}")
        assert _pid(machines) != pid
        pid = _pid(machines)
    with machines.subtest("kill -9"):
        _under_traffic(machines, server, clients, f"systemctl kill -s KILL {UNIT}")
        assert _pid(machines) != pid
    with machines.subtest("a loop that hangs is ended by the watchdog"):
        # As the unit has it, but for the patience: a story has none.
        machines.server.succeed(
            f"mkdir -p /run/systemd/system/{UNIT}.d",
            f"printf '[Service]\\nWatchdogSec=3\\n' > /run/systemd/system/{UNIT}.d/story.conf",
            f"systemctl daemon-reload && systemctl restart {UNIT}",
        )
        pid = _pid(machines)
        machines.server.succeed(f"kill -STOP {pid}")
        machines.server.wait_until_succeeds(
            f"test $(systemctl show -P MainPID {UNIT}) -gt 0"
            f" && test $(systemctl show -P MainPID {UNIT}) != {pid}",
            timeout=60,
        )
        server.online(*clients)
    with machines.subtest("the machine itself loses power"):
        before = [client.identity() for client in clients]
        machines.server.crash()
        machines.server.start()
        machines.server.wait_for_unit(UNIT)
        server.online(*clients)
        assert [client.identity() for client in clients] == before
    with machines.subtest("no connection is refused while it restarts"):
        machines.server.succeed(
            # 7: not connected, 28: not answered. One that the old process had begun may be cut off.
            "(for i in $(seq 40); do code=0;"
            " curl -fsS -k -m 20 -o /dev/null https://localhost/health || code=$?;"
            " case $code in 7|28) echo $code;; esac; done) > /tmp/asked 2>/dev/null & asker=$!;"
            f" systemctl restart {UNIT}; systemctl restart {UNIT};"
            " wait $asker; cat /tmp/asked; test ! -s /tmp/asked"
        )
    with machines.subtest("stopped for good, and started again"):
        # The sockets too: they would start it for the next connection.
        machines.server.succeed("systemctl stop headwater.service 'headwater*.socket'")
        machines.laptop.fail("nc -z -w 2 server 443")
        assert machines.server.get_unit_info(UNIT)["ActiveState"] == "inactive"
        machines.server.succeed("systemctl start headwater")
        server.back()
        server.online(*clients)


def _pid(machines: Machines) -> int:
    return int(machines.server.get_unit_info(UNIT)["MainPID"])


def _under_traffic(
    machines: Machines, server: Server, clients: tuple[Client, ...], command: str
) -> None:
    """Run a command on the server under a direct and a relayed stream; nobody may lose anything."""
    laptop, desktop, tablet, phone = clients
    before = [client.identity() for client in clients]
    laptop.stream_start("direct", desktop)
    tablet.stream_start("relayed", phone)
    began = time.monotonic()
    machines.server.succeed(command)
    server.back()
    server.online(*clients)
    machines.say(f"all in session after {time.monotonic() - began:.2f} s")
    laptop.stream_moves("direct")
    tablet.stream_moves("relayed")
    direct = laptop.stream_stop("direct")["max_gap_s"]
    relayed = tablet.stream_stop("relayed")["max_gap_s"]
    machines.say(f"longest silence: direct {direct:.2f} s, relayed {relayed:.2f} s")
    assert direct < DIRECT_SILENCE_S, direct
    assert relayed < RELAYED_SILENCE_S, relayed
    assert [client.identity() for client in clients] == before
