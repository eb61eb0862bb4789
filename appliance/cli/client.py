"""Speaks to the server: over the local socket, or over the network with an API key.

Not for which server that is (``servers``) nor for printing (``output``). ``http.client`` because it imports ten times faster than aiohttp.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from urllib.parse import urlencode

DEFAULT_SOCKET = Path("/run/headwater/headwater.sock")
TIMEOUT_S = 30.0
"""A commit on a slow disk takes seconds at most; a server that is silent for longer is ill."""

Plain = dict[str, "object"]


class CommandFailed(Exception):
    """The command could not do what it should; ``advice`` says what to do next.

    ``answer`` is the whole body where the server refused.
    """

    exit_code = 1

    def __init__(self, sentence: str, advice: str = "", answer: Plain | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.advice = advice
        self.answer = answer or {}


class Unreachable(CommandFailed):
    """Nobody answers at the socket."""

    exit_code = 3


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Way(Protocol):
    """How a server is reached: its name for people, and connections to it."""

    name: str
    headers: Mapping[str, str]

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is not open yet."""

    def failure(self, error: Exception) -> Unreachable:
        """Say what an error of the connection means, and what to do."""


class SocketWay:
    """The local socket."""

    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is not open yet."""
        return _Connection(self.path)

    def failure(self, error: Exception) -> Unreachable:
        """Say what an error of the connection means, and what to do."""
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return Unreachable(
                f"no server answers at {self.path}",
                "start it with 'headwater serve', or name the socket with --socket PATH"
                " or the server's configuration with -c FILE, or a server elsewhere with --url",
            )
        if isinstance(error, PermissionError):
            return Unreachable(
                f"you may not open {self.path}",
                "run the command as root, or as a member of the socket's group",
            )
        return Unreachable(
            f"the server at {self.path} did not answer: {error or type(error).__name__}",
            "look at the server's log (journalctl -u headwater)",
        )


class Client:
    """One server."""

    def __init__(self, way: Way, tailnet: str = "") -> None:
        self.way = way
        self._tailnet = tailnet

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Plain:
        """Ask for something."""
        return self.call("GET", path, query=query)

    def post(
        self, path: str, body: Plain | None = None, query: Mapping[str, str] | None = None
    ) -> Plain:
        """Change something."""
        return self.call("POST", path, body, query)

    def delete(self, path: str, query: Mapping[str, str] | None = None) -> Plain:
        """Remove something."""
        return self.call("DELETE", path, query=query)

    def release(self) -> str:
        """Give the release of Headscale that the server answers as, of those with forms."""
        found = re.match(r"0\.(\d+)", str(self.get("/version").get("version", "")))
        return "0.29" if found is not None and int(found[1]) < 30 else "0.30"

    def call(
        self,
        method: str,
        path: str,
        body: Plain | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Plain:
        """Make one call. Raises CommandFailed with the server's own sentence if it refuses."""
        wanted = {key: value for key, value in (query or {}).items() if value}
        if self._tailnet:
            wanted["tailnet"] = self._tailnet
        target = f"{path}?{urlencode(wanted)}" if wanted else path
        status, data = self._exchange(method, target, body, headers or {})
        try:
            answer = json.loads(data) if data else {}
        except ValueError:
            answer = {}
        if status >= 300:
            sentence = str(answer.get("message") or answer.get("detail") or f"HTTP {status}")
            if status == 401:
                raise CommandFailed(
                    f"{self.way.name} does not take this API key",
                    "it may have expired or been deleted: 'headwater apikeys create' on the server"
                    " makes another",
                )
            raise CommandFailed(sentence, answer=answer)
        if not isinstance(answer, dict):
            raise CommandFailed(f"{path} did not answer with an object")
        return answer

    def _exchange(
        self, method: str, target: str, body: Plain | None, more: Mapping[str, str]
    ) -> tuple[int, bytes]:
        connection = self.way.connect()
        try:
            data = None if body is None else json.dumps(body).encode()
            headers = {} if data is None else {"Content-Type": "application/json"}
            connection.request(method, target, data, {**headers, **more, **self.way.headers})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self.way.failure(error) from error
        finally:
            connection.close()
