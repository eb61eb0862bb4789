"""DNS-01's records by updates to a name server, signed with a key that it knows.

It waits until that server has taken the record; others of the zone may need longer, for which there
is a pause (``order``). Loaded only where it is used.
Source: RFC 2136 (updates); RFC 8945 (TSIG).
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import Callable
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import dns.update

from appliance.tls.acme.dnsrecords import DnsError
from appliance.tls.acme.link import clean

QUERY_S = 10.0
"""One question or update to a name server, over TCP."""
TTL_S = 60

ALGORITHMS = {
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}


@dataclass(frozen=True, slots=True)
class UpdateKey:
    """A key that a name server knows (TSIG). ``secret`` reads it when it is needed."""

    name: str
    algorithm: str
    secret: Callable[[], str]


class Rfc2136:
    """A name server that takes signed updates."""

    def __init__(self, host: str, port: int, key: UpdateKey | None, zone: str = "") -> None:
        self._host = host
        self._port = port
        self._key = key
        self._zone = zone

    async def add(self, name: str, value: str) -> None:
        """Add a value beside others of the name. Raises DnsError."""
        owner = dns.name.from_text(name)
        update = await self._update(owner)
        update.add(owner, TTL_S, dns.rdatatype.TXT, f'"{value}"')
        await self._send(update, f"the record {name}")

    async def remove(self, name: str, value: str) -> None:
        """Remove a value. Raises DnsError."""
        owner = dns.name.from_text(name)
        update = await self._update(owner)
        update.delete(owner, dns.rdatatype.TXT, f'"{value}"')
        await self._send(update, f"the removal of {name}")

    async def _update(self, owner: dns.name.Name) -> dns.update.UpdateMessage:
        zone = dns.name.from_text(self._zone) if self._zone else await self._zone_of(owner)
        update = dns.update.UpdateMessage(zone)
        if self._key is not None:
            try:
                secret = self._key.secret()
                base64.b64decode(secret, validate=True)
                ring = dns.tsigkeyring.from_text({self._key.name: secret})
            except (OSError, ValueError) as error:
                told = f"tls.dns.rfc2136.key_file: no key in base64: {error}"
                raise DnsError(told) from error
            update.use_tsig(
                ring, dns.name.from_text(self._key.name), algorithm=ALGORITHMS[self._key.algorithm]
            )
        return update

    async def _zone_of(self, owner: dns.name.Name) -> dns.name.Name:
        """Ask for the zone that a name is in: the nearest one above that has a SOA record."""
        name = owner
        while name != dns.name.root:
            query = dns.message.make_query(name, dns.rdatatype.SOA)
            answer = await self._send(query, f"the zone of {owner}", accept_all=True)
            if any(each.rdtype == dns.rdatatype.SOA for each in answer.answer if each.name == name):
                return name
            name = name.parent()
        raise DnsError(f"{self._place} has no zone for {owner}: name it in tls.dns.rfc2136.zone")

    async def _send(
        self, message: dns.message.Message, about: str, *, accept_all: bool = False
    ) -> dns.message.Message:
        try:
            async with asyncio.timeout(QUERY_S):
                address = await self._address()
                answer = await dns.asyncquery.tcp(
                    message, address, port=self._port, timeout=QUERY_S
                )
        except dns.tsig.PeerError as error:
            told = f"{self._place} did not take {about}: {error}{_why('NOTAUTH')}"
            raise DnsError(told) from error
        except (OSError, TimeoutError, EOFError, dns.exception.DNSException) as error:
            told = f"{self._place} did not take {about}: {clean(error) or type(error).__name__}"
            raise DnsError(told) from error
        if answer.rcode() != dns.rcode.NOERROR and not accept_all:
            refusal = dns.rcode.to_text(answer.rcode())
            raise DnsError(f"{self._place} did not take {about}: {refusal}{_why(refusal)}")
        return answer

    async def _address(self) -> str:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return str(found[0][4][0])

    @property
    def _place(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"the name server {host}:{self._port}"


def _why(refusal: str) -> str:
    reasons = {
        "REFUSED": "; the key may not change this zone, or updates are off (allow-update)",
        "NOTAUTH": "; the key's name, secret or algorithm is not what the server has, or clocks differ",
        "NOTZONE": "; the name is in another zone: see tls.dns.rfc2136.zone",
    }
    return reasons.get(refusal, "")
