"""Reaches a server over the network, with TLS and an API key.

Not for which server (``servers``). Imported only by commands that are told of a server elsewhere.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

from appliance.cli.client import TIMEOUT_S, CommandFailed, Unreachable
from appliance.cli.servers import GRPC_PORT, Server


class NetworkWay:
    """A server with an address; the key goes to that address only, and no redirect is followed."""

    def __init__(self, server: Server) -> None:
        self.name = server.url
        self.headers: Mapping[str, str] = {"Authorization": f"Bearer {server.key}"}
        self._server = server
        parts = urlsplit(server.url)
        self._host, self._port = parts.hostname or "", parts.port

    def connect(self) -> http.client.HTTPConnection:
        """Return a connection that is not open yet. Raises CommandFailed for a bad authority's file."""
        if self._server.is_plain:
            return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            context = ssl.create_default_context(cafile=self._server.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise CommandFailed(
                f"{self._server.ca_file} is no file of certificates: {error}",
                "name the PEM file of the authority with --ca-file FILE",
            ) from error
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=TIMEOUT_S, context=context
        )

    def failure(self, error: Exception) -> Unreachable:
        """Return what an error of the connection means, and what to do."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{self.name} shows a certificate that nobody vouches for: {error.verify_message}",
                "name the authority with --ca-file FILE, if you know that this is your server",
            )
        if isinstance(error, socket.gaierror):
            return Unreachable(f"there is no host {self._host!r}", "look at the address")
        if self._port == GRPC_PORT:
            return Unreachable(
                f"no server answers at {self.name}",
                f"{GRPC_PORT} was Headscale's gRPC port: name the HTTPS address of the server",
            )
        return Unreachable(
            f"{self.name} did not answer: {error or type(error).__name__}",
            "look whether the server runs, and whether this is its address",
        )
