from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
from headwater_release import alone, main
from headwater_state import Refused

from tests.ansible.host import CONFIG, SECRET, SOCKET, TABLE, UNIT, Box, write_database


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    made.install("1.0.0")
    return made


@pytest.fixture
def running(box: Box) -> Box:
    """A host on which 1.0.0 runs well."""
    assert box.apply("1.0.0").result == "applied"
    box.manager.calls.clear()
    box.now += 1000
    return box


# ── apply ────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_apply_enables_and_starts(box: Box) -> None:
    outcome = box.apply("1.0.0")
    assert outcome.result == "applied"
    assert outcome.exit_code == 0
    assert box.host.current == "1.0.0"
    assert "enable headwater.socket headwater.service" in box.manager.calls
    assert "restart --no-block headwater.service" in box.manager.calls


def test_a_second_apply_does_nothing(running: Box) -> None:
    assert running.apply("1.0.0").result == "unchanged"
    assert running.manager.calls == []


def test_changed_settings_alone_are_reloaded(running: Box) -> None:
    running.want(config='{"log": {}}')
    assert running.apply("1.0.0").result == "applied"
    assert running.manager.calls == ["reload headwater.service"]


def test_a_changed_unit_restarts_and_leaves_the_sockets_open(running: Box) -> None:
    running.want(unit="[Service]\nNice=1\n")
    assert running.apply("1.0.0").result == "applied"
    assert "daemon-reload" in running.manager.calls
    assert "restart --no-block headwater.service" in running.manager.calls
    assert not any(call.startswith("stop") for call in running.manager.calls)


def test_a_changed_socket_is_made_anew(running: Box) -> None:
    running.want(socket="[Socket]\nListenStream=0.0.0.0:8443\n")
    running.apply("1.0.0")
    stop = running.manager.calls.index("stop headwater.socket headwater.service")
    assert stop < running.manager.calls.index("restart --no-block headwater.service")


def test_a_changed_secret_restarts(running: Box) -> None:
    running.secrets = {SECRET: "hush"}
    assert running.apply("1.0.0").result == "applied"
    assert "restart --no-block headwater.service" in running.manager.calls
    assert running.at(SECRET).read_text() == "hush"
    for kept in running.base.rglob("*.json"):
        assert "hush" not in kept.read_text()


def test_a_changed_table_is_loaded_without_touching_the_service(running: Box) -> None:
    running.want(table="table inet headwater {}\n")
    running.apply("1.0.0")
    running.manager.calls.clear()
    running.want(table="table inet headwater { }\n")
    assert running.apply("1.0.0").result == "applied"
    assert running.manager.calls == ["reload-or-restart headwater-firewall.service"]


def test_a_unit_that_is_no_longer_wanted_goes(running: Box) -> None:
    running.want(socket=None)
    assert running.apply("1.0.0").result == "applied"
    assert "disable headwater.socket" in running.manager.calls
    stop = running.manager.calls.index("stop headwater.socket headwater.service")
    assert stop < running.manager.calls.index("restart --no-block headwater.service")
    assert not running.at(SOCKET).exists()


def test_a_service_that_was_stopped_is_started(running: Box) -> None:
    running.manager.states["headwater.service"] = "inactive"
    assert running.apply("1.0.0").result == "applied"


def test_a_deploy_that_broke_off_is_finished_by_the_next(running: Box) -> None:
    running.at(UNIT).write_text("[Service]\nNice=1\n")  # and then the power was lost
    assert running.apply("1.0.0").result == "applied"
    assert running.at(UNIT).read_text() == "[Service]\n"
    assert "restart --no-block headwater.service" in running.manager.calls


def test_an_upgrade_switches_the_link_and_remembers_the_way_back(running: Box) -> None:
    running.install("1.1.0")
    outcome = running.apply("1.1.0")
    assert outcome.result == "applied"
    assert running.host.current == "1.1.0"
    good = running.host.read("good.json")
    assert good is not None
    assert good.previous == "1.0.0"


def test_a_release_that_is_not_there_is_refused(running: Box) -> None:
    with pytest.raises(Refused, match=r"release 9\.9\.9 is not installed here; installed: 1\.0\.0"):
        running.apply("9.9.9")
    assert running.host.current == "1.0.0"


# ── what does not become well ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mark", ["broken", "sick"])
def test_a_release_that_is_not_well_is_taken_back_with_its_files(running: Box, mark: str) -> None:
    running.install("1.1.0", mark)
    before, was = dict(running.files), running.look()
    running.want(config='{"new": 1}', unit="[Service]\nNice=1\n", table="table inet headwater {}\n")
    outcome = running.apply("1.1.0")
    assert outcome.result == "rolled-back"
    assert outcome.exit_code == 3
    assert outcome.version == "1.0.0"
    assert outcome.reason
    assert outcome.journal
    assert running.host.current == "1.0.0"
    assert running.at(CONFIG).read_text() == "{}"
    assert running.at(UNIT).read_text() == "[Service]\n"
    assert not running.at(TABLE).exists()
    assert running.manager.states["headwater.service"] == "active"
    assert running.look() == was
    running.files = before
    assert running.apply("1.0.0").result == "unchanged"


def test_a_release_that_falls_over_a_little_later_is_taken_back(running: Box) -> None:
    running.install("1.1.0")
    running.manager.falls_over_after["1.1.0"] = 2
    host = running.host
    host.health.timeout_s, host.health.settle_s = 5.0, 0.6
    host.health.pause = time.sleep
    assert host.apply("1.1.0", running.given).result == "rolled-back"
    assert running.host.current == "1.0.0"


def test_settings_that_make_it_unwell_are_taken_back(running: Box) -> None:
    running.want(config='{"bad": 1}')
    host = running.host
    host.health.timeout_s = 0.3
    outcome = host.apply("1.0.0", running.given)
    assert outcome.result == "rolled-back"
    assert running.at(CONFIG).read_text() == "{}"


def test_it_says_when_the_way_back_fails_too(running: Box) -> None:
    running.install("1.1.0", "broken")
    (running.base / "releases" / "1.0.0" / "broken").touch()
    outcome = running.apply("1.1.0")
    assert outcome.result == "failed"
    assert "back at 1.0.0" in outcome.reason


# ── the database ─────────────────────────────────────────────────────────────────────────────────


def migrate(box: Box, oldest_reader: int) -> Path:
    """Do what a newer release does: copy the database, then change it."""
    copy = box.database.with_name("headwater.db.before-upgrade-20261122T000000Z-schema1")
    copy.unlink(missing_ok=True)
    write_database(copy, 1, "old")
    os.utime(copy, (box.now + 1, box.now + 1))
    box.write_database(oldest_reader, "new")
    box.database.chmod(0o640)
    return copy


def test_a_database_that_moved_is_put_back_with_the_release(running: Box) -> None:
    running.install("2.0.0", "broken", schema=2)
    copy = migrate(running, oldest_reader=2)
    outcome = running.apply("2.0.0")
    assert outcome.result == "rolled-back"
    assert running.read_word() == "old"
    assert running.database.stat().st_mode & 0o777 == 0o640
    (aside,) = running.database.parent.glob("headwater.db.set-aside-*")
    assert aside.name in " ".join(outcome.actions)
    assert copy.exists()


def test_a_database_that_the_old_release_can_read_stays(running: Box) -> None:
    running.install("2.0.0", "broken", schema=2)
    migrate(running, oldest_reader=1)
    assert running.apply("2.0.0").result == "rolled-back"
    assert running.read_word() == "new"


def test_an_older_copy_is_not_put_back_by_itself(running: Box) -> None:
    running.install("2.0.0", "broken", schema=2)
    copy = migrate(running, oldest_reader=2)
    os.utime(copy, (running.now - 500, running.now - 500))
    outcome = running.apply("2.0.0")
    assert outcome.result == "failed"
    assert "its copy is older" in outcome.reason
    assert running.read_word() == "new"


# ── going back on demand ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def upgraded(running: Box) -> Box:
    """A host that was upgraded from 1.0.0 to 1.1.0, with other files."""
    running.install("1.1.0", schema=2)
    running.want(config='{"since": "1.1.0"}')
    assert running.apply("1.1.0").result == "applied"
    running.now += 1000
    return running


def test_rollback_takes_release_and_files_back_and_can_be_undone(upgraded: Box) -> None:
    outcome = upgraded.host.rollback("", restore_database=False)
    assert (outcome.result, outcome.version) == ("applied", "1.0.0")
    assert upgraded.host.current == "1.0.0"
    assert upgraded.at(CONFIG).read_text() == "{}"
    again = upgraded.host.rollback("", restore_database=False)
    assert (again.result, again.version) == ("applied", "1.1.0")
    assert upgraded.at(CONFIG).read_text() == '{"since": "1.1.0"}'


def test_rollback_to_what_runs_changes_nothing(upgraded: Box) -> None:
    assert upgraded.host.rollback("1.1.0", restore_database=False).result == "unchanged"


def test_rollback_refuses_to_lose_data_unless_told(upgraded: Box) -> None:
    migrate(upgraded, oldest_reader=2)
    upgraded.manager.calls.clear()
    with pytest.raises(
        Refused, match=r"everything since then is then lost: say --restore-database"
    ):
        upgraded.host.rollback("", restore_database=False)
    assert upgraded.manager.calls == []
    assert upgraded.host.current == "1.1.0"
    assert upgraded.host.rollback("", restore_database=True).result == "applied"
    assert upgraded.read_word() == "old"


def test_rollback_to_a_release_that_is_not_well_comes_back(upgraded: Box) -> None:
    (upgraded.base / "releases" / "1.0.0" / "broken").touch()
    outcome = upgraded.host.rollback("", restore_database=False)
    assert (outcome.result, outcome.version) == ("rolled-back", "1.1.0")
    assert upgraded.host.current == "1.1.0"
    assert upgraded.at(CONFIG).read_text() == '{"since": "1.1.0"}'


def test_rollback_needs_somewhere_to_go(running: Box) -> None:
    with pytest.raises(Refused, match="no earlier release is known"):
        running.host.rollback("", restore_database=False)
    running.install("0.9.0")
    with pytest.raises(Refused, match="never ran well here"):
        running.host.rollback("0.9.0", restore_database=False)


def test_undo_takes_back_what_was_not_well_from_outside(upgraded: Box) -> None:
    outcome = upgraded.host.undo("nobody could reach it")
    assert outcome.result == "rolled-back"
    assert "nobody could reach it" in outcome.reason
    assert upgraded.host.current == "1.0.0"
    assert upgraded.at(CONFIG).read_text() == "{}"
    with pytest.raises(Refused, match="nothing ran before"):
        upgraded.host.undo("again")


def test_undo_takes_back_settings_alone_too(running: Box) -> None:
    running.want(config='{"closed": true}')
    running.apply("1.0.0")
    assert running.host.undo("unreachable").result == "rolled-back"
    assert running.at(CONFIG).read_text() == "{}"


# ── releases, and the command line ───────────────────────────────────────────────────────────────


def test_prune_keeps_what_runs_and_what_ran_before(upgraded: Box) -> None:
    for age, version in enumerate(("0.7.0", "0.8.0", "0.9.0")):
        upgraded.install(version)
        mark = upgraded.base / "releases" / version / "installed"
        os.utime(mark, (1000 + age, 1000 + age))
    assert upgraded.host.prune(3) == ["0.7.0", "0.8.0"]
    assert sorted(upgraded.host.releases) == ["0.9.0", "1.0.0", "1.1.0"]
    assert upgraded.host.prune(1) == ["0.9.0"]
    assert sorted(upgraded.host.releases) == ["1.0.0", "1.1.0"]


def test_only_one_changes_a_host_at_a_time(running: Box) -> None:
    with (
        alone(running.base),
        pytest.raises(Refused, match="another deploy is under way"),
        alone(running.base),
    ):
        pass


def test_the_command_line_answers_in_json(
    running: Box, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["--base", str(running.base), "list"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "current": "1.0.0",
        "previous": "",
        "releases": ["1.0.0"],
    }
    monkeypatch.setattr("sys.stdin", io.StringIO(running.document))
    assert main(["--base", str(running.base), "apply", "9.9.9"]) == 2
    assert json.loads(capsys.readouterr().out)["result"] == "refused"
