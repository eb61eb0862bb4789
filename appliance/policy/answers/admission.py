"""The one gate for policy texts: read, tested against itself, compiled; or refused.

Every source of policies (file, database, settings) and every command goes through here. Not for
storing a text or for keeping the last good one: the caller has that one still. Sits on
``document``, ``selftest`` and ``compile``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.errors import Invalid
from appliance.policy.answers import selftest
from appliance.policy.answers.selftest import Failure
from appliance.policy.engine.compile import Compiled, compile  # noqa: A004 - its name
from appliance.policy.engine.limits import MAX_LOGINS_TOLD, MAX_TOLD, heaviest, heaviest_logins
from appliance.policy.text.document import decode
from appliance.policy.text.language import Background, Policy
from appliance.records import Node, NodeID, User, UserID


class TestsFailed(Invalid):
    """A policy whose own tests do not hold."""

    __test__ = False
    """Not a test, whatever a test runner makes of the name."""

    def __init__(self, failures: tuple[Failure, ...]) -> None:
        super().__init__("policy-tests-failed", selftest.describe(failures))
        self.failures = failures


@dataclass(frozen=True, slots=True)
class Admitted:
    """A policy that may be applied, and what it says of the tailnet."""

    text: str
    policy: Policy
    compiled: Compiled


def admit(
    text: str,
    users: Mapping[UserID, User],
    nodes: Mapping[NodeID, Node],
    background: Background,
    *,
    with_tests: bool = True,
) -> Admitted:
    """Return the policy of a text, ready to be applied. Raises PolicyError, TestsFailed
    or Invalid (policy-too-large).

    ``with_tests`` False is for the start of a server: a policy that was good when it was set stays
    in force, though a user whom its tests name may be gone since.
    """
    policy = decode(text, domains=background.domains, providers=background.providers)
    compiled = compile(policy, users, nodes, background)
    # A policy that is in force already stays, though the tailnet may have grown.
    if with_tests:
        _check_weight(compiled)
        rule_index = compiled.state.rule_index if compiled.state is not None else None
        failures = selftest.run(policy, users, nodes, background, rule_index)
        if failures:
            raise TestsFailed(failures)
    return Admitted(text, policy, compiled)


def _check_weight(compiled: Compiled) -> None:
    """Refuse a policy that no node could be told of."""
    if compiled.state is None:
        return
    told, logins = heaviest(compiled.state), heaviest_logins(compiled.state)
    if told > MAX_TOLD:
        raise Invalid(
            "policy-too-large",
            f"the rules of one node would list {told} source addresses, more than {MAX_TOLD}: "
            "join rules that have the same sources",
        )
    if logins > MAX_LOGINS_TOLD:
        raise Invalid(
            "policy-too-large",
            f"the SSH rules of one node would come to {logins} source addresses and users, more "
            f"than {MAX_LOGINS_TOLD}: join rules that have the same sources",
        )
