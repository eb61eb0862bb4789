"""Servers elsewhere: options, environment, the file of servers, and what goes wrong on the way."""

from __future__ import annotations

import http.server
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.cli import servers
from appliance.cli.client import CommandFailed, Unreachable
from appliance.cli.network import NetworkWay
from appliance.cli.root import run
from appliance.cli.servers import Asked, Server
from tests.cli.conftest import Terminal
from tests.support.certificates import self_signed_pem

KEY = "hskey-api-0123456789ab-" + "f" * 64


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text(f"{KEY}\n")
    return path


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HEADWATER_URL", "HEADWATER_API_KEY_FILE", "HEADWATER_CA_FILE", "HEADWATER_SERVER",
                 "HEADSCALE_CLI_ADDRESS", "HEADSCALE_CLI_API_KEY", "HEADSCALE_CLI_INSECURE"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def named(tmp_path: Path, text: str) -> dict[str, str]:
    place = tmp_path / "config" / "headwater" / "servers.toml"
    place.parent.mkdir(parents=True)
    place.write_text(text)
    return {"XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_nothing_said_means_the_local_server(tmp_path: Path) -> None:
    assert servers.find(Asked(), {"HOME": str(tmp_path)}) is None


def test_options_count_before_the_environment(key_file: Path) -> None:
    environ = {"HEADWATER_URL": "https://env.example", "HEADWATER_API_KEY_FILE": str(key_file)}
    assert servers.find(Asked(), environ) == Server("https://env.example", KEY)
    asked = Asked(url="https://option.example:8443/", ca_file=Path("/ca"))
    assert servers.find(asked, environ) == Server("https://option.example:8443", KEY, Path("/ca"))


def test_headscales_variables_are_understood() -> None:
    environ = {"HEADSCALE_CLI_ADDRESS": "hs.example.com", "HEADSCALE_CLI_API_KEY": KEY}
    assert servers.find(Asked(), environ) == Server("https://hs.example.com", KEY)
    with pytest.raises(CommandFailed, match="any certificate"):
        servers.find(Asked(), environ | {"HEADSCALE_CLI_INSECURE": "true"})
    failure = NetworkWay(Server("https://hs.example.com:50443", KEY)).failure(ConnectionError())
    assert "gRPC" in failure.advice


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY}\u00e9", f"{KEY}\x1b"])
def test_a_key_that_is_none_is_never_shown(key: str) -> None:
    """As a header it would end in a traceback, which shows it."""
    environ = {"HEADSCALE_CLI_ADDRESS": "hs.example.com", "HEADSCALE_CLI_API_KEY": key}
    with pytest.raises(CommandFailed) as caught:
        servers.find(Asked(), environ)
    assert KEY not in str(caught.value)
    assert KEY not in repr(Server("https://hs.example.com", KEY))


def test_servers_have_names_in_a_file(tmp_path: Path, key_file: Path) -> None:
    environ = named(
        tmp_path,
        f"""
        default = "home"
        [servers.home]
        url = "https://home.example"
        api_key_file = "{key_file}"
        tailnet = "lab"
        [servers.work]
        url = "https://work.example"
        api_key_file = "work.key"
        ca_file = "work.pem"
        """,
    )
    directory = tmp_path / "config" / "headwater"
    (directory / "work.key").write_text("k2")
    (directory / "work.key").chmod(0o600)
    assert servers.find(Asked(), environ) == Server("https://home.example", KEY, tailnet="lab")
    work = Server("https://work.example", "k2", directory / "work.pem")
    assert servers.find(Asked(name="work"), environ) == work
    assert servers.find(Asked(), environ | {"HEADWATER_SERVER": "work"}) == work
    with pytest.raises(CommandFailed, match="names no server 'play'"):
        servers.find(Asked(name="play"), environ)
    with pytest.raises(CommandFailed, match="two servers"):
        servers.find(Asked(name="work", url="https://x.example"), environ)


@pytest.mark.parametrize(
    "text",
    [
        "[servers.home",
        "[servers.home]\nurl = 7",
        '[servers.home]\nurl = "https://x"\nkey = "y"',
        '[servers.home]\nurl = "https://x"',
        "servers = 3",
    ],
)
def test_a_wrong_file_is_told_with_its_place(tmp_path: Path, text: str) -> None:
    environ = named(tmp_path, text)
    with pytest.raises(CommandFailed, match=r"servers\.toml"):
        servers.find(Asked(name="home"), environ)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://x",
        "https://",
        "https://u:p@x",
        "https://x/path",
        "https://x?q",
        "https://x:y",
        "http://headwater.example.com",
        "http://10.0.0.1",
    ],
)
def test_wrong_addresses_are_refused_before_a_key_is_sent(url: str) -> None:
    with pytest.raises(CommandFailed):
        servers.check_url(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://[::1]:80", "https://x.example"])
def test_plain_http_is_for_this_machine_only(url: str) -> None:
    assert servers.check_url(f"{url}/") == url


@pytest.mark.parametrize("data", [b"", b"\n", b"two\nlines", b"\xff\xfe", b"x" * 70_000])
def test_what_is_no_key_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(CommandFailed, match="API key"):
        servers.read_key(path)
    with pytest.raises(CommandFailed, match="cannot be read"):
        servers.read_key(tmp_path / "missing")


def test_a_key_that_others_may_read_is_remarked(
    key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert servers.read_key(key_file) == KEY
    assert capsys.readouterr().err == ""
    key_file.chmod(0o644)
    servers.read_key(key_file)
    assert "chmod 600" in capsys.readouterr().err


def test_a_refused_key_and_a_missing_one_are_told(terminal: Terminal, key_file: Path) -> None:
    if not terminal.is_remote:
        pytest.skip("the local socket takes no key")
    url = terminal.way[1]
    code, _, err = terminal("--api-key-file", str(key_file), "nodes", "list")
    assert (code, "does not take this API key" in err) == (1, True)
    assert run(["--url", url, "nodes", "list"]) == 1
    assert KEY not in err


def test_local_options_count_before_the_environment(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_URL", "https://nowhere.invalid")
    terminal.way = ("--socket", str(terminal.socket))
    assert terminal.ok("nodes", "list")


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    seen: list[str]

    def do_GET(self) -> None:  # the name is http.server's
        self.seen.append(self.headers["Authorization"])
        self.send_response(302)
        self.send_header("Location", "https://evil.example/")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def https_server(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    pem = tmp_path / "server.pem"
    pem.write_bytes(self_signed_pem("localhost"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    seen: list[str] = []
    handler = type("Handler", (_Elsewhere,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"https://localhost:{server.server_address[1]}", pem, seen
        finally:
            server.shutdown()
            thread.join()


def test_a_certificate_must_be_vouched_for_and_redirects_are_not_followed(
    tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with https_server(tmp_path) as (url, pem, seen):
        call = ["--url", url, "--api-key-file", str(key_file), "-o", "json", "nodes", "list"]
        assert run(call) == Unreachable.exit_code
        assert "nobody vouches" in capsys.readouterr().err
        assert seen == [], "no key before the server has proven itself"
        run(["--ca-file", str(pem), *call])
        assert seen == [f"Bearer {KEY}"]
        assert run(["--ca-file", str(key_file), *call]) == 1
        assert "--ca-file" in capsys.readouterr().err


def test_the_way_over_the_network_imports_no_framework() -> None:
    code = (
        "import sys; import appliance.cli.network, appliance.cli.servers, appliance.cli.root;"
        "print([m for m in ('aiohttp','asyncio','sqlalchemy','yaml','cryptography') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
