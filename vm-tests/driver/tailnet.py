"""A server in a machine, as a story's body speaks to it: keys, users, nodes, its authority.

Through the machine's shell only, so that it works under NixOS too. Not for installing it.
"""

from __future__ import annotations

import json
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from driver.client import CALL_S, Client, ClientError
from driver.face import Machine

UNIT = "headwater.service"
RELAY_UNIT = "headwater-relay.service"
CA_FILE = "/var/lib/headwater/tls/ca.pem"
USER = "alice"

REGION = 999
"""The relay region of a server that was told nothing else."""


class Server:
    """The control server of a story."""

    def __init__(self, machine: Machine, url: str = "") -> None:
        self.machine = machine
        self.url = url or f"https://{machine.name}"
        self.ca = ""

    def ready(self, *, authority: bool = True) -> None:
        """Wait until it serves; remember its authority, make a user."""
        self.machine.wait_for_unit(UNIT)
        self.machine.wait_until_succeeds("headwater health", timeout=CALL_S)
        if authority:
            self.ca = self.machine.succeed(f"cat {CA_FILE}")
        self.cli("users", "create", USER)

    def back(self) -> None:
        """Wait until it serves again."""
        self.machine.wait_until_succeeds("headwater health", timeout=CALL_S)

    def cli(self, *arguments: str) -> Any:
        """Run one command of the command line; give its JSON answer."""
        words = " ".join(shlex.quote(each) for each in arguments)
        printed = self.machine.succeed(f"headwater {words} -o json --compat 0.30")
        return json.loads(printed) if printed.strip() else None

    def auth_key(self, *flags: str) -> str:
        """Make a pre-auth key."""
        made = self.cli("preauthkeys", "create", "-u", USER, *(flags or ("--reusable",)))
        return str(made["key"])

    def join(
        self, *machines: Machine, key: str = "", name: str = "", **arguments: Any
    ) -> list[Client]:
        """Start a stock client in each machine, by the machine's name, and let all join at once."""
        key = key or self.auth_key()

        def come(machine: Machine) -> Client:
            client = Client(machine, name)
            client.start(self.ca)
            client.join(self.url, key, **arguments)
            return client

        with ThreadPoolExecutor(len(machines)) as pool:
            return list(pool.map(come, machines))

    def online(self, *clients: Client, timeout_s: int = CALL_S) -> None:
        """Wait until the server says of each node that it is connected."""
        names = {client.name for client in clients}
        ends = time.monotonic() + timeout_s
        while True:
            rows = self.cli("nodes", "list")
            if names <= {row["givenName"] for row in rows if row["online"]}:
                return
            if time.monotonic() > ends:
                raise ClientError(f"not all of {names} came back in {timeout_s} s: {rows}")
            time.sleep(0.2)
