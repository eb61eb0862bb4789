"""Auth keys: text form, hash, verbs."""

from __future__ import annotations

import re
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Invalid, NotFound, Rejected
from appliance.records import AuthKey, AuthKeyID, UserID
from appliance.tailnet import keys
from appliance.tailnet.snapshot import Edit
from tests.support.builder import build, edit_of
from tests.support.clock import NOON


@pytest.fixture
def edit() -> Edit:
    return edit_of(build("alice:"))


def create(edit: Edit, **fields: Any) -> tuple[AuthKey, str]:
    wanted: dict[str, Any] = {
        "user_id": UserID(1), "now": NOON, "random_bytes": Random(7).randbytes
    }  # fmt: skip
    wanted |= fields
    return keys.create_auth_key(edit, **wanted)


def test_text_has_the_familiar_form_and_the_secret_is_not_kept(edit: Edit) -> None:
    key, text = create(edit)
    assert re.fullmatch(r"hskey-auth-[0-9a-f]{12}-[0-9a-f]{64}", text)
    prefix, secret = keys.parse_auth_key(text)
    assert prefix == key.prefix
    assert keys.verify(key, secret)
    assert secret not in repr(key)
    assert keys.find(edit, text) is key


def test_fields_are_kept(edit: Edit) -> None:
    key, _ = create(
        edit,
        tags=["tag:b", "tag:a"],
        reusable=True,
        ephemeral=True,
        expires_at=NOON + timedelta(hours=1),
    )
    assert (key.id, key.user_id, key.tags) == (1, 1, ("tag:a", "tag:b"))
    assert key.reusable
    assert key.ephemeral
    assert key.expires_at == NOON + timedelta(hours=1)
    assert key.created_at == NOON
    assert key.used_at is None


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"user_id": None}, "auth-key-without-owner"),
        ({"user_id": UserID(9)}, "user-unknown"),
        ({"tags": ["web"]}, "tag-invalid"),
        ({"tags": [f"tag:t{n}" for n in range(65)]}, "auth-key-tags"),
    ],
)
def test_create_refuses(edit: Edit, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Rejected) as caught:
        create(edit, **fields)
    assert caught.value.code == code
    assert not edit.auth_keys


def test_tags_alone_are_enough(edit: Edit) -> None:
    assert create(edit, user_id=None, tags=["tag:web"])[0].user_id is None


def test_a_prefix_is_never_given_twice(edit: Edit) -> None:
    prefixes = iter([b"a" * 6, b"s" * 32, b"a" * 6, b"b" * 6, b"t" * 32])
    first, second = (create(edit, random_bytes=lambda _n: next(prefixes))[0] for _ in range(2))
    assert (first.prefix, second.prefix) == ((b"a" * 6).hex(), (b"b" * 6).hex())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tskey-auth-x-y",
        "hskey-auth-",
        f"hskey-auth-{'0' * 12}",
        f"hskey-auth-{'0' * 12}-{'0' * 63}",
        f"hskey-auth-{'0' * 12}-{'0' * 65}",
        f"hskey-auth-{'G' * 12}-{'0' * 64}",
        f"hskey-api-{'0' * 12}-{'0' * 64}",
        f"hskey-auth-{'0' * 12}-" + "\u0660" * 64,  # digits, but of another script
    ],
)
def test_other_texts_are_no_keys(edit: Edit, text: str) -> None:
    create(edit)
    assert keys.parse_auth_key(text) == ("", "")
    assert keys.find(edit, text) is None


@given(st.text())
def test_any_text_can_be_asked_for(text: str) -> None:
    assert keys.parse_auth_key(text) == ("", "")


def test_wrong_secret_finds_nothing(edit: Edit) -> None:
    key, text = create(edit)
    assert keys.find(edit, text[:-4] + "0000") is None
    assert not keys.verify(key, "")


def test_white_space_and_lock_suffix_are_left_out(edit: Edit) -> None:
    key, text = create(edit)
    assert keys.find(edit, f" {text}\n") is key
    assert keys.find(edit, f"{text}--TLabc-def") is key


def test_expire_is_now_and_once(edit: Edit) -> None:
    key, _ = create(edit)
    assert not keys.is_expired(key, NOON)
    expired = keys.expire(edit, key.id, NOON)
    assert expired.expires_at == NOON
    assert keys.is_expired(expired, NOON)
    assert keys.expire(edit, key.id, NOON + timedelta(days=1)) is expired
    with pytest.raises(NotFound):
        keys.expire(edit, AuthKeyID(9), NOON)


def test_delete(edit: Edit) -> None:
    key, text = create(edit)
    keys.delete(edit, key.id)
    assert keys.find(edit, text) is None
    with pytest.raises(NotFound):
        keys.delete(edit, key.id)


def test_too_many_tags_is_invalid(edit: Edit) -> None:
    with pytest.raises(Invalid, match="64"):
        create(edit, tags=[f"tag:t{n}" for n in range(65)])
