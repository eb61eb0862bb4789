"""The head of an HTTP/1 request, and small whole answers.

Not an HTTP server: bodies and keep-alive are the business of ``front``. Strict wherever two
readers of the same bytes could disagree (line ends, folded lines, lengths), because a proxy may
stand in front of us; tolerant about everything else. Sits beside the other codecs in ``wire``.
Source: RFC 9112 sections 2.2, 3, 5, 6.3; RFC 9110 sections 5.5, 7.2, 7.6, 7.8.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from appliance.wire.errors import ProtocolError

MAX_HEAD_BYTES = 16 * 1024
"""Ours: browsers with big cookies need about 8 KiB; more is an attack or a mistake."""
MAX_FIELDS = 100
"""Ours: proxies add a dozen, browsers send thirty."""
MAX_LENGTH_DIGITS = 15
"""Ours: no body is a petabyte long, and int() of endless digits is slow."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""What may be passed on. Other readers know other methods, and some change the framing for them."""

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "expect",
        "content-length",
        "content-encoding",
    }
)
"""Fields about the connection and the coding of the body; a reader behind us gets our own. Fields
that Connection names stay: else a client could strip what a proxy said of it."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_START = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]++) HTTP/1\.([01])\r\n")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*+)\r\n")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f]")
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
"""``uri-host [ ":" port ]``, without user information. Source: RFC 9110 section 7.2."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


class Head:
    """A request head: ``method``, ``target`` as sent, its ``path`` and ``query``, and the fields.

    Field names are lower case, values are latin-1 text without surrounding blanks, order is kept.
    ``authority`` is the host of a target that is a whole URL, else None.
    ``length`` is the body's length when it is stated (0 without any), None when ``chunked``.
    """

    __slots__ = (
        "_first",
        "authority",
        "chunked",
        "fields",
        "length",
        "method",
        "minor",
        "path",
        "query",
        "target",
    )

    def __init__(
        self, method: str, target: str, minor: int, fields: tuple[tuple[str, str], ...]
    ) -> None:
        self.method = method
        self.target = target
        self.minor = minor
        self.fields = fields
        self._first = dict(reversed(fields))
        """The first value of each name: every request is asked for a dozen of them."""
        self.path, self.query, self.authority = _split_target(method, target)
        self.chunked = self._is_chunked()
        self.length = None if self.chunked else self._stated_length()

    def get(self, name: str) -> str | None:
        """Give the first field of this (lower-case) name, or None."""
        return self._first.get(name)

    def all(self, name: str) -> list[str]:
        """Give every field of this (lower-case) name, in order."""
        if name not in self._first:
            return []
        return [value for key, value in self.fields if key == name]

    def tokens(self, name: str) -> frozenset[str]:
        """Give the comma-separated members of all fields of this name, in lower case."""
        if name not in self._first:
            return frozenset()
        joined = ",".join(self.all(name)).lower()
        return frozenset(part for part in (item.strip() for item in joined.split(",")) if part)

    @property
    def keep_alive(self) -> bool:
        """Tell whether the client wants to send another request on this connection."""
        options = self.tokens("connection")
        return "close" not in options and (self.minor == 1 or "keep-alive" in options)

    @property
    def ascii_target(self) -> str:
        """Path and query, with what is not ASCII in its escaped form."""
        target = self.path + (f"?{self.query}" if self.query else "")
        return target if target.isascii() else _NOT_ASCII.sub(_escape, target)

    @property
    def has_body(self) -> bool:
        """Tell whether bytes of a body follow the head."""
        return self.length != 0

    def _is_chunked(self) -> bool:
        codings = self.all("transfer-encoding")
        if not codings:
            return False
        if len(codings) > 1 or codings[0].lower() != "chunked":
            raise ProtocolError("request head: a transfer coding other than a single chunked")
        if self.minor == 0:
            raise ProtocolError("request head: transfer-encoding in HTTP/1.0")
        if self.get("content-length") is not None:
            raise ProtocolError("request head: both content-length and transfer-encoding")
        return True

    def _stated_length(self) -> int:
        lengths = self.all("content-length")
        if not lengths:
            return 0
        digits = lengths[0]
        if len(lengths) > 1 or not (digits.isascii() and digits.isdigit()):
            raise ProtocolError("request head: content-length is not one number")
        if len(digits) > MAX_LENGTH_DIGITS:
            raise ProtocolError("request head: content-length is absurd")
        return int(digits)


def decode_head(data: bytes | bytearray | memoryview) -> Head:
    """Read a whole head: start line, fields and the empty line, every line ended by CR LF.

    Raises ProtocolError for anything else: a bare LF or CR, a folded line, a blank before the
    colon, control bytes, two lengths, two hosts, HTTP/1.1 without a host.
    Source: RFC 9112 section 2.1.
    """
    start = _START.match(data)
    if start is None:
        raise ProtocolError("request head: the first line is not METHOD TARGET HTTP/1.x")
    fields: list[tuple[str, str]] = []
    at = start.end()
    end = len(data) - 2
    while at < end:
        found = _FIELD.match(data, at)
        if found is None:
            raise ProtocolError(f"request head: field {len(fields) + 1} is malformed")
        if len(fields) >= MAX_FIELDS:
            raise ProtocolError(f"request head: more than {MAX_FIELDS} fields")
        name, value = found.groups()
        fields.append((bytes(name).decode().lower(), bytes(value).decode("latin-1").strip(" \t")))
        at = found.end()
    if at != end or data[at:] != b"\r\n":
        raise ProtocolError("request head: the empty line is missing")
    method, target, minor = (bytes(group).decode("latin-1") for group in start.groups())
    head = Head(method, target, int(minor), tuple(fields))
    hosts = head.all("host")
    if len(hosts) > 1 or (not hosts and head.minor == 1):
        raise ProtocolError("request head: want exactly one host")
    if hosts and not _AUTHORITY.fullmatch(hosts[0]):
        raise ProtocolError("request head: the host is not a name or an address with a port")
    return head


def encode_normalised(head: Head, body_bytes: int) -> bytes:
    """Write the head so that every reader behind us finds the same request in it.

    The target is a path (or ``*``) in ASCII, the body has its length stated, and of the connection
    only whether it is kept is said. ``body_bytes`` is the length of the body without its coding.
    Source: RFC 9110 section 7.6.1; RFC 9112 section 3.2.2 (the URL's authority is the host).
    """
    lines = [f"{head.method} {head.ascii_target} HTTP/1.{head.minor}"]
    if head.authority is not None:
        lines.append(f"host: {head.authority}")
    for name, value in head.fields:
        if name not in _HOP_BY_HOP and (name != "host" or head.authority is None):
            lines.append(f"{name}: {value}" if value else f"{name}:")
    if head.has_body:
        lines.append(f"content-length: {body_bytes}")
    if not head.keep_alive:
        lines.append("connection: close")
    elif head.minor == 0:
        lines.append("connection: keep-alive")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _escape(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _split_target(method: str, target: str) -> tuple[str, str, str | None]:
    """Return path, query and authority of an origin-form, absolute-form or asterisk-form target.

    The authority-form belongs to CONNECT alone; its path is empty, so that nothing matches it.
    Only the absolute-form has an authority.
    """
    if method == "CONNECT":
        return "", "", None
    authority = None
    if target.startswith("/"):
        pass
    elif target[:7].lower() == "http://" or target[:8].lower() == "https://":
        rest = target.partition("://")[2]
        end = next((at for at, sign in enumerate(rest) if sign in "/?#"), len(rest))
        authority, target = rest[:end], rest[end:]
        target = target if target.startswith("/") else f"/{target}"
        if not authority or not _AUTHORITY.fullmatch(authority):
            raise ProtocolError("request head: the URL has no proper host")
    elif (target, method) != ("*", "OPTIONS"):
        raise ProtocolError("request head: the target is neither a path nor a URL")
    if "#" in target:
        raise ProtocolError("request head: the target has a fragment")
    path, _, query = target.partition("?")
    return path, query, authority


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole small HTTP/1 answer. ``close`` ends the connection behind it."""

    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


def encode_answer(answer: Answer, *, keep_alive: bool, head_only: bool = False) -> bytes:
    """Write the answer: status line, fields, body (not to HEAD).

    Raises ValueError for a control character in a field: a mistake of ours, never a peer's bytes.
    Source: RFC 9112 section 4; RFC 9110 section 8.6 (no content-length in 1xx and 204).
    """
    lines = [f"HTTP/1.1 {answer.status} {_phrase(answer.status)}"]
    if answer.body:
        lines.append(f"Content-Type: {answer.content_type}")
    if answer.status >= 200 and answer.status != HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Length: {len(answer.body)}")
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    if answer.status >= 200 and (answer.close or not keep_alive):
        lines.append("Connection: close")
    if any(_UNSAFE.search(line) for line in lines):
        raise ValueError("an answer's field contains a control character")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if head_only else head + answer.body


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
