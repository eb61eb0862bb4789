"""docs/images.md and the README's block, as printed: run one block after the other, as root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.test_alone import URL, reach
from tests.images.town import Served, Town

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="session"),
]

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "images.md").read_text()
README = (ROOT / "README.md").read_text()


def blocks(title: str, page: str = PAGE) -> list[str]:
    """Give the commands of a section, but for `make image`: the image is there."""
    section = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found, title
    return [block.replace("make image\n", "") for block in found]


@pytest.fixture
def folder(town: Town, tmp_path: Path) -> Iterator[Path]:
    """Where the commands are typed, with the site file of the README."""
    made = town.folder(tmp_path.name)
    (site,) = re.findall(r"^```yaml\n(.*?server_url.*?)^```", README, re.MULTILINE | re.DOTALL)
    (made / "site.yaml").write_text(site)
    yield made
    town.root.clear()
    town.root.podman("volume", "rm", "headwater")


async def test_from_nothing_to_nodes_and_back_from_a_backup(town: Town, folder: Path) -> None:
    def typed(block: str) -> str:
        return town.root.run("sh", "-euc", block, cwd=folder).stdout

    (start,) = blocks("From nothing to the first node")
    # The server is not up at once; whoever types does not notice.
    run, _, users = start.partition("podman exec")
    typed(run)
    server = Served(town.root, "headwater")
    await server.well()
    said = typed(f"podman exec{users}")
    (key,) = re.findall(r"hskey-auth-\S+", said)
    town.trust(typed("podman exec headwater cat /var/lib/headwater/tls/ca.pem"))
    laptop = await town.join("laptop", URL, key)

    (look,) = blocks("Reload, ask, look")
    said = typed(look)
    assert "The server is well" in said
    await server.said("settings reloaded")

    key_block, back_up, restore = (*blocks("Secrets and certificates"), *blocks("The volume"))
    (folder / "key.pem").write_text("a key")
    typed(key_block)
    typed(back_up)
    await server.well()
    server.cli("users", "create", "lost")
    typed(f"podman rm --force headwater; podman volume rm headwater\n{restore}")
    # The folder for settings is there by now.
    typed(run.replace("mkdir headwater && ", ""))
    await server.well()
    assert [row["name"] for row in server.cli("users", "list")] == ["alice"]
    desktop = await town.join("desktop", URL, key)
    await laptop.sees(desktop.name)
    await reach(laptop, desktop)


async def test_the_block_of_the_readme_makes_a_server_that_a_node_joins(
    town: Town, folder: Path
) -> None:
    (start,) = blocks("Run it in a container", README)
    run, _, function = start.partition("headwater() {")
    town.root.run("sh", "-euc", run, cwd=folder)
    server = Served(town.root, "headwater")
    await server.well()
    commands = re.findall(r"^headwater .*$", blocks("Join a node", README)[0], re.MULTILINE)
    assert len(commands) == 2
    typed = "\n".join([f"headwater() {{{function}", *commands])
    (key,) = re.findall(r"hskey-auth-\S+", town.root.run("sh", "-euc", typed, cwd=folder).stdout)
    town.trust(server.inside("cat /var/lib/headwater/tls/ca.pem").stdout)
    phone = await town.join("phone", URL, key)
    assert [row["givenName"] for row in server.cli("nodes", "list")] == [phone.name]
