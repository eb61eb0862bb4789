"""The command tree: which module has which command, and the options that every command takes.

Not for what commands do: each noun has its module, imported when its command runs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from appliance.cli import goflags
from appliance.cli.client import DEFAULT_SOCKET, Client, CommandFailed, SocketWay
from appliance.cli.output import FORMATS, RELEASES, complain, emit

F = TypeVar("F", bound=Callable[..., object])

CONFIG_PLACES = tuple(
    Path("/etc/headwater") / f"config.{ending}" for ending in ("yaml", "toml", "json")
)
"""Where the site file is looked for when -c does not name it."""

# name -> (module, attribute, help); the help is here so that --help imports no module.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "serve": ("serve", "serve", "Run the server."),
    "dev": ("dev", "dev", "Run a complete throw-away server for trying and testing."),
    "relay": ("relay", "relay", "Run a relay (DERP and STUN) alone."),
    "config": ("configuration", "config", "Check, show and convert site files."),
    "deploy": ("deploy", "deploy", "Write what a site puts on a machine: units, firewall, user."),
    "users": ("users", "users", "Manage the people who own nodes."),
    "preauthkeys": ("preauthkeys", "preauthkeys", "Manage keys that enrol nodes unattended."),
    "apikeys": ("apikeys", "apikeys", "Manage keys for programs and for this command elsewhere."),
    "oauth-clients": ("oauthclients", "oauthclients", "Manage programs that get tokens."),
    "nodes": ("nodes", "nodes", "Manage the devices of the tailnet."),
    "policy": ("policy", "policy", "Say who may reach whom: check, compare, explain, set."),
    "ssh": ("ssh", "ssh", "Approve or deny SSH logins that the policy has checked."),
    "auth": ("auth", "auth", "Let in or turn away devices that ask to join without a key."),
    "sign-in-link": ("auth", "sign_in_link", "Make a link that signs somebody in once."),
    "audit": ("audit", "audit", "List who changed what, newest first."),
    "certificates": (
        "certificates",
        "certificates",
        "Look at the server's certificate, and have it renewed.",
    ),
    "health": ("health", "health", "Ask the server whether it is well."),
    "version": ("health", "version", "Print the version."),
    "generate": ("generate", "generate", "Make keys."),
    "completion": ("completion", "completion", "Print the completion script of a shell."),
    "configtest": ("configuration", "check", "The same as 'config check'."),
}
ALIASES = {
    "user": "users",
    "node": "nodes",
    "machine": "nodes",
    "preauthkey": "preauthkeys",
    "authkey": "preauthkeys",
    "pre": "preauthkeys",
    "apikey": "apikeys",
    "api": "apikeys",
    "oauth-client": "oauth-clients",
    "oauth": "oauth-clients",
    "acl": "policy",
    "certificate": "certificates",
    "cert": "certificates",
    "certs": "certificates",
    "gen": "generate",
}
HIDDEN = frozenset({"configtest"})

CONTEXT = {"max_content_width": 100, "help_option_names": ["-h", "--help"]}

COMPLETE_VARIABLE = "_HEADWATER_COMPLETE"
"""Set by the script of a shell that wants words completed."""

HELP = """Headwater: a control server for Tailscale clients, with its own relay.

\b
Try it, without installing anything:
  headwater dev
Then, with a site file:
  headwater config check site.yaml
  headwater serve -c site.yaml
  headwater users create alice
  headwater preauthkeys create -u alice --reusable -e 24h
  tailscale up --login-server https://your.host --auth-key hskey-auth-...
"""


@dataclass(slots=True)
class Invocation:
    """What the options that every command takes say."""

    config: Path | None = None
    output: str = ""
    force: bool = False
    socket: Path | None = None
    url: str = ""
    server: str = ""
    api_key_file: Path | None = None
    ca_file: Path | None = None
    tailnet: str = ""
    compat: str = ""
    """The release of Headscale whose machine forms are wanted; empty means the server's."""

    @property
    def config_path(self) -> Path | None:
        """The site file that was named, or the one in its usual place."""
        if self.config is not None:
            return self.config
        # A file that only the server may read is none for people who use the command line.
        return next((path for path in CONFIG_PLACES if os.access(path, os.R_OK)), None)

    def client(self) -> Client:
        """Give the server that the options mean. Raises CommandFailed for a bad site file."""
        names_local = self.socket is not None or self.config is not None
        if self.url or self.server or not names_local:
            from appliance.cli import servers

            asked = servers.Asked(self.url, self.server, self.api_key_file, self.ca_file)
            found = servers.find(asked)
            if found is not None:
                from appliance.cli.network import NetworkWay

                return Client(NetworkWay(found), self.tailnet or found.tailnet)
        return Client(SocketWay(self.socket or self._configured_socket()), self.tailnet)

    def tell(self, client: Client, value: object, text: str | Callable[[], str]) -> None:
        """Print what Headscale has too: in the machine form of its release, or else ``text``."""
        if self.output:
            from appliance.cli.peerforms import in_form

            value = in_form(value, self.compat or client.release(), self.output)
        emit(self.output, value, text)

    def _configured_socket(self) -> Path:
        path = self.config_path
        if path is None:
            return DEFAULT_SOCKET
        from appliance import config  # only commands that need the file pay for reading it

        try:
            document = config.read_document(path)
        except config.ConfigError as error:
            raise CommandFailed(str(error), "name the socket with --socket PATH") from error
        section = document.get("socket") if isinstance(document, dict) else None
        named = section.get("path") if isinstance(section, dict) else None
        return Path(named) if isinstance(named, str) else DEFAULT_SOCKET


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep a shared option's value, wherever on the line it stood."""
    invocation = ctx.ensure_object(Invocation)
    if value not in (None, "", False) and param.name is not None:
        setattr(invocation, param.name, value)


def _shared_options(*, hidden: bool) -> list[click.Option]:
    return [
        click.Option(
            ["-c", "--config"],
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="Site file (default: /etc/headwater/config.yaml, .toml or .json).",
        ),
        click.Option(
            ["-o", "--output"],
            type=click.Choice(FORMATS),
            expose_value=False,
            callback=_remember,
            help="Machine-readable output.",
        ),
        click.Option(
            ["--force"],
            is_flag=True,
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="Do not ask before removing things.",
        ),
        click.Option(
            ["--socket"],
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="The server's local socket (default: the one of the site file).",
        ),
        click.Option(
            ["--url"],
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="A server elsewhere, like https://headwater.example.com (or HEADWATER_URL).",
        ),
        click.Option(
            ["--api-key-file"],
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="File with the API key for it (or HEADWATER_API_KEY_FILE).",
        ),
        click.Option(
            ["--ca-file"],
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="Authorities that vouch for its certificate (default: the system's).",
        ),
        click.Option(
            ["--server"],
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="Name of a server in ~/.config/headwater/servers.toml.",
        ),
        click.Option(
            ["--compat"],
            type=click.Choice(RELEASES),
            expose_value=False,
            callback=_remember,
            hidden=hidden,
            help="Release of Headscale whose -o json and -o yaml are wanted (default: the server's).",
        ),
        click.Option(
            ["--tailnet"],
            expose_value=False,
            callback=_remember,
            hidden=True,
            help="Name of the tailnet, where the server has several.",
        ),
    ]


class Command(click.Command):
    """A command that also takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_shared_options(hidden=True))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take flags in Go's form, too."""
        return super().parse_args(ctx, goflags.normalise(self.params, args, whole=True))


class Group(click.Group):
    """A noun: its verbs have aliases and take the shared options."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aliases: dict[str, str] = {}
        self.params.extend(_shared_options(hidden=self.name != "headwater"))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take flags in Go's form, too; a noun alone gives its help, which is no mistake."""
        args = goflags.normalise(self.params, args, whole=False)
        is_alone = goflags.first_word(self.params, args) is None
        if is_alone and not ctx.resilient_parsing and not self._is_wrong(ctx, args):
            click.echo(self.get_help(ctx))
            ctx.exit()
        return super().parse_args(ctx, args)

    def _is_wrong(self, ctx: click.Context, args: list[str]) -> bool:
        """Tell whether options stand alone that click must judge (--help, or unknown ones)."""
        known = {name for param in self.get_params(ctx) for name in param.opts}
        known -= set(self.get_help_option_names(ctx))
        words = (word.partition("=")[0] for word in args if word.startswith("-"))
        return any(word not in known and word[:2] not in known for word in words)

    def verb(self, name: str, *aliases: str, **settings: Any) -> Callable[[F], click.Command]:
        """Add a verb under its name and other names that people type."""
        for alias in aliases:
            self.aliases[alias] = name

        def add(function: F) -> click.Command:
            return self.command(name, **settings)(function)

        return add

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a verb by name or alias."""
        return super().get_command(ctx, self.aliases.get(cmd_name, cmd_name))


class Root(Group):
    """All nouns; a module is imported when its command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Name the commands in the order of the table."""
        return [name for name in COMMANDS if name not in HIDDEN]

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        cmd_name: str,
    ) -> click.Command | None:
        """Import the module of a command and give the command."""
        place = COMMANDS.get(ALIASES.get(cmd_name, cmd_name))
        if place is None:
            return None
        module = importlib.import_module(f"appliance.cli.{place[0]}")
        return cast(click.Command, getattr(module, place[1]))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][2]) for name in self.list_commands(ctx)])


@click.group("headwater", cls=Root, help=HELP, context_settings=CONTEXT)
@click.pass_context
def root(ctx: click.Context) -> None:
    """Keep the shared options for the command."""
    ctx.ensure_object(Invocation)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit code.

    0: done. 1: refused, failed or wrongly called, as Headscale has it. 3: the server cannot be
    reached (a script that judges a policy must tell this from "refused"). 130: interrupted.
    """
    invocation = Invocation()
    if os.environ.get(COMPLETE_VARIABLE, "").startswith("powershell"):
        importlib.import_module("appliance.cli.completion")  # click does not know this shell
    try:
        # Without its standalone mode click gives back the code of an Exit.
        code: object = root.main(
            list(arguments), prog_name="headwater", standalone_mode=False, obj=invocation
        )
    except click.ClickException as error:
        if invocation.output:
            complain(invocation.output, error.format_message())
        else:
            error.show()
        return 1  # click's own code for wrong usage is 2
    except click.Abort:
        return 130
    except CommandFailed as error:
        complain(invocation.output, error.sentence, error.advice)
        return error.exit_code
    return code if isinstance(code, int) else 0
