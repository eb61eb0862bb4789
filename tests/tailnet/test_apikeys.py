"""API keys: text forms, hash, verbs, bounds."""

from __future__ import annotations

import re
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import Invalid, NotFound, Rejected, TooMany
from appliance.records import ApiKey, ApiKeyID, UserID
from appliance.tailnet import apikeys, users
from appliance.tailnet.snapshot import Edit
from tests.support.builder import build, edit_of
from tests.support.clock import NOON

HOUR = timedelta(hours=1)


@pytest.fixture
def edit() -> Edit:
    return edit_of(build("alice: laptop; bob:"))


def create(edit: Edit, *, seed: int = 7, **fields: Any) -> tuple[ApiKey, str]:
    wanted: dict[str, Any] = {
        "scopes": ("all",), "now": NOON, "random_bytes": Random(seed).randbytes
    }  # fmt: skip
    return apikeys.create(edit, **(wanted | fields))


def test_text_has_the_familiar_form_and_the_secret_is_not_kept(edit: Edit) -> None:
    key, text = create(edit)
    assert re.fullmatch(r"hskey-api-[0-9a-f]{12}-[0-9a-f]{64}", text)
    prefix, secret = apikeys.parse(text)
    assert prefix == key.prefix
    assert secret not in repr(key)
    assert apikeys.find(edit, text) is key
    assert apikeys.find(edit, f"{prefix}.{secret}") is key, "the form of earlier years"


@pytest.mark.parametrize("wrong", ["", "x", "hskey-api-", "hskey-api-0-0", "a.b", "." * 300, "\0"])
def test_what_is_no_key_is_nobodys(edit: Edit, wrong: str) -> None:
    create(edit)
    assert apikeys.find(edit, wrong) is None


def test_a_known_prefix_with_another_secret_is_nobodys(edit: Edit) -> None:
    key, text = create(edit)
    _, other = create(edit, seed=8)
    assert apikeys.find(edit, f"{apikeys.TEXT_PREFIX}{key.prefix}-{other[-64:]}") is None
    assert apikeys.find(edit, text[:-1] + ("0" if text[-1] != "0" else "1")) is None


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    prefix, secret = apikeys.parse(text)
    assert bool(prefix) == bool(secret)


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"scopes": ()}, "api-key-without-scopes"), ({"user_id": UserID(9)}, "user-unknown")],
)
def test_create_refuses(edit: Edit, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Rejected) as caught:
        create(edit, **fields)
    assert caught.value.code == code


def test_keys_are_found_by_every_form_of_their_prefix(edit: Edit) -> None:
    key, text = create(edit)
    for form in (key.prefix, apikeys.shown(key), f"hskey-api-{key.prefix}", text, f" {text} "):
        assert apikeys.get_by_prefix(edit, form) is key
    for form in ("", "nothing", "hskey-api-***", "***"):
        with pytest.raises(NotFound):
            apikeys.get_by_prefix(edit, form)


def test_expiring_is_for_good_and_deleting_too(edit: Edit) -> None:
    key, text = create(edit, expires_at=NOON + HOUR)
    assert not apikeys.is_expired(key, NOON)
    key = apikeys.expire(edit, key.id, NOON)
    assert apikeys.is_expired(key, NOON)
    assert apikeys.expire(edit, key.id, NOON + HOUR) is key, "once"
    apikeys.delete(edit, key.id)
    assert apikeys.find(edit, text) is None
    with pytest.raises(NotFound):
        apikeys.expire(edit, key.id, NOON)


def test_a_successor_may_do_the_same_and_the_old_key_ends_after_the_grace(edit: Edit) -> None:
    old, _ = create(edit, scopes=("users",), expires_at=NOON + 10 * HOUR, description="ci")
    new, text = apikeys.rotate(
        edit, old.id, now=NOON + HOUR, random_bytes=Random(9).randbytes, grace=2 * HOUR
    )
    assert apikeys.find(edit, text) is new
    assert (new.scopes, new.description, new.user_id) == (old.scopes, "ci", None)
    assert new.expires_at == NOON + 11 * HOUR, "as long as the old one was meant to live"
    assert edit.api_keys[old.id].expires_at == NOON + 3 * HOUR


def test_a_rotation_never_lengthens_the_old_key(edit: Edit) -> None:
    old, _ = create(edit, expires_at=NOON + HOUR)
    apikeys.rotate(edit, old.id, now=NOON, random_bytes=Random(9).randbytes, grace=5 * HOUR)
    assert edit.api_keys[old.id].expires_at == NOON + HOUR
    with pytest.raises(Invalid):
        apikeys.rotate(edit, old.id, now=NOON + HOUR, random_bytes=Random(9).randbytes)
    for grace in (-HOUR, timedelta(days=8)):
        with pytest.raises(Invalid):
            apikeys.rotate(edit, old.id, now=NOON, random_bytes=Random(9).randbytes, grace=grace)


def test_their_number_is_bounded_for_a_user_and_for_all(
    edit: Edit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apikeys, "MAX_KEYS_OF_A_USER", 2)
    monkeypatch.setattr(apikeys, "MAX_API_KEYS", 4)
    for seed in range(2):
        create(edit, seed=seed, user_id=UserID(1))
    with pytest.raises(TooMany):
        create(edit, seed=5, user_id=UserID(1))
    for seed in range(5, 7):
        create(edit, seed=seed, user_id=UserID(2))
    with pytest.raises(TooMany):
        create(edit, seed=8)


def test_a_user_goes_with_their_keys(edit: Edit) -> None:
    mine, _ = create(edit, user_id=UserID(2))
    other, _ = create(edit, seed=8)
    users.destroy(edit, UserID(2))
    assert list(edit.api_keys) == [other.id]
    assert mine.prefix not in edit.by_api_key_prefix


def test_uses_are_noted_and_never_go_back(edit: Edit) -> None:
    key, _ = create(edit)
    apikeys.note_uses(edit, [(key.id, NOON + HOUR), (ApiKeyID(77), NOON)])
    apikeys.note_uses(edit, [(key.id, NOON)])
    assert edit.api_keys[key.id].last_used_at == NOON + HOUR
