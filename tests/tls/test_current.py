"""The certificate in use: whatever an issuer does, what is in memory is served on."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.files import Watch
from appliance.tls.certificates import Certificate, CertificateError
from appliance.tls.current import CurrentCertificate
from appliance.tls.issuers import (
    NEVER,
    NOW,
    FileIssuer,
    Issuer,
    LocalAuthority,
    SelfSigned,
    obtain_marked,
)
from appliance.tls.localca import LEAF_DAYS, RENEW_BEFORE, LocalCa
from tests.tls.test_certificates import handshake, trusting

TODAY = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class FakeIssuer:
    """Gives what it is told to, or raises it; remembers what it was asked."""

    answers: list[Certificate | Exception]
    due_at: datetime = NEVER
    asked: list[tuple[str, ...]] = field(default_factory=list)
    name: str = "fake"
    is_remote: bool = False

    async def obtain(self, names: Sequence[str]) -> Certificate:
        self.asked.append(tuple(names))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def renew_at(self, certificate: Certificate) -> datetime:
        assert certificate.facts.names
        return self.due_at


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Certificate]:
    """Make certificates for a name."""

    def make(name: str) -> Certificate:
        return Certificate.load(LocalCa(tmp_path / "made" / name).ensure([name]).path)

    return make


Made = Callable[[str], Certificate]


async def test_a_certificate_is_obtained_again_when_its_issuer_says_so(made: Made) -> None:
    issuer = FakeIssuer([made("a.test"), made("b.test")])
    current = await CurrentCertificate.open(issuer, ["a.test", "192.0.2.1"])
    replaced: list[int] = []
    current.on_replaced = lambda: replaced.append(1)
    await current.renew_if_due()
    assert len(issuer.asked) == 1, "not due"
    issuer.due_at = NOW
    before = current.context()
    await current.renew_if_due()
    assert issuer.asked == [("a.test", "192.0.2.1")] * 2
    assert current.facts.names == ("b.test",)
    assert current.context() is not before
    assert (current.reloads, current.failures, replaced) == (1, 0, [1])


FAILURES = [
    CertificateError("ca.key cannot be read"),
    OSError(28, "No space left on device"),
    TimeoutError(),
    KeyError("a bug of the issuer"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_whatever_an_issuer_does_the_certificate_in_memory_stays(
    made: Made, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """D2: an unreadable key, a full disk, an authority that is away. The loop tries again."""
    issuer = FakeIssuer([made("a.test"), failure, failure, made("b.test")])
    current = await CurrentCertificate.open(issuer, ["a.test"])
    issuer.due_at = NOW
    for _ in range(2):
        with pytest.raises(type(failure)):
            await current.renew_if_due()
        assert current.facts.names == ("a.test",)
    if not isinstance(failure, KeyError):
        assert current.failures == 2
        assert [r.levelname for r in caplog.records] == ["ERROR"], "once, in words"
        assert caplog.records[0].exc_info is None
    await current.renew_if_due()
    assert current.facts.names == ("b.test",)


async def test_a_failed_renewal_is_tried_again_though_nothing_changes(made: Made) -> None:
    issuer = FakeIssuer([made("a.test"), OSError("no"), made("b.test")], due_at=NOW)
    current = await CurrentCertificate.open(issuer, ["a.test"])
    await current.check()
    issuer.due_at = NEVER
    await current.check()
    assert current.facts.names == ("b.test",)


async def test_a_server_may_start_before_its_first_certificate(
    made: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issuer = FakeIssuer([OSError("the authority is away"), OSError("still"), made("a.test")])
    current = await CurrentCertificate.open(issuer, ["a.test"], until_then=SelfSigned(tmp_path))
    assert current.pin
    assert "no certificate yet" in caplog.text
    await current.check()
    assert current.pin
    await current.check()
    assert not current.pin
    with pytest.raises(OSError, match="away"):
        await CurrentCertificate.open(FakeIssuer([OSError("the authority is away")]), ["a.test"])


async def test_changes_are_logged_at_info(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "appliance")
    issuer = LocalAuthority(tmp_path)
    current = await CurrentCertificate.open(issuer, ["a.test", "127.0.0.1"])
    LocalCa(tmp_path).ensure(["a.test"])
    await current.renew_if_due()  # somebody else's names: made again with ours
    assert [r.message for r in caplog.records] == ["certificate in use", "certificate replaced"]
    assert "for a.test, 127.0.0.1" in str(caplog.records[1].__dict__["reason"])
    assert caplog.records[1].__dict__["source"] == "local authority"


async def test_an_expired_certificate_is_served_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    path = LocalCa(tmp_path, now=lambda: long_ago).ensure(["a.test"]).path
    await CurrentCertificate.open(FileIssuer(path, path), ())
    assert [record.getMessage() for record in caplog.records] == ["certificate has expired"]


# -- issuers of our own --


@pytest.mark.parametrize("kind", [LocalAuthority, SelfSigned])
async def test_our_own_certificates_are_kept_and_renewed_in_time(
    tmp_path: Path, kind: Callable[[Path], Issuer]
) -> None:
    issuer = kind(tmp_path)
    first = await issuer.obtain(["a.test", "::1"])
    assert first.facts.names == ("a.test", "::1")
    assert first.ca_file is not None
    assert "PRIVATE KEY" not in first.ca_file.read_text()
    assert (await kind(tmp_path).obtain(["a.test", "::1"])).digest == first.digest
    due_at = first.facts.not_after - RENEW_BEFORE
    assert issuer.renew_at(first) in (NOW, due_at)  # a file of this moment is looked at again
    assert first.facts.not_after - first.facts.not_after.now(UTC) > timedelta(days=LEAF_DAYS - 1)


# -- files --


def pair(home: Path) -> tuple[Path, Path]:
    return home / "chain.pem", home / "key.pem"


def write(home: Path, pem: bytes, key: bytes | None = None) -> None:
    """Write chain and key as a renewal tool does: one after the other."""
    chain_file, key_file = pair(home)
    chain_file.write_bytes(pem)
    if key is not None:
        key_file.write_bytes(key[key.index(b"-----BEGIN PRIVATE") :])


async def test_broken_new_files_leave_the_old_pair(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = LocalCa(tmp_path / "ca").ensure(["a.test"]).path.read_bytes()
    write(tmp_path, good, good)
    current = await CurrentCertificate.open(FileIssuer(*pair(tmp_path)), ())
    before = current.context()
    other = LocalCa(tmp_path / "ca").ensure(["b.test"]).path.read_bytes()
    with caplog.at_level(logging.ERROR):
        for rubbish in (b"", b"rubbish", other):
            write(tmp_path, rubbish)
            await current.check()
            await current.check()
        pair(tmp_path)[0].unlink()
        await current.check()
    assert current.context() is before
    assert len(caplog.records) >= 3, "each other reason is news"
    assert any("is not the key of" in str(r.__dict__["reason"]) for r in caplog.records)
    # The tool that replaces one file after the other gets there in the end.
    write(tmp_path, other, other)
    await current.check()
    assert current.facts.names == ("b.test",)
    assert current.reloads == 1
    ca = trusting(tmp_path / "ca" / "ca.pem")
    assert handshake(current.context(), ca, "b.test")


async def test_files_behind_a_moved_link_are_noticed(tmp_path: Path) -> None:
    """Renewal tools keep versions and move a symbolic link."""
    ca = LocalCa(tmp_path)
    live = tmp_path / "live.pem"
    for name in ("one", "two"):
        shutil.copy(ca.ensure([f"{name}.test"]).path, tmp_path / f"{name}.pem")
    live.symlink_to("one.pem")
    current = await CurrentCertificate.open(FileIssuer(live, live), ())
    (tmp_path / "next").symlink_to("two.pem")
    (tmp_path / "next").replace(live)
    await current.renew_if_due()
    assert current.facts.names == ("two.test",)


async def test_a_file_that_goes_away_while_it_is_read_is_missed(tmp_path: Path) -> None:
    ca = LocalCa(tmp_path)
    watch = Watch(ca.leaf_file)
    reads: list[int] = []

    def obtain() -> Certificate:
        found = Certificate.load(ca.ensure(["a.test"]).path)
        reads.append(1)
        if len(reads) == 2:
            ca.leaf_file.unlink()
        return found

    await obtain_marked(watch, obtain)
    assert watch.has_changed()
