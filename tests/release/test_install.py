"""The install script, as far as it can be tried without changing a machine; the story does the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.config import yamlfile

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "install.sh"


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", SCRIPT, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def function(call: str, *arguments: str) -> str:
    """Read arguments as the script does, then call one of its functions instead of all."""
    body = SCRIPT.read_text().removesuffix('main "$@"\n')
    script = f'{body}\nparse "$@"\n{call}\n'
    done = subprocess.run(
        ["sh", "-c", script, SCRIPT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_teaches_and_names_every_option() -> None:
    told = typed("--help")
    assert told.returncode == 0
    options = ("domain", "tls", "email", "cert", "key", "ca", "tailnet", "user")
    for name in (*options, "yes", "uninstall", "purge", "help"):
        assert f"\n  --{name} " in told.stdout
    assert "Examples:" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 104


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--domian", "x"], "there is no option --domian"),
        (["hw.example.com"], "there is no option hw.example.com"),
        (["--domain"], "--domain needs a value"),
        (["--domain", ""], "--domain needs a value"),
        (["--domain", "hw.example.com\nlog: {}"], "is not such a value"),
        (["--domain", "$(reboot)"], "is not such a value"),
        (["--domain", "-x"], "is not such a value"),
        (["--email", "nobody"], "is not such a value"),
        (["--cert", "/etc/a'b", "--key", "/etc/k"], "is not such a value"),
        (["--user", "a b"], "is not such a value"),
        (["--tls", "letsencrypt"], "--tls is acme, local-ca, files or off, not letsencrypt"),
        (["--tls", "files", "--cert", "x"], "needs --cert FILE and --key FILE"),
        (["--tls", "off", "--cert", "x"], "go with --tls files"),
        (["--purge"], "--purge goes with --uninstall"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_else(arguments: list[str], said: str) -> None:
    told = typed(*arguments)
    assert told.returncode == 2
    assert said in told.stderr
    assert told.stderr.endswith("Try: sh install.sh --help\n")


@pytest.mark.parametrize(
    ("arguments", "mode", "url", "base_domain"),
    [
        (["--tls", "local-ca"], "local_ca", "https://hw.example.com", "ts.hw.example.com"),
        (["--tls=off"], "off", "https://hw.example.com", "ts.hw.example.com"),
        (["--cert", "a", "--key", "b"], "files", "https://hw.example.com", "ts.hw.example.com"),
        (
            ["--tls", "local-ca", "--tailnet", "tail.example.net"],
            *("local_ca", "https://hw.example.com", "tail.example.net"),
        ),
        (["--domain=192.0.2.1", "--tls", "off"], "off", "https://192.0.2.1", "tailnet.internal"),
        (
            ["--domain=2001:db8::1", "--tls", "local-ca"],
            *("local_ca", "https://[2001:db8::1]", "tailnet.internal"),
        ),
    ],
)
def test_site_files_that_it_writes_are_good(
    arguments: list[str], mode: str, url: str, base_domain: str
) -> None:
    text = function("site", "--domain", "hw.example.com", *arguments)
    settings = config.build(yamlfile.parse(text), source="site.yaml")
    assert settings.tls.mode == mode
    assert settings.server_url == url
    assert settings.tailnet.base_domain == base_domain


@pytest.mark.parametrize(
    ("arguments", "tls"),
    [
        (["--email=me@example.com"], {"mode": "acme", "email": "me@example.com"}),
        ([], {"mode": "acme"}),
    ],
)
def test_acme_needs_no_more_than_a_mail_address(arguments: list[str], tls: dict[str, str]) -> None:
    text = function("site", "--domain=a.example.com", "--tls=acme", *arguments)
    found: Any = yamlfile.parse(text)
    assert found["tls"] == tls


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        (["--domain=a.example.com"], "acme"),
        (["--domain=9.9.9.9"], "acme"),
        (["--domain=192.168.1.1"], "local-ca"),
        (["--domain=hw.lan"], "local-ca"),
        # Not the name is wrong: the check that follows says what is.
        (["--domain=a.example.com", "--tailnet=a.example.com"], "acme"),
    ],
)
def test_acme_is_the_default_where_the_name_can_be_public(arguments: list[str], mode: str) -> None:
    release = f"program() {{ '{sys.executable}' -m appliance \"$@\"; }}"
    call = f'{release}; scratch=$(mktemp -d); choose_tls >&2; echo "$tls"; rm -r "$scratch"'
    assert function(call, "--yes", *arguments).strip() == mode


@pytest.mark.parametrize(
    ("connection", "ports"),
    [("", "22"), ("192.0.2.9 41928 192.0.2.1 2222", "22, 2222"), ("a 1 b 22", "22")],
)
def test_the_way_in_stays_open(connection: str, ports: str) -> None:
    pretend = "sshd() { :; }"
    said = function(f"{pretend}; SSH_CONNECTION='{connection}' ssh_ports")
    assert said.strip() == ports
    said = function("sshd() { echo port 22; echo port 2022; }; SSH_CONNECTION='' ssh_ports")
    assert said.strip() == "22, 2022"
