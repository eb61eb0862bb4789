"""The process that speaks with a certificate authority, and the only one that holds the account's key.

``python -m appliance.tls.acme.child``: one JSON request a line on standard input, one answer a line on
standard output; it ends with its input. Here and nowhere else are the ``acme`` and ``josepy``
libraries, which wait where nothing can interrupt them: so the parent (``link``) kills this process
when a request takes too long. Not for deciding what to ask (``order``).
Source: RFC 8555; RFC 9773 (renewal information).
"""

from __future__ import annotations

import io
import json
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from urllib.parse import urljoin

import requests
from acme import client, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.b64 import b64encode
from josepy.json_util import JSONObjectWithFields, field
from josepy.jwa import ES256
from josepy.jwk import JWK, JWKEC
from requests.adapters import HTTPAdapter

from appliance.files import write_whole

MAX_ANSWER_BYTES = 1 << 20
"""A chain of certificates has some 10 KB; an order of a hundred names has less."""
MAX_MEMORY_BYTES = 1 << 30
"""Address space: an authority that sends without end shall not take the server's memory."""
TIMEOUT_S = (10.0, 20.0)
"""To connect, and between two bytes; the parent's deadline bounds the whole."""
GRACE_S = 5.0
"""How much later than the parent would this process ends by itself, should there be no parent."""
NONCE_TRIES = 30
"""An authority that refuses half of all nonces lets one of a billion requests fail."""
MAX_REDIRECTS = 3

Json = dict[str, Any]


class Adapter(HTTPAdapter):
    """Reads answers itself, up to a bound."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        """Send one request. Raises requests.RequestException."""
        kwargs["stream"] = True
        response = super().send(request, *args, **kwargs)
        raw = response.raw
        data = b""
        while len(data) <= MAX_ANSWER_BYTES:
            piece = raw.read(MAX_ANSWER_BYTES + 1 - len(data), decode_content=True)
            if not piece:
                break
            data += piece
        raw.close()
        if len(data) > MAX_ANSWER_BYTES:
            raise requests.RequestException(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        response.raw = io.BytesIO(data)
        return response


class Network(client.ClientNetwork):
    """The library's network: only https, bounded answers, patience with nonces."""

    last: requests.Response | None = None
    """The newest answer, for what errors of the library do not carry."""

    def __init__(self, key: JWK, ca_file: str, user_agent: str) -> None:
        super().__init__(
            key,
            alg=ES256,
            verify_ssl=cast(bool, ca_file or True),  # a path is fine, too
            user_agent=user_agent,
            timeout=cast(int, TIMEOUT_S),
        )
        self.session.trust_env = False  # no proxies, no other authorities
        self.session.max_redirects = MAX_REDIRECTS
        self.session.adapters.clear()
        self.session.mount("https://", Adapter())

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """POST, signed; as often as the authority dislikes the nonce."""
        for _ in range(NONCE_TRIES):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        raise errors.ClientError(f"the authority refused {NONCE_TRIES} nonces one after the other")

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        self.last = None
        self.last = super()._send_request(method, url, *args, **kwargs)
        return self.last

    def _add_nonce(self, response: requests.Response) -> None:
        if self.REPLAY_NONCE_HEADER in response.headers:
            super()._add_nonce(response)

    def _get_nonce(self, url: str, new_nonce_url: str) -> str:
        try:
            return super()._get_nonce(url, new_nonce_url)
        except KeyError as error:
            raise errors.ClientError("the authority gave no nonce") from error


class Empty(JSONObjectWithFields):
    """The object without members by which a challenge is said to be ready."""

    def __bool__(self) -> bool:
        """Be true: the library sends nothing at all for what is false."""
        return True


class NewOrder(messages.NewOrder):
    """An order that may say which certificate it replaces."""

    replaces: str = field("replaces", omitempty=True)


class Speaker:
    """One authority and one account."""

    def __init__(self, opened: Json) -> None:
        self._place = Path(opened["account_dir"])
        self._url: str = opened["directory"]
        self._key = account_key(self._place / "account.key")
        self._net = Network(self._key, opened["ca_file"], opened["user_agent"])
        self._directory: Json = {}
        self._uri = ""

    def open(self, _: Json) -> Json:
        """Read the directory; a known account is used from now on."""
        response = self._net.get(self._url)
        self._directory = response.json()
        if not isinstance(self._directory, dict) or "newOrder" not in self._directory:
            raise errors.ClientError("this is no ACME directory: it names no newOrder")
        known = read_json(self._place / "account.json")
        if known.get("directory") == self._url and known.get("key") == self._thumbprint:
            self._use(known["uri"])
        return {
            "meta": self._directory.get("meta") or {},
            "has_renewal_info": "renewalInfo" in self._directory,
            "date": response.headers.get("Date", ""),
        }

    def account(self, request: Json) -> Json:
        """Return the account, registered before or now: an authority knows one by its key."""
        if self._net.account is None or request["again"]:
            self._net.account = None
            response = self._post(self._directory["newAccount"], self._registration(request))
            self._use(self._location(response))
        return {"uri": self._uri, "thumbprint": self._thumbprint}

    def order(self, request: Json) -> Json:
        """Ask for a new order."""
        fields: Json = {
            "identifiers": [
                messages.Identifier(typ=messages.IdentifierType(each["type"]), value=each["value"])
                for each in request["identifiers"]
            ],
            "replaces": request["replaces"] or None,
        }
        if request["profile"]:
            fields["profile"] = request["profile"]
        return self._answer(self._post(self._directory["newOrder"], NewOrder(**fields)))

    def fetch(self, request: Json) -> Json:
        """Read what is at a URL of the authority."""
        return self._answer(self._post(request["url"], None))

    def respond(self, request: Json) -> Json:
        """Tell the authority that a challenge is ready."""
        return self._answer(self._post(request["url"], Empty()))

    def finalize(self, request: Json) -> Json:
        """Send the certificate request of an order."""
        csr = x509.load_pem_x509_csr(request["csr"].encode())
        return self._answer(self._post(request["url"], messages.CertificateRequest(csr=csr)))

    def certificate(self, request: Json) -> Json:
        """Download a chain."""
        response = self._post(
            request["url"], None, content_type="application/pem-certificate-chain"
        )
        return {"text": response.text}

    def renewal_info(self, request: Json) -> Json:
        """Ask when a certificate should be renewed."""
        base = self._directory["renewalInfo"].rstrip("/")
        return self._answer(self._net.get(f"{base}/{request['id']}"))

    def retry_after(self) -> str:
        """Return the header of the newest answer, which says when to ask again."""
        response = self._net.last
        return "" if response is None else response.headers.get("Retry-After", "")

    @property
    def _thumbprint(self) -> str:
        return b64encode(self._key.thumbprint()).decode()

    def _registration(self, request: Json) -> messages.NewRegistration:
        binding = None
        if request["eab_id"]:
            binding = messages.ExternalAccountBinding.from_data(
                self._key.public_key(),
                request["eab_id"],
                request["eab_key"],
                messages.Directory(self._directory),
                "HS256",
            )
        fields: Json = {"terms_of_service_agreed": True, "external_account_binding": binding}
        if request["email"]:
            return messages.NewRegistration.from_data(email=request["email"], **fields)
        return messages.NewRegistration(**fields)

    def _use(self, uri: str) -> None:
        self._uri = uri
        body = messages.Registration()
        self._net.account = messages.RegistrationResource(uri=uri, body=body)
        known = {"directory": self._url, "uri": uri, "key": self._thumbprint}
        if read_json(self._place / "account.json") != known:
            write_whole(self._place / "account.json", json.dumps(known).encode())

    def _post(self, url: str, body: Any, **kwargs: Any) -> requests.Response:
        kwargs.setdefault("headers", {"Content-Type": client.ClientNetwork.JOSE_CONTENT_TYPE})
        if "content_type" in kwargs:
            kwargs["headers"]["Accept"] = kwargs.pop("content_type")
        return self._net.post(url, body, new_nonce_url=self._directory["newNonce"], **kwargs)

    def _answer(self, response: requests.Response) -> Json:
        body = response.json()
        if not isinstance(body, dict):
            raise errors.ClientError(f"{response.url} answered with something else than an object")
        return {"body": body, "url": self._location(response), "base": response.url}

    @staticmethod
    def _location(response: requests.Response) -> str:
        return urljoin(response.url, response.headers.get("Location", ""))


def account_key(path: Path) -> JWKEC:
    """Read the account's key; make one where there is none."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        key = ec.generate_private_key(ec.SECP256R1())
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_whole(path, text, is_new=True)
    except (ValueError, TypeError) as error:
        told = f"{path} is no private key ({error}); remove it to make a new account"
        raise errors.ClientError(told) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise errors.ClientError(f"{path} is no key of ours; remove it to make a new account")
    return JWKEC(key=key)


def read_json(path: Path) -> Json:
    """Read an object; one without members for what cannot be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def innermost(error: BaseException) -> BaseException:
    """Return the failure inside wrappers of wrappers."""
    for _ in range(8):
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def tell(error: BaseException) -> Json:
    """Describe what went wrong: a problem that the authority names, the network, or our machine."""
    if isinstance(error, messages.Error):
        return {
            "kind": "problem",
            "type": error.code or error.typ or "",
            "detail": error.detail or error.title or "",
            "subproblems": [each.to_json() for each in error.subproblems or ()],
        }
    if isinstance(error, requests.RequestException):
        return {"kind": "network", "detail": str(innermost(error))}
    if (
        isinstance(error, errors.Error)
        and error.args
        and isinstance(error.args[0], requests.Response)
    ):
        response = error.args[0]
        kind = "network" if response.status_code >= 500 else "protocol"
        return {"kind": kind, "detail": f"{response.url} answered with {response.status_code}"}
    if isinstance(error, OSError):
        return {"kind": "local", "detail": str(error)}
    return {"kind": "protocol", "detail": f"{type(error).__name__}: {error}"}


def serve(lines: Any, out: Any) -> None:
    """Obey requests until there are none."""
    speaker: Speaker | None = None
    for line in lines:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["timeout_s"] + GRACE_S)
        try:
            if speaker is None:
                speaker = Speaker(request)
            verbs: Mapping[str, Callable[[Json], Json]] = {
                "open": speaker.open,
                "account": speaker.account,
                "order": speaker.order,
                "fetch": speaker.fetch,
                "respond": speaker.respond,
                "finalize": speaker.finalize,
                "certificate": speaker.certificate,
                "renewal_info": speaker.renewal_info,
            }
            answer: Json = {"ok": verbs[request["do"]](request)}
        except Exception as error:  # noqa: BLE001  # all of them are told to the parent
            answer = {"error": tell(error)}
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer["retry_after"] = speaker.retry_after() if speaker is not None else ""
        out.write(json.dumps(answer) + "\n")
        out.flush()


def main() -> None:
    """Run as the child that ``link`` starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(OSError, ValueError):  # the units' sandbox forbids it; answers are bounded anyway
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if hard == resource.RLIM_INFINITY or hard > MAX_MEMORY_BYTES:
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, hard))
    serve(sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
