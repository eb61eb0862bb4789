"""The verbs for users, and owners as the wire shows them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from appliance.errors import Conflict, Invalid, NotFound
from appliance.records import TAGGED_USER_ID, Role, UserID
from appliance.tailnet import nodes, users
from appliance.tailnet.snapshot import Edit
from tests.support.builder import build, edit_of, key_for, node_named
from tests.support.clock import NOON


@pytest.fixture
def edit() -> Edit:
    return edit_of(build("alice: laptop; bob:"))


def test_create_takes_all_that_a_user_has(edit: Edit) -> None:
    user = users.create(
        edit,
        " carol@example.com ",
        NOON,
        display_name="Carol \x1b[31m C.",
        email="carol@example.com",
        profile_pic_url="https://example.com/c.png",
    )
    assert user.id == 3
    assert user.name == "carol@example.com"
    assert user.display_name == "Carol [31m C."
    assert user.login_name == "carol@example.com"
    assert edit.users[user.id] is user
    assert edit.finish()[1].puts == (user,)


@pytest.mark.parametrize(
    "name", ["a", "älice", "a.b-c_d+e", "a@b.example", "A1", "1abc", "a b", "_a", "x" * 254]
)
def test_names_that_are_fine(name: str) -> None:
    assert users.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "12", "٣", "-a", "@a", "a\tb", "a@b@c", "a/b", "a:b", "tag:web", "x" * 255, "a\0"],
)
def test_names_that_are_not(edit: Edit, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        users.create(edit, name, NOON)
    assert caught.value.code == "user-name-invalid"


@pytest.mark.parametrize(
    ("name", "email"),
    [
        ("Dana@Example.com", ""),
        ("erin", "frank@example.com"),
        ("dana@", ""),
    ],
)
def test_nobody_answers_to_the_words_for_somebody_else(edit: Edit, name: str, email: str) -> None:
    """A policy's ``dana@example.com`` would let in whoever is called so, besides Dana herself."""
    users.create(edit, "dana", NOON, email="dana@example.com")
    users.create(edit, "frank@example.com", NOON)
    before = dict(edit.users)
    with pytest.raises(Conflict) as caught:
        users.create(edit, name, NOON, email=email)
    assert caught.value.code == "user-word-taken"
    if not email:
        bob = users.find_one(edit, name="bob")
        with pytest.raises(Conflict) as caught:
            users.rename(edit, bob.id, name)
        assert caught.value.code == "user-word-taken"
    assert dict(edit.users) == before
    # One's own address is fine as one's name.
    dana = users.find_one(edit, name="dana")
    assert users.rename(edit, dana.id, "dana@example.com").name == "dana@example.com"


def test_tailnet_has_one_owner_at_most(edit: Edit) -> None:
    """The hosted service's rule; unlike there, nobody is owner until somebody says so."""
    alice, bob = (users.find_one(edit, name=name) for name in ("alice", "bob"))
    assert users.owner_of(edit) is None
    users.set_role(edit, alice.id, Role.OWNER)
    with pytest.raises(Conflict) as caught:
        users.create(edit, "carol", NOON, role=Role.OWNER)
    assert caught.value.code == "owner-taken"
    users.set_role(edit, bob.id, Role.OWNER)
    assert users.owner_of(edit) == users.get(edit, bob.id)
    assert users.get(edit, alice.id).role is Role.ADMIN
    with pytest.raises(Conflict) as caught:
        users.destroy(edit, bob.id)
    assert caught.value.code == "user-is-owner"
    with pytest.raises(NotFound):
        users.set_role(edit, UserID(99), Role.OWNER)
    assert users.owner_of(edit) is not None
    users.set_role(edit, bob.id, Role.MEMBER)
    assert users.create(edit, "carol", NOON, role=Role.OWNER).role is Role.OWNER


@pytest.mark.parametrize(
    ("text", "role"),
    [("", Role.MEMBER), ("IT-Admin", Role.IT_ADMIN), ("autogroup:auditor", Role.AUDITOR)],
)
def test_roles_are_read_as_people_write_them(text: str, role: Role) -> None:
    assert users.check_role(text) is role


def test_unknown_role_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Invalid, match="network-admin"):
        users.check_role("boss")


def test_the_owner_of_tagged_nodes_is_nobody(edit: Edit) -> None:
    with pytest.raises(Invalid) as caught:
        users.create(edit, "Tagged-Devices", NOON)
    assert caught.value.code == "user-name-reserved"


@pytest.mark.parametrize("name", ["alice", "Alice", "ALICE"])
def test_names_are_unique_whatever_their_case(edit: Edit, name: str) -> None:
    with pytest.raises(Conflict) as caught:
        users.create(edit, name, NOON)
    assert caught.value.code == "user-name-taken"


def test_email_addresses_are_unique_and_may_be_absent(edit: Edit) -> None:
    users.create(edit, "carol", NOON, email="c@example.com")
    users.create(edit, "dave", NOON)
    with pytest.raises(Conflict) as caught:
        users.create(edit, "erin", NOON, email="C@Example.com")
    assert caught.value.code == "user-email-taken"


@pytest.mark.parametrize("email", ["x", "x@", "@x", "a b@c", "x" * 250 + "@y.example"])
def test_malformed_email_is_refused(edit: Edit, email: str) -> None:
    with pytest.raises(Invalid):
        users.create(edit, "carol", NOON, email=email)


@pytest.mark.parametrize("url", ["x", "ftp://x", "javascript:alert(1)", "https://a b"])
def test_malformed_picture_is_refused(edit: Edit, url: str) -> None:
    with pytest.raises(Invalid):
        users.create(edit, "carol", NOON, profile_pic_url=url)


def test_filters_count_name_before_email_before_id(edit: Edit) -> None:
    carol = users.create(edit, "carol", NOON, email="c@example.com")
    assert [u.name for u in users.find(edit)] == ["alice", "bob", "carol"]
    assert users.find(edit, name="carol", email="x@example.com") == [carol]
    assert users.find(edit, email="c@example.com", user_id=UserID(1)) == [carol]
    assert users.find(edit, user_id=carol.id) == [carol]
    assert users.find(edit, name="nobody") == []


def test_one_user_is_found_by_id_or_name(edit: Edit) -> None:
    assert users.find_one(edit, user_id=UserID(2)).name == "bob"
    assert users.find_one(edit, name="bob").id == 2
    for wrong in ({"user_id": UserID(9)}, {"name": "nobody"}):
        with pytest.raises(NotFound):
            users.find_one(edit, **wrong)
    with pytest.raises(Invalid):
        users.find_one(edit)


def test_rename(edit: Edit) -> None:
    assert users.rename(edit, UserID(1), "Alice").name == "Alice"
    with pytest.raises(Conflict):
        users.rename(edit, UserID(1), "bob")
    with pytest.raises(Invalid):
        users.rename(edit, UserID(1), "-")
    with pytest.raises(NotFound):
        users.rename(edit, UserID(9), "x")


def test_users_of_a_provider_are_renamed_there(edit: Edit) -> None:
    edit.put(replace(edit.users[UserID(2)], provider="oidc", issuer="https://idp", subject="2"))
    with pytest.raises(Invalid) as caught:
        users.rename(edit, UserID(2), "robert")
    assert caught.value.code == "user-from-provider"


def test_destroy_is_refused_while_there_are_nodes(edit: Edit) -> None:
    with pytest.raises(Conflict, match="1 node"):
        users.destroy(edit, UserID(1))
    nodes.delete(edit, node_named(edit, "laptop").id)
    users.destroy(edit, UserID(1))
    assert [u.name for u in edit.users.values()] == ["bob"]


def test_destroy_takes_the_auth_keys_along(edit: Edit) -> None:
    mine = key_for(edit, "bob", seed=1)[0]
    tagged = key_for(edit, "bob+tag:web", seed=2)[0]
    other = key_for(edit, "alice", seed=3)[0]
    users.destroy(edit, UserID(2))
    assert set(edit.auth_keys) == {other.id}
    assert mine.prefix not in edit.by_key_prefix
    assert tagged.prefix not in edit.by_key_prefix


def test_profiles(edit: Edit) -> None:
    carol = users.create(edit, "carol", NOON, email="c@example.com", display_name="Carol")
    profile = users.profile(edit, carol.id)
    assert (profile.login_name, profile.display_name) == ("c@example.com", "Carol")
    assert users.profile(edit, UserID(1)).display_name == "alice"
    tagged = users.profile(edit, TAGGED_USER_ID)
    assert (tagged.id, tagged.login_name) == (2147455555, "tagged-devices")
