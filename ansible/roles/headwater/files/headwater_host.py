"""What is done to a host: a generation made to run, taken back, gone back to.

Beside ``headwater-release``, which is its command line, in /opt/headwater. Not for looking
(``headwater_live``) nor for judging (``headwater_health``). Needs only the system's own Python.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import headwater_database as database
from headwater_firewall import Guard
from headwater_health import Health
from headwater_live import UNITS, Live, changes, homes, kernel_settings, obstacles, surroundings
from headwater_state import (
    SECRET_MODE,
    Deployed,
    Difference,
    Given,
    Manifest,
    Outcome,
    Refused,
    ask,
    link,
    write,
)
from headwater_store import Store, digest_of
from headwater_system import System

BASE = Path("/opt/headwater")
STOP_ATTEMPTS = 5


class Host:
    """This host's releases and the service that runs one of them."""

    def __init__(
        self,
        base: Path = BASE,
        *,
        manager: System | None = None,
        root: Path = Path("/"),
        owner: tuple[int, int] = (0, 0),
        timeout_s: float = 60.0,
        settle_s: float = 3.0,
        prove_s: float = 0.0,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base, self.root = base, root
        self.manager = manager or System()
        self.live = Live(self.manager, root, owner)
        self.store = Store(base / "secrets")
        self.guard = Guard(base, root, self.manager.run)
        self.health = Health(self.manager, base, root, timeout_s, settle_s, pause)
        self.prove_s = prove_s
        self.clock = clock
        self.actions: list[str] = []
        self.unproved = False

    # ── what is there ────────────────────────────────────────────────────────────────────────

    @property
    def current(self) -> str:
        """The release that the link names; empty before the first."""
        found = self.base / "current"
        return found.readlink().name if found.is_symlink() else ""

    @property
    def releases(self) -> list[str]:
        """Every installed release, the newest installation last."""
        found = (self.base / "releases").glob("*/installed")
        return [path.parent.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]

    def read(self, name: str) -> Deployed | None:
        """Return a kept generation, if there is one."""
        path = self.base / name
        return Deployed.parse(path.read_text()) if path.exists() else None

    def at(self, name: str) -> Path:
        """Return the place of an absolute path."""
        return self.live.at(name)

    def look(self) -> dict[str, Any]:
        """Return what a deploy has to know beforehand: who listens here, how we came in."""
        good = self.read("good.json")
        return surroundings(self.manager, good.manifest.ways_in if good else [])

    # ── what can be done ─────────────────────────────────────────────────────────────────────

    def plan(self, version: str, given: Given) -> Outcome:
        """Say what ``apply`` would change, and what would stop it. Changes nothing."""
        good = self.read("good.json")
        wanted = self._wanted(version, given, good)
        stops = obstacles(wanted, good, self.live)
        if stops:
            raise Refused("; ".join(stops))
        found = self._differences(good, wanted)
        shown = [each.shown() for each in found]
        return Outcome("planned" if found else "unchanged", version, diff=shown)

    def apply(self, version: str, given: Given) -> Outcome:
        """Make a release and what is given the ones that run, or take them back."""
        self._require(version)
        good, began, limit_s = self.read("good.json"), self.clock(), self.prove_s
        wanted = replace(self._wanted(version, given, good), since=began)
        stops = obstacles(wanted, good, self.live) or self._wrong_table(wanted)
        if stops:
            raise Refused("; ".join(stops))
        found = self._differences(good, wanted)
        if not found:
            return Outcome("unchanged", version, pending=self.guard.is_armed)
        # A firewall that nobody has proved yet is nothing to go back to.
        self.unproved = self.guard.is_armed
        self._keep_secrets(given, wanted)
        before = good
        if before is None:
            # What an earlier attempt left half-done is not how the host was.
            broke_off = self.read("before.json") if self.read("trying.json") else None
            before = broke_off or self._origin(wanted)
            write(self.base / "before.json", before.dump(), 0o600)
        write(self.base / "trying.json", wanted.dump(), 0o600)
        reason = self._make_run(good, wanted, found)
        if reason:
            journal = self.health.journal(wanted, began)
            outcome = self._take_back(wanted, before, began, reason, journal)
            if self.unproved and good is not None:
                self.guard.arm(limit_s, limit_s, "")
        else:
            self._remember(good, wanted)
            outcome = Outcome("applied", version, self.actions)
        outcome.diff = [each.shown() for each in found]
        outcome.pending = self.guard.is_armed
        return outcome

    def confirm(self) -> Outcome:
        """Keep the firewall: whoever asks has come in through it."""
        if not self.guard.is_armed:
            raise Refused(
                "no firewall waits for its proof here; it was taken back, or proved before"
            )
        came = self.manager.way_in()
        if came is not None and came[1] == self.guard.client:
            raise Refused("this connection was there before the firewall, so it proves nothing")
        self.guard.disarm()
        return Outcome("confirmed", self.current)

    def undo(self, reason: str) -> Outcome:
        """Take the last ``apply`` back: what it looked like from outside was not well after all."""
        good, before = self.read("good.json"), self.read("before.json")
        trying = self.read("trying.json")  # of a deploy that broke off half-way
        bad, target = (trying, good or before) if trying else (good, before)
        if bad is None or target is None:
            raise Refused("nothing ran before: there is nothing to go back to")
        if target.version:
            self._require(target.version)
        journal = self.health.journal(bad, bad.since)
        outcome = self._take_back(bad, target, bad.since, reason, journal)
        if outcome.result == "rolled-back":
            (self.base / "before.json").unlink(missing_ok=True)
        return outcome

    def rollback(self, version: str, *, restore_database: bool) -> Outcome:
        """Go back to an earlier release, with the files that went with it.

        Secrets stay as they are now where they have the same name: a certificate of those days has
        run out since.
        """
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
        digests = {name: good.digests.get(name, kept) for name, kept in earlier.digests.items()}
        earlier = replace(earlier, digests=digests)
        # Refuse before anything is touched.
        self._database_copy(earlier, 0.0 if restore_database else None)
        began = self.clock()
        outcome = self._go_to(good, earlier, 0.0 if restore_database else None)
        if outcome.result == "applied":
            self._remember(good, earlier)
            outcome.pending = self.guard.is_armed
            return outcome
        journal = self.health.journal(earlier, began)
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

    # ── what is wanted, and what was there ───────────────────────────────────────────────────

    def _require(self, version: str) -> None:
        if version not in self.releases:
            known = ", ".join(self.releases) or "none"
            raise Refused(f"release {version} is not installed here; installed: {known}")

    def _wanted(self, version: str, given: Given, good: Deployed | None) -> Deployed:
        digests = {}
        for name in given.manifest.watched:
            text = given.secrets.get(name)
            found = self.live.digest(name) if text is None else digest_of(text.encode())
            kept = good.digests.get(name, "") if good else ""
            if found or self.store.has(kept):
                digests[name] = found or kept
        wanted = Deployed(
            version, given.manifest, dict(given.files), digests, links=dict(given.links)
        )
        if good is None:
            return wanted
        # What the kernel made of them is known only of texts that were loaded before.
        same = {
            name for name in wanted.contents if wanted.contents[name] == good.contents.get(name)
        }
        table = (
            good.table if all(name in same for name in wanted.contents if _is_table(name)) else ""
        )
        unsettable = good.unsettable if kernel_settings(good) == kernel_settings(wanted) else []
        return replace(wanted, table=table, unsettable=unsettable)

    def _differences(self, old: Deployed | None, new: Deployed) -> list[Difference]:
        """Return all that is to be done: the host as it is, and what a broken deploy left half-done."""
        found = self.live.differences(new)
        named = {each.name for each in found}
        found += [Difference("file", name) for name in sorted(changes(old, new) - named)]
        if self.current != new.version:
            found.append(Difference("release", "release", f"{self.current}\n", f"{new.version}\n"))
        if old is not None:
            gone = [unit for unit in old.manifest.units if unit not in new.manifest.units]
            found += [Difference("stale", unit, "there\n", "") for unit in gone]
        return found

    def _wrong_table(self, wanted: Deployed) -> list[str]:
        """Let nft check the table before anything is touched."""
        for name, (_, text) in wanted.contents.items():
            if _is_table(name) and wanted.manifest.firewall:
                trial = self.base / ".firewall.nft"
                write(trial, text, 0o600)
                wrong = self.manager.check_table(trial)
                trial.unlink()
                if wrong:
                    return [f"nft refuses {name}: {wrong}"]
        return []

    def _origin(self, wanted: Deployed) -> Deployed:
        """Return the generation before the first: what is there already, of what is to be there."""
        files = {
            name: (self.at(name).stat().st_mode & 0o7777, self.live.read(name)[1])
            for name in wanted.contents
            if self.at(name).is_file() and not self.at(name).is_symlink()
        }
        links = {
            name: str(self.at(name).readlink())
            for name in {*wanted.links, *wanted.contents}
            if self.at(name).is_symlink()
        }
        enabled = {
            unit
            for unit in wanted.manifest.units
            if self.manager.show(unit).get("UnitFileState") == "enabled"
        }
        user = wanted.manifest.user
        manifest = Manifest(
            files=sorted(files),
            sockets=[unit for unit in wanted.manifest.sockets if unit in enabled],
            services=[unit for unit in wanted.manifest.services if unit in enabled],
            user=user if user and self.manager.account(user) else "",
        )
        kernel = {key: self.manager.kernel(key) for key in kernel_settings(wanted)}
        known = {key: value for key, value in kernel.items() if value is not None}
        present = {name: self.live.digest(name) for name in wanted.digests}
        digests = {name: digest for name, digest in present.items() if digest}
        return Deployed("", manifest, files, digests, links=links, kernel=known)

    # ── secrets ──────────────────────────────────────────────────────────────────────────────

    def _keep_secrets(self, given: Given, wanted: Deployed) -> None:
        """Keep what is on the host now, and what is wanted, so that either can be put there."""
        for name in wanted.digests:
            text = given.secrets.get(name)
            if text is not None:
                self.store.keep(text.encode())
        for name in {*wanted.digests, *given.manifest.watched}:
            if self.live.digest(name):
                self.store.keep(self.at(name).read_bytes())

    def _forget_secrets(self) -> None:
        """Remove every kept secret that no kept generation names."""
        kept = [self.base / name for name in ("good.json", "before.json", "trying.json")]
        kept += (self.base / "releases").glob("*/deployed.json")
        needed: set[str] = set()
        for path in kept:
            if path.exists():
                needed |= set(Deployed.parse(path.read_text()).digests.values())
        self.store.forget_all_but(needed)

    # ── the steps ────────────────────────────────────────────────────────────────────────────

    def _make_run(self, old: Deployed | None, new: Deployed, found: Sequence[Difference]) -> str:
        """Make a generation the one that runs; return why it is not well, or nothing."""
        try:
            self._activate(old, new, found)
        except (OSError, Refused) as error:
            return _words(error)
        return self.health.wait(new)

    def _activate(
        self,
        old: Deployed | None,
        new: Deployed,
        found: Sequence[Difference],
        *,
        force: bool = False,
    ) -> None:
        changed = {each.name for each in found if each.kind in ("file", "link", "secret")}
        kinds = {each.kind for each in found}
        self._remove_stale(old, new)
        wrong = self._write(changed, new)
        if wrong is not None and not force:
            raise wrong
        self._point_to(new.version)
        self._settle(changed, kinds, new)
        self._load_firewall(changed, found, new)
        services = new.manifest.services
        if force or self._must_restart(old, new, found):
            self._restart(changed, found, new.manifest)
        elif new.manifest.config in changed:
            # Settings that need more than a reload change the units too: their digest is in them.
            self._act(f"reload {' '.join(services)}", lambda: self.manager.run("reload", *services))

    def _write(self, changed: set[str], new: Deployed) -> Exception | None:
        """Put what changed in its place, as much of it as can be; return the first fault."""
        faults: list[Exception] = []
        for name in sorted(changed):
            try:
                self._put(name, new)
            except (OSError, Refused) as error:
                faults.append(error)
        return faults[0] if faults else None

    def _put(self, name: str, new: Deployed) -> None:
        path = self.at(name)
        if name in new.contents:
            mode, text = new.contents[name]
            write(path, text, mode)
        elif name in new.links:
            link(path, new.links[name])
        elif name in new.digests:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write(path, self.store.read(new.digests[name], name), SECRET_MODE)
        else:
            path.unlink(missing_ok=True)
            self.actions.append(f"remove {name}")

    def _settle(self, changed: set[str], kinds: set[str], new: Deployed) -> None:
        """Let the system take over what the files say of it."""
        folders = {str(Path(path).parent) for path in changed}
        manifest = new.manifest
        if "/etc/sysusers.d" in folders or "account" in kinds:
            self._act("accounts", lambda: self.manager.make_accounts(manifest.user))
        if "/etc/tmpfiles.d" in folders or "folder" in kinds:
            self._act("folders", lambda: ask(["systemd-tmpfiles", "--create"]))
        if "/etc/sysctl.d" in folders or "kernel" in kinds:
            settings = kernel_settings(new)
            self._act("kernel settings", lambda: self.manager.set_kernel(settings))
        are_units = any(path.startswith(UNITS) for path in changed)
        if are_units:
            self._act("daemon-reload", lambda: self.manager.run("daemon-reload"))
        if manifest.units and ("enabled" in kinds or are_units):
            self._act("enable", lambda: self.manager.run("enable", *manifest.units))

    def _load_firewall(self, changed: set[str], found: Sequence[Difference], new: Deployed) -> None:
        unit = new.manifest.firewall
        down = any(each.kind == "active" and each.name == unit for each in found)
        stale = down or any(each.kind == "table" for each in found)
        if not unit or not (stale or any(_is_firewall(path, unit) for path in changed)):
            return
        if self.prove_s:
            came = self.manager.way_in()
            # All of it must be over before the timer is: waiting, and going back.
            limit_s = 2 * (self.health.timeout_s + self.health.settle_s) + self.prove_s
            self._guard(limit_s, came[1] if came else "")
        self._act(f"load {unit}", lambda: self.manager.run("reload-or-restart", unit))

    def _guard(self, seconds: float, client: str) -> None:
        self.guard.arm(seconds, self.prove_s, client)

    def _must_restart(
        self, old: Deployed | None, new: Deployed, found: Sequence[Difference]
    ) -> bool:
        if (
            old is None
            or old.version != new.version
            or old.manifest.sockets != new.manifest.sockets
        ):
            return True
        ours = {*new.manifest.services, *new.manifest.sockets}
        return any(
            each.kind in ("secret", "account", "state", "release")
            or (each.kind == "active" and each.name in ours)
            or (each.name.removeprefix(UNITS) in ours)
            or each.name in new.digests
            for each in found
        )

    def _restart(self, changed: set[str], found: Sequence[Difference], manifest: Manifest) -> None:
        services, sockets = manifest.services, manifest.sockets
        if not services:
            return
        down = {each.name for each in found if each.kind == "active"}
        if (
            any(path.endswith(".socket") for path in changed)
            or down & set(sockets)
            or any(each.kind == "account" for each in found)
        ):
            # A socket cannot change while its service holds it; starting the service starts it.
            self._act("stop sockets", lambda: self._stop([*sockets, *services]))
        self.manager.run("reset-failed", *sockets, *services)
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
            # A unit that failed is remembered by systemd even when its file is gone.
            self.manager.run("reset-failed", *units)
        if old.manifest.firewall and not new.manifest.firewall:
            self.manager.drop_table()

    def _point_to(self, version: str) -> None:
        if self.current == version:
            return
        if version:
            link(self.base / "current", f"releases/{version}")
        else:
            (self.base / "current").unlink()
        self.actions.append(f"switch to {version or 'no release'}")

    def _act(self, name: str, action: Callable[[], object]) -> None:
        self.actions.append(name)
        action()

    # ── the memory ───────────────────────────────────────────────────────────────────────────

    def _remember(self, before: Deployed | None, now: Deployed) -> None:
        previous = "" if before is None else before.previous
        if before is not None and before.version != now.version:
            previous = before.version
            write(self.base / f"releases/{before.version}/deployed.json", before.dump(), 0o600)
        kept = self.read("before.json")
        if before is not None and not (self.unproved and kept is not None):
            write(self.base / "before.json", before.dump(), 0o600)
        kernel = kernel_settings(now)
        state = replace(
            now,
            previous=previous,
            since=self.clock(),
            table=self.manager.table() if now.manifest.firewall else "",
            unsettable=sorted(
                k for k, v in kernel.items() if self.manager.kernel(k) not in (None, v)
            ),
        )
        write(self.base / "good.json", state.dump(), 0o600)
        self._publish(state)
        if self.guard.is_armed:
            self._guard(self.prove_s, self.guard.client)

    def _publish(self, state: Deployed) -> None:
        """Say what is deployed, for uninstalling and for people; and forget what is over."""
        text = json.dumps(asdict(state.manifest), indent=1, sort_keys=True) + "\n"
        write(self.base / "deployed.json", text, 0o644)
        (self.base / "trying.json").unlink(missing_ok=True)
        self._forget_secrets()

    # ── the way back ─────────────────────────────────────────────────────────────────────────

    def _take_back(
        self, bad: Deployed, good: Deployed, began: float, reason: str, journal: list[str]
    ) -> Outcome:
        self.actions.append(f"not well: {reason}")
        self.prove_s = 0.0  # whoever came in did so through the firewall that comes back
        back = self._go_to(bad, good, began)
        self.guard.disarm()
        where = f"at {good.version}" if good.version else "where nothing was"
        if back.result != "applied":
            reason = f"{reason}; then, back {where}: {back.reason}"
            return Outcome("failed", good.version, self.actions, reason, journal)
        outcome = Outcome("rolled-back", good.version, self.actions, reason, journal)
        if good.version:
            write(self.base / "good.json", good.dump(), 0o600)
            self._publish(good)
        else:
            outcome.left = self._left(bad, good)
            for name in ("good", "before", "trying", "deployed"):
                (self.base / f"{name}.json").unlink(missing_ok=True)
            self._forget_secrets()
        return outcome

    def _go_to(self, old: Deployed, new: Deployed, copy_since: float | None) -> Outcome:
        """Put a generation back, all of it, and prove that it is there."""
        reason = ""
        try:
            self._restore_database(new, copy_since)
        except Refused as refusal:
            reason = str(refusal)
        try:
            self._activate(old, new, self._differences(old, new), force=bool(new.version))
            self.manager.set_kernel(new.kernel)
        except (OSError, Refused) as error:
            reason = reason or _words(error)
        if new.version:
            reason = reason or self.health.wait(new)
        wrong = [each.name for each in self.live.differences(new) if _is_proof(each, new)]
        if wrong and not reason:
            reason = f"not as it was: {', '.join(wrong)}"
        return Outcome("failed" if reason else "applied", new.version, self.actions, reason)

    def _left(self, bad: Deployed, origin: Deployed) -> list[str]:
        """Say what of a first deploy stays; take the account away if nothing is its own."""
        there = [home for home in homes(bad) if self.at(home).exists()]
        left = [f"{home} (keys and database that the server has made)" for home in there]
        user = bad.manifest.user
        if user and not origin.manifest.user:
            if there:
                left.append(f"the user {user}, who owns it")
            else:
                self._act(f"remove user {user}", lambda: ask(["userdel", user]))
        return [*left, f"{self.base} (the release)", "packages that the run has installed"]

    def _restore_database(self, state: Deployed, copy_since: float | None) -> None:
        """Put the copy from before a migration back, if this release cannot read the database."""
        copy = self._database_copy(state, copy_since) if state.version else None
        if copy is None:
            return
        self._stop([*state.manifest.sockets, *state.manifest.services])
        aside = database.put_back(copy, self.clock())
        self.actions.append(f"restore {copy.name}; the newer database is {aside}")

    def _database_copy(self, state: Deployed, since: float | None) -> Path | None:
        release = self.base / "releases" / state.version
        found = database.place(release, self.at(state.manifest.config), self.root)
        return database.fitting_copy(release, found, since) if found else None


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename2 or error.filename}: {error.strerror}"
    return str(error)


def _is_proof(difference: Difference, state: Deployed) -> bool:
    """Return whether a difference shows that a state is not back."""
    if not state.version:
        return difference.kind in ("file", "link", "secret")
    return difference.kind != "table" or bool(state.table)


def _is_table(path: str) -> bool:
    return path.endswith(".nft")


def _is_firewall(path: str, unit: str) -> bool:
    return _is_table(path) or path.endswith(f"/{unit}")
