"""``/machine/ssh/action/…``: a node asks what to do with an SSH login that the policy has checked.

The node that the login ends at asks over its own Noise channel; what the URL says is only believed
of that node's own logins. The answer is an ``SSHAction``: accept, reject with words, or hold, which
makes the node ask again and be kept waiting until a person has decided. Every refusal is an answer
with status 200: clients repeat anything else in silence.

Not for which logins are checked (``policy.ssh``) nor for who decides (``identity.sshchecks``).
Source: control-protocol.md 7.4; tailscale ssh/tailssh (``clientAuth``, ``fetchSSHAction``).
"""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import timedelta
from urllib.parse import parse_qsl

from appliance.control.exchange import TEXT, Exchange
from appliance.errors import TooMany
from appliance.identity.sshchecks import SSHCheck, SSHChecks, SSHLogin, Verdict
from appliance.live import LiveTailnet, LiveTailnets
from appliance.policy.engine import ssh
from appliance.records import NodeID
from appliance.wire import tailcfg

log = logging.getLogger(__name__)

PREFIX = "/machine/ssh/action/"
HOLD_S = 50.0
"""How long one request is kept waiting: below the minute after which middleboxes and proxies cut
silent streams. The node asks again at once, and nobody sees it."""
MAX_LOCAL_USER_CHARS = 256
"""Linux takes 32, Windows 104; directories join names with domains."""
MAX_FIELDS = 8
"""Of the query; ours has two."""

_PATH = re.compile(re.escape(PREFIX) + r"([0-9]{1,19})/to/([0-9]{1,19})", re.ASCII)
_ACCEPT = tailcfg.SSHAction(
    accept=True,
    allow_agent_forwarding=True,
    allow_local_port_forwarding=True,
    allow_remote_port_forwarding=True,
)
"""Recorders are left out: the client then uses those of the rule that made it ask."""


class SSHActions:
    """Answers the requests of one server's nodes; ``hold_s`` is for tests."""

    def __init__(
        self, tailnets: LiveTailnets, checks: SSHChecks, *, hold_s: float = HOLD_S
    ) -> None:
        self._tailnets = tailnets
        self._checks = checks
        self._hold_s = hold_s

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request; it may wait for a person first."""
        if exchange.method != "GET":
            exchange.respond(405, b"GET is the only method here", content_type=TEXT)
            return
        match = _PATH.fullmatch(exchange.path)
        said = _fields(exchange.query)
        local_user = said.get("local_user", "")
        if match is None or not _is_name(local_user):
            exchange.respond(400, b"not a question about an SSH login", content_type=TEXT)
            return
        source, destination = NodeID(int(match[1])), NodeID(int(match[2]))
        live = self._live_of(destination)
        if live is None or not _is_asker(exchange, live, destination):
            # The same answer for both, so that node ids cannot be probed.
            exchange.respond(404, b"no such node for this machine", content_type=TEXT)
            return
        exchange.vouch()
        action = await self._decide(live, source, destination, local_user, said.get("check", ""))
        exchange.respond(200, tailcfg.encode(action))

    def _live_of(self, node_id: NodeID) -> LiveTailnet | None:
        return next((live for live in self._tailnets if node_id in live.snapshot.nodes), None)

    async def _decide(
        self, live: LiveTailnet, source: NodeID, destination: NodeID, local_user: str, check_id: str
    ) -> tailcfg.SSHAction:
        question = _question(live, source, destination, local_user)
        known = self._checks.get(check_id, live.clock()) if check_id else None
        if known is not None and not isinstance(question, str) and question[0] == known.login:
            await self._wait(known, live)
            # While somebody was asked, the policy or the source may have changed.
            question = _question(live, source, destination, local_user)
        if isinstance(question, str):
            return _reject(question)
        login, period = question
        if known is not None and known.login == login:
            return self._outcome(live, known)
        now = live.clock()
        if self._checks.is_approved(login, period, now):
            return _ACCEPT
        try:
            check = self._checks.ask(login, now, once=not period)
        except TooMany as refusal:
            return _reject(refusal.sentence)
        log.info(
            "ssh login waits for approval",
            extra={"node": live.snapshot.nodes[destination].name, "tailnet": live.id},
        )
        return _hold(check, _words(check, self._checks.link(check)))

    async def _wait(self, check: SSHCheck, live: LiveTailnet) -> None:
        left = (check.expires_at - live.clock()).total_seconds()
        try:
            async with asyncio.timeout(min(self._hold_s, max(0.0, left))):
                await check.decided.wait()
        except TimeoutError:
            return

    def _outcome(self, live: LiveTailnet, check: SSHCheck) -> tailcfg.SSHAction:
        if check.verdict is Verdict.APPROVED:
            return _ACCEPT
        if check.verdict is Verdict.DENIED:
            return _reject("this login was denied")
        if self._checks.get(check.id, live.clock()) is None:
            return _reject("nobody approved this login in time; connect again to ask once more")
        return _hold(check, "")


def _is_asker(exchange: Exchange, live: LiveTailnet, destination: NodeID) -> bool:
    node = live.snapshot.nodes[destination]
    return node.machine_key == exchange.machine_key and not node.is_expired(live.clock())


def _question(
    live: LiveTailnet, source: NodeID, destination: NodeID, local_user: str
) -> tuple[SSHLogin, timedelta] | str:
    """Give the login and how long an approval of it holds, or why there is nothing to approve."""
    node, state = live.snapshot.nodes.get(source), live.snapshot.compiled.state
    if node is None or node.is_expired(live.clock()):
        return "the device that you come from is no longer in this tailnet; log it in again"
    if state is None or source not in state.nodes or destination not in state.nodes:
        return "the policy is being worked out; connect again"
    period = ssh.check_period(state, source, destination, local_user)
    if period is None:
        return "the policy does not let this login in by approval (any more); connect again"
    return SSHLogin(live.id, source, node.owner_id, destination, local_user), period


def _words(check: SSHCheck, link: str) -> str:
    until = check.expires_at.strftime("%H:%M")
    page = f"# To approve it yourself, sign in at:\n#   {link}\n# Or ask" if link else "# Ask"
    return (
        "# This login needs an approval.\n"
        f"{page} an administrator of this tailnet to run, on its server:\n"
        f"#   headwater ssh approve {check.id}\n"
        f"# Waiting until {until} UTC ...\n"
    )


def _hold(check: SSHCheck, words: str) -> tailcfg.SSHAction:
    # The host means nothing, but the scheme does: newer clients go around Noise for http.
    url = f"https://unused{ssh.CHECK_PATH}&check={check.id}"
    return tailcfg.SSHAction(message=words, hold_and_delegate=url)


def _reject(why: str) -> tailcfg.SSHAction:
    return tailcfg.SSHAction(message=f"# {why}\n", reject=True)


def _fields(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_LOCAL_USER_CHARS and text.isprintable()
