"""The command tree: quick help, aliases that lead somewhere, shared options anywhere on the line."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from appliance.cli import root as tree
from appliance.cli.root import COMMANDS, Group, Invocation, Root, root, run

HELP_RATIO = 3.0
"""What the help may cost, in starts of Python with click: a person should not see it being computed,
and the verdict must not depend on the machine."""


def cpu_of(*arguments: str) -> float:
    """Run Python; return the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_cheap() -> None:
    pairs = [(cpu_of("-c", "import click"), cpu_of("-m", "appliance", "--help")) for _ in range(7)]
    plain, ours = (min(each) for each in zip(*pairs, strict=True))
    print(f"headwater --help: {ours:.3f} s CPU, Python with click {plain:.3f} s")
    assert ours <= HELP_RATIO * plain


def test_help_imports_no_server() -> None:
    code = (
        "import sys; from appliance.cli.root import run; run(['--help']);"
        "print([m for m in ('aiohttp', 'sqlalchemy', 'cryptography', 'msgspec', 'yaml', 'asyncio')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def verbs(
    group: click.Group, path: tuple[str, ...] = ()
) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += verbs(command, (*path, name))
    return found


ALL = verbs(root)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_explains_itself(
    path: tuple[str, ...], command: click.Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.help
    assert run([*path, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert command.help.splitlines()[0] in said


def test_aliases_lead_to_commands() -> None:
    context = click.Context(root)
    for alias, name in tree.ALIASES.items():
        assert root.get_command(context, alias) is root.get_command(context, name)
    for _, command in ALL:
        if isinstance(command, Group):
            for alias, name in command.aliases.items():
                assert command.get_command(context, alias) is command.commands[name]


def test_table_of_commands_matches_their_help() -> None:
    assert isinstance(root, Root)
    for name, (_, _, summary) in COMMANDS.items():
        command = root.get_command(click.Context(root), name)
        assert command is not None
        assert summary.rstrip(".")


@pytest.mark.parametrize(
    "line",
    [
        ["-o", "json", "generate", "private-key"],
        ["generate", "-o", "json", "private-key"],
        ["gen", "private-key", "-o", "json"],
    ],
)
def test_shared_options_may_stand_anywhere(
    line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line) == 0
    assert '"private_key": "privkey:' in capsys.readouterr().out


def test_unknown_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["usres", "list"]) == 1
    assert "usres" in capsys.readouterr().err


def test_socket_comes_from_the_site_file(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("socket: {path: /tmp/elsewhere.sock}\n")
    assert Invocation(config=site).client().way.name == "/tmp/elsewhere.sock"  # noqa: S108
    assert Invocation(config=site, socket=Path("/a")).client().way.name == "/a"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts_name_the_program(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["completion", shell]) == 0
    assert "_HEADWATER_COMPLETE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("headwater pol", "plain,policy"),
        ("headwater policy exp", "plain,explain"),
        ("headwater policy check ./", "file,./"),
        ("headwater policy check --tailnet ./", "file,./"),
        ("headwater users set-role bob net", "plain,network-admin"),
    ],
)
def test_shells_complete_nouns_verbs_files_and_roles(
    words: str, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_HEADWATER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        root.main([], prog_name="headwater", complete_var="_HEADWATER_COMPLETE")
    assert found in capsys.readouterr().out.splitlines()


def test_powershell_is_told_words_and_their_meaning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """B12: the peer has a script for this shell, too."""
    monkeypatch.setenv("_HEADWATER_COMPLETE", "powershell_complete")
    monkeypatch.setenv("COMP_WORDS", "headwater nodes ren")
    monkeypatch.setenv("COMP_CWORD", "ren")
    with pytest.raises(SystemExit):
        run([])
    assert "plain\trename\tGive a node" in capsys.readouterr().out


def test_generated_keys_are_good(capsys: pytest.CaptureFixture[str]) -> None:
    from appliance.wire.keys import MeshKey, PrivateKey

    assert run(["generate", "private-key"]) == 0
    PrivateKey.parse(capsys.readouterr().out)
    assert run(["generate", "mesh-key"]) == 0
    MeshKey.parse(capsys.readouterr().out)
