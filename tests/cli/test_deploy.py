"""``headwater deploy``: what a site puts on a machine, as text, as JSON and as files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.cli.root import run

GOOD = "server_url: https://hw.example.com\ntls: {mode: local_ca}\n"


@pytest.fixture
def site(tmp_path: Path) -> str:
    path = tmp_path / "site.yaml"
    path.write_text(GOOD)
    return str(path)


def test_the_text_names_every_file(site: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", "render", site]) == 0
    said = capsys.readouterr().out
    for name in ("headwater.service", "headwater.socket", "firewall.nft", "sysusers.d"):
        assert name in said


@pytest.mark.parametrize("how", [["--format", "json"], ["-o", "json"]])
def test_the_document_has_what_a_provisioner_needs(
    site: str, how: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy", "render", site, "--tcp-port", "2222", *how]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["config"] == "/etc/headwater/config.yaml"
    assert document["enable"][-1] == "headwater.service"
    assert set(document["enable"]) == {
        Path(path).name for path in document["files"] if path.startswith("/etc/systemd/system/")
    }
    table = document["files"]["/etc/headwater/firewall.nft"]["text"]
    assert "tcp dport { 443, 2222 } accept" in table


def test_files_are_written_below_a_directory_and_nowhere_else(
    site: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "box"
    assert run(["deploy", "render", site, "--out", str(out), "--systemd", "257"]) == 0
    written = sorted(str(path) for path in out.rglob("*") if path.is_file())
    assert sorted(capsys.readouterr().out.split()) == written
    assert "Type=notify-reload" in (out / "etc/systemd/system/headwater.service").read_text()


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--secret", "key"], 1, "NAME=PATH"),
        (["--secret", "oidc=/run/x"], 1, "secret oidc"),
        (["--systemd", "247"], 1, "252"),
        (["--role", "node"], 1, "relay"),
    ],
)
def test_wrong_usage_says_what_is_right(
    site: str, more: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deploy", "render", site, *more]) == code
    assert said in capsys.readouterr().err


def test_a_site_that_cannot_work_in_the_sandbox_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(GOOD + "state_dir: /srv/headwater\n")
    assert run(["deploy", "render", str(path)]) == 1
    said = capsys.readouterr().err
    assert "site.yaml: 1 mistake" in said
    assert "state_dir: found /srv/headwater; allowed: a directory below /var/lib" in said


def test_the_facts_are_those_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", "facts"]) == 0
    assert json.loads(capsys.readouterr().out)["constants"]["user"] == "headwater"


def test_render_says_what_deserves_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F1's kind: provisioners rest on this command, so it repeats the warnings of the check."""
    path = tmp_path / "site.yaml"
    path.write_text("server_url: https://hw.example.com\ntls: {mode: off}\n")
    assert run(["deploy", "render", str(path), "--format", "json"]) == 0
    said = capsys.readouterr()
    assert "warning: trusted_proxies: a proxy speaks TLS" in said.err
    assert json.loads(said.out)["role"] == "server"
