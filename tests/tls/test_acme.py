"""Certificates of a real authority, Pebble: every challenge, and what goes wrong with authorities."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from appliance.front.dispatch import Front
from appliance.front.stream import TlsStream, accept, bind
from appliance.serve.certificates import answer_challenges
from appliance.tls.acme.dnsrecords import DnsRecords, Hook
from appliance.tls.acme.issuer import AcmeIssuer, Site, place_of
from appliance.tls.acme.ledger import OWN_AUTHORITY
from appliance.tls.acme.link import AuthorityError
from appliance.tls.acme.order import Wanted
from appliance.tls.acme.rfc2136 import Rfc2136, UpdateKey
from appliance.tls.certificates import CertificateError
from appliance.tls.challenges import Challenges
from appliance.wire.http1 import Answer
from tests.interop.build import Unavailable
from tests.support import bind as bind9
from tests.support.certificates import server_context
from tests.support.pebble import EAB_ID, EAB_KEY, SHORTEST, Pebble, programs, running
from tests.support.ports import free_port

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def pebble_is_built() -> None:
    try:
        programs()
    except Unavailable as reason:
        pytest.skip(f"no Pebble: {reason}")


@dataclass
class House:
    """A server's listeners, and what answers an authority there."""

    directory: Path
    challenges: Challenges
    tls_port: int
    http_port: int

    def issuer(self, pebble: Pebble, **changes: Any) -> AcmeIssuer:
        records: DnsRecords | None = changes.pop("records", None)
        now = changes.pop("now", None)
        limits = changes.pop("limits", OWN_AUTHORITY)
        request_s = changes.pop("request_s", None)
        site = Site(
            directory=changes.pop("url", pebble.url),
            state_dir=self.directory,
            wanted=Wanted(names=(), **changes),
            ca_file=pebble.ca_file,
            limits=limits,
            request_s=request_s,
        )
        if now is not None:
            return AcmeIssuer(site, self.challenges, records, now=now)
        return AcmeIssuer(site, self.challenges, records)

    def place(self, pebble: Pebble) -> Path:
        return self.directory / "acme" / place_of(pebble.url)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    challenges, web = Challenges(), server_context()
    front = Front({}, fallback=lambda _head, _stream: Answer(404, b""))
    plain = Front({}, fallback=answer_challenges(challenges, lambda _head, _stream: None))
    async with AsyncExitStack() as ending:
        ports = []
        for one, tls in ((front, True), (plain, False)):
            sockets = await bind("127.0.0.1", 0)
            listener = await accept(
                one.sink,
                sockets,
                tls=(lambda: web) if tls else None,
                make_tls=partial(TlsStream, challenges=challenges),
            )
            ending.callback(listener.abort_streams)
            ending.callback(listener.close)
            ports.append(listener.port)
        yield House(tmp_path, challenges, *ports)


@asynccontextmanager
async def pebble_for(house: House, **changes: Any) -> AsyncIterator[Pebble]:
    place = house.directory / "pebble"
    made = Pebble(place, http_port=house.http_port, tls_port=house.tls_port)
    async with running(replace(made, **changes)) as pebble:
        yield pebble


CLOSED = 1
"""A port on which nobody listens."""


@pytest.mark.parametrize("names", [["a.example.com", "b.example.com"], ["127.0.0.1"]], ids=str)
@pytest.mark.parametrize("kind", ["tls-alpn-01", "http-01"])
async def test_a_certificate_comes_by_one_port_alone(
    house: House, kind: str, names: list[str]
) -> None:
    closed = {"http_port": CLOSED} if kind == "tls-alpn-01" else {"tls_port": CLOSED}
    async with pebble_for(house, **closed) as pebble:
        issuer = house.issuer(pebble, kinds=(kind,), email="me@example.com")
        found = await issuer.obtain(names)
    assert set(found.facts.names) == set(names)
    assert not found.facts.is_self_signed
    assert not house.challenges.is_pending, "what was put up is taken down"
    assert (await issuer.at_hand(names)) is not None
    assert (await issuer.at_hand(["c.example.com"])) is None
    for path in house.place(pebble).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert not (house.place(pebble) / "order.key").exists()


async def test_another_kind_has_its_turn_after_a_failure(house: House) -> None:
    async with pebble_for(house, tls_port=CLOSED) as pebble:
        issuer = house.issuer(pebble, kinds=("tls-alpn-01", "http-01"))
        with pytest.raises(AuthorityError, match=r"port 443 of a\.example\.com does not lead here"):
            await issuer.obtain(["a.example.com"])
        assert "must reach this machine" in issuer.advice
        assert issuer.trouble
        await issuer.obtain(["a.example.com"])
        assert not issuer.trouble


HOOK = """#!/usr/bin/env python3
import json, sys, urllib.request
verb, name, value = sys.argv[1:]
assert name.endswith(".")
body = {{"host": name, "value": value}} if verb == "present" else {{"host": name}}
call = "set-txt" if verb == "present" else "clear-txt"
request = urllib.request.Request("http://127.0.0.1:{port}/" + call, json.dumps(body).encode())
urllib.request.urlopen(request, timeout=10).read()
"""


def program(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


async def test_wildcards_come_by_a_program_that_sets_records(house: House) -> None:
    async with pebble_for(house, http_port=CLOSED, tls_port=CLOSED) as pebble:
        hook = Hook(program(house.directory / "hook", HOOK.format(port=pebble.ports[3])))
        issuer = house.issuer(pebble, kinds=("tls-alpn-01", "dns-01"), records=hook)
        with pytest.raises(AuthorityError):
            await issuer.obtain(["*.w.example.com", "x.example.com"])
        found = await issuer.obtain(["*.w.example.com", "x.example.com"])
    assert set(found.facts.names) == {"*.w.example.com", "x.example.com"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#!/bin/sh\necho first; echo no such zone >&2; exit 3\n", "ended with 3: no such zone"),
        ("#!/bin/sh\nexec sleep 100\n", "took longer than"),
        ("#!/no/such/program\n", "cannot be run"),
    ],
)
async def test_a_program_that_fails_is_quoted(house: House, text: str, told: str) -> None:
    async with pebble_for(house) as pebble:
        hook = Hook(program(house.directory / "hook", text), timeout_s=1.0)
        issuer = house.issuer(pebble, kinds=("dns-01",), records=hook)
        with pytest.raises(CertificateError, match=told):
            await issuer.obtain(["a.example.com"])
    assert told in issuer.trouble


needs_bind = pytest.mark.skipif(bind9.program() is None, reason="no BIND here: apt install bind9")


@pytest.fixture
async def bind_server(tmp_path: Path) -> AsyncIterator[bind9.Bind]:
    async with bind9.running(bind9.Bind(tmp_path / "bind", free_port())) as server:
        yield server


def updates(
    server: bind9.Bind, *, zone: str = "", algorithm: str = "", secret: str = ""
) -> Rfc2136:
    key = UpdateKey(bind9.KEY_NAME, algorithm or server.algorithm, lambda: secret or server.secret)
    return Rfc2136("127.0.0.1", server.port, key, zone)


@needs_bind
@pytest.mark.parametrize("zone", ["", "hw.test"])
async def test_wildcards_come_by_signed_updates_to_a_name_server(
    house: House, bind_server: bind9.Bind, zone: str
) -> None:
    names = ["box.hw.test", "*.box.hw.test", "a.b.hw.test"]
    dns_server = f"127.0.0.1:{bind_server.port}"
    closed = {"http_port": CLOSED, "tls_port": CLOSED, "dns_server": dns_server}
    async with pebble_for(house, **closed) as pebble:
        records = updates(bind_server, zone=zone)
        found = await house.issuer(pebble, kinds=("dns-01",), records=records).obtain(names)
    assert set(found.facts.names) == set(names)
    log = (bind_server.place / "named.log").read_text()
    assert "adding an RR at '_acme-challenge.box.hw.test' TXT" in log
    assert log.count("deleting an RR at _acme-challenge") == 3, "nothing is left behind"


@needs_bind
@pytest.mark.parametrize(
    ("changes", "name", "told"),
    [
        ({"secret": "d3Jvbmc="}, "a.hw.test", "is not what the server has"),
        ({"algorithm": "hmac-sha512"}, "a.hw.test", "is not what the server has"),
        ({"secret": "no base64!"}, "a.hw.test", "no key in base64"),
        ({}, "a.closed.test", "REFUSED; the key may not change this zone"),
        ({}, "a.elsewhere.example", "has no zone for"),
    ],
)
async def test_a_name_server_that_refuses_is_quoted(
    house: House, bind_server: bind9.Bind, changes: dict[str, str], name: str, told: str
) -> None:
    dns_server = f"127.0.0.1:{bind_server.port}"
    async with pebble_for(house, dns_server=dns_server) as pebble:
        records = updates(bind_server, **changes)
        issuer = house.issuer(pebble, kinds=("dns-01",), records=records)
        with pytest.raises(CertificateError, match=told):
            await issuer.obtain([name])
    assert f"127.0.0.1:{bind_server.port}" in issuer.trouble or "tls.dns" in issuer.trouble


async def test_a_name_server_that_is_away_is_named(house: House) -> None:
    port = free_port()
    async with pebble_for(house) as pebble:
        records = Rfc2136("127.0.0.1", port, None, "hw.test")
        issuer = house.issuer(pebble, kinds=("dns-01",), records=records)
        with pytest.raises(CertificateError, match=f"name server 127.0.0.1:{port} did not take"):
            await issuer.obtain(["a.hw.test"])


async def test_a_record_that_stays_proves_names_and_wildcards(house: House) -> None:
    names = ["p.example.com", "*.p.example.com"]
    async with pebble_for(house, http_port=CLOSED, tls_port=CLOSED) as pebble:
        issuer = house.issuer(pebble, kinds=("dns-persist-01",))
        with pytest.raises(AuthorityError, match="the record must be: _validation-persist") as told:
            await issuer.obtain(names)
        record = str(told.value).partition('TXT "')[2].rpartition('"')[0]
        if "policy=wildcard" not in record:
            record += "; policy=wildcard"
        await pebble.set_txt("_validation-persist.p.example.com.", record)
        found = await issuer.obtain(names)
    assert set(found.facts.names) == set(names)


async def test_an_account_of_the_authority_is_bound(house: House) -> None:
    async with pebble_for(house, needs_eab=True) as pebble:
        with pytest.raises(AuthorityError) as told:
            await house.issuer(pebble).obtain(["a.example.com"])
        assert told.value.type == "externalAccountRequired"
        wrong = house.issuer(pebble, eab_id=EAB_ID, eab_key=lambda: "A" * 64)
        with pytest.raises(AuthorityError):
            await wrong.obtain(["a.example.com"])
        await house.issuer(pebble, eab_id=EAB_ID, eab_key=lambda: EAB_KEY).obtain(["a.example.com"])


async def test_profiles_are_asked_for_and_addresses_get_the_short_one(house: House) -> None:
    profiles = {"default": 90 * 86400, "shortlived": SHORTEST}
    async with pebble_for(house, profiles=profiles) as pebble:
        with pytest.raises(AuthorityError, match=r"it has: .*shortlived") as told:
            await house.issuer(pebble, profile="nosuch").obtain(["a.example.com"])
        assert told.value.type == "invalidProfile"
        for names, profile in ((["a.example.com"], "shortlived"), (["127.0.0.1"], "")):
            found = await house.issuer(pebble, profile=profile).obtain(names)
            life = found.facts.not_after - found.facts.not_before
            assert timedelta(days=5) < life < timedelta(days=7)


@pytest.mark.parametrize("percent", [20, 50])
async def test_refused_nonces_are_replaced(house: House, percent: int) -> None:
    async with pebble_for(house, nonce_reject=percent) as pebble:
        await house.issuer(pebble).obtain(["a.example.com"])


async def test_a_refusal_is_quoted_with_what_to_do(house: House) -> None:
    async with pebble_for(house) as pebble:
        issuer = house.issuer(pebble)
        with pytest.raises(AuthorityError) as told:
            await issuer.obtain(["blocked.example"])
    assert told.value.type == "rejectedIdentifier"
    assert "does not certify the name" in issuer.advice


async def test_the_authority_says_when_to_renew(house: House) -> None:
    async with pebble_for(house) as pebble:
        issuer = house.issuer(pebble)
        found = await issuer.obtain(["a.example.com"])
        by_age = issuer.renew_at(found)
        await issuer.attend(found)
        suggested = issuer.renew_at(found)
        assert suggested != by_age
        assert found.facts.not_before < suggested < found.facts.not_after
        again = house.issuer(pebble)
        assert again.renew_at(found) == suggested, "it is kept over a restart"
        replaced = await again.obtain(["a.example.com"])
        assert replaced.digest != found.digest
        assert '"replaces"' in pebble.log_tail() or replaced.facts.renewal_id


async def test_an_authority_that_forgets_its_accounts_gets_a_new_one(house: House) -> None:
    async with pebble_for(house) as pebble:
        issuer = house.issuer(pebble)
        await issuer.obtain(["a.example.com"])
        await pebble.stop("acme")
        await pebble.start()  # it keeps nothing on disk
        await issuer.obtain(["a.example.com"])
        assert not issuer.trouble


async def test_an_authority_that_is_away_is_asked_again_later(house: House) -> None:
    async with pebble_for(house) as pebble:
        issuer = house.issuer(pebble)
        await pebble.stop("acme")
        with pytest.raises(AuthorityError, match="cannot be reached"):
            await issuer.obtain(["a.example.com"])
        assert issuer.not_before > datetime.now(UTC) + timedelta(minutes=2)
        assert "reach the authority by https" in issuer.advice
        await pebble.start()
        await issuer.obtain(["a.example.com"])


Step = Callable[[House, Pebble], None]


@pytest.mark.parametrize("after", ["account", "order", "respond", "finalize", "certificate"])
async def test_an_order_survives_the_end_of_the_process_at_every_step(
    house: House, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``kill -9`` does it: nothing of the attempt runs any more, and only files are left."""
    from appliance.tls.acme import link

    class Killed(BaseException):
        pass

    asked: list[str] = []
    true_ask = link.Link.ask

    async def ask(self: link.Link, do: str, **values: object) -> link.Reply:
        reply = await true_ask(self, do, **values)
        asked.append(do)
        if do == after and asked.count(do) == 1 and not is_restarted:
            raise Killed
        return reply

    is_restarted = False
    monkeypatch.setattr(link.Link, "ask", ask)
    async with pebble_for(house) as pebble:
        with pytest.raises(Killed):
            await house.issuer(pebble).obtain(["a.example.com"])
        known = (house.place(pebble) / "account.key").read_bytes()
        is_restarted = True
        asked.clear()
        await house.issuer(pebble).obtain(["a.example.com"])
    assert (house.place(pebble) / "account.key").read_bytes() == known
    if after in ("finalize", "certificate"):
        assert "order" not in asked, "the order under way is taken up"


async def test_slow_validation_is_waited_for(house: House) -> None:
    async with pebble_for(house, sleeps=True) as pebble:
        issuer = house.issuer(pebble)
        waiting = asyncio.create_task(issuer.obtain(["a.example.com"]))
        await waiting
    assert not issuer.doing


async def test_a_certificate_that_cannot_be_kept_is_fetched_again_and_not_ordered_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the last step: the weekly limit of public authorities would be eaten up."""
    from appliance.tls.acme import issuer as module

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    async with pebble_for(house) as pebble:
        issuer = house.issuer(pebble)
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_whole", full)
            with pytest.raises(OSError, match="No space"):
                await issuer.obtain(["a.example.com"])
        order = (house.place(pebble) / "order.json").read_bytes()
        assert "No space left" in issuer.trouble
        await issuer.obtain(["a.example.com"])
    assert order
