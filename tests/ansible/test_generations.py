"""A generation goes as one and comes back as one; drift is a change; a firewall must be proved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from headwater_firewall import UNIT as TIMER
from headwater_ports import Listener
from headwater_state import Account, Deployed, Refused

from tests.ansible.host import COMMAND, CONFIG, ME, SECRET, SOCKET, SYSCTL, TABLE, UNIT, Box

NGINX = Listener("tcp", "0.0.0.0", 443, 812, "nginx", "nginx.service")  # noqa: S104
OURS = Listener("tcp", "0.0.0.0", 443, 900, "python", "headwater.service")  # noqa: S104
TEXT = "table inet headwater {}\n"


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path)
    made.install("1.0.0")
    made.want(table=TEXT)
    made.secrets = {SECRET: "good\n"}
    return made


@pytest.fixture
def running(box: Box) -> Box:
    """A host on which 1.0.0 runs well, with a secret and a firewall."""
    assert box.apply().result == "applied"
    box.manager.calls.clear()
    box.now += 1000
    return box


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────


def test_a_renewed_secret_that_is_garbage_is_taken_back(running: Box) -> None:
    was = running.look()
    running.secrets = {SECRET: "garbage\n"}
    outcome = running.apply()
    assert outcome.result == "rolled-back"
    assert running.at(SECRET).read_text() == "good\n"
    assert running.look() == was
    running.secrets = {SECRET: "good\n"}
    assert running.apply().result == "unchanged"


def test_undo_brings_a_renewed_secret_back(running: Box) -> None:
    running.secrets = {SECRET: "valid, but for another name\n"}
    assert running.apply().result == "applied"
    assert running.host.undo("seen from outside").result == "rolled-back"
    assert running.at(SECRET).read_text() == "good\n"


def test_kept_secrets_are_for_root_alone_and_no_more_than_needed(running: Box) -> None:
    for number in range(5):
        running.secrets = {SECRET: f"{number}\n"}
        assert running.apply().result == "applied"
    folder = running.base / "secrets"
    assert folder.stat().st_mode & 0o7777 == 0o700
    kept = {path.read_text() for path in folder.iterdir()}
    assert kept == {"3\n", "4\n"}
    assert {path.stat().st_mode & 0o7777 for path in folder.iterdir()} == {0o400}
    for name in ("good.json", "before.json"):
        assert (running.base / name).stat().st_mode & 0o7777 == 0o600


def test_a_secret_put_there_by_hand_is_kept_too(running: Box) -> None:
    running.secrets = {}
    running.at(SECRET).chmod(0o600)
    running.at(SECRET).write_text("by hand\n")
    running.at(SECRET).chmod(0o400)
    assert running.apply().result == "applied"
    running.at(SECRET).unlink()
    assert running.apply().result == "applied"
    assert running.at(SECRET).read_text() == "by hand\n"


def test_a_secret_that_an_older_deploy_did_not_keep_is_kept_before_it_is_replaced(
    running: Box,
) -> None:
    for path in (running.base / "secrets").iterdir():
        path.unlink()
    running.secrets = {SECRET: "garbage\n"}
    assert running.apply().result == "rolled-back"
    assert running.at(SECRET).read_text() == "good\n"


def test_rollback_to_a_release_keeps_the_certificate_of_today(running: Box) -> None:
    running.install("1.1.0")
    assert running.apply("1.1.0").result == "applied"
    running.secrets = {SECRET: "renewed\n"}
    assert running.apply("1.1.0").result == "applied"
    assert running.host.rollback("", restore_database=False).result == "applied"
    assert running.at(SECRET).read_text() == "renewed\n"


def test_what_an_earlier_program_kept_can_be_read() -> None:
    old = {
        "version": "1.0.0",
        "manifest": {"config": CONFIG, "files": [CONFIG], "watched": [], "services": ["x.service"]},
        "contents": {CONFIG: [420, "{}"]},
        "digests": {},
        "previous": "",
        "since": 1.0,
    }
    assert Deployed.parse(json.dumps(old)).contents == {CONFIG: (420, "{}")}


# ── a first deploy ───────────────────────────────────────────────────────────────────────────────


def test_a_failed_first_deploy_leaves_the_host_as_it_was(box: Box) -> None:
    box.at(SYSCTL).parent.mkdir(parents=True)
    box.at(SYSCTL).write_text("# an administrator's own\n")
    was = box.look()
    box.install("1.1.0", "broken")
    outcome = box.apply("1.1.0")
    assert outcome.result == "rolled-back"
    assert outcome.version == ""
    assert outcome.exit_code == 3
    assert box.look() == was
    assert box.host.current == ""
    assert box.manager.loaded == ""
    assert any(call.startswith("reset-failed headwater.socket") for call in box.manager.calls)
    assert any("the release" in each for each in outcome.left)
    assert not list((box.base / "secrets").iterdir())


def test_what_a_first_deploy_leaves_is_named(box: Box) -> None:
    sysusers = "/etc/sysusers.d/headwater.conf"
    box.files[sysusers] = 'u headwater - "Headwater" /var/lib/headwater\n'
    box.install("1.1.0", "broken")
    box.at("/var/lib/headwater").mkdir(parents=True, mode=0o700)
    outcome = box.apply("1.1.0")
    assert any("/var/lib/headwater" in each for each in outcome.left)
    assert any("the user headwater" in each for each in outcome.left)


def test_a_first_deploy_that_cannot_be_seen_from_outside_can_be_undone(box: Box) -> None:
    was = box.look()
    assert box.apply().result == "applied"
    outcome = box.host.undo("nobody could reach it")
    assert (outcome.result, outcome.version) == ("rolled-back", "")
    assert box.look() == was
    with pytest.raises(Refused, match="nothing ran before"):
        box.host.undo("again")


def test_after_a_first_deploy_that_broke_off_the_host_as_it_was_is_still_known(box: Box) -> None:
    was = box.look()
    box.install("1.1.0", "broken")
    host = box.host
    host.health.wait = stop_here  # type: ignore[method-assign]  # the power is lost here
    with pytest.raises(KeyboardInterrupt):
        host.apply("1.1.0", box.given)
    assert box.look() != was
    assert box.apply("1.1.0").result == "rolled-back"
    assert box.look() == was


def stop_here(state: Deployed) -> str:
    raise KeyboardInterrupt(state.version)


def test_undo_after_a_deploy_that_broke_off_goes_to_what_ran(running: Box) -> None:
    was = running.look()
    running.want(config='{"new": 1}')
    host = running.host
    host.health.wait = stop_here  # type: ignore[method-assign]  # the power is lost here
    with pytest.raises(KeyboardInterrupt):
        host.apply("1.0.0", running.given)
    assert running.host.undo("the timer").result == "rolled-back"
    assert running.look() == was


# ── ports ────────────────────────────────────────────────────────────────────────────────────────


def test_a_port_that_is_taken_is_named_and_nothing_is_touched(box: Box) -> None:
    was = box.look()
    box.manager.held = [NGINX]
    with pytest.raises(
        Refused, match=r"port 443 \(TCP\) is taken by nginx, pid 812 \(nginx\.service\)"
    ):
        box.apply()
    with pytest.raises(Refused, match="nginx"):
        box.host.plan("1.0.0", box.given)
    assert box.look() == was


def test_our_own_sockets_are_not_in_the_way(running: Box) -> None:
    running.manager.held = [OURS]
    assert running.apply().result == "unchanged"


def test_a_socket_that_fails_is_seen_at_once_with_its_own_journal(running: Box) -> None:
    """Somebody took the port after the look at it."""
    host = running.host
    host.health.timeout_s = 3600  # waiting for the time-out would hang the test
    running.want(socket="[Socket]\nListenStream=0.0.0.0:8443")
    taken = Listener("tcp", "0.0.0.0", 8443, 77, "nc", "")  # noqa: S104
    looks = iter([[], [taken]])
    running.manager.listeners = lambda: next(looks, [taken])  # type: ignore[method-assign]
    running.manager.held = [taken]
    outcome = host.apply("1.0.0", running.given)
    assert outcome.result == "rolled-back"
    assert outcome.reason == "headwater.socket cannot listen: port 8443 is taken by nc, pid 77"
    assert outcome.journal[0].startswith("headwater.socket since")


def test_looking_tells_who_is_there_and_how_we_came_in(running: Box) -> None:
    running.manager.held = [
        Listener("tcp", "0.0.0.0", 2222, 5, "sshd", "ssh.service"),  # noqa: S104
        Listener("tcp", "0.0.0.0", 80, 812, "nginx", "nginx.service"),  # noqa: S104
        Listener("tcp", "127.0.0.1", 5432, 9, "postgres", "postgresql.service"),
        OURS,
    ]
    running.manager.came = (2222, "198.51.100.1 4000")
    looked = running.host.look()
    assert looked["way_in"] == 2222
    assert looked["ways_in"] == [2222]
    assert looked["web"] == {"80": "nginx, pid 812 (nginx.service)"}
    assert sorted(looked["public"]) == ["2222", "80"]


# ── drift ────────────────────────────────────────────────────────────────────────────────────────


def flush(box: Box) -> None:
    box.manager.loaded = ""


def add_rule(box: Box) -> None:
    box.manager.loaded += "tcp dport 23 accept"


def disable(box: Box) -> None:
    box.manager.enabled -= {"headwater.service", "headwater.socket"}


def stop_socket(box: Box) -> None:
    box.manager.states["headwater.socket"] = "inactive"


def change_kernel(box: Box) -> None:
    box.manager.settings["net.core.somaxconn"] = "128"


def open_file(box: Box) -> None:
    box.at(CONFIG).chmod(0o666)


def edit_unit(box: Box) -> None:
    box.at(UNIT).write_text("[Service]\nUser=root\n")


def link_elsewhere(box: Box) -> None:
    box.at(COMMAND).unlink()
    box.at(COMMAND).symlink_to("/bin/true")


def replace_by_link(box: Box) -> None:
    box.at(SOCKET).unlink()
    box.at(SOCKET).symlink_to("/dev/null")


def remove_table(box: Box) -> None:
    box.at(TABLE).unlink()


def open_secret(box: Box) -> None:
    box.at(SECRET).chmod(0o444)


def edit_secret(box: Box) -> None:
    box.at(SECRET).chmod(0o600)
    box.at(SECRET).write_text("other\n")


def give_shell(box: Box) -> None:
    box.manager.users["headwater"] = Account(*ME, "/bin/bash", ())


def delete_user(box: Box) -> None:
    del box.manager.users["headwater"]


DRIFTS = [
    *(flush, add_rule, disable, stop_socket, change_kernel, open_file, edit_unit, link_elsewhere),
    *(replace_by_link, remove_table, open_secret, edit_secret, give_shell, delete_user),
]


@pytest.mark.parametrize("drift", DRIFTS, ids=lambda each: each.__name__)
def test_drift_is_shown_and_mended(running: Box, drift: Callable[[Box], None]) -> None:
    was, users = running.look(), dict(running.manager.users)
    drift(running)
    drifted = running.look(), dict(running.manager.users)
    assert drifted != (was, users)
    planned = running.host.plan("1.0.0", running.given)
    assert planned.result == "planned"
    assert planned.diff
    assert all(each["before"] != each["after"] for each in planned.diff), "Ansible shows it"
    assert "good" not in json.dumps([each["before"] for each in planned.diff])
    assert (running.look(), dict(running.manager.users)) == drifted
    assert running.apply().result == "applied"
    assert (running.look(), dict(running.manager.users)) == (was, users)
    assert running.apply().result == "unchanged"


def test_a_setting_that_this_host_does_not_take_is_no_endless_change(box: Box) -> None:
    box.manager.takes_settings = False
    assert box.apply().result == "applied"
    assert box.apply().result == "unchanged"


def test_foreign_groups_of_the_user_are_named_and_not_touched(running: Box) -> None:
    running.manager.users["headwater"] = Account(*ME, "/usr/sbin/nologin", ("sudo",))
    with pytest.raises(Refused, match=r"headwater is in the groups sudo: take it out"):
        running.apply()


def test_a_folder_in_the_way_is_named_and_not_touched(running: Box) -> None:
    running.at(CONFIG).unlink()
    running.at(CONFIG).mkdir()
    with pytest.raises(Refused, match=r"config\.json is a folder"):
        running.apply()


def test_a_table_that_nft_refuses_is_not_loaded(running: Box) -> None:
    running.manager.wrong_table = "syntax error"
    running.want(table="table inet headwater { nonsense }\n")
    was = running.look()
    with pytest.raises(Refused, match=r"nft refuses .*firewall\.nft: syntax error"):
        running.apply()
    assert running.look() == was


# ── a firewall must be proved ────────────────────────────────────────────────────────────────────


def timer(box: Box) -> bool:
    return box.at(f"/etc/systemd/system/{TIMER}.timer").exists()


def test_a_new_table_waits_for_somebody_who_comes_in_through_it(running: Box) -> None:
    running.prove_s = 60
    running.want(table="table inet headwater { }\n")
    outcome = running.apply()
    assert outcome.pending
    assert timer(running)
    armed = running.manager.calls.index(f"restart {TIMER}.timer")
    assert armed < running.manager.calls.index("reload-or-restart headwater-firewall.service")
    assert running.apply().pending, "a second run may prove it too"
    with pytest.raises(Refused, match="it proves nothing"):
        running.host.confirm()
    running.manager.came = (22, "198.51.100.1 4001")
    assert running.host.confirm().result == "confirmed"
    assert not timer(running)
    assert f"disable --now {TIMER}.timer" in running.manager.calls


def test_a_table_through_which_nobody_comes_is_taken_back(running: Box) -> None:
    was = running.look()
    running.prove_s = 60
    running.want(table="table inet headwater { }\n")
    running.apply()
    assert running.host.undo("the timer").result == "rolled-back"
    assert running.look() == was
    with pytest.raises(Refused, match="it was taken back"):
        running.host.confirm()


def test_a_table_that_does_not_change_needs_no_proof(running: Box) -> None:
    running.prove_s = 60
    running.want(config='{"log": {}}')
    assert not running.apply().pending


def test_what_comes_upon_an_unproved_table_goes_back_to_the_proved_one(running: Box) -> None:
    was = running.look()
    running.prove_s = 60
    running.want(table="table inet headwater { }\n")
    running.apply()
    running.want(config='{"log": {}}')
    assert running.apply().pending
    assert running.host.undo("the timer").result == "rolled-back"
    assert running.look() == was
