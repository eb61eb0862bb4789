"""Passkeys: what a browser is asked, and whether its answer proves the passkey (WebAuthn).

Not for keeping passkeys (``credentials``) nor for pages. A challenge is good once, for minutes, and for the
browser that asked; the passkey must verify its user (a finger, a face, a PIN), so that it is a whole login.
Source: https://www.w3.org/TR/webauthn-3/; the library reads and verifies, and no attestation is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fido2 import cbor
from fido2.cose import CoseKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    AttestationConveyancePreference,
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from appliance.errors import Forbidden
from appliance.records import Credential, User

CHALLENGE_BYTES = 32
LIFETIME = timedelta(minutes=5)
"""How long a person may look for the key, or for the right finger."""
MAX_CHALLENGES = 1024
"""Of the whole server, at 300 bytes; the oldest makes room."""
MAX_ID_BYTES = 1023
"""Of a passkey's public id. Source: WebAuthn level 2, 4."""
MAX_KEY_BYTES = 4096
"""An RSA key of 2,048 bits takes 280."""

_REQUIRED = UserVerificationRequirement.REQUIRED


@dataclass(frozen=True, slots=True)
class NewPasskey:
    """A passkey that was proved while it was made."""

    public_id: bytes
    public_key: bytes
    sign_count: int


@dataclass(frozen=True, slots=True)
class _Challenge:
    state: Any
    expires_at: datetime


class Passkeys:
    """Challenges of one server; ``base_url`` is what browsers must say that they are at."""

    def __init__(self, base_url: str, random_bytes: Callable[[int], bytes]) -> None:
        self._origin = base_url
        self._random_bytes = random_bytes
        host = urlsplit(base_url).hostname or ""
        self.is_possible = _is_name(host) and (base_url.startswith("https:") or host == "localhost")
        """Whether browsers offer passkeys at this address: never at a bare IP, never without TLS."""
        self._server = Fido2Server(
            PublicKeyCredentialRpEntity(name="Headwater", id=host),
            attestation=AttestationConveyancePreference.NONE,
            verify_origin=lambda origin: origin == base_url,
        )
        self._challenges: dict[str, _Challenge] = {}

    def begin_registration(
        self, browser: str, user: User, known: list[Credential], now: datetime
    ) -> dict[str, Any]:
        """Ask for a new passkey of a user; give what the browser is told."""
        options, state = self._server.register_begin(
            PublicKeyCredentialUserEntity(
                id=hashlib.sha256(f"headwater user {user.id} {user.created_at}".encode()).digest(),
                name=user.login_name,
                display_name=user.display_name or user.name,
            ),
            credentials=[_data(each) for each in known],
            resident_key_requirement=ResidentKeyRequirement.REQUIRED,
            user_verification=_REQUIRED,
            challenge=self._random_bytes(CHALLENGE_BYTES),
        )
        self._keep(f"new {browser}", state, now)
        return dict(options)

    def finish_registration(
        self, browser: str, answer: Mapping[str, Any], now: datetime
    ) -> NewPasskey:
        """Verify the browser's answer. Raises Forbidden."""
        state = self._take(f"new {browser}", now)
        try:
            data = self._server.register_complete(state, RegistrationResponse.from_dict(answer))
            made = data.credential_data
            public_key = b"" if made is None else cbor.encode(dict(made.public_key))
        except Exception as error:  # whatever a stranger sends, the library may trip over
            raise _refused() from error
        if (
            made is None
            or len(made.credential_id) > MAX_ID_BYTES
            or len(public_key) > MAX_KEY_BYTES
        ):
            raise _refused()
        return NewPasskey(bytes(made.credential_id), public_key, data.counter)

    def begin_sign_in(self, browser: str, now: datetime) -> dict[str, Any]:
        """Ask for any passkey of this server; give what the browser is told."""
        options, state = self._server.authenticate_begin(
            user_verification=_REQUIRED, challenge=self._random_bytes(CHALLENGE_BYTES)
        )
        self._keep(f"old {browser}", state, now)
        return dict(options)

    def finish_sign_in(
        self,
        browser: str,
        answer: Mapping[str, Any],
        find: Callable[[bytes], Credential | None],
        now: datetime,
    ) -> tuple[Credential, int]:
        """Verify the browser's answer; give the passkey and its count. Raises Forbidden."""
        state = self._take(f"old {browser}", now)
        try:
            said = AuthenticationResponse.from_dict(answer)
            passkey = find(bytes(said.raw_id))
            known = [] if passkey is None else [_data(passkey)]
            self._server.authenticate_complete(state, known, said)
        except Exception as error:  # as above
            raise _refused() from error
        if passkey is None:
            raise _refused()
        return passkey, said.response.authenticator_data.counter

    def _keep(self, name: str, state: object, now: datetime) -> None:
        for old in [key for key, each in self._challenges.items() if each.expires_at <= now]:
            del self._challenges[old]
        self._challenges.pop(name, None)
        if len(self._challenges) >= MAX_CHALLENGES:
            del self._challenges[next(iter(self._challenges))]
        self._challenges[name] = _Challenge(state, now + LIFETIME)

    def _take(self, name: str, now: datetime) -> Any:
        challenge = self._challenges.pop(name, None)
        if challenge is None or challenge.expires_at <= now:
            raise Forbidden("passkey-late", "that took too long: try again")
        return challenge.state


def _refused() -> Forbidden:
    return Forbidden(
        "passkey-wrong", "this passkey did not prove itself, or is not registered here (any more)"
    )


def _data(passkey: Credential) -> AttestedCredentialData:
    key = CoseKey.parse(cbor.decode(passkey.public_key))  # type: ignore[arg-type]  # it was a mapping
    return AttestedCredentialData.create(bytes(16), passkey.public_id, key)


def _is_name(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return bool(host)
    return False
