"""A small internet in network namespaces: a switch, hosts on it, and hosts behind NATs.

For: real direct, relayed, NATed and UDP-less paths between stock clients. Not for: what runs on the
hosts (`node.py`, `server.py`). Everything is named `hw-<pid>-...`, so that what a killed run left
behind is found by its dead pid and removed by the next run; besides, a small watcher process cleans
up as soon as the tests are gone, however they ended.

Addresses are from the documentation ranges, so nothing here can be mistaken for a real network:
192.0.2.0/24 and 2001:db8:1::/64 are the "internet", 198.51.100.0/24 is cut up behind NATs.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

WORLD_V4 = "192.0.2.0/24"
WORLD_V6 = "2001:db8:1::/64"
SERVER_V4 = "192.0.2.1"
SERVER_V6 = "2001:db8:1::1"
SERVER_NAME = "headwater.test"

_OURS = re.compile(r"^hw-(\d+)-\S+$")
_ETC = Path("/etc/netns")
_SWITCH_MAC = "02:00:00:00:00:01"
_FIRST_HOST = 10
_NAT_SLICE = 16  # addresses behind one NAT: a /28


class Missing(Exception):
    """Network namespaces cannot be had here; the text says why."""


@functools.cache
def require() -> None:
    """Raise Missing unless this process may make network namespaces; tries it once."""
    if sys.platform != "linux":
        raise Missing("network namespaces need Linux")
    if os.geteuid() != 0:
        raise Missing("network namespaces need root")
    for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(tool) is None:
            raise Missing(f"no `{tool}` (Debian package {package})")
    trial = f"hw-{os.getpid()}-0-trial"
    made = subprocess.run(
        ["ip", "netns", "add", trial], capture_output=True, text=True, timeout=30, check=False
    )
    remove(trial)
    if made.returncode:
        raise Missing(f"network namespaces are not allowed here: {made.stderr.strip()}")


def _ip(where: str, *lines: str) -> None:
    """Run `ip` commands inside one namespace, in one process; the first mistake ends them."""
    done = subprocess.run(
        ["ip", "-netns", where, "-batch", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise Missing(f"ip in {where}: {done.stderr.strip()}")


def _inside(name: str, *command: str, text: str | None = None) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", name, *command],
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    if done.returncode:
        raise Missing(f"{' '.join(command)} in {name}: {done.stderr.strip()}")


def _make_router(name: str) -> None:
    """Let a namespace forward what is not for itself."""
    _inside(name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")


def _listed() -> list[str]:
    done = subprocess.run(
        ["ip", "netns", "list"], capture_output=True, text=True, timeout=30, check=True
    )
    return [line.split()[0] for line in done.stdout.splitlines() if line.strip()]


def remove(name: str) -> None:
    """End every process in one of our namespaces, by pid, and remove it."""
    done = subprocess.run(
        ["ip", "netns", "pids", name], capture_output=True, text=True, timeout=30, check=False
    )
    for pid in done.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=30, check=False)
    shutil.rmtree(_ETC / name, ignore_errors=True)


def sweep(owner: int | None = None) -> None:
    """Remove the namespaces of one owner, or those of all owners that are dead."""
    for name in _listed():
        match = _OURS.match(name)
        if match is None:
            continue
        pid = int(match[1])
        if pid == owner or (owner is None and not Path(f"/proc/{pid}").exists()):
            remove(name)


class Host:
    """One machine: a namespace with an uplink."""

    def __init__(self, net: Net, name: str, v4: str, v6: str | None, uplink: str) -> None:
        self.net = net
        self.name = name
        self.v4 = v4
        self.v6 = v6
        self._uplink = uplink

    @property
    def prefix(self) -> list[str]:
        """The command prefix that runs a program on this host."""
        return ["ip", "netns", "exec", self.name]

    def knows(self, name: str, address: str) -> None:
        """Let this host find a name, besides the server's."""
        with (_ETC / self.name / "hosts").open("a") as hosts:
            hosts.write(f"{address} {name}\n")

    def block_udp(self, allowed: Sequence[str]) -> None:
        """Drop all UDP that leaves this host, except to these addresses."""
        accepts = [f"{'ip6' if ':' in to else 'ip'} daddr {to} accept" for to in allowed]
        self._filter("udp", [*accepts, 'oifname "lo" accept', "meta l4proto udp drop"])

    def unblock_udp(self) -> None:
        """Undo `block_udp`."""
        self._filter("udp", [])

    def block_tcp(self, port: int, to: str = "") -> None:
        """Refuse connections from this host to one TCP port, everywhere or at one IPv4 address."""
        where = f"ip daddr {to} " if to else ""
        self._filter("tcp", [f"{where}tcp dport {port} reject with tcp reset"])

    def _filter(self, what: str, rules: Sequence[str]) -> None:
        """Replace one set of rules for what leaves this host."""
        table = f"inet headwater_{what}"
        lines = [f"add table {table}", f"delete table {table}"]
        if rules:
            chain = ["type filter hook output priority 0;", *rules]
            lines += [f"table {table} {{", "chain out {", *chain, "}", "}"]
        _inside(self.name, "nft", "-f", "-", text="\n".join(lines) + "\n")

    def link(self, *, up: bool) -> None:
        """Pull the host's cable, or plug it in again."""
        _ip(self.name, f"link set {self._uplink} {'up' if up else 'down'}")
        if up:
            # A downed link forgets its routes, and its IPv6 addresses.
            self.net.readdress(self)


class Net:
    """The switch with the server's address on it, and the hosts around."""

    def __init__(self) -> None:
        require()
        sweep()
        self._owner = os.getpid()
        self._count = itertools.count(_FIRST_HOST)
        self._serial = next(_serials)
        self._made: list[str] = []
        self.switch = self._new("switch")
        self._watcher = subprocess.Popen(
            [sys.executable, "-m", "tests.interop.netns", str(self._owner)],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd=Path(__file__).resolve().parent.parent.parent,
        )
        _ip(
            self.switch,
            # A bridge without an address of its own takes the lowest one among its ports: with each
            # host that came the server's could change, and those who knew the old one did not reach
            # it for many seconds.
            f"link add br0 address {_SWITCH_MAC} type bridge",
            f"addr add {SERVER_V4}/24 dev br0",
            f"addr add {SERVER_V6}/64 dev br0 nodad",
            "link set br0 up",
            "route add default dev br0",
        )
        # The world beyond is refused at once: clients look for public relays and resolvers, and
        # should not wait for them here. (The kernel's own "unreachable" is rationed.)
        refuse = f"""
            table inet headwater_world {{
              chain forward {{
                type filter hook forward priority 0;
                ip daddr {WORLD_V4} accept
                ip6 daddr {WORLD_V6} accept
                meta l4proto tcp reject with tcp reset
                reject
              }}
            }}
        """
        _inside(self.switch, "nft", "-f", "-", text=refuse)
        _make_router(self.switch)

    @property
    def server_prefix(self) -> list[str]:
        """The command prefix that runs a program where the server lives."""
        return ["ip", "netns", "exec", self.switch]

    def _new(self, label: str) -> str:
        name = f"hw-{self._owner}-{self._serial}-{label}"
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
        self._made.append(name)
        _ip(name, "link set lo up")
        # Every host knows the server by name and has no resolver to wait for.
        etc = _ETC / name
        etc.mkdir(parents=True, exist_ok=True)
        hosts = ["127.0.0.1 localhost", f"{SERVER_V4} {SERVER_NAME}", f"{SERVER_V6} {SERVER_NAME}"]
        (etc / "hosts").write_text("\n".join(hosts) + "\n")
        (etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        return name

    def _plug(self, name: str, number: int) -> str:
        """Connect a namespace to the switch; return its interface."""
        uplink = "wan"
        port = f"p{number}"
        _ip(
            self.switch,
            f"link add {port} type veth peer name {uplink} netns {name}",
            f"link set {port} master br0 up",
        )
        _ip(name, *self._addressing(uplink, number))
        return uplink

    @staticmethod
    def _addressing(uplink: str, number: int) -> list[str]:
        # No default route for IPv6: a host then knows at once that a public relay is not there,
        # where an answer from the switch is only believed after a second.
        return [
            f"addr replace 192.0.2.{number}/24 dev {uplink}",
            f"addr replace 2001:db8:1::{number}/64 dev {uplink} nodad",
            f"link set {uplink} up",
            f"route replace default via {SERVER_V4} dev {uplink}",
        ]

    def readdress(self, host: Host) -> None:
        """Give a host on the switch its addresses and routes again."""
        if host.v6 is not None:
            _ip(host.name, *self._addressing("wan", int(host.v4.rsplit(".", 1)[1])))
        else:
            _ip(host.name, f"route replace default via {_nat_gateway(host.v4)} dev lan")

    def host(self, label: str) -> Host:
        """Add a host with public addresses of both families."""
        number = next(self._count)
        name = self._new(label)
        uplink = self._plug(name, number)
        return Host(self, name, f"192.0.2.{number}", f"2001:db8:1::{number}", uplink)

    def natted(self, label: str, *, hard: bool = False) -> Host:
        """Add a host behind a router of its own, with IPv4 only.

        An easy NAT keeps one public port for all destinations; a hard one takes a random port for
        each, so that what STUN saw is of no use to a peer.
        """
        number = next(self._count)
        router = self._new(f"{label}-router")
        self._plug(router, number)
        name = self._new(label)
        base = (number - _FIRST_HOST) * _NAT_SLICE % 256
        gateway, inner = f"198.51.100.{base + 1}", f"198.51.100.{base + 2}"
        _ip(
            router,
            f"link add lan type veth peer name lan netns {name}",
            f"addr add {gateway}/28 dev lan",
            "link set lan up",
        )
        _ip(
            name,
            f"addr add {inner}/28 dev lan",
            "link set lan up",
            f"route add default via {gateway} dev lan",
        )
        rules = f"""
            table ip headwater_nat {{
              chain post {{
                type nat hook postrouting priority 100;
                oifname "wan" masquerade {"fully-random" if hard else ""}
              }}
              # What comes unasked is dropped before conntrack remembers it: a remembered stray
              # would take the very port that the host behind needs for punching its hole.
              chain input {{
                type filter hook input priority 0;
                iifname "wan" ct state new drop
              }}
              chain forward {{
                type filter hook forward priority 0;
                iifname "wan" ct state new drop
              }}
            }}
        """
        _inside(router, "nft", "-f", "-", text=rules)
        _make_router(router)
        return Host(self, name, inner, None, "lan")

    def close(self) -> None:
        """Remove every namespace; safe to call twice."""
        for name in self._made:
            remove(name)
        self._made.clear()
        if self._watcher.stdin is not None and not self._watcher.stdin.closed:
            self._watcher.stdin.write(b"done\n")
            self._watcher.stdin.close()
        self._watcher.wait(timeout=30)


_serials = itertools.count(1)


def _nat_gateway(inner: str) -> str:
    head, last = inner.rsplit(".", 1)
    return f"{head}.{int(last) - 1}"


def _watch(owner: int) -> None:
    """Wait until the owner closes our input; clean up after it unless it did so itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.stdin.readline().strip() != "done":
        sweep(owner)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
