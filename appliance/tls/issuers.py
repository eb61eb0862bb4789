"""Where certificates come from: one small interface, and the issuers of today.

``FileIssuer`` reads files that the operator or another tool writes, ``LocalAuthority`` and
``SelfSigned`` make certificates here, ``acme.issuer`` asks an authority. Not for when to ask
(``current`` has the loop).
Source of the interface: certmagic's ``Issuer``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from appliance.files import Watch
from appliance.tls.certificates import Certificate
from appliance.tls.localca import RENEW_BEFORE, LocalCa, ensure_self_signed

NOW = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)


class Issuer(Protocol):
    """Something that gives a certificate for names."""

    name: str
    """For logs and health."""
    is_remote: bool
    """Somebody else is asked, which may take minutes and fail for days: see ``RemoteIssuer``."""

    async def obtain(self, names: Sequence[str]) -> Certificate:
        """Return a certificate for these host names and addresses, new if the one at hand is due.

        An address is written as such; the issuer makes an IP identifier of it. May take minutes;
        must end by itself. Raises CertificateError or OSError, which leave the certificate in use
        where it is.
        """

    def renew_at(self, certificate: Certificate) -> datetime:
        """Return when to obtain again; a time in the past means at once.

        Asked every few seconds, so it must be cheap: an issuer that learns it from somebody
        remembers it, as it remembers how long an authority does not want to be asked.
        """


class RemoteIssuer(Issuer, Protocol):
    """An issuer that asks somebody else, at a pace of its own.

    A server starts without it: with what is ``at_hand``, or with another certificate until then.
    """

    @property
    def not_before(self) -> datetime:
        """When it may be asked again, whatever else is due."""

    @property
    def trouble(self) -> str:
        """Why the last attempt failed; empty after a success."""

    @property
    def advice(self) -> str:
        """What the operator should do about it."""

    @property
    def doing(self) -> str:
        """What is going on now; empty while nothing is."""

    def hurry(self) -> datetime:
        """Let the next attempt begin as soon as it may; return when."""

    async def at_hand(self, names: Sequence[str]) -> Certificate | None:
        """Return a certificate for these names that was given before."""

    async def attend(self, certificate: Certificate) -> None:
        """Learn when to renew, now and then. Raises nothing that is expected."""


class FileIssuer:
    """A chain and a key in files, which somebody else renews."""

    name = "files"
    is_remote = False

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self._watch = Watch(chain, key)

    async def obtain(self, names: Sequence[str]) -> Certificate:  # noqa: ARG002  # theirs to choose
        """Load the files as they are."""
        self._watch.mark()
        try:
            return await asyncio.to_thread(Certificate.load, self._chain, self._key)
        except BaseException:
            # Renewal tools replace two files one after the other: the next look finds both.
            self._watch.forget()
            raise

    def renew_at(self, certificate: Certificate) -> datetime:  # noqa: ARG002  # whatever it says
        """Return at once when the files have changed."""
        return NOW if self._watch.has_changed() else NEVER


class LocalAuthority:
    """The certificate authority of this machine, for clients that trust it."""

    name = "local authority"
    is_remote = False

    def __init__(self, directory: Path) -> None:
        self._ca = LocalCa(directory)
        self._watch = Watch(self._ca.leaf_file)

    async def obtain(self, names: Sequence[str]) -> Certificate:
        """Return the certificate on disk while it is good, else a new one."""
        return await obtain_marked(self._watch, lambda: self._obtain(tuple(names)))

    def renew_at(self, certificate: Certificate) -> datetime:
        """Return some weeks before the end, or at once if somebody has changed the file."""
        return NOW if self._watch.has_changed() else certificate.facts.not_after - RENEW_BEFORE

    def _obtain(self, names: tuple[str, ...]) -> Certificate:
        path = self._ca.ensure(names).path
        return Certificate.load(path, ca_file=self._ca.ca_file)


class SelfSigned:
    """A certificate that vouches for itself, to be pinned in the relay map."""

    name = "self-signed"
    is_remote = False

    def __init__(self, directory: Path) -> None:
        self._file = directory / "self-signed.pem"
        self._public = directory / "self-signed-public.pem"
        self._watch = Watch(self._file)

    async def obtain(self, names: Sequence[str]) -> Certificate:
        """Return the certificate on disk while it is good, else a new one with another pin."""
        return await obtain_marked(self._watch, lambda: self._obtain(tuple(names)))

    def renew_at(self, certificate: Certificate) -> datetime:
        """Return some weeks before the end, or at once if somebody has changed the file."""
        return NOW if self._watch.has_changed() else certificate.facts.not_after - RENEW_BEFORE

    def _obtain(self, names: tuple[str, ...]) -> Certificate:
        path = ensure_self_signed(self._file, names).path
        text = path.read_text()
        self._public.write_text(text[: text.index("-----BEGIN PRIVATE KEY")])
        return Certificate.load(path, ca_file=self._public)


async def obtain_marked(watch: Watch, obtain: Callable[[], Certificate]) -> Certificate:
    """Obtain a certificate from a file that may have to be made, with the file marked before.

    Marked only behind it, a file that somebody takes away meanwhile would never be missed. Making
    it changes it, so it is looked at twice.
    """
    for _ in range(2):
        watch.mark()
        certificate = await asyncio.to_thread(obtain)
        if not watch.has_changed():
            break
    return certificate
