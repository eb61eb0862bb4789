"""A stock client in a machine, as a story's body speaks to it.

For: starting our client program (a tsnet node, `tests/interop/node/`) as a unit in a machine, and
asking it things, with nothing but the machine's shell, so that it works under NixOS too. Not for
the program itself, nor for putting it into the machine.
"""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import dataclass
from typing import Any

from driver.face import Machine

PROGRAM = "headwater-test-node"
"""The client program's name on a machine's PATH."""

HTTP_PORT = 80
ECHO_PORT = 7

# A client on a busy machine; what takes longer than this hangs.
CALL_S = 60

# One packet that comes back at all comes back within this.
ONE_PING_S = 2.0

# Records of a stream that are no accident.
STREAM_PROGRESS = 10


class ClientError(Exception):
    """The client answered with an error, or did not do what was waited for."""


@dataclass(frozen=True, slots=True)
class Ping:
    """What a ping said about the path."""

    endpoint: str
    region: int
    seconds: float

    @property
    def direct(self) -> bool:
        """Whether the packet went straight to the peer."""
        return bool(self.endpoint)


class Client:
    """One stock client; several may live in one machine."""

    def __init__(self, machine: Machine, name: str = "") -> None:
        self.machine = machine
        self.name = name or machine.name
        self._socket = f"/run/{PROGRAM}/{self.name}.sock"

    # Coming and going

    def start(self, ca: str = "") -> None:
        """Start the program as a unit of its own, with an authority (PEM) that it trusts."""
        folder = f"/var/lib/{PROGRAM}/{self.name}"
        environment = "--setenv=TS_NO_LOGS_NO_SUPPORT=true"
        self.machine.succeed(f"mkdir -p {folder} /run/{PROGRAM}")
        if ca:
            self.machine.succeed(f"printf %s {shlex.quote(ca)} > {folder}/ca.pem")
            environment += f" --setenv=SSL_CERT_FILE={folder}/ca.pem"
        self.machine.succeed(
            f"systemd-run --quiet --collect --unit=node-{self.name} --setenv=HOME={folder}"
            f" {environment} $(command -v {PROGRAM}) serve {self._socket}"
        )
        self.machine.wait_until_succeeds(f"test -S {self._socket}", timeout=CALL_S)

    def join(self, url: str, auth_key: str, **arguments: Any) -> dict[str, Any]:
        """Join the tailnet, wait until the client runs, answer HTTP on port 80, echo on port 7."""
        folder = f"/var/lib/{PROGRAM}/{self.name}"
        arguments = {"hostname": self.name, "dir": folder, **arguments}
        status: dict[str, Any] = self.call("up", control_url=url, auth_key=auth_key, **arguments)
        self.call("listen", port=HTTP_PORT, kind="http")
        self.call("listen", port=ECHO_PORT, kind="echo")
        return status

    def stop(self) -> None:
        """End the program."""
        self.machine.succeed(f"systemctl stop node-{self.name}")

    def call(self, command: str, *, timeout_s: float = CALL_S, **arguments: Any) -> Any:
        """Send one command and give its answer. Raises ClientError."""
        request = json.dumps({"id": 1, "cmd": command, "timeout_s": timeout_s, **arguments})
        code, printed = self.machine.execute(
            f"{PROGRAM} call {self._socket} {shlex.quote(request)}", timeout=int(timeout_s) + 10
        )
        try:
            answer = json.loads(printed)
        except ValueError:
            raise ClientError(f"{self.name}: {command}: {code}: {printed}") from None
        if "error" in answer:
            raise ClientError(f"{self.name}: {command}: {answer['error']}")
        return answer.get("result")

    # What it knows

    def status(self) -> dict[str, Any]:
        """The client's whole status, as `tailscale status --json` prints it."""
        status: dict[str, Any] = self.call("status")
        return status

    def addresses(self) -> tuple[str, str]:
        """The node's own tailnet addresses, IPv4 and IPv6."""
        v4, v6 = sorted(self.status()["TailscaleIPs"], key=lambda ip: ":" in ip)
        return v4, v6

    def identity(self) -> tuple[str, tuple[str, ...]]:
        """What must be the same after whatever happens to the server: key and addresses."""
        own = self.status()["Self"]
        return own["PublicKey"], tuple(own["TailscaleIPs"])

    def peers(self) -> dict[str, bool]:
        """The peers by name, and whether they are online."""
        peers = (self.status().get("Peer") or {}).values()
        return {peer["DNSName"].split(".")[0]: peer["Online"] for peer in peers}

    def sees(self, name: str, *, online: bool = True, timeout_s: float = CALL_S) -> None:
        """Wait until there is a peer of that name in that condition."""
        self._until(lambda: self.peers().get(name) is online, f"sees {name}", timeout_s)

    def loses(self, name: str, *, timeout_s: float = CALL_S) -> None:
        """Wait until there is no peer of that name."""
        self._until(lambda: name not in self.peers(), f"loses {name}", timeout_s)

    def _until(self, holds: Any, what: str, timeout_s: float) -> None:
        ends = time.monotonic() + timeout_s
        while not holds():
            if time.monotonic() > ends:
                raise ClientError(f"{self.name}: {what}: not in {timeout_s:g} s; {self.peers()}")
            time.sleep(0.1)

    def resolve(self, name: str, kind: str = "A") -> list[str]:
        """Ask the client's MagicDNS resolver."""
        return list(self.call("resolve", name=name, type=kind)["answers"])

    # Traffic

    def get(self, url: str, *, timeout_s: float = CALL_S) -> dict[str, Any]:
        """Fetch a page of another node's port 80: who that node thinks that we are."""
        answer = self.call("http_get", url=url, timeout_s=timeout_s)
        if answer["status"] != 200:
            raise ClientError(f"{self.name}: {url}: {answer}")
        body: dict[str, Any] = json.loads(answer["body"])
        return body

    def reaches(self, other: Client) -> None:
        """Fetch the other's page over both families, and see that it knows us."""
        v4, v6 = other.addresses()
        for host in (v4, f"[{v6}]"):
            page = self.get(f"http://{host}/hello")
            if page.get("node", "").split(".")[0] != self.name:
                raise ClientError(f"{other.name} takes {self.name} for another: {page}")

    def ping(self, ip: str, kind: str = "disco", *, timeout_s: float = 20.0) -> Ping:
        """Ping a peer until one packet comes back, and say which way it took."""
        ends = time.monotonic() + timeout_s
        while True:
            try:
                answer = self.call("ping", ip=ip, type=kind, timeout_s=ONE_PING_S)
                if not answer["Err"]:
                    region = answer["DERPRegionID"]
                    return Ping(answer["Endpoint"], region, answer["LatencySeconds"])
                last = answer["Err"]
            except ClientError as error:
                last = str(error)
            if time.monotonic() >= ends:
                raise ClientError(f"{self.name}: ping {ip}: {last}")

    def ping_until_direct(self, ip: str, *, timeout_s: float = CALL_S) -> Ping:
        """Ping until the path is direct, as `tailscale ping` does."""
        ends = time.monotonic() + timeout_s
        while True:
            path = self.ping(ip)
            if path.direct:
                return path
            if time.monotonic() > ends:
                raise ClientError(f"{self.name}: no direct path to {ip}; last {path}")
            time.sleep(0.1)

    def stream_start(self, name: str, other: Client, **arguments: Any) -> None:
        """Open one connection to the other's echo port and send numbered records for ever."""
        v4, _ = other.addresses()
        self.call("stream_start", name=name, addr=f"{v4}:{ECHO_PORT}", **arguments)
        self.stream_moves(name)

    def stream_moves(self, name: str, *, timeout_s: float = CALL_S) -> None:
        """Wait until a stream has brought back something new, and is whole."""
        first = self.call("stream_stats", name=name)["received"]

        def moved() -> bool:
            now = self.call("stream_stats", name=name)
            if now["failure"]:
                raise ClientError(f"{self.name}: stream {name}: {now}")
            return bool(now["received"] > first + STREAM_PROGRESS)

        self._until(moved, f"stream {name} moves", timeout_s)

    def stream_stop(self, name: str) -> dict[str, Any]:
        """End a stream; give its figures. Raises ClientError if a record was lost."""
        stats: dict[str, Any] = self.call("stream_stop", name=name)
        if stats["failure"] or stats["sent"] != stats["received"] or not stats["sent"]:
            raise ClientError(f"{self.name}: stream {name} is not whole: {stats}")
        return stats
