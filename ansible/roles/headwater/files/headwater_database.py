"""The database on the way back: whether a release can read it, and which copy fits if not.

Beside ``headwater-release`` in /opt/headwater. Not for copying before an upgrade: the server does
that. Needs only the system's own Python.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headwater_state import Refused, ask

SCHEMA_CODE = "from appliance.store import schema; print(schema.SCHEMA_VERSION)"


def place(release: Path, config: Path, root: Path = Path("/")) -> Path | None:
    """Return the path of a site's database, as it stands in the settings; None if it has none."""
    said = ask([str(release / "bin/headwater"), "config", "show", "-o", "json", str(config)])
    if said is None:
        return None
    settings: dict[str, Any] = json.loads(said)
    url = settings.get("database_url") or f"sqlite:///{settings['state_dir']}/headwater.db"
    scheme, _, path = url.partition(":///")
    return root / path.lstrip("/") if scheme == "sqlite" else None


def fitting_copy(release: Path, database: Path, since: float | None) -> Path | None:
    """Return the copy that must be restored for a release; None if it reads the database as it is.

    ``since``: only a copy made after this moment; None: refuse instead. Raises Refused.
    """
    if not database.exists():
        return None
    version = release.name
    oldest = oldest_reader(database)
    said = ask([str(release / "bin/python"), "-c", SCHEMA_CODE])
    if oldest is None or said is None or oldest <= int(said):
        return None
    copies = [
        path
        for path in database.parent.glob(f"{database.name}.before-upgrade-*-schema*")
        if path.name.rpartition("schema")[2].isdigit()
        and int(path.name.rpartition("schema")[2]) <= int(said)
    ]
    newest = max(copies, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise Refused(f"release {version} cannot read the database, and no copy fits it")
    if since is None:
        raise Refused(
            f"release {version} cannot read the database. {newest.name} can be put back;"
            " everything since then is then lost: say --restore-database if that is meant"
        )
    if newest.stat().st_mtime < since - 1:
        raise Refused(f"release {version} cannot read the database, and its copy is older")
    return newest


def put_back(copy: Path, now: float) -> str:
    """Put a copy in the database's place; return the name under which the newer one lies beside."""
    database = copy.with_name(copy.name.partition(".before-upgrade-")[0])
    owner = database.stat()
    aside = f"{database.name}.set-aside-{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}"
    for suffix in ("", "-wal", "-shm"):
        path = database.with_name(database.name + suffix)
        if path.exists():
            path.rename(database.with_name(aside + suffix))
    trial = database.with_name(f".{database.name}.restored")
    shutil.copyfile(copy, trial)
    os.chown(trial, owner.st_uid, owner.st_gid)
    trial.chmod(owner.st_mode & 0o7777)
    trial.rename(database)
    return aside


def oldest_reader(database: Path) -> int | None:
    """Return the oldest schema whose programs can work with a database; None if it does not say."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT oldest_reader FROM schema_state").fetchone()
    except sqlite3.Error:
        return None
    return int(row[0]) if row else None
