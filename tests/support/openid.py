"""An OpenID provider whose every answer a test can bend: for tokens that no honest one makes.

Honest ones are tested with in ``tests/interop``. Speaks just what a relying party asks for.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, Key, RSAKey

CLIENT_ID = "headwater"
CLIENT_SECRET = "s3cret/with:signs"  # a test's


class Provider:
    """One provider. Attributes are what it answers; change them before the login."""

    def __init__(self) -> None:
        self.issuer = ""
        self.keys: list[Key] = [ECKey.generate_key("P-256", {"kid": "k1", "alg": "ES256"})]
        self.claims: dict[str, Any] = {"sub": "alice-1"}
        self.userinfo: dict[str, Any] | None = None
        self.metadata: dict[str, Any] = {"id_token_signing_alg_values_supported": ["ES256"]}
        self.bend: Callable[[dict[str, Any]], object] = lambda _: None
        """Changes the claims of an ID token in place, before it is signed."""
        self.sign: Callable[[dict[str, Any]], str] = self.signed
        self.asked: list[str] = []
        """Paths that were asked for."""
        self.token_fields: dict[str, str] = {}
        """What came to the token endpoint the last time."""
        self.token_status = 200
        self.basic_works = True
        self.is_silent = False
        self.refresh_token = ""
        self._codes: dict[str, dict[str, str]] = {}

    def signed(self, claims: dict[str, Any]) -> str:
        """Sign as an honest provider does."""
        key = self.keys[0]
        return jwt.encode({"alg": str(key.alg), "kid": str(key.kid)}, claims, key, [str(key.alg)])

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.keys = [
            ECKey.generate_key("P-256", {"kid": f"k{time.monotonic_ns()}", "alg": "ES256"})
        ]

    def log_in(self, url: str) -> dict[str, str]:
        """Do what a person and their browser do at the authorization endpoint; return the query."""
        query = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
        code = f"code-{len(self._codes)}"
        self._codes[code] = query
        return {"code": code, "state": query["state"]}

    def logout_token(self, **changes: Any) -> str:
        """Return a logout token, with claims changed or (None) left out."""
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": int(time.time()),
            "exp": int(time.time()) + 120,
            "jti": "j",
            "sub": self.claims["sub"],
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
            **changes,
        }
        return self.signed({key: value for key, value in claims.items() if value is not None})

    # ── the endpoints ────────────────────────────────────────────────────────────────────────

    async def _discovery(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if self.is_silent:
            await asyncio.Event().wait()
        base = self.issuer
        return web.json_response(
            {
                "issuer": base,
                "authorization_endpoint": f"{base}/authorize?tenant=1",
                "token_endpoint": f"{base}/token",
                "jwks_uri": f"{base}/keys",
                **({} if self.userinfo is None else {"userinfo_endpoint": f"{base}/userinfo"}),
                **self.metadata,
            }
        )

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        broken = {"kty": "EC", "crv": "P-256", "x": "?", "y": "?", "kid": "broken"}
        keys = [key.as_dict(private=False) for key in self.keys]
        return web.json_response({"keys": [broken, {"kty": "AKP", "kid": "pq"}, *keys]})

    async def _token(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        fields = {key: str(value) for key, value in (await request.post()).items()}
        header = request.headers.get("Authorization", "")
        if header and not self.basic_works:
            return web.json_response({"error": "invalid_client"}, status=401)
        self.token_fields = {**fields, "_authorization": header}
        if self.token_status != 200:
            error = {"error": "invalid_grant", "error_description": "no <b>such</b>\x07 code"}
            return web.json_response(error, status=self.token_status)
        asked: dict[str, str] = {}
        if fields["grant_type"] == "authorization_code":
            asked = self._codes.pop(fields["code"])
            digest = hashlib.sha256(fields.get("code_verifier", "").encode()).digest()
            shown = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if asked.get("code_challenge", shown) != shown:
                return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 300,
            **({"nonce": asked["nonce"]} if asked else {}),
            **self.claims,
        }
        self.bend(claims)
        answer = {"access_token": "at", "token_type": "Bearer", "id_token": self.sign(claims)}
        if self.refresh_token:
            answer["refresh_token"] = self.refresh_token
        return web.json_response(answer)

    async def _userinfo(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.headers.get("Authorization") != "Bearer at":
            return web.json_response({"error": "invalid_token"}, status=401)
        return web.json_response(self.userinfo)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Provider]:
        """Listen on a loopback port."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/keys", self._keys),
                web.post("/token", self._token),
                web.get("/userinfo", self._userinfo),
            ]
        )
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.issuer = f"http://127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()


def unsigned(claims: dict[str, Any]) -> str:
    """Return a token with ``alg: none``."""

    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part(claims)}."


def signed_with_public_key(key: ECKey, claims: dict[str, Any]) -> str:
    """Return a token whose HMAC has the public key for its secret: what everybody can make."""
    head = unsigned({"alg": "HS256", "kid": str(key.kid)}).split(".")[1]
    text = f"{head}.{unsigned(claims).split('.')[1]}"
    seal = hmac.new(key.as_pem(private=False), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(seal).decode().rstrip('=')}"


def rsa_key(algorithm: str) -> RSAKey:
    """Make a key for RS512 and its kin."""
    return RSAKey.generate_key(2048, {"kid": "r1", "alg": algorithm})
