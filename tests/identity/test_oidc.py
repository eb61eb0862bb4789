"""Logins with OpenID Connect, against a provider that bends: what lets in, and what never does."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey

from appliance.errors import Forbidden, NotFound, Rejected, TooMany
from appliance.identity.oidc import flows, remote, tokens
from appliance.identity.oidc.provider import ClaimNames, ClientAuth, Provider
from appliance.identity.oidc.relying import Finished, RelyingParty
from appliance.identity.oidc.remote import ProviderAway
from appliance.records import Role
from tests.support import openid


@pytest.fixture
async def idp() -> AsyncIterator[openid.Provider]:
    async with openid.Provider().serve() as provider:
        yield provider


class Clock:
    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


Party = Callable[..., RelyingParty]


def settled(idp: openid.Provider, **changes: Any) -> Provider:
    provider = Provider(
        name="company",
        issuer=idp.issuer,
        client_id=openid.CLIENT_ID,
        client_secret=openid.CLIENT_SECRET,
        claims=ClaimNames(),
    )
    return replace(provider, **changes)


@pytest.fixture
async def party(idp: openid.Provider, clock: Clock) -> AsyncIterator[Party]:
    made: list[RelyingParty] = []

    def make(*providers: Provider, **changes: Any) -> RelyingParty:
        chosen = providers or (settled(idp, **changes),)
        made.append(
            RelyingParty(
                "https://hw.example.com/", chosen, random_bytes=secrets.token_bytes, clock=clock
            )
        )
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def login(party: RelyingParty, idp: openid.Provider, name: str = "company") -> Finished:
    url, _, cookie = await party.begin(name, source="192.0.2.1", next_path="/register/x")
    return await party.finish(name, idp.log_in(url), cookie)


async def refused(party: RelyingParty, idp: openid.Provider) -> str:
    with pytest.raises(Rejected) as caught:
        await login(party, idp)
    return caught.value.code


async def test_login_gives_the_person(idp: openid.Provider, party: Party) -> None:
    idp.claims |= {
        "preferred_username": "alice",
        "name": "Alice A.",
        "email": "alice@example.com",
        "email_verified": True,
        "groups": ["/staff", "admins", 7, "", "staff"],
        "picture": "https://example.com/a.png",
    }
    done = await login(party(roles={"admins": Role.ADMIN}), idp)
    person = done.judged.person
    assert (person.issuer, person.subject) == (idp.issuer, "alice-1")
    assert person.email == "alice@example.com"
    assert person.groups == ("staff", "admins")
    assert person.role is Role.ADMIN
    assert done.flow.next_path == "/register/x"


async def test_the_address_asks_for_what_a_login_needs(party: Party) -> None:
    url, flow, cookie = await party(extra_params={"prompt": "login"}).begin(
        "company", source="::1", next_path="/"
    )
    for part in (
        "tenant=1",
        "response_type=code",
        f"state={flow.state}",
        f"nonce={flow.nonce}",
        "code_challenge_method=S256",
        "prompt=login",
        "redirect_uri=https%3A%2F%2Fhw.example.com%2Foidc%2Fcallback",
    ):
        assert part in url
    assert flow.verifier not in url
    assert cookie not in url
    assert openid.CLIENT_SECRET not in url


@pytest.mark.parametrize(
    ("bend", "code"),
    [
        ({"exp": 1}, "oidc-token-expired"),
        ({"exp": None}, "oidc-token-expired"),
        ({"exp": "soon"}, "oidc-token-malformed"),
        ({"iss": "https://evil.example"}, "oidc-issuer-wrong"),
        ({"iss": None}, "oidc-issuer-wrong"),
        ({"aud": "other"}, "oidc-audience-wrong"),
        ({"aud": ["other"]}, "oidc-audience-wrong"),
        ({"aud": [openid.CLIENT_ID, "other"]}, "oidc-audience-wrong"),
        ({"aud": [openid.CLIENT_ID, "other"], "azp": "other"}, "oidc-audience-wrong"),
        ({"azp": "other"}, "oidc-audience-wrong"),
        ({"nonce": "0" * 64}, "oidc-nonce-wrong"),
        ({"nonce": None}, "oidc-nonce-wrong"),
        ({"nonce": 7}, "oidc-nonce-wrong"),
        ({"nbf": 9e9}, "oidc-token-early"),
        ({"iat": 9e9}, "oidc-token-early"),
        ({"iat": 1}, "oidc-token-expired"),
        ({"iat": [1]}, "oidc-token-malformed"),
        ({"sub": None}, "oidc-no-subject"),
        ({"sub": ""}, "oidc-no-subject"),
        ({"sub": 7}, "oidc-no-subject"),
        ({"sub": "a\nb"}, "oidc-no-subject"),
    ],
)
async def test_claims_that_let_nobody_in(
    idp: openid.Provider, party: Party, bend: dict[str, Any], code: str
) -> None:
    def change(claims: dict[str, Any]) -> None:
        for key, value in bend.items():
            if value is None:
                del claims[key]
            else:
                claims[key] = value

    idp.bend = change
    assert await refused(party(), idp) == code


async def test_several_audiences_with_us_as_the_party(idp: openid.Provider, party: Party) -> None:
    idp.claims |= {"aud": [openid.CLIENT_ID, "other"], "azp": openid.CLIENT_ID}
    assert (await login(party(), idp)).judged.person.subject == "alice-1"


async def test_tokens_without_a_signature(idp: openid.Provider, party: Party) -> None:
    idp.sign = openid.unsigned
    idp.metadata["id_token_signing_alg_values_supported"] = ["none", "ES256"]
    assert await refused(party(), idp) == "oidc-algorithm-refused"


async def test_tokens_that_the_public_key_signs(idp: openid.Provider, party: Party) -> None:
    key = idp.keys[0]
    assert isinstance(key, ECKey)
    idp.sign = lambda claims: openid.signed_with_public_key(key, claims)
    idp.metadata["id_token_signing_alg_values_supported"] = ["HS256", "ES256"]
    assert await refused(party(), idp) == "oidc-algorithm-refused"


async def test_tokens_that_somebody_else_signed(idp: openid.Provider, party: Party) -> None:
    forger = openid.Provider()
    idp.sign = forger.signed  # another key under the same name
    assert await refused(party(), idp) == "oidc-signature-wrong"


async def test_a_token_whose_claims_were_changed_on_the_way(
    idp: openid.Provider, party: Party
) -> None:
    def change(claims: dict[str, Any]) -> str:
        head, _, seal = idp.signed(claims).split(".")
        other = openid.unsigned({**claims, "sub": "boss"}).split(".")[1]
        return f"{head}.{other}.{seal}"

    idp.sign = change
    assert await refused(party(), idp) == "oidc-signature-wrong"


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d.e", "ä.b.c", "a.b.c", "e30.e30.e30"])
async def test_tokens_that_are_none(idp: openid.Provider, party: Party, text: str) -> None:
    idp.sign = lambda _: text
    assert await refused(party(), idp) in {
        "oidc-token-malformed",
        "oidc-no-id-token",
        "oidc-algorithm-refused",
    }


async def test_algorithms_that_the_provider_announces(idp: openid.Provider, party: Party) -> None:
    idp.keys = [openid.rsa_key("RS512")]
    assert await refused(party(), idp) == "oidc-algorithm-refused"
    idp.metadata["id_token_signing_alg_values_supported"] = ["RS512"]
    assert (await login(party(), idp)).judged.person.subject == "alice-1"


async def test_new_keys_are_asked_for_and_not_at_every_token(
    idp: openid.Provider, party: Party
) -> None:
    relying = party()
    await login(relying, idp)
    idp.rotate()
    assert await refused(relying, idp) == "oidc-key-unknown"  # asked a moment ago
    relying.remote("company")._keys_at -= remote.KEY_COOLDOWN_S
    await login(relying, idp)
    assert idp.asked.count("/keys") == 2


async def test_a_login_is_of_one_browser_and_serves_once(
    idp: openid.Provider, party: Party
) -> None:
    relying = party()
    url, _, cookie = await relying.begin("company", source="192.0.2.1", next_path="/")
    query = idp.log_in(url)
    _, _, other = await relying.begin("company", source="192.0.2.1", next_path="/")
    for text in ("", "x", other):
        with pytest.raises(Forbidden) as caught:
            await relying.finish("company", query, text)
        assert caught.value.code == "login-of-another-browser"
    await relying.finish("company", query, cookie)
    with pytest.raises(Forbidden) as caught:
        await relying.finish("company", query, cookie)
    assert caught.value.code == "login-unknown"


async def test_two_tabs_sign_in_side_by_side(idp: openid.Provider, party: Party) -> None:
    relying = party()
    first = await relying.begin("company", source="192.0.2.1", next_path="/1")
    second = await relying.begin("company", source="192.0.2.1", next_path="/2")
    for (url, _, cookie), path in ((second, "/2"), (first, "/1")):
        done = await relying.finish("company", idp.log_in(url), cookie)
        assert done.flow.next_path == path


async def test_a_login_that_took_too_long(idp: openid.Provider, party: Party, clock: Clock) -> None:
    relying = party()
    url, _, cookie = await relying.begin("company", source="192.0.2.1", next_path="/")
    clock.ahead = flows.LIFETIME
    with pytest.raises(Forbidden) as caught:
        await relying.finish("company", idp.log_in(url), cookie)
    assert caught.value.code == "login-unknown"


async def test_logins_under_way_are_bounded(party: Party) -> None:
    relying = party()
    for _ in range(flows.MAX_FLOWS_PER_SOURCE):
        await relying.begin("company", source="192.0.2.1", next_path="/")
    with pytest.raises(TooMany):
        await relying.begin("company", source="192.0.2.1", next_path="/")
    await relying.begin("company", source="192.0.2.2", next_path="/")


async def test_a_few_strangers_keep_nobody_out(idp: openid.Provider, party: Party) -> None:
    relying = party()
    url, _, cookie = await relying.begin("company", source="192.0.2.1", next_path="/")
    for i in range(flows.MAX_FLOWS + 10):
        source = f"198.51.100.{i // flows.MAX_FLOWS_PER_SOURCE}"
        await relying.begin("company", source=source, next_path="/")
    assert len(relying.flows) == flows.MAX_FLOWS
    await relying.begin("company", source="192.0.2.2", next_path="/")
    assert (await relying.finish("company", idp.log_in(url), cookie)).flow.source == "192.0.2.1"


async def test_an_answer_of_another_provider(idp: openid.Provider, party: Party) -> None:
    async with openid.Provider().serve() as evil:
        relying = party(settled(idp), settled(evil, name="evil"))
        url, _, cookie = await relying.begin("evil", source="192.0.2.1", next_path="/")
        assert "callback%2Fevil" in url
        stolen = {**idp.log_in(url), "state": url.partition("state=")[2].partition("&")[0]}
        with pytest.raises(Forbidden) as caught:
            await relying.finish("company", stolen, cookie)
        assert caught.value.code == "oidc-mixed-up"
        assert "/token" not in evil.asked


@pytest.mark.parametrize(
    ("said", "announced", "ok"),
    [("right", True, True), ("right", False, True), (None, False, True), (None, True, False),
     ("wrong", True, False), ("wrong", False, False)],
)  # fmt: skip
async def test_the_issuer_in_the_answer(
    idp: openid.Provider, party: Party, said: str | None, announced: bool, ok: bool
) -> None:
    idp.metadata["authorization_response_iss_parameter_supported"] = announced
    relying = party()
    url, _, cookie = await relying.begin("company", source="192.0.2.1", next_path="/")
    query = idp.log_in(url)
    if said:
        query["iss"] = idp.issuer if said == "right" else "https://evil.example"
    if ok:
        await relying.finish("company", query, cookie)
        return
    with pytest.raises(Forbidden) as caught:
        await relying.finish("company", query, cookie)
    assert caught.value.code == "oidc-mixed-up"


async def test_a_refusal_of_the_provider_is_told_without_control_characters(
    idp: openid.Provider, party: Party
) -> None:
    relying = party()
    _, flow, cookie = await relying.begin("company", source="192.0.2.1", next_path="/")
    query = {"state": flow.state, "error": "access_denied", "error_description": "not\x1b[1m you"}
    with pytest.raises(Forbidden) as caught:
        await relying.finish("company", query, cookie)
    assert caught.value.sentence == "the provider says access_denied: not[1m you"
    idp.token_status = 400
    with pytest.raises(Forbidden) as caught:
        await login(relying, idp)
    assert "\x07" not in caught.value.sentence


@pytest.mark.parametrize(
    ("method", "announced", "shown"),
    [
        (ClientAuth.AUTO, None, "basic"),
        (ClientAuth.AUTO, ["client_secret_post"], "post"),
        (ClientAuth.AUTO, ["client_secret_post", "client_secret_basic"], "basic"),
        (ClientAuth.POST, ["client_secret_basic"], "post"),
        (ClientAuth.BASIC, None, "basic"),
    ],
)
async def test_the_secret_is_shown_as_the_provider_wants(
    idp: openid.Provider, party: Party, method: ClientAuth, announced: list[str] | None, shown: str
) -> None:
    if announced:
        idp.metadata["token_endpoint_auth_methods_supported"] = announced
    await login(party(client_auth=method), idp)
    is_basic = idp.token_fields["_authorization"].startswith("Basic ")
    assert is_basic == (shown == "basic")
    assert ("client_secret" in idp.token_fields) == (shown == "post")


async def test_a_provider_that_takes_no_basic_after_all(idp: openid.Provider, party: Party) -> None:
    idp.basic_works = False
    await login(party(), idp)
    assert idp.token_fields["client_secret"] == openid.CLIENT_SECRET


async def test_a_public_client_shows_no_secret(idp: openid.Provider, party: Party) -> None:
    await login(party(client_secret=""), idp)
    assert idp.token_fields["client_id"] == openid.CLIENT_ID
    assert not idp.token_fields["_authorization"]
    assert "client_secret" not in idp.token_fields


async def test_groups_that_only_userinfo_has(idp: openid.Provider, party: Party) -> None:
    idp.userinfo = {"sub": "alice-1", "realm_access": {"roles": ["ops"]}, "iss": "x", "exp": 1}
    done = await login(party(claims=ClaimNames(groups="realm_access.roles")), idp)
    assert done.judged.person.groups == ("ops",)
    assert done.judged.person.issuer == idp.issuer


async def test_what_is_said_of_one_address_is_not_said_of_another(
    idp: openid.Provider, party: Party
) -> None:
    idp.claims |= {"email": "alice@example.com", "email_verified": True}
    for verified, email in (({}, ""), ({"email_verified": True}, "boss@example.com")):
        idp.userinfo = {"sub": "alice-1", "email": "boss@example.com", **verified}
        assert (await login(party(), idp)).judged.person.email == email
    idp.userinfo = {"sub": "alice-1", "email": "alice@example.com"}
    assert (await login(party(), idp)).judged.person.email == "alice@example.com"


async def test_userinfo_of_somebody_else(idp: openid.Provider, party: Party) -> None:
    idp.userinfo = {"sub": "boss", "email": "boss@example.com", "email_verified": True}
    assert await refused(party(), idp) == "oidc-userinfo-differs"


@pytest.mark.parametrize(
    ("claims", "rules", "code"),
    [
        (
            {"email": "a@example.com"},
            {"allowed_domains": ("example.com",)},
            "oidc-email-unverified",
        ),
        (
            {"email": "a@example.com"},
            {"allowed_users": ("a@example.com",)},
            "oidc-email-unverified",
        ),
        (
            {"email": "a@example.com", "email_verified": "false"},
            {"allowed_users": ("a@example.com",)},
            "oidc-email-unverified",
        ),
        ({}, {"allowed_domains": ("example.com",)}, "oidc-domain-not-allowed"),
        (
            {"email": "a@notexample.com", "email_verified": True},
            {"allowed_domains": ("example.com",)},
            "oidc-domain-not-allowed",
        ),
        (
            {"email": "b@example.com", "email_verified": True},
            {"allowed_users": ("a@example.com",)},
            "oidc-user-not-allowed",
        ),
        (
            {"email": "a@stra\u00dfe.example", "email_verified": True},
            {"allowed_domains": ("strasse.example",)},
            "oidc-domain-not-allowed",
        ),
        (
            {"email": "\u212aim@example.com", "email_verified": True},
            {"allowed_users": ("kim@example.com",)},
            "oidc-user-not-allowed",
        ),
        ({"groups": ["x"]}, {"allowed_groups": ("staff",)}, "oidc-group-not-allowed"),
        ({"groups": "staff2"}, {"allowed_groups": ("staff",)}, "oidc-group-not-allowed"),
        (
            {"email": "a@example.com", "email_verified": True, "groups": ["x"]},
            {"allowed_domains": ("example.com",), "allowed_groups": ("staff",)},
            "oidc-group-not-allowed",
        ),
    ],
)
async def test_conditions_that_keep_out(
    idp: openid.Provider, party: Party, claims: dict[str, Any], rules: dict[str, Any], code: str
) -> None:
    idp.claims |= claims
    assert await refused(party(**rules), idp) == code


@pytest.mark.parametrize(
    ("claims", "rules", "email"),
    [
        ({"email": "a@example.com"}, {}, ""),
        ({"email": "a@example.com"}, {"email_verified_required": False}, "a@example.com"),
        ({"email": "A@Example.com", "email_verified": "true"}, {"allowed_domains": ("example.COM",)}, "A@Example.com"),
        ({"email": "x y@example.com", "email_verified": True}, {}, ""),
        ({"email": "\u212aim@example.com", "email_verified": True}, {}, ""),
        ({"email": "j\u00f6rg@example.com", "email_verified": True}, {}, "j\u00f6rg@example.com"),
        ({"groups": ["/staff"]}, {"allowed_groups": ("staff",)}, ""),
        ({"groups": "staff"}, {"allowed_groups": ("/staff",)}, ""),
    ],
)  # fmt: skip
async def test_conditions_that_let_in(
    idp: openid.Provider, party: Party, claims: dict[str, Any], rules: dict[str, Any], email: str
) -> None:
    idp.claims |= claims
    assert (await login(party(**rules), idp)).judged.person.email == email


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["a", "b"], Role.ADMIN), (["b"], Role.AUDITOR), ([], Role.MEMBER), (["x"], Role.MEMBER)],
)
async def test_roles_by_group(
    idp: openid.Provider, party: Party, groups: list[str], role: Role
) -> None:
    idp.claims["groups"] = groups
    done = await login(party(roles={"a": Role.ADMIN, "b": Role.AUDITOR}), idp)
    assert done.judged.person.role is role


async def test_how_long_keys_of_nodes_live(
    idp: openid.Provider, party: Party, clock: Clock
) -> None:
    now = clock()
    assert (await login(party(), idp)).key_expires_at(now) is None
    hours = timedelta(hours=8)
    assert (await login(party(key_expiry=hours), idp)).key_expires_at(now) == now + hours
    done = await login(party(use_expiry_from_token=True), idp)
    left = done.judged.token_expires_at
    assert left is not None
    assert done.key_expires_at(now) == left


async def test_a_slash_at_the_end_of_the_issuer_is_no_matter(
    idp: openid.Provider, party: Party
) -> None:
    done = await login(party(issuer=idp.issuer + "/"), idp)
    assert done.judged.person.issuer == idp.issuer


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"issuer": "https://other.example"}, "it calls itself 'https://other.example'"),
        ({"token_endpoint": None}, "lacks token_endpoint"),
        ({"jwks_uri": 7}, "lacks jwks_uri"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "is not an https address"),
    ],
)
async def test_metadata_that_cannot_be_used(
    idp: openid.Provider, party: Party, metadata: dict[str, Any], told: str
) -> None:
    idp.metadata |= metadata
    with pytest.raises(ProviderAway, match=told):
        await party().begin("company", source="::1", next_path="/")


async def test_a_provider_that_is_away_at_first(idp: openid.Provider, party: Party) -> None:
    port = idp.issuer
    relying = party(issuer="http://127.0.0.1:1")
    with pytest.raises(ProviderAway, match="cannot be reached"):
        await relying.begin("company", source="::1", next_path="/")
    assert "cannot be reached" in relying.remote("company").failure
    relying.remote("company").provider = settled(idp, issuer=port)
    await login(relying, idp)
    assert relying.remote("company").failure == ""


async def test_a_crowd_waits_for_one_answer(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    relying = party(issuer="http://127.0.0.1:1")
    far, asked = relying.remote("company"), []

    async def away(url: str) -> dict[str, Any]:
        asked.append(url)
        await asyncio.sleep(0)
        raise ProviderAway("silent")

    monkeypatch.setattr(far, "_document", away)
    begun = [relying.begin("company", source="::1", next_path="/") for _ in range(50)]
    failed = await asyncio.gather(*begun, return_exceptions=True)
    assert {type(each) for each in failed} == {ProviderAway}
    assert len(asked) == 1
    with pytest.raises(ProviderAway):
        await relying.begin("company", source="::1", next_path="/")
    assert len(asked) == 2


async def test_a_provider_that_does_not_answer(
    idp: openid.Provider, party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT_S", 0.05)
    idp.is_silent = True
    with pytest.raises(ProviderAway, match="does not answer"):
        await party().begin("company", source="::1", next_path="/")


async def test_what_is_known_serves_while_the_provider_is_away(
    idp: openid.Provider, party: Party
) -> None:
    relying = party()
    await login(relying, idp)
    far = relying.remote("company")
    far._learnt_at = float("-inf")
    idp.metadata["issuer"] = "https://other.example"
    await login(relying, idp)
    assert "calls itself" in far.failure


async def test_an_answer_without_end(party: Party, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_ANSWER_BYTES", 100)
    with pytest.raises(ProviderAway, match="more than"):
        await party().begin("company", source="::1", next_path="/")


async def test_logout_tokens(idp: openid.Provider, party: Party) -> None:
    relying = party()
    assert await relying.logged_out("company", idp.logout_token()) == (idp.issuer, "alice-1")
    assert await relying.logged_out("company", idp.logout_token(sub=None, sid="s")) == (
        idp.issuer,
        "",
    )
    wrong: tuple[dict[str, Any], ...] = (
        {"events": None},
        {"events": []},
        {"nonce": "n"},
        {"sub": None},
        {"aud": "other"},
        {"iss": "https://evil.example"},
        {"exp": 1},
    )
    for changes in wrong:
        with pytest.raises(Forbidden):
            await relying.logged_out("company", idp.logout_token(**changes))
    forger = openid.Provider()
    forger.issuer = idp.issuer
    with pytest.raises(Forbidden):
        await relying.logged_out("company", forger.logout_token())


async def test_an_id_token_is_no_logout_token(idp: openid.Provider, party: Party) -> None:
    seen: list[str] = []

    def keep(claims: dict[str, Any]) -> str:
        seen.append(idp.signed(claims))
        return seen[-1]

    idp.sign = keep
    relying = party()
    await login(relying, idp)
    with pytest.raises(Forbidden):
        await relying.logged_out("company", seen[0])


async def test_refresh_brings_the_groups_up_to_date(idp: openid.Provider, party: Party) -> None:
    idp.refresh_token = "rt-1"
    relying = party()
    done = await login(relying, idp)
    idp.claims["groups"] = ["new"]
    judged, token = await relying.renew("company", "alice-1", done.refresh_token)
    assert judged.person.groups == ("new",)
    assert token == "rt-1"
    idp.claims["sub"] = "boss"
    with pytest.raises(Forbidden) as caught:
        await relying.renew("company", "alice-1", token)
    assert caught.value.code == "oidc-refresh-wrong"


async def test_an_unknown_provider(party: Party) -> None:
    with pytest.raises(NotFound):
        await party().begin("other", source="::1", next_path="/")


async def test_secrets_are_not_shown(party: Party) -> None:
    relying = party()
    _, flow, cookie = await relying.begin("company", source="::1", next_path="/")
    shown = f"{flow!r} {relying.remote('company').provider!r}"
    for secret in (openid.CLIENT_SECRET, flow.verifier, flow.nonce, cookie):
        assert secret not in shown


def test_keys_that_cannot_be_used_are_left_out() -> None:
    for document in ({}, {"keys": 7}, {"keys": [7, {"kty": "oct", "k": "AAAA"}]}):
        with pytest.raises(Forbidden):
            tokens.read_keys(document)
