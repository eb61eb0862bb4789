"""Databases for the tests: SQLite in a file, and a PostgreSQL server of our own where there is one."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest

from appliance.store.store import Database

POSTGRES_BINARIES = sorted(
    Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name)
)
START_S = 30

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Run a server on a Unix socket only; give the URL of a database without its name."""
    if not POSTGRES_BINARIES:
        pytest.skip("NO POSTGRESQL: the store is tested on SQLite only; apt-get install postgresql")
    binaries = POSTGRES_BINARIES[-1]
    home = Path(tempfile.mkdtemp(prefix="headwater-pg-"))
    # The server refuses to run as root.
    user = None if os.geteuid() else unprivileged()
    if user is not None:
        os.chown(home, user, -1)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [binaries / program, "-D", home / "data", *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=START_S,
            user=user,
            cwd=home,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        )

    try:
        run("initdb", "--no-sync", "-A", "trust", "-U", "headwater", "-E", "UTF8")
        settings = f"-c listen_addresses= -c fsync=off -k {home}"
        run("pg_ctl", "-w", "-l", f"{home}/log", "-o", settings, "start")
        try:
            yield f"postgresql://headwater@/{{}}?host={home}"
        finally:
            run("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home)


def unprivileged() -> int:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise LookupError("neither a user postgres nor nobody")


@pytest.fixture
def postgres_url(postgres: str) -> str:
    """Give the URL of an empty PostgreSQL database."""
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.format(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/headwater.db"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """Open and migrate an empty database."""
    database = Database.open(url, busy_timeout_s=0.05)
    await database.migrate()
    yield database
    await database.close()
