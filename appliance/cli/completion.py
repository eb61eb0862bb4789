"""``headwater completion``: the script that makes a shell complete our commands.

Click knows three shells; PowerShell, which Headscale's command line also has, is here.
"""

from __future__ import annotations

import os
from typing import ClassVar

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from appliance.cli.root import COMPLETE_VARIABLE, Command, root

_POWERSHELL = """\
Register-ArgumentCompleter -Native -CommandName %(prog_name)s -ScriptBlock {
    param($word, $line, $at)
    $length = [Math]::Max(0, [Math]::Min($line.ToString().Length, $at - $line.Extent.StartOffset))
    $env:%(complete_var)s = "powershell_complete"
    $env:COMP_WORDS = $line.ToString().Substring(0, $length)
    $env:COMP_CWORD = $word
    try {
        %(prog_name)s | ForEach-Object {
            $kind, $value, $help = $_ -split "`t", 3
            if ($kind -eq "plain") {
                if (-not $help) { $help = $value }
                [System.Management.Automation.CompletionResult]::new(
                    $value, $value, "ParameterValue", $help)
            }
        }
    } finally {
        Remove-Item Env:%(complete_var)s, Env:COMP_WORDS, Env:COMP_CWORD
    }
}
"""


@add_completion_class
class PowerShell(ShellComplete):
    """PowerShell: a line a word, with its kind before and its help behind it."""

    name: ClassVar[str] = "powershell"
    source_template: ClassVar[str] = _POWERSHELL

    def get_completion_args(self) -> tuple[list[str], str]:
        """Give the whole words of the line, and the one that is being written."""
        incomplete = os.environ["COMP_CWORD"]
        words = split_arg_string(os.environ["COMP_WORDS"])[1:]
        if incomplete and words:
            words.pop()
        return words, incomplete

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Give the line of one word."""
        help_text = " ".join((item.help or "").split())
        return f"{item.type}\t{item.value}\t{help_text}"


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "powershell"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Example:
      headwater completion bash > /etc/bash_completion.d/headwater
    """
    kind = get_completion_class(shell)
    if kind is None:  # one of the four is always there
        raise click.UsageError(f"no completion for {shell}")
    click.echo(kind(root, {}, "headwater", COMPLETE_VARIABLE).source())
