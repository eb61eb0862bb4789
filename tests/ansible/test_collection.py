"""The collection, as other people get it: built by Ansible's own tool, installed where no checkout is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import __version__
from release import collection

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / ".venv" / "ansible" / "bin"
OURS = ("CHANGELOG.md", "README.md", "meta", "playbooks", "plugins", "roles")
"""What the collection is, besides the two lists that the tool writes."""

LINK = "playbooks/collections"
"""What gives a checkout the collection's name."""

# Names from our pages, and what else people call such things, where they might lie.
THEIRS = (
    *(
        "inventory.yml",
        "inventory.ini",
        "hosts",
        "hosts.yml",
        "site.yaml",
        "site.toml",
        "site.json",
    ),
    *("node.key", "ca.pem", "fullchain.pem", "privkey.pem", "key.pem", "cert.crt", "server.p12"),
    *("vault.yml", "vault-password", ".vault_pass", ".env", "id_ed25519", "passwords.txt"),
    *("group_vars/all.yml", "host_vars/hw.example.com/vault.yml", "secrets/database-password"),
    *("secrets.yml", "token", "mesh.key", "relay.key", "ROOT.pem", "Makefile", "mine.yml", "pki/a"),
    *("playbooks/files/key.pem", "playbooks/group_vars/all.yml", "playbooks/host_vars/hw.yml"),
    *("playbooks/vault.yml", "playbooks/key.pem", "playbooks/inventory", "playbooks/vars/x.yml"),
    *("roles/headwater/files/key.pem", "roles/headwater/files/node.key", "plugins/modules/a.env"),
    *("headwater-headwater-0.0.9.tar.gz", ".git/config", ".ansible/x", "ansible.cfg.bak"),
    *("meta.key", "meeting.md", "playbook-mine.yml", "rolex", "plan.yml", "plugin.yml", "recover"),
)

pytestmark = pytest.mark.system


def tool(program: str, *arguments: str | Path, cwd: Path, fails: bool = False) -> str:
    """Run one of Ansible's programs; give what it said. Collections are in ``c`` of that place."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [ANSIBLE / program, *arguments],
        cwd=cwd,
        env={
            **clean,
            **({"ANSIBLE_COLLECTIONS_PATH": str(cwd / "c")} if (cwd / "c").exists() else {}),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCALHOST_WARNING": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert bool(done.returncode) is fails, said
    return said


def play(place: Path, *arguments: str, fails: bool = False) -> str:
    """Run a playbook in that place, with this machine as the host."""
    here = ("-i", "localhost,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}")
    return tool("ansible-playbook", *here, *arguments, cwd=place, fails=fails)


@pytest.fixture(scope="session", autouse=True)
def ansible() -> None:
    """Ansible, as `make ansible` installs it."""
    done = subprocess.run(
        ["make", "--no-print-directory", "ansible"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def tracked() -> set[str]:
    """The collection's files that belong to the tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *OURS],
        cwd=ROOT / "ansible",
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if not name.startswith(LINK)}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as somebody has it who follows the pages: with files of their own in it."""
    folder = tmp_path_factory.mktemp("checkout") / "ansible"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "ansible", folder, symlinks=True, ignore=ignored)
    for name in THEIRS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("somebody's own\n")
    return folder


@pytest.fixture(scope="module")
def archive(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built")
    tool("ansible-galaxy", "collection", "build", "--output-path", out, cwd=checkout)
    return out / f"headwater-headwater-{__version__}.tar.gz"


@pytest.fixture(scope="module")
def installed(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place of somebody else's that has the collection, and a playbook."""
    place = tmp_path_factory.mktemp("elsewhere")
    install = ("collection", "install", "--offline", archive, "--collections-path", place / "c")
    tool("ansible-galaxy", *install, cwd=place)
    return place


def test_nothing_is_packed_but_the_collection(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        found = {member.name for member in packed if member.isfile()}
    assert found == tracked() | {"MANIFEST.json", "FILES.json"}


def test_a_release_has_the_same_archive(archive: Path, checkout: Path, tmp_path: Path) -> None:
    ours = collection.pack(checkout.parent, __version__, tmp_path / "1", 1_000_000_000)
    again = collection.pack(checkout.parent, __version__, tmp_path / "2", 1_000_000_000)
    assert ours.read_bytes() == again.read_bytes()
    assert ours.name == archive.name
    assert described(ours) == described(archive)
    tool("ansible-galaxy", "collection", "install", "--offline", ours, "-p", tmp_path, cwd=tmp_path)


def described(archive: Path) -> tuple[Any, list[Any]]:
    """What the two lists of an archive say, in an order of their own, empty folders left out."""
    with tarfile.open(archive) as packed:
        manifest, files = (
            json.load(packed.extractfile(name))  # type: ignore[arg-type]  # both are files
            for name in ("MANIFEST.json", "FILES.json")
        )
    del manifest["file_manifest_file"]
    names = [each["name"] for each in files["files"] if each["ftype"] == "file"]
    filled = {str(parent) for name in names for parent in Path(name).parents} | set(names)
    listed = [each for each in files["files"] if each["name"] in filled]
    return manifest, sorted(listed, key=lambda each: str(each["name"]))


@pytest.mark.parametrize(
    ("version", "there"),
    [("1.2.3", "1.2.3"), ("1.2.3rc1", "1.2.3-rc1"), ("1.2.3+a.1", "1.2.3+a.1")],
)
def test_versions_are_written_as_collections_want_them(version: str, there: str) -> None:
    assert collection.semantic(version) == there


def test_the_pages_put_nothing_where_git_would_take_it() -> None:
    for name in (each for each in THEIRS if each.endswith((".key", ".pem", ".crt", "vault.yml"))):
        path = f"ansible/{name}"
        ignored = ["git", "check-ignore", "--no-index", "--quiet", path]
        assert subprocess.run(ignored, cwd=ROOT, check=False).returncode == 0, path


@pytest.mark.parametrize("playbook", ["site", "upgrade", "rollback", "uninstall"])
def test_playbooks_are_run_by_their_full_name(installed: Path, playbook: str) -> None:
    play(installed, f"headwater.headwater.{playbook}", "--syntax-check")


def test_roles_are_used_in_a_playbook_elsewhere(installed: Path) -> None:
    task = {"ansible.builtin.include_role": {"name": "headwater.headwater.headwater"}}
    (installed / "mine.yml").write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}])
    )
    said = play(installed, "mine.yml", fails=True)
    # All of the role is loaded, its modules are found; then it looks at its variables.
    assert "give either headwater_site_file" in said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"headwater_open_tcp_port": [22]}, "did you mean headwater_open_tcp_ports?"),
        ({"headwater_site_file": "/nowhere/site.yaml"}, "there is no site file /nowhere/site.yaml"),
        ({"headwater_release_dir": "/nowhere/0.1.0"}, "there is no release in /nowhere/0.1.0"),
        ({"headwater_verify_ca_file": "/nowhere/ca.pem"}, "/nowhere/ca.pem, which is not on this"),
    ],
)
def test_what_the_controller_can_tell_is_refused_in_one_sentence(
    installed: Path, wrong: dict[str, Any], said: str
) -> None:
    (installed / "own.yml").write_text(
        yaml.safe_dump(
            [
                {
                    "hosts": "localhost",
                    "gather_facts": False,
                    "roles": ["headwater.headwater.headwater"],
                }
            ]
        )
    )
    given = play(installed, "own.yml", "-e", json.dumps(wrong), fails=True)
    assert said in " ".join(given.split())
    assert "Traceback" not in given


def test_modules_are_found_by_their_full_name(installed: Path) -> None:
    target = installed / "written"
    task = {"headwater.headwater.headwater_files": {"files": {str(target): {"text": "one\n"}}}}
    (installed / "one.yml").write_text(
        yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}])
    )
    said = play(installed, "one.yml", "--check", "--diff")
    assert "+one" in said
    assert "changed=1" in said


def test_documentation_comes_with_it(installed: Path) -> None:
    names = ("headwater.headwater.headwater_files", "headwater.headwater.headwater_probe")
    assert "EXAMPLES" in tool("ansible-doc", *names, cwd=installed)
    role = tool("ansible-doc", "-t", "role", "headwater.headwater.headwater", cwd=installed)
    assert "headwater_site_file" in role


def test_it_is_installed_from_git_too(tmp_path: Path) -> None:
    """As in docs/ansible.md, from a repository with this folder in it."""
    source = tmp_path / "source"
    source.mkdir()
    for name in (
        "galaxy.yml",
        "ansible.cfg",
        "inventory.example.yml",
        LINK,
        *sorted(tracked()),
    ):
        target = source / "ansible" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / "ansible" / name).is_dir():
            shutil.copytree(ROOT / "ansible" / name, target, symlinks=True)
        else:
            shutil.copy(ROOT / "ansible" / name, target)
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.com")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "all")):
        subprocess.run(["git", *command], cwd=source, check=True)
    url = f"git+file://{source}#/ansible/"
    tool("ansible-galaxy", "collection", "install", url, "-p", tmp_path / "c", cwd=tmp_path)
    place = tmp_path / "c" / "ansible_collections" / "headwater" / "headwater"
    assert (place / "plugins" / "modules" / "headwater_files.py").is_file()
    assert not (place / "playbooks" / "collections").exists()
    play(tmp_path, "headwater.headwater.site", "--syntax-check")


@pytest.mark.parametrize("playbook", ["site", "upgrade", "rollback", "uninstall"])
def test_playbooks_are_run_from_the_checkout(playbook: str) -> None:
    book = f"playbooks/{playbook}.yml"
    said = tool(
        "ansible-playbook", "-i", "localhost,", "--syntax-check", book, cwd=ROOT / "ansible"
    )
    assert f"playbook: {book}" in said
