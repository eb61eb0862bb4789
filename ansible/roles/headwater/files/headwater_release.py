#!/usr/bin/python3 -B
"""Change what runs on this host as one step that succeeds or is taken back.

``apply VERSION`` makes the files that a deploy has written, and a release under
/opt/headwater/releases, the ones that run: it restarts or reloads what they concern and waits until
the service is well. If it does not become well, files, release and, where the schema moved, the
database are put back. All of that happens here, so it also ends well when whoever deploys is cut off.

What ran well last is kept in good.json, so a deploy that broke off half-way is noticed by the next.
Needs only the system's own Python, because a broken release must not break the way back. Not for
writing units or settings: the release's own renderer makes them.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headwater_state import (
    REFUSED,
    Deployed,
    Manifest,
    Outcome,
    Refused,
    Systemd,
    ask,
    oldest_reader,
    write,
)

BASE = Path("/opt/headwater")
MAIN_SERVICE = "headwater.service"
POLL_S = 0.25
MAX_STARTS = 3
"""A service that was started so often and is not up will not become well by waiting."""
STOP_ATTEMPTS = 5
QUESTION_TIMEOUT_S = 10
"""No question to a release takes longer on a host that is well."""

SCHEMA_CODE = "from appliance.store import schema; print(schema.SCHEMA_VERSION)"


class Host:
    """This host's releases and the service that runs one of them."""

    def __init__(
        self,
        base: Path = BASE,
        *,
        manager: Systemd | None = None,
        root: Path = Path("/"),
        timeout_s: float = 60.0,
        settle_s: float = 3.0,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base, self.root = base, root
        self.manager = manager or Systemd()
        self.timeout_s, self.settle_s = timeout_s, settle_s
        self.clock, self.pause = clock, pause
        self.actions: list[str] = []

    # ── what is there ────────────────────────────────────────────────────────────────────────

    @property
    def current(self) -> str:
        """The release that the link names; empty before the first."""
        link = self.base / "current"
        return link.readlink().name if link.is_symlink() else ""

    @property
    def releases(self) -> list[str]:
        """Every installed release, the newest installation last."""
        found = (self.base / "releases").glob("*/installed")
        return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]

    def read(self, name: str) -> Deployed | None:
        """Give a kept state, if there is one."""
        path = self.base / name
        return Deployed.parse(path.read_text()) if path.exists() else None

    def found(self, version: str) -> Deployed:
        """Give the state that the files on disk would make with a release."""
        place = self.base / "deployed.json"
        if not place.exists():
            raise Refused(f"{place} is missing: deploy with the playbook first")
        manifest = Manifest(**json.loads(place.read_text()))
        contents = {}
        for name in manifest.files:
            path = self.at(name)
            if not path.is_file():
                raise Refused(f"{name} is missing, though deployed.json names it: deploy again")
            contents[name] = (path.stat().st_mode & 0o7777, path.read_text())
        digests = {
            name: hashlib.sha256(self.at(name).read_bytes()).hexdigest()
            for name in manifest.watched
            if self.at(name).is_file()
        }
        return Deployed(version, manifest, contents, digests)

    def at(self, name: str) -> Path:
        """Give the place of an absolute path (below another root in tests)."""
        return self.root / name.lstrip("/")

    # ── what can be done ─────────────────────────────────────────────────────────────────────

    def apply(self, version: str) -> Outcome:
        """Make the files on disk and a release the ones that run, or take them back."""
        self._require(version)
        wanted, good, began = self.found(version), self.read("good.json"), self.clock()
        if not self._activate(good, wanted):
            return Outcome("unchanged", version)
        reason = self._wait_until_well(wanted)
        if not reason:
            self._remember(good, wanted)
            return Outcome("applied", version, self.actions)
        journal = self.manager.journal(wanted.manifest.services, began)
        if good is None:
            return Outcome("failed", version, self.actions, reason, journal)
        return self._take_back(wanted, good, began, reason, journal)

    def undo(self, reason: str) -> Outcome:
        """Take the last ``apply`` back: what it looked like from outside was not well after all."""
        good, before = self.read("good.json"), self.read("before.json")
        if good is None or before is None:
            raise Refused("nothing ran before: there is nothing to go back to")
        self._require(before.version)
        journal = self.manager.journal(good.manifest.services, good.since)
        outcome = self._take_back(good, before, good.since, reason, journal)
        if outcome.result == "rolled-back":
            (self.base / "before.json").unlink()
        return outcome

    def rollback(self, version: str, *, restore_database: bool) -> Outcome:
        """Go back to an earlier release, with the files that went with it."""
        good = self.read("good.json")
        if good is None:
            raise Refused("nothing was deployed here yet")
        version = version or good.previous
        if not version:
            raise Refused("no earlier release is known here; name one of: headwater-release list")
        if version == good.version:
            return Outcome("unchanged", version)
        self._require(version)
        earlier = self.read(f"releases/{version}/deployed.json")
        if earlier is None:
            raise Refused(f"release {version} never ran well here, so its files are not known")
        # Refuse before anything is touched.
        self._database_copy(earlier, 0.0 if restore_database else None)
        began = self.clock()
        outcome = self._go_to(good, earlier, 0.0 if restore_database else None)
        if outcome.result == "applied":
            self._remember(good, earlier)
            return outcome
        journal = self.manager.journal(earlier.manifest.services, began)
        return self._take_back(earlier, good, began, outcome.reason, journal)

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest releases; the one that runs and the one before always stay."""
        good = self.read("good.json")
        needed = {self.current, good.version if good else "", good.previous if good else ""}
        spare = [version for version in self.releases if version not in needed]
        room = max(0, keep - len(needed - {""}))
        gone = spare[: max(0, len(spare) - room)]
        for version in gone:
            shutil.rmtree(self.base / "releases" / version)
        return gone

    # ── the steps ────────────────────────────────────────────────────────────────────────────

    def _require(self, version: str) -> None:
        if version not in self.releases:
            known = ", ".join(self.releases) or "none"
            raise Refused(f"release {version} is not installed here; installed: {known}")

    def _activate(self, old: Deployed | None, new: Deployed, *, force: bool = False) -> bool:
        """Make a state the one that runs; tell whether there was anything to do."""
        changed = _differences(old, new)
        services = new.manifest.services
        must_restart = force or old is None or old.version != new.version
        must_restart |= any(_is_unit(path) or path in new.digests for path in changed)
        must_restart |= any(
            self.manager.show(each).get("ActiveState") != "active" for each in services
        )
        if not changed and not must_restart and self.current == new.version:
            return False
        self._remove_stale(old, new)
        self._point_to(new.version)
        self._activate_files(changed, new.manifest)
        if must_restart:
            self._restart(changed, new.manifest)
        elif new.manifest.config in changed:
            # Settings that need more than a reload change the units too: their digest is in them.
            self._act(f"reload {' '.join(services)}", lambda: self.manager.run("reload", *services))
        return True

    def _activate_files(self, changed: set[str], manifest: Manifest) -> None:
        folders = {str(Path(path).parent) for path in changed}
        if "/etc/sysusers.d" in folders:
            self._act("accounts", lambda: ask(["systemd-sysusers"]))
        if "/etc/tmpfiles.d" in folders:
            self._act("directories", lambda: ask(["systemd-tmpfiles", "--create"]))
        if "/etc/sysctl.d" in folders:
            self._act("sysctl", lambda: self.manager.run("restart", "systemd-sysctl.service"))
        if any(_is_unit(path) for path in changed):
            self._act("daemon-reload", lambda: self.manager.run("daemon-reload"))
            self._act("enable", lambda: self.manager.run("enable", *manifest.units))
        firewall = manifest.firewall
        if firewall and any(_is_firewall(path, firewall) for path in changed):
            self._act(f"load {firewall}", lambda: self.manager.run("reload-or-restart", firewall))

    def _restart(self, changed: set[str], manifest: Manifest) -> None:
        services = manifest.services
        if any(path.endswith(".socket") for path in changed):
            # A socket cannot change while its service holds it; starting the service starts it.
            self._act("stop sockets", lambda: self._stop([*manifest.sockets, *services]))
        self.manager.run("reset-failed", *services)
        self._act(
            f"restart {' '.join(services)}",
            lambda: self.manager.run("restart", "--no-block", *services),
        )

    def _stop(self, units: Sequence[str]) -> None:
        """Stop sockets and services in one step, again if a connection came in between."""
        for _ in range(STOP_ATTEMPTS):
            self.manager.run("stop", *units)
            states = {self.manager.show(unit).get("ActiveState") for unit in units}
            if states <= {"inactive", "failed"}:
                return

    def _remove_stale(self, old: Deployed | None, new: Deployed) -> None:
        if old is None:
            return
        units = [unit for unit in old.manifest.units if unit not in new.manifest.units]
        if units:
            # A service that runs needs its sockets: both go in one step, and it is started again.
            holders = new.manifest.services if any(u.endswith(".socket") for u in units) else []
            self.manager.run("disable", *units)
            self._act(f"stop {' '.join(units)}", lambda: self._stop([*units, *holders]))
        for name in set(old.contents) - set(new.contents):
            self.at(name).unlink(missing_ok=True)
            self.actions.append(f"remove {name}")

    def _point_to(self, version: str) -> None:
        if self.current == version:
            return
        trial = self.base / ".current"
        trial.unlink(missing_ok=True)
        trial.symlink_to(Path("releases") / version)
        trial.replace(self.base / "current")
        self.actions.append(f"switch to {version}")

    def _wait_until_well(self, state: Deployed) -> str:
        """Wait until all services are up, answer, and stay so; give the reason if they do not."""
        deadline = time.monotonic() + self.timeout_s
        well_since: float | None = None
        pids: dict[str, str] = {}
        starts: dict[str, set[str]] = {}
        reason = "it was not asked"
        while time.monotonic() < deadline:
            reason, now = self._look(state, starts)
            if reason.startswith("!"):
                return reason[1:]
            if reason or now != pids:
                well_since, pids = None, now
            if not reason:
                well_since = time.monotonic() if well_since is None else well_since
                if time.monotonic() - well_since >= self.settle_s:
                    return ""
            self.pause(POLL_S)
        return f"not well after {self.timeout_s:.0f} s: {reason or 'it does not stay up'}"

    def _look(self, state: Deployed, starts: dict[str, set[str]]) -> tuple[str, dict[str, str]]:
        """Give why it is not well (a leading ! means that waiting is no use), and the processes."""
        pids = {}
        for unit in state.manifest.services:
            properties = self.manager.show(unit)
            active = properties.get("ActiveState", "unknown")
            # The manager's own counter of restarts begins anew with every start by a socket.
            seen = starts.setdefault(unit, set())
            seen.add(properties.get("ExecMainPID", ""))
            if active == "failed" or (active != "active" and len(seen) > MAX_STARTS):
                return f"!{unit} does not stay up ({active})", {}
            if active != "active":
                return f"{unit} is {active}", {}
            pids[unit] = properties.get("MainPID", "")
        if MAIN_SERVICE in pids and not self._answers(state):
            return "it does not answer 'headwater health'", pids
        return "", pids

    def _answers(self, state: Deployed) -> bool:
        command = str(self.base / "releases" / state.version / "bin/headwater")
        return (
            ask([command, "health", "-c", str(self.at(state.manifest.config))], QUESTION_TIMEOUT_S)
            is not None
        )

    def _remember(self, before: Deployed | None, now: Deployed) -> None:
        previous = "" if before is None else before.previous
        if before is not None and before.version != now.version:
            previous = before.version
            write(self.base / f"releases/{before.version}/deployed.json", before.dump(), 0o600)
        if before is not None:
            write(self.base / "before.json", before.dump(), 0o600)
        state = Deployed(
            now.version, now.manifest, now.contents, now.digests, previous, self.clock()
        )
        write(self.base / "good.json", state.dump(), 0o600)

    # ── the way back ─────────────────────────────────────────────────────────────────────────

    def _take_back(
        self, bad: Deployed, good: Deployed, began: float, reason: str, journal: list[str]
    ) -> Outcome:
        self.actions.append(f"not well: {reason}")
        back = self._go_to(bad, good, began)
        if back.result == "applied":
            write(self.base / "good.json", good.dump(), 0o600)
            return Outcome("rolled-back", good.version, self.actions, reason, journal)
        reason = f"{reason}; then, back at {good.version}: {back.reason}"
        return Outcome("failed", good.version, self.actions, reason, journal)

    def _go_to(self, old: Deployed, new: Deployed, copy_since: float | None) -> Outcome:
        for name, (mode, text) in new.contents.items():
            write(self.at(name), text, mode)
        # As the playbook writes it, which would see a change otherwise.
        manifest = json.dumps(asdict(new.manifest), indent=1, sort_keys=True) + "\n"
        write(self.base / "deployed.json", manifest, 0o644)
        try:
            self._restore_database(new, copy_since)
        except Refused as refusal:
            self._activate(old, new, force=True)
            return Outcome("failed", new.version, self.actions, str(refusal))
        self._activate(old, new, force=True)
        reason = self._wait_until_well(new)
        return Outcome("failed" if reason else "applied", new.version, self.actions, reason)

    def _restore_database(self, state: Deployed, copy_since: float | None) -> None:
        """Put the copy from before a migration back, if this release cannot read the database."""
        copy = self._database_copy(state, copy_since)
        if copy is None:
            return
        database = copy.with_name(copy.name.partition(".before-upgrade-")[0])
        self._stop([*state.manifest.sockets, *state.manifest.services])
        owner = database.stat()
        aside = (
            f"{database.name}.set-aside-{datetime.fromtimestamp(self.clock(), UTC):%Y%m%dT%H%M%SZ}"
        )
        for suffix in ("", "-wal", "-shm"):
            path = database.with_name(database.name + suffix)
            if path.exists():
                path.rename(database.with_name(aside + suffix))
        trial = database.with_name(f".{database.name}.restored")
        shutil.copyfile(copy, trial)
        os.chown(trial, owner.st_uid, owner.st_gid)
        trial.chmod(owner.st_mode & 0o7777)
        trial.rename(database)
        self.actions.append(f"restore {copy.name}; the newer database is {aside}")

    def _database_copy(self, state: Deployed, since: float | None) -> Path | None:
        """Give the copy that must be restored for a release; None if it reads the database as it is.

        ``since``: only a copy made after this moment; None: refuse instead.
        """
        database = self._database(state)
        if database is None or not database.exists():
            return None
        oldest = oldest_reader(database)
        said = ask([str(self._python(state.version)), "-c", SCHEMA_CODE])
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
            raise Refused(f"release {state.version} cannot read the database, and no copy fits it")
        if since is None:
            raise Refused(
                f"release {state.version} cannot read the database. {newest.name} can be put back;"
                " everything since then is then lost: say --restore-database if that is meant"
            )
        if newest.stat().st_mtime < since - 1:
            raise Refused(
                f"release {state.version} cannot read the database, and its copy is older"
            )
        return newest

    def _database(self, state: Deployed) -> Path | None:
        command = str(self.base / "releases" / state.version / "bin/headwater")
        config = state.manifest.config
        said = ask([command, "config", "show", "-o", "json", str(self.at(config))])
        if said is None:
            return None
        settings: dict[str, Any] = json.loads(said)
        url = settings.get("database_url") or f"sqlite:///{settings['state_dir']}/headwater.db"
        scheme, _, path = url.partition(":///")
        return self.at(path) if scheme == "sqlite" else None

    def _python(self, version: str) -> Path:
        return self.base / "releases" / version / "bin/python"

    def _act(self, name: str, action: Callable[[], object]) -> None:
        self.actions.append(name)
        action()


def _differences(old: Deployed | None, new: Deployed) -> set[str]:
    """Name every file that is not as it was, also those that are gone."""
    if old is None:
        return set(new.contents) | set(new.digests)
    names = set(old.contents) | set(new.contents)
    changed = {name for name in names if old.contents.get(name) != new.contents.get(name)}
    names = set(old.digests) | set(new.digests)
    return changed | {name for name in names if old.digests.get(name) != new.digests.get(name)}


def _is_unit(path: str) -> bool:
    return path.startswith("/etc/systemd/system/")


def _is_firewall(path: str, unit: str) -> bool:
    return path.endswith((".nft", f"/{unit}"))


@contextmanager
def alone(base: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Let only one at a time change this host; wait for another one to end. Raises Refused."""
    deadline = time.monotonic() + patience_s
    with (base / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Refused("another deploy is under way on this host") from None
            time.sleep(POLL_S)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code."""
    options = _parse(arguments)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # whoever deploys may be cut off
    host = Host(options.base, timeout_s=options.timeout, settle_s=options.settle)
    try:
        # A deploy that was cut off ends by itself, within about this time.
        with alone(host.base, options.timeout):
            answer = _run(host, options)
    except Refused as refusal:
        answer = Outcome("refused", host.current, reason=str(refusal))
        print(json.dumps(asdict(answer)))
        return REFUSED
    print(json.dumps(asdict(answer) if isinstance(answer, Outcome) else answer))
    return answer.exit_code if isinstance(answer, Outcome) else 0


def _run(host: Host, options: argparse.Namespace) -> Outcome | dict[str, Any]:
    match options.command:
        case "apply":
            return host.apply(options.version)
        case "undo":
            return host.undo(options.reason)
        case "rollback":
            return host.rollback(options.version, restore_database=options.restore_database)
        case "prune":
            return {"removed": host.prune(options.keep)}
    good = host.read("good.json")
    previous = good.previous if good else ""
    return {"current": host.current, "previous": previous, "releases": host.releases}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="headwater-release", description=__doc__)
    parser.add_argument("--base", type=Path, default=BASE, help=argparse.SUPPRESS)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to become well")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds to stay well")
    commands = parser.add_subparsers(dest="command", required=True)
    apply = commands.add_parser("apply", help="make files and release the ones that run")
    apply.add_argument("version")
    undo = commands.add_parser("undo", help="take the last apply back")
    undo.add_argument("--reason", default="asked for")
    rollback = commands.add_parser("rollback", help="go back to an earlier release")
    rollback.add_argument("version", nargs="?", default="")
    rollback.add_argument("--restore-database", action="store_true")
    prune = commands.add_parser("prune", help="remove old releases")
    prune.add_argument("keep", type=int)
    commands.add_parser("list", help="name the releases")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
