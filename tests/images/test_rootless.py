"""A container of a user without rights: started by `podman run`, as docs/images.md says it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.images.sandbox import USER_ID, Engine
from tests.images.town import NAME, USER_IN_IMAGE, Served, Town

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="session"),
]

PORT = 8443
URL = f"https://{NAME}:{PORT}"
SITE = f"""\
server_url: {URL}
tls:
  cert_file: /run/keys/fullchain.pem
  key_file: /run/keys/tls-key
tailnet:
  base_domain: tailnet.example.net
derp:
  server:
    ipv4: ADDRESS
"""
HARD = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
PORTS = ("--publish", f"{PORT}:443", "--publish", "3478:3478/udp")
LOW_PORTS = "--sysctl=net.ipv4.ip_unprivileged_port_start=0"
OURS = "localhost/headwater:latest"


@pytest.fixture(scope="module")
def engine(town: Town) -> Iterator[Engine]:
    """The user's engine, with our image."""
    from tests.images import builds

    made = town.rootless()
    made.load(builds.archives().ours)
    yield made
    made.clear()


@pytest.fixture(scope="module")
def site(town: Town) -> Path:
    """A site file whose certificate and key are secrets."""
    folder = town.folder("rootless")
    (folder / "config.yaml").write_text(SITE.replace("ADDRESS", town.box.v4))
    town.certificate(folder / "tls", owner=USER_ID)
    shutil.chown(folder / "tls" / "fullchain.pem", USER_ID)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(engine: Engine, site: Path) -> Served:
    engine.podman("secret", "create", "fullchain.pem", str(site / "tls" / "fullchain.pem"))
    engine.podman("secret", "create", "tls-key", str(site / "tls" / "key.pem"))
    engine.podman(
        *("run", "--detach", "--name", "headwater", *HARD, *PORTS, LOW_PORTS),
        # The other ways of forwarding hide the addresses of nodes.
        "--network=slirp4netns:port_handler=slirp4netns",
        # Podman 4 mounts nothing below /run/secrets when the root is read-only.
        *("--secret", "fullchain.pem,target=/run/keys/fullchain.pem"),
        *("--secret", f"tls-key,target=/run/keys/tls-key,uid={USER_IN_IMAGE},mode=0400"),
        *("--volume", "headwater:/var/lib/headwater"),
        *("--volume", f"{site}/config.yaml:/etc/headwater/config.yaml:ro"),
        OURS,
    )
    server = Served(engine, "headwater")
    await server.well()
    return server


async def test_nodes_join_and_talk(town: Town, served: Served) -> None:
    key = served.key()
    laptop = await town.join("laptop", URL, key)
    desktop = await town.join("desktop", URL, key)
    await laptop.sees(desktop.name)
    v4, _ = await desktop.addresses()
    assert (await laptop.get(f"http://{v4}/"))["node"].split(".")[0] == laptop.name
    endpoints = (await laptop.status())["Self"]["Addrs"]
    assert any(each.startswith(f"{town.hosts[laptop.name].v4}:") for each in endpoints)


async def test_it_runs_as_nobody_of_the_host(served: Served) -> None:
    status = served.inside("cat /proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(USER_IN_IMAGE)}
    assert int(fields["CapEff"], 16) == 0
    assert served.inside("stat -c '%a %u' /run/keys/tls-key").stdout.split() == [
        "400",
        str(USER_IN_IMAGE),
    ]


async def test_it_stops_when_told_and_comes_back(served: Served) -> None:
    nodes = [row["name"] for row in served.cli("nodes", "list")]
    served.engine.podman("stop", "--time", "60", "headwater")
    assert served.field("{{.State.ExitCode}}") == "0"
    served.engine.podman("start", "headwater")
    await served.well()
    assert [row["name"] for row in served.cli("nodes", "list")] == nodes


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "-v ./config.yaml:/etc/headwater/config.yaml:ro"),
        (("--volume", "FOLDER:/etc/headwater/config.yaml:ro"), "Docker makes a folder"),
        (("--volume", "SITE:/etc/headwater:ro"), "--sysctl net.ipv4.ip_unprivileged_port_start=0"),
        (
            ("--volume", "SITE:/etc/headwater:ro", "--volume", "FOLDER:/var/lib/headwater"),
            f"chown -R {USER_IN_IMAGE}:{USER_IN_IMAGE}",
        ),
    ],
    ids=["nothing", "folder", "ports", "volume"],
)
async def test_what_is_missing_is_said_in_a_sentence(
    town: Town, engine: Engine, arguments: tuple[str, ...], told: str
) -> None:
    folder = town.sandbox.folder / "empty"
    folder.mkdir(exist_ok=True)
    shutil.chown(folder, USER_ID, USER_ID)
    (folder / "etc").mkdir(exist_ok=True)
    (folder / "etc" / "config.yaml").write_text(
        "server_url: https://hw.example.com\ntls: {mode: local_ca}\n"
    )
    places = {"SITE": str(folder / "etc"), "FOLDER": str(folder)}
    words = []
    for word in arguments:
        name, _, rest = word.partition(":")
        words.append(f"{places[name]}:{rest}" if rest else word)
    done = engine.tried("run", "--rm", *HARD, "--network=none", *words, OURS)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert told in said
    assert "Traceback" not in said
