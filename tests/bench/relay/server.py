"""Our relay as a process for the benchmark: plain and TLS listeners, nothing else.

Prints ``listening PLAINPORT TLSPORT`` once it accepts, and runs until stdin ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import ssl
import sys

from appliance.cli.serve import loop_factory
from appliance.wire.keys import PrivateKey
from tests.support.lonerelay import RelayListen, RelaySettings, RunningRelay, run


async def serve(pem: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    settings = RelaySettings(
        private_key=PrivateKey.generate(os.urandom),
        listen=(RelayListen("127.0.0.1", 0, tls=False), RelayListen("127.0.0.1", 0)),
    )

    def ready(running: RunningRelay) -> None:
        gc.collect()
        gc.freeze()
        print("listening", *(listener.port for listener in running.listeners), flush=True)

    task = asyncio.create_task(run(settings, tls=lambda: context, ready=ready))
    over = asyncio.Event()
    # No thread waits for the end: one more makes every allocation and file access dearer.
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    await over.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        runner.run(serve(sys.argv[1]))
