"""Machines that ask to join, decided over the API; and the links that sign people in."""

from __future__ import annotations

from dataclasses import replace
from secrets import token_bytes
from typing import Any

import pytest

from appliance.api import logins as api_logins
from appliance.api.routes import Context, Nothing
from appliance.identity import credentials, sessions
from appliance.identity.principals import LOCAL
from appliance.identity.scopes import LOCAL_CALLER, Caller, Scope
from appliance.live import LiveTailnet, LiveTailnets
from appliance.records import CredentialKind, Role, SignInMethod
from appliance.tailnet import users
from appliance.tailnet.enrolment import Pending
from appliance.wire import tailcfg
from tests.api.conftest import House, Remote
from tests.support.builder import build, machine_key, node_key, sequences_after
from tests.support.livehouse import FakeStore
from tests.support.waitinglogins import logins_of


def waiting(house: House, name: str = "laptop") -> Pending:
    request = tailcfg.RegisterRequest(
        version=130,
        node_key=node_key(name),
        hostinfo=tailcfg.Hostinfo(hostname=name, os="linux", ipn_version="1.98.2"),
    )
    return house.door.logins.ask(machine_key(name), request, "192.0.2.1")


async def test_waiting_machines_are_listed(house: House) -> None:
    pending = waiting(house)
    status, body = await house.call("GET", "/api/v1/login")
    assert status == 200
    (login,) = body["logins"]
    assert login["authId"] == f"hskey-authreq-{pending.id}"
    assert login["url"].endswith(f"/register/{login['authId']}")
    assert (login["hostname"], login["source"], login["os"]) == ("laptop", "192.0.2.1", "linux")


async def test_who_only_looks_is_not_told_what_lets_a_machine_in(remote: Remote) -> None:
    """Whoever knows the id may have the machine joined as theirs."""
    waiting(remote.house)
    for scope, is_told in (("devices:core:read", False), ("devices:core", True)):
        _, body = await remote.call("GET", "/api/v1/login", await remote.key(scopes=[scope]))
        (login,) = body["logins"]
        assert login["hostname"] == "laptop"
        assert (bool(login["authId"]), bool(login["url"])) == (is_told, is_told)


async def test_machines_of_one_tailnet_are_not_shown_to_another(house: House) -> None:
    """An administrator of that one could have them joined there."""
    snapshot = build("bob: phone", tailnet_id=2)
    other = LiveTailnet(snapshot, FakeStore(), sequences_after(snapshot), clock=house.clock)
    tailnets = LiveTailnets([house.live, other])
    door = replace(house.door, tailnets=tailnets, logins=logins_of(tailnets))
    (phone,) = snapshot.nodes.values()
    for machine, name in ((machine_key("laptop"), "laptop"), (phone.machine_key, "phone")):
        request = tailcfg.RegisterRequest(
            version=130, node_key=node_key(f"new {name}"), hostinfo=tailcfg.Hostinfo(hostname=name)
        )
        door.logins.ask(machine, request, "192.0.2.1")

    async def shown(caller: Caller, live: LiveTailnet) -> list[str]:
        found = await api_logins.pending(Context(caller, door, live, {}), Nothing())
        return [each.hostname for each in found.logins]

    everything = frozenset({Scope.ALL})
    for live, names in ((house.live, ["laptop"]), (other, ["phone"])):
        assert await shown(Caller(LOCAL, everything, tailnet=live.id), live) == names
        assert await shown(LOCAL_CALLER, live) == ["laptop", "phone"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/auth/register", {"user": "alice", "authId": "hskey-authreq-{}"}),
        ("/api/v1/auth/register", {"user": "alice", "authId": "{}"}),
        ("/api/v1/node/register?user=alice&key=hskey-authreq-{}", None),
        ("/api/v1/node/register", {"user": "alice", "key": "{}"}),
        ("/api/v1/node/register?user=alice&key={}", {"user": "alice", "key": "{}"}),
    ],
)
async def test_machine_is_let_in_as_tools_say_it(
    house: House, path: str, body: dict[str, str] | None
) -> None:
    await house.user("alice")
    pending = waiting(house)
    filled = None if body is None else {k: v.format(pending.id) for k, v in body.items()}
    status, answer = await house.call("POST", path.format(pending.id), filled)
    assert status == 200, answer
    assert answer["node"]["name"] == "laptop"
    assert answer["node"]["user"]["name"] == "alice"
    assert answer["node"]["registerMethod"] == "REGISTER_METHOD_CLI"
    assert house.door.logins.approved == 1


@pytest.mark.parametrize(
    ("user", "auth_id", "status", "words"),
    [
        ("nobody", "{}", 404, "no user named"),
        ("", "{}", 400, "which user"),
        ("alice", "hskey-authreq-short", 400, "not the id of a login"),
        ("alice", "", 400, "not the id of a login"),
        ("alice", "hskey-authreq-" + "2" * 24, 404, "no login with this id"),
    ],
)
async def test_what_is_wrong_is_said(
    house: House, user: str, auth_id: str, status: int, words: str
) -> None:
    """C20."""
    await house.user("alice")
    body = {"user": user, "authId": auth_id.format(waiting(house).id)}
    got, answer = await house.call("POST", "/api/v1/auth/register", body)
    assert (got, words in answer["message"]) == (status, True), answer


async def test_reject_tells_the_machine_and_approve_needs_a_user(house: House) -> None:
    pending = waiting(house)
    status, answer = await house.call("POST", "/api/v1/auth/approve", {"authId": pending.url})
    assert (status, "auth register --user" in answer["message"]) == (400, True)
    status, _ = await house.call("POST", "/api/v1/auth/reject", {"authId": pending.url})
    assert status == 200
    assert house.door.logins.rejected == 1
    status, _ = await house.call("POST", "/api/v1/auth/reject", {"authId": pending.url})
    assert status == 404


async def link(house: House, body: dict[str, Any]) -> tuple[int, Any]:
    return await house.call("POST", "/api/v1/signin/link", body)


async def test_first_link_makes_the_owner(house: House) -> None:
    status, answer = await link(house, {})
    assert (status, "--user NAME" in answer["message"]) == (400, True)
    status, answer = await link(house, {"user": "alice"})
    assert status == 200
    owner = users.owner_of(house.live.snapshot)
    assert owner is not None
    assert (owner.name, answer["user"]["name"]) == ("alice", "alice")
    base, _, secret = answer["url"].rpartition("/")
    assert base == "https://control.example/signin/link"
    found = credentials.find(house.live.snapshot, CredentialKind.LINK, secret, house.clock())
    assert found is not None
    assert found.user_id == owner.id
    assert secret not in repr(house.live.snapshot)
    assert (await link(house, {}))[1]["user"]["name"] == "alice"
    status, _ = await link(house, {"user": "bob"})
    assert status == 404, "where there is an owner nobody is made by the way"


async def test_existing_user_becomes_owner_where_there_is_none(house: House) -> None:
    await house.user("bob")
    assert (await link(house, {"user": "bob"}))[0] == 200
    owner = users.owner_of(house.live.snapshot)
    assert owner is not None
    assert owner.name == "bob"


async def test_an_account_that_is_taken_away_is_signed_out(house: House) -> None:
    alice, bob = await house.user("alice"), await house.user("bob")
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        for user_id in (alice, bob):
            sessions.start(
                edit, user_id, SignInMethod.OIDC, house.clock(), random_bytes=token_bytes
            )
    assert (await house.call("POST", f"/api/v1/user/{alice}/unlink"))[0] == 200
    assert [each.user_id for each in house.live.snapshot.sessions.values()] == [bob]


async def test_invitation_makes_a_user_who_never_signed_in(house: House) -> None:
    body = {"name": "carol", "email": "carol@example.com"}
    status, answer = await house.call("POST", "/api/v1/invitation", body)
    assert (status, answer["user"]["email"]) == (200, "carol@example.com")
    assert answer["url"].startswith("https://control.example/invite/")
    status, again = await house.call("POST", "/api/v1/invitation", {"name": "carol"})
    assert (status, again["user"]["id"]) == (200, answer["user"]["id"])


async def test_invitation_makes_nobody_somebody_who_is_there(house: House) -> None:
    await house.node("alice", "laptop")
    status, answer = await house.call("POST", "/api/v1/invitation", {"name": "alice"})
    assert (status, "sign-in-link" in answer["message"]) == (409, True)
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        user = users.create(edit, "dave", house.clock(), role=Role.ADMIN)
        credentials.make_codes(edit, user.id, house.clock(), random_bytes=house.door.random_bytes)
    status, _ = await house.call("POST", "/api/v1/invitation", {"name": "dave"})
    assert status == 409


async def test_invitation_is_not_for_who_may_do_more_meanwhile(house: House) -> None:
    """Whoever made it may have kept it, and could not have made it for an administrator."""
    status, answer = await house.call("POST", "/api/v1/invitation", {"name": "carol"})
    user, secret = answer["user"]["id"], answer["url"].rpartition("/")[2]

    def is_good() -> bool:
        kind = CredentialKind.INVITATION
        return credentials.find(house.live.snapshot, kind, secret, house.clock()) is not None

    for role, wanted in (("member", True), ("admin", False)):
        status, _ = await house.call("POST", f"/api/v1/user/{user}/role", {"role": role})
        assert (status, is_good()) == (200, wanted)


async def test_invitation_is_not_for_who_becomes_the_owner(house: House) -> None:
    _, answer = await house.call("POST", "/api/v1/invitation", {"name": "carol"})
    secret = answer["url"].rpartition("/")[2]
    assert (await link(house, {"user": "carol"}))[0] == 200
    kind = CredentialKind.INVITATION
    assert credentials.find(house.live.snapshot, kind, secret, house.clock()) is None
