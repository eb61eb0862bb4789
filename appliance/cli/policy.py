"""``headwater policy``: who may reach whom; read, checked, compared, explained, put in force.

Every question works on the running server, and without one on a tailnet that ``policy dump`` wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from appliance.cli import policytext
from appliance.cli.client import Client, CommandFailed, Plain, Unreachable
from appliance.cli.output import emit, moment
from appliance.cli.policydesk import PATH, desk, dump_path, optional, read_only, refusals
from appliance.cli.policyfile import (
    PATHS,
    STDIN,
    PolicyFile,
    PolicyRefused,
    complain,
    placed,
    read,
    told,
)
from appliance.cli.policyfmt import fmt
from appliance.cli.root import Command, Group, Invocation

if TYPE_CHECKING:
    from appliance.cli.policybypass import Direct

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")


class _Command(Command):
    """A command whose ``--tailnet`` may also be a dumped tailnet, and is shown."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for option in self.params:
            if isinstance(option, click.Option) and option.name == "tailnet":
                option.hidden = False
                option.type = PATHS
                option.metavar = "DUMP.json|NAME"
                option.help = (
                    "Ask no server: answer for the tailnet that 'policy dump' wrote to this file. "
                    "(A word without dot and slash names one of the server's tailnets.)"
                )


class _Group(Group):
    command_class = _Command


@click.group(cls=_Group)
def policy() -> None:
    """Say who may reach whom.

    \b
    On the server:
      headwater policy get > policy.hujson
      headwater policy diff policy.hujson
      headwater policy set policy.hujson
      headwater policy explain alice@example.com web:443
    Anywhere else, such as a CI job, with a dump of the tailnet:
      headwater policy dump tailnet.json
      headwater policy fmt --check policy.hujson
      headwater policy check policy.hujson --tailnet tailnet.json
      headwater policy diff policy.hujson --against main.hujson --tailnet tailnet.json

    FILE may be - for standard input. Exit codes: 0 fine, 1 refused (or a test failed, or not
    formatted, or wrongly called), 3 no server.
    """


def _takes_file(function: F) -> F:
    """Take FILE as an argument or, as Headscale's command has it, with -f."""
    text = "The same as FILE."
    function = click.option("-f", "--file", "named", type=PATHS, default="", help=text)(function)
    return click.argument("file", type=PATHS, required=False, default="")(function)


def _chosen(file: str, named: str) -> PolicyFile:
    """Read the file that was named in either way. Raises UsageError, CommandFailed."""
    if bool(file) == bool(named):
        raise click.UsageError("name one policy FILE, or - for standard input")
    return read(file or named)


def _takes_bypass(function: F) -> F:
    """Take Headscale's flag, in the spelling of its releases before 0.30 too."""
    names = (
        "--bypass-server-and-access-database-directly",
        "--bypass-grpc-and-access-database-directly",
    )
    text = "While no server runs: open the database that the site file (-c) names."
    return click.option(*names, "bypass", is_flag=True, help=text)(function)


# ── questions: with a server or without ─────────────────────────────────────────────────────────


@policy.verb("check")
@_takes_file
@click.option("--offline", is_flag=True, help="Only read the text: no tailnet, no tests.")
@click.option("--domain", "domains", multiple=True, help="With --offline: a domain you own.")
@click.option(
    "--provider", "providers", multiple=True, help="With --offline: a provider that has groups."
)
@_takes_bypass
@click.pass_obj
def check(
    invocation: Invocation,
    file: str,
    named: str,
    *,
    offline: bool,
    domains: tuple[str, ...],
    providers: tuple[str, ...],
    bypass: bool,
) -> None:
    """Say whether a policy may be put in force: it reads, and its own tests hold.

    Every mistake is named as FILE:LINE:COLUMN, all of them at once. Words that match no user are
    noted: they may be misspelt, or for somebody who has yet to log in.

    \b
    Example:
      headwater policy check policy.hujson
      headwater policy check policy.hujson --tailnet tailnet.json
      headwater policy check --offline --domain example.com policy.hujson
    """
    text = _chosen(file, named)
    answer: Plain = {}
    try:
        if offline:
            read_only(text, domains, providers)
        elif bypass:
            answer = _directly(invocation, lambda direct: direct.check(text))
        else:
            answer = _advised(lambda: desk(invocation).check(text), offline=True)
    except PolicyRefused as refusal:
        if invocation.output:
            _emit_mistakes(invocation, text, refusal)
        complain(text, refusal, invocation.output)
    notes = cast(list[Plain], answer.get("notes", []))
    if notes and not invocation.output:
        click.echo("\n".join(placed(text, notes, "note: ")), err=True)
    said = f"{text.name}: reads well; its tests need the tailnet" if offline else "Policy is valid"
    emit(invocation.output, {"ok": True, "mistakes": [], **answer}, said)


def _advised(ask: Callable[[], Plain], *, offline: bool = False) -> Plain:
    """Ask; where no server answers, say how to do without."""
    try:
        return ask()
    except Unreachable as failure:
        advice = f"{failure.advice}; without one, use --tailnet DUMP.json"
        if offline:
            advice += ", or --offline to read the text only"
        raise Unreachable(failure.sentence, advice) from failure


def _emit_mistakes(invocation: Invocation, file: PolicyFile, refusal: PolicyRefused) -> None:
    """Give the mistakes to a program, and end with exit code 1."""
    name = (refusal.file or file).name
    found = [{"file": name, **mistake} for mistake in refusal.mistakes]
    lines = told(file, refusal)
    emit(invocation.output, {"ok": False, "error": "\n".join(lines), "mistakes": found}, "")
    raise click.exceptions.Exit(1)


@policy.verb("test")
@_takes_file
@click.pass_obj
def test(invocation: Invocation, file: str, named: str) -> None:
    """Run a policy's own tests; without FILE, those of the policy in force.

    \b
    Example:
      headwater policy test policy.hujson --tailnet tailnet.json
    """
    text = _chosen(file, named) if file or named else None
    source = text or PolicyFile("policy in force", "")
    try:
        answer = _advised(lambda: desk(invocation).test(text))
    except PolicyRefused as refusal:
        if invocation.output:
            _emit_mistakes(invocation, source, refusal)
        complain(source, refusal, invocation.output)
    mistakes = cast(list[Plain], answer["mistakes"])
    if invocation.output:
        emit(invocation.output, answer, "")
    elif mistakes:
        click.echo("\n".join(placed(source, mistakes)), err=True)
        click.echo(f"{source.name}: test(s) failed", err=True)
    else:
        click.echo(f"{source.name}: {_count(answer['tests'])}")
    if mistakes:
        raise click.exceptions.Exit(1)


def _count(tests: object) -> str:
    return f"all {tests} test(s) hold" if tests else "no tests"


@policy.verb("diff")
@_takes_file
@click.option(
    "--against",
    type=PATHS,
    default="",
    help="The policy to start from (default: the one in force).",
)
@click.option("--exit-code", is_flag=True, help="End with 1 if anything would change.")
@click.pass_obj
def diff(invocation: Invocation, file: str, named: str, against: str, *, exit_code: bool) -> None:
    """Say what a policy would change, node by node, before it is put in force.

    \b
    Example:
      headwater policy diff policy.hujson
      headwater policy diff new.hujson --against old.hujson --tailnet tailnet.json
    """
    text = _chosen(file, named)
    old = optional(against)
    try:
        answer = _advised(lambda: desk(invocation).diff(text, old))
    except PolicyRefused as refusal:
        complain(text, refusal, invocation.output)
    emit(invocation.output, answer, lambda: policytext.difference(answer))
    if exit_code and answer["changes"]:
        raise click.exceptions.Exit(1)


@policy.verb("explain")
@click.argument("src")
@click.argument("dst")
@click.option("--proto", default="", help="Protocol, by name or number (default: the usual ones).")
@click.option("--user", default="", help="Ask whether SSH lets SRC log in as this local user.")
@click.option(
    "-f", "--file", type=PATHS, default="", help="Ask about this policy, not the one in force."
)
@click.option("--exit-code", is_flag=True, help="End with 1 if it is denied.")
@click.pass_obj
def explain(
    invocation: Invocation,
    src: str,
    dst: str,
    proto: str,
    user: str,
    file: str,
    *,
    exit_code: bool,
) -> None:
    """Say which rule lets SRC reach DST[:PORT], or which rules come near and why they miss.

    SRC and DST are nodes, users, tags, groups, hosts of the policy or addresses. Also says which
    router leads there, and which rules for SSH let SRC log in, as whom, and how: 'accept' asks
    nothing, 'check' asks for an approval that is good for some time.

    \b
    Example:
      headwater policy explain laptop web:443
      headwater policy explain alice@example.com tag:db:5432 --proto tcp
      headwater policy explain laptop web --user root
      headwater policy explain laptop 10.1.0.9 -f new.hujson --tailnet tailnet.json
    """
    text = optional(file)
    source = text or PolicyFile("policy in force", "")
    try:
        answer = _advised(lambda: desk(invocation).explain(text, src, dst, proto, user))
    except PolicyRefused as refusal:
        complain(source, refusal, invocation.output)
    emit(invocation.output, answer, lambda: policytext.explanation(answer))
    if exit_code and not answer["allowed"]:
        raise click.exceptions.Exit(1)


policy.add_command(fmt)
policy.aliases["format"] = "fmt"


# ── the server's policy ─────────────────────────────────────────────────────────────────────────


@policy.verb("get", "show", "view", "fetch", cls=Command)
@_takes_bypass
@click.pass_obj
def get(invocation: Invocation, *, bypass: bool) -> None:
    """Print the policy in force, as it was written, whatever -o says: it is HuJSON already."""
    if bypass:
        record = _directly(invocation, lambda direct: direct.get())
        if record is None:
            raise CommandFailed("acl policy not found: no policy is set in this database")
        text = record.text
    else:
        text = str(_online(invocation).get(PATH)["policy"])
    click.echo(text.removesuffix("\n"))


def _directly(invocation: Invocation, work: Callable[[Direct], Coroutine[None, None, T]]) -> T:
    from appliance.cli.policybypass import directly  # imports the whole program

    return directly(invocation, work)


@policy.verb("set", "put", "update", cls=Command)
@_takes_file
@click.option(
    "--if-match",
    metavar="ETAG",
    default=None,
    help="Only if the policy in force is still the one with this ETag ('policy status' has it).",
)
@_takes_bypass
@click.pass_obj
def put(
    invocation: Invocation, file: str, named: str, if_match: str | None, *, bypass: bool
) -> None:
    """Put a policy in force: nodes hear of it at once. One with mistakes is refused.

    Only where the policy is kept in the database; 'headwater policy status' says where it is. Its
    ETag tells texts apart: ask for it before you read the policy, and nobody's change gets lost.

    \b
    Example:
      headwater policy diff policy.hujson
      headwater policy set policy.hujson
      headwater policy set first.hujson --if-match ts-default     (only if there is none yet)
    """
    text = _chosen(file, named)
    headers = _condition(if_match)
    if bypass and headers:
        raise click.UsageError("--if-match asks the server, and --bypass-… is for when none runs")
    try:
        if bypass:
            _directly(invocation, lambda direct: direct.put(text))
        else:
            with refusals():
                _online(invocation).call("PUT", PATH, {"policy": text.text}, headers=headers)
    except PolicyRefused as refusal:
        complain(text, refusal, invocation.output)
    click.echo("Policy updated.")


def _condition(if_match: str | None) -> dict[str, str]:
    if if_match is None:
        return {}
    # An empty one comes from a script's variable that is not set: it must not mean "whatever".
    if not if_match.strip() or not (if_match.isascii() and if_match.isprintable()):
        raise click.UsageError("--if-match wants an ETag, as 'headwater policy status' shows it")
    return {"If-Match": if_match}


@policy.verb("status", cls=Command)
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Say where the policy comes from, since when it is in force, and what is wrong with it."""
    answer = _online(invocation).get(f"{PATH}/status")
    emit(invocation.output, answer, lambda: _status(answer))


def _status(answer: Plain) -> str:
    lines = [f"source: {answer['source']}" + (f" {answer['file']}" if answer["file"] else "")]
    if answer["deniesAll"]:
        lines.append(
            "in force: nothing may reach anything, until there is a policy that can be used"
        )
    elif answer["since"] is None:
        lines.append("in force: none was ever set: everything may reach everything")
    else:
        lines.append(f"in force: since {moment(answer['since'])}, by {answer['by']}")
    lines.append(f"etag: {answer['etag']}")
    if answer["trouble"]:
        lines.append(f"trouble since {moment(answer['troubleSince'])}:")
        lines += [f"  {line}" for line in str(answer["trouble"]).splitlines()]
    return "\n".join(lines)


@policy.verb("dump", cls=Command)
@click.argument("file", type=PATHS, required=False, default="")
@click.pass_obj
def dump(invocation: Invocation, file: str) -> None:
    """Write what policies look at (names, addresses, tags, routes; no keys) as JSON to FILE.

    The other commands take such a file with --tailnet, on machines that cannot reach the server.

    \b
    Example:
      headwater policy dump tailnet.json
    """
    from appliance.cli.output import render

    answer = _online(invocation).get(f"{PATH}/dump")
    if file in ("", STDIN):
        click.echo(render(invocation.output or "json", answer))
        return
    text = render("json", answer) + "\n"
    try:
        Path(file).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from error


def _online(invocation: Invocation) -> Client:
    if dump_path(invocation) is not None:
        raise click.UsageError("a dumped tailnet has no policy: this is a command for the server")
    return invocation.client()
