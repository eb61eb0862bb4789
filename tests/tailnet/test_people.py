"""Which user somebody is whom a provider vouches for, and what a policy makes of their groups."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from appliance.errors import Conflict, Forbidden, Rejected
from appliance.policy.text.document import decode
from appliance.policy.text.mistakes import PolicyError
from appliance.records import Role, Settings, Tailnet, TailnetID, User, UserID
from appliance.tailnet import people, users
from appliance.tailnet.people import Person
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IDP = "https://idp.example.com"


@pytest.fixture
def edit() -> Edit:
    tailnet = Tailnet(TailnetID(1), "default", "ts.example.com", NOW)
    return Edit(Snapshot(tailnet=tailnet), Sequences())


def person(subject: str = "s-1", **more: object) -> Person:
    found = Person(provider="company", issuer=IDP, subject=subject, username="alice")
    return replace(found, **more)  # type: ignore[arg-type]


def test_the_first_login_makes_a_user(edit: Edit) -> None:
    user = people.sign_in(
        edit,
        person(email="alice@example.com", display_name="Alice A.", groups=("staff",)),
        NOW,
    )
    assert (user.name, user.email, user.display_name) == ("alice", "alice@example.com", "Alice A.")
    assert (user.issuer, user.subject, user.provider) == (IDP, "s-1", "company")
    assert user.groups == ("staff",)
    assert user.role is Role.MEMBER


def test_a_later_login_finds_the_user_and_brings_it_up_to_date(edit: Edit) -> None:
    first = people.sign_in(edit, person(email="a@example.com", groups=("a",)), NOW)
    again = people.sign_in(
        edit, person(username="boss", email="b@example.com", groups=("b",), role=Role.AUDITOR), NOW
    )
    assert again.id == first.id
    assert again.name == "alice", "policies may use the name"
    assert (again.email, again.groups, again.role) == ("b@example.com", ("b",), Role.AUDITOR)


def test_the_picture_and_the_provider_follow(edit: Edit) -> None:
    first = people.sign_in(edit, person(picture_url="https://example.com/1.png"), NOW)
    assert (first.profile_pic_url, first.created_at) == ("https://example.com/1.png", NOW)
    again = people.sign_in(edit, person(provider="renamed", display_name="Al"), NOW)
    assert again.profile_pic_url == "https://example.com/1.png"
    assert (again.provider, again.display_name) == ("renamed", "Al")
    newer = people.sign_in(edit, person(picture_url="https://example.com/2.png"), NOW)
    assert newer.profile_pic_url == "https://example.com/2.png"


def test_what_a_provider_does_not_say_stays(edit: Edit) -> None:
    people.sign_in(edit, person(email="a@example.com", display_name="A"), NOW)
    users.set_role(edit, UserID(1), Role.ADMIN)
    user = people.sign_in(edit, person(), NOW)
    assert (user.email, user.display_name, user.role) == ("a@example.com", "A", Role.ADMIN)


def test_the_owner_stays_owner(edit: Edit) -> None:
    user = people.sign_in(edit, person(), NOW)
    users.set_role(edit, user.id, Role.OWNER)
    assert people.sign_in(edit, person(role=Role.MEMBER), NOW).role is Role.OWNER


def test_accounts_are_told_apart_by_issuer_and_subject_alone(edit: Edit) -> None:
    first = people.sign_in(edit, person("b/c"), NOW)
    other = people.sign_in(edit, replace(person("c"), issuer=f"{IDP}/b"), NOW)
    assert first.provider_id == other.provider_id
    assert first.id != other.id
    assert other.name == "alice-2"


def test_neither_the_issuer_nor_the_subject_alone_is_an_account(edit: Edit) -> None:
    first = people.sign_in(edit, person("s-1"), NOW)
    namesake = people.sign_in(edit, replace(person("s-1"), issuer="https://evil.example"), NOW)
    colleague = people.sign_in(edit, person("s-2"), NOW)
    assert len({first.id, namesake.id, colleague.id}) == 3
    assert people.find(edit, "https://evil.example", "s-2") is None


def test_an_address_alone_links_nobody(edit: Edit) -> None:
    users.create(edit, "boss", NOW, email="boss@example.com")
    with pytest.raises(Conflict, match="headwater users link boss") as caught:
        people.sign_in(edit, person(email="Boss@example.com"), NOW)
    assert caught.value.code == "email-of-another"
    people.sign_in(edit, person(), NOW)
    with pytest.raises(Conflict):
        people.sign_in(edit, person(email="boss@example.com"), NOW)


@pytest.mark.parametrize("is_known", [False, True])
def test_an_address_that_is_the_name_of_another_user(edit: Edit, is_known: bool) -> None:
    """Policies mean both by it: also when somebody known comes with another address."""
    users.create(edit, "boss@example.com", NOW)
    if is_known:
        people.sign_in(edit, person(email="alice@example.com"), NOW)
    with pytest.raises(Conflict) as caught:
        people.sign_in(edit, person(email="Boss@example.com"), NOW)
    assert caught.value.code == "email-of-another"


@pytest.mark.parametrize("username", ["", "alice"])
def test_a_command_to_copy_is_safe_whatever_the_provider_says(edit: Edit, username: str) -> None:
    users.create(edit, "the boss", NOW, email="boss@example.com")
    evil = "x; $(reboot) #'"
    wanted = person(evil, username=username, email="boss@example.com" if username else "")
    with pytest.raises(Rejected) as caught:
        people.sign_in(edit, wanted, NOW)
    command = caught.value.sentence.partition("headwater users link ")[2].removesuffix(")")
    name = "the boss" if username else "NAME"
    assert shlex.split(command) == [name, "--provider", "company", "--subject", evil]


def test_a_name_alone_links_nobody(edit: Edit) -> None:
    boss = users.create(edit, "alice", NOW)
    user = people.sign_in(edit, person(), NOW)
    assert (user.id != boss.id, user.name) == (True, "alice-2")


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("boss@example.com", "boss"),
        ("@@", "mail"),
        ("Ålice Ö", "Ålice-Ö"),
        ("tagged-devices", "tagged-devices-2"),
        ("12345", "12345-2"),
        ("\x1b[1mx", "1mx"),
        ("a" * 400, "a" * 250),
        ("", "mail"),
    ],
)
def test_names_that_providers_give(edit: Edit, wanted: str, name: str) -> None:
    user = people.sign_in(edit, person(username=wanted, email="mail@example.com"), NOW)
    assert user.name == name
    assert "@" not in user.name


def test_no_login_takes_a_word_by_which_policies_mean_somebody(edit: Edit) -> None:
    """A provider's people choose what they are called; policies mean ``boss@`` by the name boss."""
    users.create(edit, "boss", NOW, email="boss@example.com")
    user = people.sign_in(edit, person(username="boss@example.com"), NOW)
    assert user.name == "boss-2"


def test_somebody_without_any_name(edit: Edit) -> None:
    with pytest.raises(Forbidden, match="headwater users link NAME --provider company"):
        people.sign_in(edit, person(username=""), NOW)


def test_linking_is_an_administrators_act(edit: Edit) -> None:
    boss = users.create(edit, "boss", NOW, email="boss@example.com")
    people.link(edit, boss, provider="company", issuer=IDP, subject="s-1")
    assert people.sign_in(edit, person(email="boss@example.com"), NOW).id == boss.id
    other = users.create(edit, "other", NOW)
    with pytest.raises(Conflict, match="logs in as the user 'boss'"):
        people.link(edit, other, provider="company", issuer=IDP, subject="s-1")
    with pytest.raises(Conflict, match="unlink it first"):
        people.link(edit, edit.users[boss.id], provider="company", issuer=IDP, subject="s-2")
    people.sign_in(edit, person(groups=("staff",)), NOW)
    linked = edit.users[boss.id]
    assert (linked.provider, linked.groups) == ("company", ("staff",))
    gone = people.unlink(edit, linked)
    assert (gone.provider, gone.issuer, gone.subject, gone.groups) == ("", "", "", ())


# ── groups in policies ───────────────────────────────────────────────────────────────────────────

PROVIDERS = frozenset({"company", "partner"})


@pytest.mark.parametrize("word", ["group:staff", "group:staff@company", "group:a b@partner"])
def test_a_policy_may_use_groups_of_providers(word: str) -> None:
    text = f'{{"acls": [{{"action": "accept", "src": ["{word}"], "dst": ["*:*"]}}]}}'
    decode(text, providers=PROVIDERS)
    with pytest.raises(PolicyError, match="group not defined in policy"):
        decode(text)


def test_a_provider_that_is_not_there() -> None:
    text = '{"acls": [{"action": "accept", "src": ["group:staff@other"], "dst": ["*:*"]}]}'
    with pytest.raises(PolicyError, match="group not defined in policy"):
        decode(text, providers=PROVIDERS)


def _keys(user: User, text: str) -> set[str]:
    from appliance.policy.engine.matches import groups_by_login, user_keys
    from appliance.policy.text.language import Background

    policy = decode(text, providers=PROVIDERS)
    found = user_keys(groups_by_login(policy), Background(providers=PROVIDERS), user)
    return {f"{kind}|{name}" for kind, name in found}


def test_a_group_that_the_policy_defines_is_what_the_policy_says(edit: Edit) -> None:
    user = people.sign_in(edit, person(groups=("staff", "eng")), NOW)
    defined = '{"groups": {"group:staff": ["boss@example.com"]}}'
    keys = _keys(user, defined)
    assert "group|group:staff" not in keys
    assert "group of an identity provider|group:eng" in keys
    assert "group of an identity provider|group:eng@company" in keys
    assert "group of an identity provider|group:eng@partner" not in keys


def test_no_provider_names_a_group_of_another_one(edit: Edit) -> None:
    claimed = ("admins@partner", "admins@company", "staff")
    keys = _keys(people.sign_in(edit, person(groups=claimed), NOW), "{}")
    words = {key.partition("|")[2] for key in keys}
    assert {word for word in words if word.startswith("group:")} == {
        "group:staff",
        "group:staff@company",
        "group:admins@partner@company",
        "group:admins@company@company",
    }


def test_settings_know_the_providers() -> None:
    assert Settings().providers == frozenset()
