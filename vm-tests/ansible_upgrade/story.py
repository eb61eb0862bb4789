"""An upgrade, releases that are broken, and the way back, while two nodes talk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driver import releases
from driver.ansible import Controller
from driver.face import Machine, Machines
from driver.releases import Release
from driver.tailnet import Server

SITE = json.loads((Path(__file__).parent / "site.json").read_text())
OLDER = releases.current()
NEWER = Release(f"{OLDER.version}+story.1")
BROKEN = Release(f"{OLDER.version}+story.2", releases.crash)
MOVED = Release(f"{OLDER.version}+story.3", releases.move_schema_and_crash)
STATE = "/var/lib/headwater"


def story(machines: Machines) -> None:
    """Install, upgrade, survive two broken releases, go back by hand."""
    controller = Controller(machines)
    machine = machines["server"]
    hosts: dict[str, list[Machine]] = {"headwater": [machine]}

    def wanted(release: Release) -> dict[str, Any]:
        folder = str(release.folder())
        return {"headwater_release_dir": folder, "headwater_settings": SITE}

    def runs(release: Release) -> None:
        assert f"headwater {release.version}\n" == machine.succeed("headwater version")
        machine.succeed("headwater health")

    machine.wait_for_unit("multi-user.target")
    with machines.subtest("a first release, two nodes on it, one connection between them"):
        controller.play("site", hosts, **wanted(OLDER))
        server = Server(machine)
        server.ready()
        left, right = server.join(machines["laptop"], machines["desktop"])
        left.sees(right.name)
        left.reaches(right)
        left.stream_start("all along", right)
        identities = [each.identity() for each in (left, right)]

    with machines.subtest("an upgrade: the new release runs, the nodes come back by themselves"):
        controller.play("upgrade", hosts, **wanted(NEWER))
        runs(NEWER)
        server.online(left, right)
        left.stream_moves("all along")

    with machines.subtest("a release that falls over: the host goes back by itself"):
        played = controller.play("upgrade", hosts, fails=True, **wanted(BROKEN))
        assert "did not become healthy; the host is back as it was" in played.text
        assert "this release is broken, as the story wants it" in played.text
        runs(NEWER)
        server.online(left, right)
        left.stream_moves("all along")

    with machines.subtest("one that has changed the database by then: its copy is put back"):
        server.cli("users", "create", "before-the-upgrade")
        played = controller.play("upgrade", hosts, fails=True, **wanted(MOVED))
        assert "did not become healthy; the host is back as it was" in played.text
        runs(NEWER)
        assert "before-the-upgrade" in machine.succeed("headwater users list")
        # Nothing is thrown away: the database as the broken release left it lies beside.
        machine.succeed(f"ls {STATE}/headwater.db.set-aside-*")
        server.online(left, right)
        left.stream_moves("all along")

    with machines.subtest("the next run with the good release finds nothing to do"):
        assert controller.play("site", hosts, **wanted(NEWER)).changed == 0

    with machines.subtest("the controller is cut off in the middle: the host ends it alone"):
        switched = f"readlink /opt/headwater/current | grep -F {BROKEN.version}"
        controller.cut_off("upgrade", hosts, switched, **wanted(BROKEN))
        machine.wait_until_fails(switched, timeout=60)
        machine.wait_until_succeeds("headwater health", timeout=60)
        runs(NEWER)
        server.online(left, right)
        left.stream_moves("all along")

    with machines.subtest("back to the release before, by hand, and forth again"):
        played = controller.play("rollback", hosts)
        assert f"{OLDER.version} runs." in played.text
        runs(OLDER)
        controller.play("rollback", hosts, headwater_rollback_version=NEWER.version)
        runs(NEWER)
        server.online(left, right)

    with machines.subtest("both nodes are who they were, and their connection lost nothing"):
        assert [each.identity() for each in (left, right)] == identities
        left.reaches(right)
        machines.say(f"the stream: {left.stream_stop('all along')}")

    with machines.subtest("only some releases are kept"):
        controller.play("site", hosts, **wanted(NEWER), headwater_keep_releases=2)
        kept = machine.succeed("ls /opt/headwater/releases").split()
        assert sorted(kept) == sorted([OLDER.version, NEWER.version]), kept
