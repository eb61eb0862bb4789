"""Any message comes back as it was, in any spelling of its names."""

import ipaddress
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect

from appliance.wire import keys, tailcfg
from appliance.wire.tailcfg.message import Address, AddrPort, Prefix, address_text, prefix_text
from tests.vectors import load

NAMES = [case["type"] for case in load("go_messages.json")]

ADDRESSES = st.ip_addresses()
PREFIXES = st.builds(
    lambda address, bits: ipaddress.ip_network(
        (address, min(bits, address.max_prefixlen)), strict=False
    ),
    ADDRESSES,
    st.integers(0, 128),
)
RAW = st.binary(min_size=32, max_size=32)
CUSTOM: dict[object, st.SearchStrategy[Any]] = {
    Address: ADDRESSES,
    Prefix: PREFIXES,
    AddrPort: st.builds(AddrPort, ADDRESSES, st.integers(0, 65535)),
    keys.HardwareKey: st.builds(lambda raw: keys.HardwareKey(b"\4" + raw * 2), RAW),
    **{
        kind: st.builds(kind, RAW)
        for kind in (
            keys.MachineKey,
            keys.NodeKey,
            keys.DiscoKey,
            keys.LockKey,
            keys.ChallengeKey,
        )
    },
}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TIMES = st.datetimes(datetime(2, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 bounds


def strategy(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.StructType():
            return st.fixed_dictionaries(
                {}, optional={item.name: strategy(item.type) for item in kind.fields}
            ).map(lambda fields: kind.cls(**fields))
        case inspect.UnionType():
            return st.one_of([strategy(part) for part in kind.types])
        case inspect.VarTupleType():
            return st.lists(strategy(kind.item_type), max_size=2).map(tuple)
        case inspect.DictType():
            return st.dictionaries(strategy(kind.key_type), strategy(kind.value_type), max_size=2)
        case inspect.IntType():
            low = 0 if kind.ge is None else kind.ge  # without a bound: an unsigned number
            return st.integers(low, 2**63 - 1 if kind.le is None else kind.le)
        case inspect.CustomType():
            return CUSTOM[kind.cls]
        case _:
            return SIMPLE[type(kind)]


SIMPLE: dict[type, st.SearchStrategy[Any]] = {
    inspect.NoneType: st.none(),
    inspect.BoolType: st.booleans(),
    inspect.FloatType: st.floats(allow_nan=False, allow_infinity=False),
    inspect.StrType: TEXTS,
    inspect.BytesType: st.binary(max_size=4),
    inspect.DateTimeType: TIMES,
    inspect.RawType: st.builds(tailcfg.raw, st.none() | TEXTS | st.integers(0, 9)),
}


def recased(value: Any, draw: Any) -> Any:
    """Spell names otherwise, at random; the names of maps stay (they are values)."""
    if isinstance(value, dict):
        return {
            draw(st.sampled_from([name, name.lower(), name.upper()])): recased(part, draw)
            for name, part in value.items()
        }
    return [recased(part, draw) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_message_comes_back(name: str, data: st.DataObject) -> None:
    message = data.draw(strategy(inspect.type_info(getattr(tailcfg, name))))
    decode = tailcfg.Decoder(getattr(tailcfg, name), tailcfg.MAX_RESPONSE_BYTES, any_case=True)
    text = tailcfg.encode(message)
    assert decode(text) == message


@pytest.mark.parametrize("name", ["RegisterRequest", "AuditLogRequest", "SetDNSRequest"])
@given(data=st.data())
def test_spelling_does_not_matter(name: str, data: st.DataObject) -> None:
    message = data.draw(strategy(inspect.type_info(getattr(tailcfg, name))))
    decode = tailcfg.Decoder(getattr(tailcfg, name), tailcfg.MAX_RESPONSE_BYTES, any_case=True)
    plain = json.loads(tailcfg.encode(message))
    plain.get("Hostinfo", {}).get("NetInfo", {}).pop("DERPLatency", None)  # names are values there
    wanted = decode(json.dumps(plain).encode())
    assert decode(json.dumps(recased(plain, data.draw)).encode()) == wanted


GROUPS = st.sampled_from((0, 0, 0, 1, 0xFFFF)) | st.integers(0, 0xFFFF)


@given(groups=st.lists(GROUPS, min_size=8, max_size=8))
def test_texts_of_addresses_are_those_of_python(groups: list[int]) -> None:
    """Where zeros are left out is our own code; the standard library's is the judge."""
    address = ipaddress.IPv6Address(b"".join(group.to_bytes(2, "big") for group in groups))
    assert address_text(address) == str(address)


@given(prefix=PREFIXES)
def test_texts_of_prefixes_are_those_of_python(
    prefix: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> None:
    assert prefix_text(prefix) == str(prefix)


@given(address=ADDRESSES, zone=st.sampled_from(("eth0", "1")))
def test_texts_of_addresses_keep_the_zone(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, zone: str
) -> None:
    assert address_text(address) == str(address)
    if address.version == 6:
        scoped = ipaddress.IPv6Address(f"{address}%{zone}")
        assert address_text(scoped) == str(scoped)
