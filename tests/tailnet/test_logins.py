"""People who log in, and machines that wait for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any

import pytest

from appliance.errors import Conflict, Forbidden, Invalid, NotFound, Rejected
from appliance.records import Node, RegisterMethod, Settings, User
from appliance.tailnet import enrolment, logins, nodes, users
from appliance.tailnet.enrolment import Grant, LoginGrant, Pending
from appliance.tailnet.logins import PendingLogins
from appliance.wire import tailcfg
from appliance.wire.keys import NodeKey
from tests.support.builder import machine_key, node_key
from tests.support.clock import NOON, fixed_rng
from tests.tailnet.ruling import Ruled

POLICY = {
    "tagOwners": {
        "tag:web": ["alice@example.com"],
        "tag:db": ["alice@example.com"],
        "tag:prod": ["autogroup:admin"],
    }
}
LOGOUT = NOON - timedelta(days=1)


def asked(key: str, *, old: str = "", **fields: Any) -> tailcfg.RegisterRequest:
    """Make a request with a node key."""
    hostinfo = tailcfg.Hostinfo(
        hostname=fields.pop("hostname", "laptop"), request_tags=tuple(fields.pop("tags", ()))
    )
    return tailcfg.RegisterRequest(
        version=130,
        node_key=node_key(key),
        old_node_key=node_key(old) if old else NodeKey.zero(),
        hostinfo=hostinfo,
        **fields,
    )


class House(Ruled):
    """A tailnet that people log in to."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__(POLICY, settings)
        self.now = NOON
        self.logins = PendingLogins("https://control.example/register/")
        self.rng = Random(7)

    def user(self, name: str) -> User:
        return users.find_one(self.edit, name=name)

    def grant(self, name: str, **fields: Any) -> LoginGrant:
        return LoginGrant(self.user(name).id, fields.pop("method", RegisterMethod.OIDC), **fields)

    def register(
        self, machine: str, request: tailcfg.RegisterRequest, grant: Grant
    ) -> enrolment.Registration:
        return enrolment.register(
            self.edit, machine_key(machine), request, grant, self.now, rng=fixed_rng()
        )

    def log_in(self, name: str, machine: str, key: str, **fields: Any) -> Node:
        """Log in and expect success."""
        result = self.register(machine, asked(key, **fields), self.grant(name))
        assert result.response.machine_authorized
        assert result.node is not None
        return result.node

    def wait(
        self, machine: str, request: tailcfg.RegisterRequest, source: str = "", **more: Any
    ) -> Pending:
        """Ask without anything that speaks for the machine."""
        self.logins, pending = logins.wait(
            self.logins,
            machine_key(machine),
            request,
            self.now,
            random_bytes=self.rng.randbytes,
            source=source,
            **more,
        )
        return pending

    def approve(self, login_id: str, name: str, **fields: Any) -> Node:
        grant = self.grant(name, **fields)
        node = logins.approve(self.logins, self.edit, login_id, grant, self.now, rng=fixed_rng())
        self.logins = logins.forget(self.logins, login_id)
        return node


@pytest.fixture
def house() -> House:
    return House(Settings(key_expiry=timedelta(days=30)))


def code(caught: pytest.ExceptionInfo[Rejected]) -> str:
    assert caught.value.sentence
    return caught.value.code


class TestLoginGrant:
    """A person is the grant."""

    @pytest.mark.parametrize("method", [RegisterMethod.CLI, RegisterMethod.OIDC])
    def test_node_is_the_users_and_knows_how_it_came(
        self, house: House, method: RegisterMethod
    ) -> None:
        result = house.register("laptop", asked("n1"), house.grant("alice", method=method))
        node = result.node
        assert node is not None
        assert (node.user_id, node.tags, node.auth_key_id) == (house.user("alice").id, (), None)
        assert node.register_method is method
        assert result.response.login.login_name == "alice@example.com"

    @pytest.mark.parametrize(
        ("lifetime", "token", "asked_for", "given"),
        [(30, None, None, 30), (30, 2, None, 2), (None, None, None, None), (None, 9, 3, 3), (30, 90, None, 90)],
    )  # fmt: skip
    def test_life_time_is_the_tokens_or_the_settings_and_may_be_shortened(
        self, lifetime: int | None, token: int | None, asked_for: int | None, given: int | None
    ) -> None:
        def days(count: int | None) -> datetime | None:
            return None if count is None else NOON + timedelta(days=count)

        house = House(Settings(key_expiry=None if lifetime is None else timedelta(days=lifetime)))
        grant = house.grant("alice", expires_at=days(token))
        node = house.register("laptop", asked("n1", expiry=days(asked_for)), grant).node
        assert node is not None
        assert node.expires_at == days(given)

    def test_login_that_has_run_out_or_of_nobody_lets_nobody_in(self, house: House) -> None:
        with pytest.raises(Forbidden) as caught:
            house.register("laptop", asked("n1"), house.grant("alice", expires_at=NOON))
        assert code(caught) == "login-expired"
        gone = house.grant("bob")
        users.destroy(house.edit, gone.user_id)
        with pytest.raises(NotFound):
            house.register("laptop", asked("n1"), gone)
        assert not house.edit.nodes

    def test_login_again_keeps_the_node(self, house: House) -> None:
        node = house.log_in("alice", "laptop", "n1")
        house.register("laptop", asked("n1", expiry=LOGOUT), house.grant("alice"))
        assert house.edit.nodes[node.id].is_expired(NOON)
        back = house.log_in("alice", "laptop", "n2")
        assert (back.id, back.addresses) == (node.id, node.addresses)
        assert back.expires_at == NOON + timedelta(days=30)

    def test_other_user_on_the_machine_has_another_node(self, house: House) -> None:
        first = house.log_in("alice", "laptop", "n1")
        second = house.log_in("bob", "laptop", "n2", old="n1")
        assert first.id != second.id
        assert house.log_in("alice", "laptop", "n3", old="n2").id == first.id

    def test_owned_tags_are_given_and_others_refused(self, house: House) -> None:
        node = house.log_in("alice", "srv", "n1", tags=("tag:web", "tag:db"))
        assert (node.tags, node.user_id, node.expires_at) == (("tag:db", "tag:web"), None, None)
        for name, wanted in (("alice", "tag:prod"), ("alice", "tag:nope"), ("bob", "tag:web")):
            with pytest.raises(Invalid) as caught:
                house.log_in(name, "other", "n9", tags=(wanted,))
            assert code(caught) == "tags-not-permitted"
        with pytest.raises(Invalid):
            house.log_in("alice", "other", "n9", tags=["tag:web"] * 65)

    def test_owner_of_the_tags_changes_them_and_takes_the_node_back(self, house: House) -> None:
        node = house.log_in("alice", "srv", "n1", tags=("tag:web",))
        other = house.log_in("alice", "srv", "n2", old="n1", tags=("tag:db",))
        assert (other.id, other.tags) == (node.id, ("tag:db",))
        mine = house.log_in("alice", "srv", "n3", old="n2")
        assert (mine.id, mine.tags, mine.user_id) == (node.id, (), house.user("alice").id)
        assert mine.expires_at == NOON + timedelta(days=30)

    @pytest.mark.parametrize("wanted", [(), ("tag:web",)])
    @pytest.mark.parametrize("name", ["alice", "bob"])
    def test_tags_of_others_stay_whoever_logs_in(
        self, house: House, name: str, wanted: tuple[str, ...]
    ) -> None:
        """X3: what an administrator set, only an administrator takes away."""
        node = house.log_in("alice", "srv", "n1")
        tagged = nodes.set_tags(house.edit, node.id, ["tag:prod", "tag:web"], NOON)
        wanted = wanted if name == "alice" else ()
        again = house.log_in(name, "srv", "n2", old="n1", tags=wanted)
        assert again == replace(tagged, node_key=node_key("n2"), hostinfo=again.hostinfo)

    def test_login_does_not_bring_back_an_expired_node_of_others_tags(self, house: House) -> None:
        """An administrator expired it: that must not be undone by whoever may log in."""
        node = house.log_in("alice", "srv", "n1")
        nodes.set_tags(house.edit, node.id, ["tag:prod"], NOON)
        nodes.expire(house.edit, node.id, NOON)
        other = house.log_in("alice", "srv", "n2", old="n1")
        assert (other.id != node.id, other.tags) == (True, ())
        assert house.edit.nodes[node.id].is_expired(NOON)

    def test_login_of_another_than_who_joined_meanwhile_is_refused(self, house: House) -> None:
        joined = house.log_in("bob", "laptop", "n1")
        with pytest.raises(Conflict) as caught:
            house.log_in("alice", "laptop", "n1")
        assert code(caught) == "node-joined-already"
        assert house.log_in("bob", "laptop", "n1") == joined


class TestPending:
    """Nobody speaks for a machine yet."""

    def test_client_is_shown_the_link_and_no_node_is_made(self, house: House) -> None:
        pending = house.wait("laptop", asked("n1"))
        result = house.register("laptop", asked("n1"), pending)
        assert result.node is None
        assert result.response.auth_url == pending.url
        assert pending.url == f"https://control.example/register/hskey-authreq-{pending.id}"
        assert len(pending.url.rpartition("/")[2]) == 38, "what tools for Headscale take for an id"
        assert not result.response.machine_authorized
        assert not house.edit.nodes

    def test_valid_node_and_log_out_need_no_link(self, house: House) -> None:
        node = house.log_in("alice", "laptop", "n1")
        pending = house.wait("laptop", asked("n1"))
        assert house.register("laptop", asked("n1"), pending).node == node
        request = asked("n1", expiry=LOGOUT)
        assert house.register("laptop", request, house.wait("laptop", request)).node is not None
        assert house.edit.nodes[node.id].is_expired(NOON)
        assert len(house.logins.by_id) == 1, "a log-out waits for nobody"

    def test_asking_again_gives_the_same_link_with_and_without_followup(self, house: House) -> None:
        pending = house.wait("laptop", asked("n1"))
        assert house.wait("laptop", asked("n1")) is pending
        assert house.wait("laptop", asked("n1", followup=pending.url)) is pending
        assert house.wait("laptop", asked("n2")) is not pending
        assert len(house.logins.by_id) == 2

    @pytest.mark.parametrize("method", [RegisterMethod.CLI, RegisterMethod.OIDC])
    def test_approved_machine_joins_and_its_followup_is_answered(
        self, house: House, method: RegisterMethod
    ) -> None:
        pending = house.wait("laptop", asked("n1", hostname="Alice's Laptop", ephemeral=True))
        node = house.approve(pending.id, "alice", method=method)
        assert (node.name, node.user_id) == ("alices-laptop", house.user("alice").id)
        assert (node.ephemeral, node.register_method) == (True, method)
        request = asked("n1", followup=pending.url, hostname="Alice's Laptop", ephemeral=True)
        answer = house.register("laptop", request, house.wait("laptop", request)).response
        assert (answer.machine_authorized, answer.auth_url) == (True, "")
        with pytest.raises(NotFound):
            house.approve(pending.id, "bob")

    def test_rejected_machine_is_told_so_and_may_ask_anew(self, house: House) -> None:
        pending = house.wait("laptop", asked("n1"))
        house.logins = logins.reject(house.logins, pending.id, NOON)
        request = asked("n1", followup=pending.url)
        with pytest.raises(Forbidden) as caught:
            house.register("laptop", request, house.wait("laptop", request))
        assert code(caught) == "login-rejected"
        with pytest.raises(NotFound):
            house.approve(pending.id, "alice")
        with pytest.raises(NotFound):
            logins.reject(house.logins, pending.id, NOON)
        assert house.wait("laptop", asked("n1")).url != pending.url

    def test_refused_approval_leaves_the_login_waiting(self, house: House) -> None:
        pending = house.wait("srv", asked("n1", tags=("tag:web",)))
        with pytest.raises(Invalid):
            house.approve(pending.id, "bob")
        assert house.approve(pending.id, "alice").tags == ("tag:web",)

    @pytest.mark.parametrize("followup", ["", "the link"])
    def test_link_that_has_run_out_is_replaced(self, house: House, followup: str) -> None:
        pending = house.wait("laptop", asked("n1"))
        house.now += logins.LIFETIME
        with pytest.raises(NotFound):
            house.approve(pending.id, "alice")
        request = asked("n1", followup=followup and pending.url)
        assert house.wait("laptop", request).id != pending.id
        assert list(house.logins.by_id) != [pending.id]
        assert len(house.logins.by_id) == 1

    def test_link_lives_no_longer_than_the_client_asked_for(self, house: House) -> None:
        pending = house.wait("laptop", asked("n1", expiry=NOON + timedelta(minutes=1)))
        house.now += timedelta(minutes=1)
        with pytest.raises(NotFound):
            house.approve(pending.id, "alice")

    def test_other_machine_cannot_follow_it_up(self, house: House) -> None:
        """Who knows the link gets nothing: machine key and node key must be those that asked."""
        pending = house.wait("laptop", asked("n1"))
        for machine, key in (("thief", "n1"), ("laptop", "n2")):
            request = asked(key, followup=pending.url)
            assert house.wait(machine, request).url != pending.url

    def test_machine_that_joined_otherwise_meanwhile_is_not_given_to_another(
        self, house: House
    ) -> None:
        pending = house.wait("laptop", asked("n1"))
        house.log_in("bob", "laptop", "n1")
        with pytest.raises(Conflict):
            house.approve(pending.id, "alice")

    def test_machine_that_joined_and_expired_meanwhile_must_ask_again(self, house: House) -> None:
        pending = house.wait("laptop", asked("n1"))
        node = house.log_in("alice", "laptop", "n1")
        nodes.expire(house.edit, node.id, NOON)
        with pytest.raises(Conflict) as caught:
            house.approve(pending.id, "alice")
        assert code(caught) == "login-outdated"

    def test_their_number_is_bounded_and_the_oldest_goes_first(self, house: House) -> None:
        """A stranger with many keys costs others a new link, never the server's memory."""
        first = house.wait("m0", asked("n0"))
        for number in range(1, logins.MAX_PENDING + 1):
            house.wait(f"m{number}", asked(f"n{number}"))
        assert len(house.logins.by_id) == logins.MAX_PENDING
        assert first.id not in house.logins.by_id
        assert house.wait("m1", asked("n1")).id in house.logins.by_id

    def test_one_address_pushes_out_its_own_only(self, house: House) -> None:
        """A stranger who asks and asks loses his own links, and nobody else's."""
        mine = house.wait("laptop", asked("mine"), source="192.0.2.1")
        for number in range(2 * logins.MAX_PENDING_PER_SOURCE):
            house.wait(f"m{number}", asked(f"n{number}"), source="198.51.100.1")
        assert len(house.logins.by_id) == logins.MAX_PENDING_PER_SOURCE + 1
        assert mine.id in house.logins.by_id
        for number in range(2 * logins.MAX_PENDING):
            source = f"203.0.113.{number // logins.MAX_PENDING_PER_SOURCE}"
            house.wait(f"x{number}", asked(f"y{number}"), source=source)
        assert len(house.logins.by_id) == logins.MAX_PENDING
        assert mine.id in house.logins.by_id

    def test_an_ipv6_network_is_one_stranger(self, house: House) -> None:
        """Its owner has more addresses than there are links, each of them for one."""
        mine = house.wait("laptop", asked("mine"), source="192.0.2.1")
        for number in range(2 * logins.MAX_PENDING):
            source = f"2001:db8::{number:x}"
            house.wait(f"m{number}", asked(f"n{number}"), source=source, crowd="20010db8")
        assert mine.id in house.logins.by_id
        assert len(house.logins.by_id) == logins.MAX_PENDING_PER_SOURCE + 1

    @pytest.mark.parametrize(
        "form",
        ["{}", "hskey-authreq-{}", "https://hw.example.com/register/hskey-authreq-{}", " {}\n"],
    )
    def test_id_is_found_in_whatever_was_copied(self, house: House, form: str) -> None:
        pending = house.wait("laptop", asked("n1"))
        assert logins.find(house.logins, form.format(pending.id), NOON) is pending

    @pytest.mark.parametrize("text", ["", "hskey-authreq-", "l" * 24, "/", "2" * 25, "\0" * 24])
    def test_what_is_no_id_is_refused(self, house: House, text: str) -> None:
        with pytest.raises(Invalid):
            logins.find(house.logins, text, NOON)

    def test_what_is_kept_is_small_and_without_secrets(self, house: House) -> None:
        long = "x" * 100_000
        request = tailcfg.RegisterRequest(
            version=130,
            node_key=node_key("n1"),
            auth=tailcfg.RegisterResponseAuth(auth_key="secret"),
            hostinfo=tailcfg.Hostinfo(
                hostname=long,
                os=long,
                device_model=long,
                package=long,
                services=tuple(tailcfg.Service(proto=long, port=1) for _ in range(9)),
                request_tags=tuple(long for _ in range(64)),
            ),
            device_cert=long.encode(),
            signature=long.encode(),
            tailnet=long,
            followup=long,
            signature_type=long,
        )
        kept = tailcfg.encode(house.wait("laptop", request).request)
        assert len(kept) < 16 << 10
        assert b"secret" not in kept
        for wrong in (
            {"node_key_signature": b"x" * 5000},
            {"hostinfo": tailcfg.Hostinfo(request_tags=("tag:web",) * 65)},
        ):
            with pytest.raises(Invalid):
                house.wait("other", tailcfg.RegisterRequest(node_key=node_key("n2"), **wrong))

    @pytest.mark.parametrize("text", ["", "x", "A" * 24, "a" * 25, "../../../../../../etc/xx"])
    def test_malformed_id_is_told_from_an_unknown_one(self, house: House, text: str) -> None:
        with pytest.raises(Invalid) as caught:
            logins.find(house.logins, text, NOON)
        assert code(caught) == "login-id-invalid"
        with pytest.raises(NotFound) as unknown:
            logins.find(house.logins, "a" * logins.ID_LENGTH, NOON)
        assert code(unknown) == "login-unknown"
