#!/usr/bin/python
"""Ask a server from outside for its health, its relay (DERP) and STUN. Changes nothing.

Not for the host's own view (headwater_release.py has it). Needs only Python's standard library.
Source: RFC 8489 (STUN); docs/protocol/ (the relay's greeting).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from zlib import crc32

DOCUMENTATION = r"""
module: headwater_probe
short_description: Ask a Headwater server from outside for health, relay and STUN
description:
  - Connects to an address under the name that clients use, so it works before the name points there.
options:
  url: {description: The URL that clients use., type: str, required: true}
  role: {description: What the host is., type: str, default: server, choices: [server, relay]}
  address: {description: Where to connect to., type: str, required: true}
  proxy_address: {description: "The same if TLS is a proxy's; by default what the name leads to.", type: str, default: ""}
  ca_file: {description: Authorities that vouch for the certificate., type: str, default: ""}
  ca_pem: {description: The same as text., type: str, default: ""}
  settings: {description: All settings of the server., type: dict, required: true}
  timeout: {description: Seconds in which all must have answered., type: int, default: 30}
author: [The Headwater authors]
"""
EXAMPLES = r"""
- name: Look at the server from here
  headwater.headwater.headwater_probe:
    url: https://hw.example.com
    address: 198.51.100.7
    settings: "{{ all_settings }}"
  delegate_to: localhost
"""
RETURN = r"""
checks:
  description: What was asked, and in how many milliseconds it answered.
  type: dict
  returned: always
"""

ATTEMPT_S = 5.0
PAUSE_S = 0.5
MAGIC_COOKIE = b"\x21\x12\xa4\x42"
FINGERPRINT_XOR = 0x5354554E
DERP_MAGIC = "DERP🔑".encode()
MAX_ANSWER_BYTES = 65536
IN_BETWEEN = (
    "something between here and the server drops it; look at the provider's firewall, at ufw or"
    " firewalld, and at the host's other tables (nft list ruleset)"
)


class NotWell(Exception):
    """An answer that is not the one of a server that is well."""


def explained(error: OSError, protocol: str, port: int) -> Exception:
    """Name who keeps an attempt from its port, where that can be told; else return the error."""
    if isinstance(error, TimeoutError) or error.errno == errno.EHOSTUNREACH:
        return NotWell(f"no answer from {protocol} port {port}: {IN_BETWEEN}")
    return error


@dataclass(frozen=True)
class Place:
    """Where one door of the server is, and how it is spoken to."""

    address: str
    port: int
    name: str
    context: ssl.SSLContext | None

    def connect(self) -> socket.socket:
        """Connect, and speak TLS under the name that clients use."""
        try:
            plain = socket.create_connection((self.address, self.port), ATTEMPT_S)
        except OSError as error:
            raise explained(error, "TCP", self.port) from error
        if self.context is None:
            return plain
        try:
            return self.context.wrap_socket(plain, server_hostname=self.name)
        except BaseException:
            plain.close()
            raise

    def ask(self, sock: socket.socket, path: str, *headers: str) -> HTTPResponse:
        """Send one request and read the head of the answer."""
        host = f"[{self.name}]" if ":" in self.name else self.name
        lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]
        sock.sendall("\r\n".join(lines).encode())
        answer = HTTPResponse(sock, method="GET")
        answer.begin()
        return answer


def check_health(place: Place) -> None:
    """Ask for health."""
    with place.connect() as sock:
        answer = place.ask(sock, "/health", "Connection: close")
        body = answer.read(MAX_ANSWER_BYTES)
    # "warn" is a server that serves: say, with the last good policy instead of a mistaken one.
    if answer.status != 200 or json.loads(body).get("status") not in ("pass", "warn"):
        raise NotWell(f"/health answers {answer.status}: {body[:200].decode(errors='replace')}")


def check_relay(place: Place) -> None:
    """Ask whether a relay is there, then let it greet as it greets nodes."""
    with place.connect() as sock:
        answer = place.ask(sock, "/derp/probe", "Connection: close")
    if answer.status != 200:
        raise NotWell(f"/derp/probe answers {answer.status}")
    with place.connect() as sock:
        answer = place.ask(sock, "/derp", "Upgrade: DERP", "Connection: Upgrade")
        if answer.status != 101:
            raise NotWell(f"/derp answers {answer.status}, not 101")
        greeting = answer.fp.read(5 + len(DERP_MAGIC))
    if greeting[:1] != b"\x01" or not greeting.endswith(DERP_MAGIC):
        raise NotWell("/derp does not greet like a relay")


def binding_request(transaction: bytes) -> bytes:
    """Encode a STUN binding request as nodes send it; a relay answers no other."""
    software = b"\x80\x22\x00\x08tailnode"
    # The length counts the 8 bytes of the fingerprint, which is over everything before itself.
    length = (len(software) + 8).to_bytes(2, "big")
    body = b"\x00\x01" + length + MAGIC_COOKIE + transaction + software
    return body + b"\x80\x28\x00\x04" + (crc32(body) ^ FINGERPRINT_XOR).to_bytes(4, "big")


def check_stun(address: str, port: int) -> None:
    """Send a binding request and look at the answer."""
    transaction = os.urandom(12)
    family, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1.0)
        sock.connect(place)
        try:
            sock.send(binding_request(transaction))
            answer = sock.recv(2048)
        except OSError as error:
            raise explained(error, "UDP", port) from error
    if answer[:2] != b"\x01\x01" or answer[8:20] != transaction:
        raise NotWell("an answer that is no STUN binding response")


def checks_for(parameters: Mapping[str, Any]) -> dict[str, Callable[[], None]]:
    """Say what this site can be asked from outside."""
    settings = parameters["settings"]
    relay = settings["derp"]["server"]
    url, address = urlsplit(parameters["url"]), parameters["address"]
    is_relay = parameters["role"] == "relay"
    found: dict[str, Callable[[], None]] = {}
    behind_proxy = settings["tls"]["mode"] == "off"
    context = make_context(parameters["ca_file"], parameters["ca_pem"])
    port, name = url.port or (443 if url.scheme == "https" else 80), url.hostname or ""
    main = Place(address, port, name, context)
    if behind_proxy:
        # The door itself is for the proxy alone; what clients reach is the proxy.
        where = parameters["proxy_address"] or name
        main = Place(where, port, name, context if url.scheme == "https" else None)
    alone = is_relay or relay["separate"]
    if not is_relay:
        found["health"] = lambda: check_health(main)
    if relay["enabled"] and not (alone and behind_proxy):
        listen = relay["listen"] or settings["listen"]
        own = Place(address, port_of(listen[0]), relay["host"] or main.name, context)
        found["relay"] = lambda: check_relay(own if alone else main)
    stun = [each for each in relay["stun_listen"] if not is_loopback(each)]
    if relay["enabled"] and stun:
        stun_port = relay["stun_port"] or port_of(stun[0])
        found["stun"] = lambda: check_stun(address, stun_port)
    return found


def place_of(parameters: Mapping[str, Any]) -> str:
    """Name where it was asked, for people."""
    if parameters["settings"]["tls"]["mode"] != "off":
        return str(parameters["address"])
    return f"{parameters['proxy_address'] or 'the address of its name'} (behind a proxy)"


def make_context(ca_file: str, ca_pem: str) -> ssl.SSLContext:
    """Trust the named authorities, or the system's."""
    return ssl.create_default_context(cafile=ca_file or None, cadata=ca_pem or None)


def port_of(endpoint: str) -> int:
    """Give the port of HOST:PORT."""
    return int(endpoint.rpartition(":")[2])


def is_loopback(endpoint: str) -> bool:
    """Tell whether only the host itself can reach an address."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(checks: Mapping[str, Callable[[], None]], timeout_s: float) -> tuple[dict[str, int], str]:
    """Repeat each check until it holds; give the times, and the first that never did."""
    deadline = time.monotonic() + timeout_s
    times = {}
    for name, check in checks.items():
        while True:
            began = time.monotonic()
            try:
                check()
            except (OSError, ValueError, HTTPException, NotWell) as error:
                reason = f"{name}: {error or type(error).__name__}"
            else:
                times[name] = round(1000 * (time.monotonic() - began))
                break
            if time.monotonic() > deadline:
                return times, reason
            time.sleep(PAUSE_S)
    return times, ""


def main() -> None:
    """Run as a module of Ansible."""
    from ansible.module_utils.basic import (
        AnsibleModule,
    )

    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "role": {"type": "str", "default": "server", "choices": ["server", "relay"]},
            "address": {"type": "str", "required": True},
            "proxy_address": {"type": "str", "default": ""},
            "ca_file": {"type": "str", "default": ""},
            "ca_pem": {"type": "str", "default": ""},
            "settings": {"type": "dict", "required": True},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        checks = checks_for(module.params)
    except (OSError, ssl.SSLError) as error:
        module.fail_json(msg=f"the authorities of {module.params['ca_file']}: {error}", checks={})
    times, reason = run(checks, module.params["timeout"])
    if reason:
        where = f"{module.params['url']} at {place_of(module.params)}"
        module.fail_json(msg=f"{where} is not well: {reason}", checks=times)
    module.exit_json(changed=False, checks=times)


if __name__ == "__main__":
    main()
