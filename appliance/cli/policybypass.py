"""A tailnet's policy read and set in the database itself, while no server runs.

For the day on which a server cannot start, and for scripts that were written for Headscale. The same
gate judges the text as on a running server. Not a way around it: the database is open for one
process at a time, and the verbs are those of the server.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from appliance.cli.client import CommandFailed, Plain
from appliance.cli.policydesk import engine_refusals, plain
from appliance.cli.policyfile import PolicyFile
from appliance.cli.root import Invocation
from appliance.cli.serve import NO_FILE_ADVICE, load_settings
from appliance.config import Settings, Tailnet, resolved
from appliance.live.policy import PolicySource, restore
from appliance.policy.answers.admission import Admitted, admit
from appliance.policy.answers.commands import check_written, checked
from appliance.records import PolicyText
from appliance.serve.server import database_url
from appliance.store.errors import StoreError
from appliance.store.store import Database
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot

T = TypeVar("T")

BY = "local:database"
"""Who set a policy in this way, for whoever asks later."""
_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Direct:
    """One tailnet in an open database."""

    database: Database
    ids: Sequences
    snapshot: Snapshot
    source: PolicySource

    async def get(self) -> PolicyText | None:
        """Give the stored text."""
        return self.snapshot.policy_text

    async def check(self, file: PolicyFile) -> Plain:
        """Judge a text, and say what in it is worth a look. Raises PolicyRefused."""
        return plain(checked(self._admit(file), self.snapshot.users))

    async def put(self, file: PolicyFile) -> PolicyText:
        """Judge and store a text. Raises PolicyRefused, CommandFailed."""
        if self.source.mode != "database":
            raise CommandFailed(
                f"the policy of this tailnet comes from {self.source}",
                "change it there, or set tailnet.policy.mode to 'database'",
            )
        edit = Edit(self.snapshot, self.ids)
        record = policies.replace_policy(
            edit, self._admit(file), datetime.now(UTC), source="database", by=BY
        )
        _, rows = edit.finish()
        await self.database.write(self.snapshot.tailnet.id, [rows])
        return record

    def _admit(self, file: PolicyFile) -> Admitted:
        now = self.snapshot
        with engine_refusals():
            check_written(file.text)
            return admit(file.text, now.users, now.nodes, policies.background(now))


def directly(invocation: Invocation, work: Callable[[Direct], Coroutine[None, None, T]]) -> T:
    """Open the database that the site file names, do the work, close it. Raises CommandFailed."""
    path = invocation.config_path
    if path is None:
        raise CommandFailed("no site file says where the database is", NO_FILE_ADVICE)
    settings = load_settings(path)

    async def main() -> T:
        async with _opened(settings, invocation.tailnet) as direct:
            return await work(direct)

    try:
        return asyncio.run(main())
    except StoreError as error:
        advice = "a running server has it open: leave the flag out, or stop the server"
        raise CommandFailed(str(error), advice) from error
    except OSError as error:
        raise CommandFailed(f"{error.filename or path}: {error.strerror}") from error


@asynccontextmanager
async def _opened(settings: Settings, name: str) -> AsyncIterator[Direct]:
    wanted = _wanted(settings, name)
    _check_file(settings)
    database = Database.open(database_url(settings))
    try:
        await database.migrate()
        snapshots, ids = await database.load()
        found = next((each for each in snapshots if each.tailnet.name == wanted.name), None)
        if found is None:
            raise CommandFailed(
                f"the database has no tailnet named {wanted.name!r}", "start the server once"
            )
        source = resolved.policy_source(wanted)
        providers = resolved.provider_names(settings, wanted)
        restored, _ = restore(found, source, wanted.email_domains, providers)
        yield Direct(database, ids, restored, source)
    finally:
        await database.close()


def _wanted(settings: Settings, name: str) -> Tailnet:
    for each in settings.all_tailnets:
        if not name or each.name == name:
            return each
    raise CommandFailed(f"the site file has no tailnet named {name!r}")


def _check_file(settings: Settings) -> None:
    """Make sure that opening makes no file, and leaves none that the server cannot open."""
    if not settings.database.startswith(_SQLITE):
        return
    path = Path(settings.database.removeprefix(_SQLITE))
    if not path.exists():
        raise CommandFailed(f"there is no database at {path}", "start the server once")
    owner = path.stat().st_uid
    if os.geteuid() != owner:
        import pwd

        try:
            name = pwd.getpwuid(owner).pw_name
        except KeyError:
            name = f"#{owner}"
        raise CommandFailed(
            f"{path} belongs to {name}: files made by somebody else would lock the server out",
            f"run it as that user: sudo -u {name} headwater policy …",
        )
