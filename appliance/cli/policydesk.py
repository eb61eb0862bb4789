"""Who answers questions about policies: the running server, or this process with a dumped tailnet.

Both give the same plain answers. Not for printing (``policy``). The engine is imported by the desk
that needs it, when it is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import click

from appliance.cli.client import Client, CommandFailed, Plain
from appliance.cli.policyfile import STDIN, PolicyFile, PolicyRefused, read
from appliance.cli.root import Invocation

if TYPE_CHECKING:
    from appliance.policy.answers.commands import Subjects

PATH = "/api/v1/policy"


class Desk(Protocol):
    """Answers questions. Raises PolicyRefused for a policy with mistakes, CommandFailed else."""

    def check(self, policy: PolicyFile) -> Plain:
        """Say whether a policy may be put in force, and what in it is worth a look (``notes``)."""
        ...

    def test(self, policy: PolicyFile | None) -> Plain:
        """Run the tests of a policy, or of the one in force."""
        ...

    def diff(self, policy: PolicyFile, against: PolicyFile | None) -> Plain:
        """Say what a policy would change, against another one or the one in force."""
        ...

    def explain(
        self, policy: PolicyFile | None, src: str, dst: str, protocol: str, user: str
    ) -> Plain:
        """Say why ``src`` may reach ``dst`` or not, and log in there, as ``user`` if not empty."""
        ...


def desk(invocation: Invocation) -> Desk:
    """Give the desk that ``--tailnet`` means: a dumped tailnet, or the server."""
    dump = dump_path(invocation)
    return Online(invocation.client()) if dump is None else Offline(dump)


def dump_path(invocation: Invocation) -> str | None:
    """Tell a dump from the name of a tailnet on the server: names have neither dots nor slashes."""
    value = invocation.tailnet
    return value if value == STDIN or "." in value or "/" in value else None


class Online:
    """The running server, over its socket."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def check(self, policy: PolicyFile) -> Plain:
        """See Desk."""
        with refusals():
            return self._client.post(f"{PATH}/check", {"policy": policy.text})

    def test(self, policy: PolicyFile | None) -> Plain:
        """See Desk."""
        with refusals():
            return self._client.post(f"{PATH}/test", _body(policy=policy))

    def diff(self, policy: PolicyFile, against: PolicyFile | None) -> Plain:
        """See Desk."""
        with refusals(against):
            return self._client.post(f"{PATH}/diff", _body(policy=policy, against=against))

    def explain(
        self, policy: PolicyFile | None, src: str, dst: str, protocol: str, user: str
    ) -> Plain:
        """See Desk."""
        question: Plain = {"src": src, "dst": dst, "protocol": protocol, "user": user}
        with refusals():
            return self._client.post(f"{PATH}/explain", question | _body(policy=policy))


def _body(**files: PolicyFile | None) -> Plain:
    return {name: file.text for name, file in files.items() if file is not None}


@contextmanager
def refusals(against: PolicyFile | None = None) -> Iterator[None]:
    """Turn the server's refusal of a policy into its mistakes."""
    try:
        yield
    except CommandFailed as failure:
        mistakes = failure.answer.get("mistakes")
        if not mistakes:
            raise
        file = against if failure.answer.get("of") == "against" else None
        raise PolicyRefused(failure.sentence, cast(list[Plain], mistakes), file) from failure


class Offline:
    """The engine in this process, and a tailnet that ``policy dump`` wrote."""

    def __init__(self, path: str) -> None:
        self._path = path

    def check(self, policy: PolicyFile) -> Plain:
        """See Desk."""
        from appliance.policy.answers.admission import admit
        from appliance.policy.answers.commands import check_written, checked

        with engine_refusals():
            check_written(policy.text)
            subjects = self._subjects()
            return plain(checked(admit(policy.text, *subjects), subjects.users))

    def test(self, policy: PolicyFile | None) -> Plain:
        """See Desk."""
        from appliance.policy.answers import commands

        text = _needed(policy, "FILE").text
        with engine_refusals():
            return plain(commands.test(text, self._subjects()))

    def diff(self, policy: PolicyFile, against: PolicyFile | None) -> Plain:
        """See Desk."""
        from appliance.policy.answers import commands as answers

        old = _needed(against, "--against FILE")
        with engine_refusals():
            subjects = self._subjects()
            new = answers.read(policy.text, subjects.background)
        with engine_refusals(old):
            before = answers.read(old.text, subjects.background)
        with engine_refusals():
            return plain(answers.diff(before, new, subjects))

    def explain(
        self, policy: PolicyFile | None, src: str, dst: str, protocol: str, user: str
    ) -> Plain:
        """See Desk."""
        from appliance.policy.answers import commands as answers
        from appliance.policy.answers.reasons import explain
        from appliance.policy.engine.compile import compile  # noqa: A004 - its name

        text = _needed(policy, "--file FILE").text
        with engine_refusals():
            subjects = self._subjects()
            compiled = compile(answers.read(text, subjects.background), *subjects)
            return plain(explain(compiled, subjects, src, dst, protocol, user=user))

    def _subjects(self) -> Subjects:
        from appliance.errors import Rejected
        from appliance.policy.answers import commands, dump

        try:
            if self._path == STDIN:
                data = sys.stdin.buffer.read(dump.MAX_BYTES + 1)
            else:
                data = Path(self._path).read_bytes()
            users, nodes, background = dump.decode(data)
            return commands.Subjects(users, nodes, background)
        except OSError as error:
            raise CommandFailed(f"{self._path}: {error.strerror}", _DUMP_ADVICE) from error
        except Rejected as refusal:
            raise CommandFailed(f"{self._path}: {refusal.sentence}", _DUMP_ADVICE) from refusal


_DUMP_ADVICE = "'headwater policy dump FILE' on the server writes such a file"


def _needed(file: PolicyFile | None, what: str) -> PolicyFile:
    if file is None:
        raise click.UsageError(f"a dumped tailnet has no policy of its own: say {what}")
    return file


def read_only(
    policy: PolicyFile, domains: tuple[str, ...], providers: tuple[str, ...] = ()
) -> None:
    """Read a policy without any tailnet. Raises PolicyRefused."""
    from appliance.policy.answers.commands import check_written
    from appliance.policy.text.document import decode

    with engine_refusals():
        check_written(policy.text)
        decode(
            policy.text,
            domains=frozenset(each.lower() for each in domains),
            providers=frozenset(providers),
        )


def lay_out(policy: PolicyFile) -> str:
    """Give the text in the house's layout. Raises PolicyRefused if it is not even HuJSON."""
    from appliance.policy.text import layout

    with engine_refusals():
        return layout.lay_out(policy.text)


@contextmanager
def engine_refusals(file: PolicyFile | None = None) -> Iterator[None]:
    """Turn what the engine refuses into what the command line says."""
    from appliance.errors import Rejected
    from appliance.policy.answers.commands import mistakes_of

    try:
        yield
    except Rejected as refusal:
        mistakes = [plain(each) for each in mistakes_of(refusal)]
        if not mistakes:
            raise CommandFailed(refusal.sentence) from refusal
        raise PolicyRefused(refusal.sentence, mistakes, file) from refusal


def plain(value: object) -> Plain:
    """Give what a server would have sent."""
    import msgspec

    return cast(Plain, msgspec.json.decode(msgspec.json.encode(value)))


def optional(path: str) -> PolicyFile | None:
    """Read a file that may not have been named."""
    return read(path) if path else None
