"""Messages to bytes and back, as lenient on input as Go's JSON decoder, and as strict on output
as the strictest client wants.

Input: unknown fields are ignored, names match in any case, null is the zero value, year 1 is
None. A message in exact spelling (all but odd ones) is decoded in one pass; any other is read as
plain JSON, put in order, and decoded again. Garbage raises ProtocolError and nothing else.
Output: UTF-8 without HTML escapes, no ``null`` but the two that delete (``MapResponse``).
Source: go.dev/pkg/encoding/json; tailscale control/controlclient/direct.go (decode).
"""

import ipaddress
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from appliance.wire.errors import ProtocolError
from appliance.wire.keys import (
    ChallengeKey,
    DiscoKey,
    HardwareKey,
    LockKey,
    MachineKey,
    NodeKey,
)
from appliance.wire.tailcfg import calls, derpmap, map, node, register, ssh  # noqa: A004 its name
from appliance.wire.tailcfg.lenient import Spelling
from appliance.wire.tailcfg.message import (
    Address,
    AddrPort,
    Message,
    Prefix,
    Raw,
    address_text,
    parse_address,
    parse_prefix,
    prefix_text,
)

MAX_REQUEST_BYTES = 1 << 20
"""What a node may send in one request; real ones stay below 64 KiB."""
MAX_RESPONSE_BYTES = 64 << 20
"""What our own clients of control accept: a map of 50,000 peers."""

M = TypeVar("M", bound=Message)


def _to_text(value: object) -> str:
    write = _WRITERS.get(type(value), str)
    return write(value)


_WRITERS: dict[type, Callable[[Any], str]] = {
    ipaddress.IPv4Address: address_text,
    ipaddress.IPv6Address: address_text,
    ipaddress.IPv4Network: prefix_text,
    ipaddress.IPv6Network: prefix_text,
}


def _from_text(wanted: type, value: object) -> object:
    read = _READERS.get(wanted)
    if read is None or not isinstance(value, str):
        raise TypeError("expected text")
    return read(value)


_READERS: dict[object, Callable[[str], object]] = {
    Address: parse_address,
    Prefix: parse_prefix,
    AddrPort: AddrPort.parse,
    MachineKey: MachineKey.parse,
    NodeKey: NodeKey.parse,
    DiscoKey: DiscoKey.parse,
    LockKey: LockKey.parse,
    ChallengeKey: ChallengeKey.parse,
    HardwareKey: HardwareKey.parse,
}

_encoder = msgspec.json.Encoder(enc_hook=_to_text)


def encode(message: Message) -> bytes:
    """Return the JSON of a message (8 us for a peer with a dozen addresses)."""
    return _encoder.encode(message)


def encode_into(message: Message, buffer: bytearray) -> None:
    """Append the JSON of a message to a buffer, without a copy in between."""
    _encoder.encode_into(message, buffer, -1)


def raw(value: object) -> Raw:
    """Return any plain value (or message) as kept JSON, for the values of a capability."""
    return Raw(_encoder.encode(value))


class Decoder(Generic[M]):
    """Reads one kind of message; call it with the bytes.

    With ``any_case`` (for what foreign nodes send) every text is checked for odd spelling first.
    """

    __slots__ = ("_any_case", "_decoder", "_max_bytes", "_spelling")

    def __init__(self, message: type[M], max_bytes: int, *, any_case: bool) -> None:
        self._decoder = msgspec.json.Decoder(message, dec_hook=_from_text)
        self._spelling = Spelling(message)
        self._max_bytes = max_bytes
        self._any_case = any_case

    def __call__(self, data: bytes) -> M:
        """Decode. Raises ProtocolError for anything that is not such a message."""
        if len(data) > self._max_bytes:
            raise ProtocolError(f"message of {len(data)} bytes, at most {self._max_bytes}")
        if not (self._any_case and self._spelling.is_odd(data)):
            with suppress(msgspec.MsgspecError, ProtocolError, *_GARBAGE):
                return self._decoder.decode(data)
        try:
            plain = self._spelling.mend(msgspec.json.decode(data))
            return self._decoder.decode(_encoder.encode(plain))
        except ProtocolError:
            raise
        except (msgspec.MsgspecError, *_GARBAGE) as error:
            raise ProtocolError(f"malformed message: {error}") from error


_GARBAGE = (TypeError, ValueError, OverflowError, RecursionError)
"""What the decoder raises besides its own errors: bad UTF-8, huge numbers, deep nesting."""


def _request(message: type[M]) -> Decoder[M]:
    return Decoder(message, MAX_REQUEST_BYTES, any_case=True)


def _response(message: type[M]) -> Decoder[M]:
    return Decoder(message, MAX_RESPONSE_BYTES, any_case=False)


decode_register_request = _request(register.RegisterRequest)
decode_map_request = _request(map.MapRequest)
decode_ping_response = _request(map.PingResponse)
decode_derp_admit_client_request = _request(derpmap.DERPAdmitClientRequest)
decode_ssh_event_notify_request = _request(ssh.SSHEventNotifyRequest)
decode_set_dns_request = _request(calls.SetDNSRequest)
decode_health_change_request = _request(calls.HealthChangeRequest)
decode_set_device_attributes_request = _request(calls.SetDeviceAttributesRequest)
decode_query_feature_request = _request(calls.QueryFeatureRequest)
decode_token_request = _request(calls.TokenRequest)
decode_audit_log_request = _request(calls.AuditLogRequest)
decode_tka_init_begin_request = _request(calls.TKAInitBeginRequest)
decode_tka_init_finish_request = _request(calls.TKAInitFinishRequest)
decode_tka_bootstrap_request = _request(calls.TKABootstrapRequest)
decode_tka_sync_offer_request = _request(calls.TKASyncOfferRequest)
decode_tka_sync_send_request = _request(calls.TKASyncSendRequest)
decode_tka_disable_request = _request(calls.TKADisableRequest)
decode_tka_submit_signature_request = _request(calls.TKASubmitSignatureRequest)
decode_tka_signatures_using_key_request = _request(calls.TKASignaturesUsingKeyRequest)

# Foreign DERP maps are configuration: files and URLs, written by hand as often as not.
decode_derp_map = Decoder(derpmap.DERPMap, MAX_RESPONSE_BYTES, any_case=True)

# What control answers, for our own clients: test nodes, simulators, relays.
decode_key_response = _response(register.OverTLSPublicKeyResponse)
decode_early_noise = _response(register.EarlyNoise)
decode_register_response = _response(register.RegisterResponse)
decode_map_response = _response(map.MapResponse)
decode_node = _response(node.Node)
decode_derp_admit_client_response = _response(derpmap.DERPAdmitClientResponse)
decode_ssh_action = _response(ssh.SSHAction)
decode_query_feature_response = _response(calls.QueryFeatureResponse)
decode_token_response = _response(calls.TokenResponse)
decode_tka_init_begin_response = _response(calls.TKAInitBeginResponse)
decode_tka_bootstrap_response = _response(calls.TKABootstrapResponse)
decode_tka_sync_offer_response = _response(calls.TKASyncOfferResponse)
decode_tka_sync_send_response = _response(calls.TKASyncSendResponse)
decode_tka_signatures_using_key_response = _response(calls.TKASignaturesUsingKeyResponse)
