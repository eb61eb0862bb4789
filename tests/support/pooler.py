"""PgBouncer before a PostgreSQL server, in one of its modes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

BINARY = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
START_S = 10.0


class Pooler:
    """A process of PgBouncer's; ``url`` is that of the database through it."""

    def __init__(
        self, mode: str, socket_directory: str, database: str, *, size: int, user: int | None
    ) -> None:
        assert BINARY is not None
        self._home = Path(tempfile.mkdtemp(prefix="headwater-pgbouncer-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        (self._home / "users").write_text('"headwater" ""\n')
        (self._home / "ini").write_text(
            f"""
[databases]
{database} = host={socket_directory} port=5432 dbname={database} user=headwater
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {self._home}/users
pool_mode = {mode}
default_pool_size = {size}
logfile = {self._home}/log
"""
        )
        if user is not None:
            for path in (self._home, *self._home.iterdir()):
                os.chown(path, user, -1)
        self._process = subprocess.Popen(
            [BINARY, self._home / "ini"], stderr=subprocess.DEVNULL, user=user
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        self.url = f"postgresql://headwater@127.0.0.1:{port}/{database}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self._home)
