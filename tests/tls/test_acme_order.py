"""One attempt at an authority that means ill: it gets no answer that nobody ordered."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.tls.acme.ledger import OWN_AUTHORITY, Ledger
from appliance.tls.acme.link import AuthorityError, Json, Link, Reply
from appliance.tls.acme.order import DNS, DNS_PERSIST, HTTP, TLS_ALPN, Answers, Attempt, Wanted
from appliance.tls.challenges import Challenges

NAMES = ("a.example.com", "*.b.example.com", "2001:db8::1")


class Authority:
    """Answers as the test likes; ``proves`` is the object of the one authorisation."""

    def __init__(self, proves: Json, account: str = "https://ca.example/1") -> None:
        self.proves = proves
        self.account = account
        self.asked: list[str] = []

    async def ask(self, do: str, **values: object) -> Reply:
        self.asked.append(do)
        if do == "account":
            return Reply({"thumbprint": "thumb", "uri": self.account})
        if do == "order":
            body = {"status": "pending", "authorizations": ["/authz"]}
            return Reply({"body": body, "url": "https://ca.example/order"})
        if do == "fetch" and str(values["url"]).endswith("/authz"):
            return Reply({"body": self.proves})
        raise AuthorityError("that is all", retry_after_s=1)


class Records:
    """The zone, which notes what is asked of it."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def add(self, name: str, value: str) -> None:
        assert value
        self.names.append(name)

    async def remove(self, name: str, value: str) -> None:
        assert value
        self.names.append(f"without {name}")


def proof_of(name: str, challenge: Json, *, wildcard: bool = False) -> Json:
    """Make an authorisation."""
    return {
        "status": "pending",
        "identifier": {"type": "dns", "value": name},
        "wildcard": wildcard,
        "challenges": [challenge],
    }


async def attempted(
    tmp_path: Path, kind: str, name: str, token: object = "t0ken-_", *, wildcard: bool = False
) -> tuple[Authority, list[str], str]:
    """Attempt, with an authorisation for a name; give who was asked for what, and the failure."""
    challenge = {"type": kind, "url": "https://ca.example/chall", "token": token}
    authority = Authority(proof_of(name, challenge, wildcard=wildcard))
    ledger = Ledger(tmp_path, OWN_AUTHORITY, now=lambda: datetime.now(UTC), jitter=float)
    records = Records()
    attempt = Attempt(
        cast(Link, authority),
        ledger,
        Wanted(names=NAMES, kinds=(kind,)),
        Answers(Challenges(), cast(Any, records)),
    )
    with pytest.raises(AuthorityError) as caught:
        await attempt.run({})
    return authority, records.names, str(caught.value)


@pytest.mark.parametrize("kind", [TLS_ALPN, HTTP, DNS])
@pytest.mark.parametrize(
    "name", ["other.example.com", "", "$(reboot)", "a.example.com.", "b.example.com\n", "x" * 300]
)
async def test_only_what_was_ordered_is_proved(tmp_path: Path, kind: str, name: str) -> None:
    authority, records, told = await attempted(tmp_path, kind, name)
    assert "was not ordered" in told
    assert "respond" not in authority.asked
    assert records == []


@pytest.mark.parametrize("token", ["", "a.b", "../x", "a b", "a\n", "é", 7.5, "x" * 600, ["a"]])
async def test_a_token_is_a_token(tmp_path: Path, token: object) -> None:
    authority, _, told = await attempted(tmp_path, HTTP, "a.example.com", token)
    assert "token" in told
    assert "respond" not in authority.asked


@pytest.mark.parametrize(
    ("kind", "name", "wildcard"),
    [
        (HTTP, "A.example.com", False),
        (DNS, "b.example.com", True),
        (TLS_ALPN, "2001:0db8::0001", False),
    ],
)
async def test_what_was_ordered_is_proved(
    tmp_path: Path, kind: str, name: str, wildcard: bool
) -> None:
    authority, records, told = await attempted(tmp_path, kind, name, wildcard=wildcard)
    assert (told, authority.asked[-1]) == ("that is all", "respond")
    wanted = "_acme-challenge.b.example.com"
    assert records == ([wanted, f"without {wanted}"] if kind == DNS else [])


EVIL = "https://other-ca.example/acct/evil"


@pytest.mark.parametrize(
    ("issuer", "account", "is_told"),
    [
        ("ca.example", "https://ca.example/1", True),
        ("other-ca.example", EVIL, False),
        (f"other-ca.example; accounturi={EVIL}", "https://ca.example/1", False),
        ('x" "y', "https://ca.example/1", False),
        ("ca.example", "https://ca.example@other-ca.example/1", False),
    ],
)
async def test_a_record_that_stays_is_for_the_authoritys_own_account(
    tmp_path: Path, issuer: str, account: str, is_told: bool
) -> None:
    """An operator sets it, and whoever it names may have certificates."""
    challenge = {
        "type": DNS_PERSIST,
        "url": "https://ca.example/c",
        "issuer-domain-names": [issuer],
    }
    authority = Authority(proof_of("a.example.com", challenge), account)
    ledger = Ledger(tmp_path, OWN_AUTHORITY, now=lambda: datetime.now(UTC), jitter=float)
    answers = Answers(Challenges())
    wanted = Wanted(names=NAMES, kinds=(DNS_PERSIST,))
    link = cast(Link, authority)
    attempt = Attempt(link, ledger, wanted, answers, directory="https://ca.example/directory")
    with pytest.raises(AuthorityError):
        await attempt.run({})
    record = '_validation-persist.a.example.com. TXT "ca.example; accounturi=https://ca.example/1"'
    assert answers.persistent_record == (record if is_told else "")
