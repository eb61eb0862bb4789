"""The command ``python -m release``: build a release, tell or raise the version. Not for anything else."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from release import tree, version, wheel
from release.targets import MACHINES, PYTHONS, Target
from release.tree import ReleaseError

ROOT = Path(__file__).parent.parent
INSTALLER = ROOT / "deploy" / "install.sh"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code."""
    options = _parse(arguments)
    try:
        if options.command == "bump":
            _bump(options.version)
        elif options.command == "version":
            print(version.read(ROOT))
        else:
            _build(options)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="our wheel, an archive for each target, SHA256SUMS")
    build.add_argument("--out", type=Path, help="folder (default: dist/headwater-VERSION)")
    build.add_argument("--version", help="stamp this version instead of the tree's")
    build.add_argument("--source", type=Path, default=ROOT, help="another checkout")
    build.add_argument("--cache", type=Path, default=ROOT / ".cache" / "wheels")
    build.add_argument("--python", action="append", choices=PYTHONS, help="only for this Python")
    build.add_argument("--machine", action="append", choices=MACHINES, help="only for this one")
    commands.add_parser("version", help="the version of this tree")
    bump = commands.add_parser("bump", help="raise the version and join the changelog's fragments")
    bump.add_argument("version")
    return parser.parse_args(arguments)


def _build(options: argparse.Namespace) -> None:
    from release import collection, wheelhouse  # need what only the build's environment has

    number = options.version or version.read(options.source)
    out = options.out or ROOT / "dist" / f"headwater-{number}"
    moment = tree.moment(options.source)
    for old in out.glob("*") if out.exists() else ():
        if old.name in ("SHA256SUMS", INSTALLER.name) or old.name.startswith("headwater-"):
            old.unlink()
    ours = wheel.build(options.source, number, out, moment)
    for python in options.python or PYTHONS:
        for machine in options.machine or MACHINES:
            target = Target(python, machine)
            locked = ROOT / "requirements" / "run.txt"
            wheels = wheelhouse.collect(target, locked, options.cache)
            archive = wheelhouse.pack(target, number, [ours, *wheels], out, moment)
            print(f"{archive.name}: {len(wheels) + 1} wheels, {archive.stat().st_size >> 20} MB")
    made = collection.pack(options.source, number, out, moment)
    shutil.copyfile(INSTALLER, out / INSTALLER.name)
    print(f"{made.name}: the roles; {INSTALLER.name}: for whoever has no Ansible")
    wheelhouse.write_sums(out)
    print(f"the release is in {out}")


def _bump(number: str) -> None:
    from appliance.store import schema
    from appliance.wire.tailcfg import capver

    oldest = capver.OLDEST_SUPPORTED
    clients = f"clients from {capver.first_release(oldest)} (capability version {oldest})"
    facts = f"Database schema {schema.SCHEMA_VERSION}; {clients}."
    count = version.bump(ROOT, number, datetime.now(UTC).date(), facts)
    print(f"version {number}, {count} fragments joined into CHANGELOG.md")


if __name__ == "__main__":
    sys.exit(main())
