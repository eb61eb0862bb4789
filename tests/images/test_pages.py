"""docs/images.md, as it is printed: its commands are run one block after the other, as root."""

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


def blocks(title: str) -> list[str]:
    """Give the commands of a section, but for `make image`: the image is there."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert found, title
    return [block.replace("make image\n", "") for block in found]


@pytest.fixture
def folder(town: Town) -> Iterator[Path]:
    """Where the commands are typed, with the site file of the README."""
    made = town.folder("page")
    readme = (ROOT / "README.md").read_text()
    (site,) = re.findall(r"^```yaml\n(.*?server_url.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (made / "site.yaml").write_text(site)
    yield made
    town.root.clear()


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
