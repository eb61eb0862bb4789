"""The certificate that listeners show, as the settings choose it; kept current for as long as they run.

Not for making or loading certificates (``tls``). A part of ``server`` and of a relay that runs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from appliance.config import Settings, secret_place
from appliance.loops import Loop
from appliance.tls.certificates import POLL_S, CertificateFiles
from appliance.tls.localca import LocalCa, ensure_self_signed

RENEWAL_LOOK_S = 12 * 3600.0
"""How often we look whether a certificate of our own nears its end; it is renewed weeks before."""


class Certificates:
    """The certificate in use. ``files`` has the source of TLS contexts; its ``loops`` must run.

    Raises CertificateError for files that cannot be used.
    """

    def __init__(self, settings: Settings, names: Sequence[str], *, self_signed: bool) -> None:
        self._directory = settings.state_dir / "tls"
        self._names = tuple(names)
        self._self_signed = self_signed
        self.ca_file: Path | None = None
        """What clients must trust, if the public authorities do not vouch for us."""
        tls = settings.tls
        self._is_ours = tls.cert_file is None or tls.key_file is None
        if tls.cert_file is None or tls.key_file is None:
            self.files = CertificateFiles(self._issue())
        else:
            self.files = CertificateFiles(secret_place(tls.cert_file), secret_place(tls.key_file))

    @property
    def pin(self) -> str:
        """The pin for the relay map, if nothing but the certificate itself vouches for it."""
        return self.files.facts.pin if self.files.facts.is_self_signed else ""

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run for changed files to be noticed, and for our own to be renewed.

        Whatever fails, the certificate in memory is served on.
        """
        watch = Loop("certificate files", self._check, POLL_S)
        if not self._is_ours:
            return (watch,)
        return watch, Loop("certificate renewal", self._renew, RENEWAL_LOOK_S)

    def _check(self) -> None:
        self.files.check()

    def _renew(self) -> None:
        self._issue()

    def _issue(self) -> Path:
        """Make the certificate of the local CA, or a self-signed one, if it is not there yet."""
        if not self._self_signed:
            ca = LocalCa(self._directory)
            self.ca_file = ca.ca_file
            return ca.ensure(self._names).path
        pair = ensure_self_signed(self._directory / "self-signed.pem", self._names)
        self.ca_file = self._directory / "self-signed-public.pem"
        text = pair.path.read_text()
        self.ca_file.write_text(text[: text.index("-----BEGIN PRIVATE KEY")])
        return pair.path


def open_certificates(
    settings: Settings, names: Sequence[str], *, self_signed: bool = False
) -> Certificates | None:
    """Open what ``tls.mode`` asks for; None without TLS. Raises CertificateError."""
    if settings.tls.mode == "off":
        return None
    return Certificates(settings, names, self_signed=self_signed)
