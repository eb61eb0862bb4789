"""A two-node smoke test without namespaces: `python -m tests.interop.smoke`.

For: seeing in seconds whether stock clients join the server of this checkout and reach one another.
Starts `headwater dev` on loopback and two clients, exchanges HTTP both ways and over both families,
says what it saw and how long each step took. `--client 1.90` takes the older client; `--server CMD`
takes another program that prints the same first line.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
import sys
import tempfile
import time
from pathlib import Path

from tests.interop import build
from tests.interop import server as server_module
from tests.interop.node import Node, NodeError
from tests.interop.server import Server, ServerFailed

PORT = 80


class Steps:
    """Prints each step with the time since the last one."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        print(f"{now - self._last:7.2f} s  {text}", flush=True)
        self._last = now


async def exchange(step: Steps, left: Node, right: Node) -> None:
    """Let two running nodes find each other and fetch a page from each other."""
    await asyncio.gather(left.sees(right.name), right.sees(left.name))
    step("both see each other, online")
    for node in (left, right):
        await node.call("listen", port=PORT, kind="http")
    for near, far in ((left, right), (right, left)):
        v4, v6 = await far.addresses()
        dns_name = (await far.status())["Self"]["DNSName"]
        for host in (dns_name.rstrip("."), v4, f"[{v6}]"):
            page = await near.get(f"http://{host}:{PORT}/")
            step(f"{near.name} -> {host}: seen as {page.get('node')} of {page.get('login')}")
    path = await left.ping((await right.addresses())[0])
    step(f"path: {path.endpoint or f'DERP region {path.region}'}, {path.seconds * 1000:.1f} ms")


async def smoke(client: str, directory: Path, verbose: bool) -> int:
    """Run the whole thing; return the exit status."""
    step = Steps()
    binary = build.node_binary(client)
    step(f"client {client}: {binary.name}")
    arguments = ["dev", "--dir", str(directory / "server"), "--port", "0", "-o", "json"]
    server = Server(directory, arguments)
    nodes: list[Node] = []
    try:
        address = await server.start()
        step(f"server accepts clients at {address.url}")
        env = (
            {"SSL_CERT_FILE": address.ca_file}
            if address.ca_file
            else {"TS_DEBUG_USE_DERP_HTTP": "1"}
        )
        for name in ("smoke-one", "smoke-two"):
            node = await Node.start(binary, name, directory / name, env=env)
            nodes.append(node)
        step(f"two clients started: {nodes[0].events[0]['version']}")
        await asyncio.gather(*(node.up(address.url, address.auth_key) for node in nodes))
        step("both are running")
        await exchange(step, *nodes)
    except (NodeError, ServerFailed, TimeoutError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        for node in nodes:
            print(f"--- {node.name}\n{await node.log_tail()}", file=sys.stderr)
        print(f"--- server\n{server.log_tail()}", file=sys.stderr)
        return 1
    finally:
        await asyncio.gather(*(node.close() for node in nodes))
        await server.stop()
        if verbose:
            print(f"--- server\n{server.log_tail(400)}", file=sys.stderr)
    step("everything stopped")
    print("OK")
    return 0


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--client", choices=build.CLIENTS, default=build.NEWEST)
    parser.add_argument("--server", help="the program to start instead of this checkout's")
    parser.add_argument("--dir", type=Path, help="keep state and logs here")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the server's log at the end"
    )
    arguments = parser.parse_args()
    if arguments.server:
        words = shlex.split(arguments.server)
        server_module.command = lambda: words
    try:
        if arguments.dir:
            return asyncio.run(smoke(arguments.client, arguments.dir.resolve(), arguments.verbose))
        with tempfile.TemporaryDirectory(prefix="hw-smoke-") as scratch:
            return asyncio.run(smoke(arguments.client, Path(scratch), arguments.verbose))
    except build.Unavailable as reason:
        print(f"SKIPPED: stock clients cannot be built here: {reason}", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())
