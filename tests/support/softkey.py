"""An authenticator for tests: makes passkeys and proves them, as a browser would hand it on."""

from __future__ import annotations

import hashlib
import json
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.cose import ES256
from fido2.webauthn import AttestedCredentialData, AuthenticatorData


def packed(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unpacked(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


class SoftKey:
    """One passkey. ``flags`` say that its user is there and was verified."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.host = origin.removeprefix("https://")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = os.urandom(16)
        self.count = 0
        self.flags = AuthenticatorData.FLAG.UP | AuthenticatorData.FLAG.UV

    def register(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answer a request for a new passkey."""
        client = self._client("webauthn.create", options)
        data = AuthenticatorData.create(
            hashlib.sha256(self.host.encode()).digest(),
            self.flags | AuthenticatorData.FLAG.AT,
            self.count,
            AttestedCredentialData.create(
                bytes(16),
                self.id,
                ES256.from_cryptography_key(self.key.public_key()),  # type: ignore[no-untyped-call]
            ),
        )
        attestation = cbor.encode({"fmt": "none", "authData": bytes(data), "attStmt": {}})
        return self._answer(
            {"clientDataJSON": packed(client), "attestationObject": packed(attestation)}
        )

    def prove(self, options: dict[str, Any]) -> dict[str, Any]:
        """Answer a request to sign in."""
        self.count += 1
        client = self._client("webauthn.get", options)
        data = bytes(
            AuthenticatorData.create(
                hashlib.sha256(self.host.encode()).digest(), self.flags, self.count
            )
        )
        signed = data + hashlib.sha256(client).digest()
        return self._answer(
            {
                "clientDataJSON": packed(client),
                "authenticatorData": packed(data),
                "signature": packed(self.key.sign(signed, ec.ECDSA(hashes.SHA256()))),
                "userHandle": None,
            }
        )

    def _client(self, kind: str, options: dict[str, Any]) -> bytes:
        challenge = options["publicKey"]["challenge"]
        said = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(said).encode()

    def _answer(self, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": packed(self.id),
            "rawId": packed(self.id),
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {},
        }
