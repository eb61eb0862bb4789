"""Records for the tests of the store: plain ones, and random ones for hypothesis."""

from __future__ import annotations

import string
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import strategies as st

from appliance.records import (
    ApiKey,
    ApiKeyID,
    Attribute,
    AuthKey,
    Credential,
    CredentialID,
    CredentialKind,
    Network,
    Node,
    NodeID,
    OAuthClient,
    OAuthClientID,
    PolicyText,
    RegisterMethod,
    Role,
    Session,
    SessionID,
    SignInMethod,
    Tailnet,
    TailnetID,
    User,
    UserID,
)
from appliance.tailnet.snapshot import Edit, Sequences
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, LockKey, MachineKey, NodeKey

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
TAILNET = Tailnet(TailnetID(1), "home", "home.example", NOW)


def raw_key(number: int) -> bytes:
    """Give 32 bytes that differ by number."""
    return number.to_bytes(32, "big")


def user(ids: Sequences, name: str = "alice") -> User:
    """Make a user."""
    return User(ids.next_user(), name, NOW)


def node(ids: Sequences, user_id: UserID | None = None) -> Node:
    """Make a node, unlike all others of these ids."""
    number = ids.next_node()
    return Node(
        id=number,
        stable_id=f"n{number}",
        machine_key=MachineKey(raw_key(number)),
        node_key=NodeKey(raw_key(number)),
        name=f"node{number}",
        hostname=f"Node {number}",
        created_at=NOW,
        user_id=user_id,
        ipv4=IPv4Address(0x64400000 + number),
        ipv6=IPv6Address((0xFD7A115CA1E0 << 80) + number),
        hostinfo=tailcfg.Hostinfo(os="linux", hostname=f"Node {number}", app=""),
        endpoints=(tailcfg.AddrPort.parse("192.0.2.1:41641"),),
    )


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
times = st.datetimes(
    datetime(1970, 1, 2), datetime(9000, 1, 1), timezones=st.just(UTC)  # noqa: DTZ001 hypothesis wants them naive
)  # fmt: skip
maybe_times = st.none() | times
tags = st.lists(st.text(string.ascii_lowercase, min_size=1).map("tag:{}".format), max_size=3).map(
    tuple
)
raw_keys = st.binary(min_size=32, max_size=32)
networks: st.SearchStrategy[Network] = st.sampled_from(
    (
        IPv4Network("0.0.0.0/0"),
        IPv6Network("::/0"),
        IPv4Network("10.1.0.0/16"),
        IPv6Network("fd00::/8"),
    )
)
endpoints = st.builds(
    tailcfg.AddrPort, st.ip_addresses(), st.integers(0, 65535)
)  # fmt: skip
int64s = st.integers(-(2**63), 2**63 - 1)
hostinfos = st.builds(
    tailcfg.Hostinfo,
    os=texts,
    hostname=texts,
    container=st.none() | st.booleans(),
    routable_ips=st.lists(networks, max_size=2).map(tuple),
    request_tags=tags,
    services=st.lists(
        st.builds(tailcfg.Service, proto=texts, port=st.integers(0, 65535), description=texts),
        max_size=2,
    ).map(tuple),
    ssh_host_keys=st.lists(texts, max_size=2).map(tuple),
)
net_infos = st.builds(
    tailcfg.NetInfo,
    working_udp=st.none() | st.booleans(),
    preferred_derp=int64s,
    derp_latency=st.dictionaries(texts, st.floats(0, 10), max_size=2),
)


attributes = st.lists(
    st.builds(
        Attribute,
        texts.map("custom:{}".format),
        texts | st.booleans() | int64s | st.floats(allow_nan=False, allow_infinity=False),
        maybe_times,
    ),
    max_size=3,
).map(tuple)


@st.composite
def users(draw: st.DrawFn, ids: Sequences) -> User:
    """Draw a user."""
    return User(
        ids.next_user(), draw(texts), draw(times), draw(texts), draw(texts), draw(texts),
        draw(texts), draw(texts), draw(st.sampled_from(Role)),
    )  # fmt: skip


def policy(ids: Sequences, text: str = "{}") -> PolicyText:
    """Make a policy."""
    return PolicyText(ids.next_policy(), text, NOW, "database", "local:socket")


@st.composite
def policies(draw: st.DrawFn, ids: Sequences) -> PolicyText:
    """Draw a policy text; what is in it does not matter to a store."""
    return PolicyText(ids.next_policy(), draw(texts), draw(times), draw(texts), draw(texts))


@st.composite
def auth_keys(draw: st.DrawFn, ids: Sequences, edit: Edit) -> AuthKey:
    """Draw an auth key of one of the edit's users, or of none."""
    number = ids.next_auth_key()
    return AuthKey(
        id=number,
        prefix=f"prefix{number}",
        secret_hash=draw(texts),
        created_at=draw(times),
        user_id=draw(st.sampled_from((None, *edit.users))),
        tags=draw(tags),
        reusable=draw(st.booleans()),
        ephemeral=draw(st.booleans()),
        expires_at=draw(maybe_times),
        used_at=draw(maybe_times),
    )


@st.composite
def api_keys(draw: st.DrawFn, ids: Sequences, edit: Edit) -> ApiKey:
    """Draw an API key of one of the edit's users, or of none."""
    number = ApiKeyID(ids.next("api_keys"))
    return ApiKey(
        id=number,
        prefix=f"prefix{number}",
        secret_hash=draw(texts),
        created_at=draw(times),
        scopes=draw(tags),
        user_id=draw(st.sampled_from((None, *edit.users))),
        expires_at=draw(maybe_times),
        last_used_at=draw(maybe_times),
        created_by=draw(texts),
        description=draw(texts),
    )


@st.composite
def oauth_clients(draw: st.DrawFn, ids: Sequences, edit: Edit) -> OAuthClient:
    """Draw an OAuth client of one of the edit's users, or of none."""
    number = OAuthClientID(ids.next("oauth_clients"))
    return OAuthClient(
        id=number,
        prefix=f"prefix{number}",
        secret_hash=draw(texts),
        created_at=draw(times),
        scopes=draw(tags),
        tags=draw(tags),
        user_id=draw(st.sampled_from((None, *edit.users))),
        last_used_at=draw(maybe_times),
        created_by=draw(texts),
        description=draw(texts),
    )


@st.composite
def nodes(draw: st.DrawFn, number: NodeID, edit: Edit) -> Node:
    """Draw a node; keys, name and addresses are its own by its number."""
    return Node(
        id=number,
        stable_id=draw(texts),
        machine_key=MachineKey(draw(raw_keys)),
        node_key=NodeKey(raw_key(number * 1000 + draw(st.integers(0, 999)))),
        name=f"{draw(texts)}-{number}",
        hostname=draw(texts),
        created_at=draw(times),
        user_id=draw(st.sampled_from((None, *edit.users))),
        tags=draw(tags),
        disco_key=draw(st.none() | raw_keys.map(DiscoKey)),
        ipv4=draw(st.none() | st.just(IPv4Address(0x64400000 + number))),
        ipv6=draw(st.none() | st.just(IPv6Address((0xFD7A << 112) + number))),
        hostinfo=draw(hostinfos),
        net_info=draw(st.none() | net_infos),
        endpoints=draw(st.lists(endpoints, max_size=3).map(tuple)),
        home_derp=draw(int64s),
        capver=draw(int64s),
        expires_at=draw(maybe_times),
        ephemeral=draw(st.booleans()),
        auth_key_id=draw(st.sampled_from((None, *edit.auth_keys))),
        register_method=draw(st.sampled_from(RegisterMethod)),
        name_pinned=draw(st.booleans()),
        approved_routes=draw(st.lists(networks, max_size=2).map(tuple)),
        lock_key=draw(st.none() | raw_keys.map(LockKey)),
        key_signature=draw(st.binary(max_size=40)),
        attributes=draw(attributes),
    )


@st.composite
def sessions(draw: st.DrawFn, ids: Sequences, user_id: UserID) -> Session:
    """Draw a session of a user."""
    number = SessionID(ids.next("sessions"))
    return Session(
        id=number,
        user_id=user_id,
        secret_hash=raw_key(number).hex(),
        method=draw(st.sampled_from(SignInMethod)),
        created_at=draw(times),
        expires_at=draw(times),
        last_used_at=draw(times),
        login_expires_at=draw(st.none() | times),
        agent=draw(texts),
        source=draw(texts),
    )


@st.composite
def credentials(draw: st.DrawFn, ids: Sequences, user_id: UserID) -> Credential:
    """Draw a credential of a user."""
    number = CredentialID(ids.next("credentials"))
    return Credential(
        id=number,
        user_id=user_id,
        kind=draw(st.sampled_from(CredentialKind)),
        lookup=raw_key(number).hex(),
        created_at=draw(times),
        name=draw(texts),
        public_id=draw(st.binary(max_size=100)),
        public_key=draw(st.binary(max_size=100)),
        sign_count=draw(st.integers(0, 2**32 - 1)),
        expires_at=draw(st.none() | times),
        used_at=draw(st.none() | times),
    )


def _change_of_programs(draw: st.DrawFn, ids: Sequences, edit: Edit) -> None:
    match draw(st.sampled_from(("key", "client", "sign in", "drop"))):
        case "key":
            edit.put(draw(api_keys(ids, edit)))
        case "client":
            edit.put(draw(oauth_clients(ids, edit)))
        case "sign in" if edit.users:
            user_id = draw(st.sampled_from(sorted(edit.users)))
            edit.put(draw(sessions(ids, user_id)))
            edit.put(draw(credentials(ids, user_id)))
        case _ if edit.api_keys:
            edit.drop(edit.api_keys[draw(st.sampled_from(sorted(edit.api_keys)))])


@st.composite
def change(draw: st.DrawFn, ids: Sequences, edit: Edit) -> None:
    """Draw one change and make it in the edit."""
    owners = {node.user_id for node in edit.nodes.values()}
    owners |= {key.user_id for key in edit.auth_keys.values()}
    owners |= {key.user_id for key in edit.api_keys.values()}
    owners |= {client.user_id for client in edit.oauth_clients.values()}
    owners |= {each.user_id for each in edit.sessions.values()}
    owners |= {each.user_id for each in edit.credentials.values()}
    idle = [user for user in edit.users.values() if user.id not in owners]
    match draw(
        st.sampled_from(
            (
                "user",
                "key",
                "node",
                "node",
                "again",
                "drop",
                "drop key",
                "drop user",
                "policy",
                "program",
                "program",
            )
        )
    ):
        case "user":
            edit.put(draw(users(ids)))
        case "policy":
            edit.put(draw(policies(ids)))
        case "key":
            edit.put(draw(auth_keys(ids, edit)))
        case "program":
            _change_of_programs(draw, ids, edit)
        case "node":
            edit.put(draw(nodes(ids.next_node(), edit)))
        case "again" if edit.nodes:
            edit.put(draw(nodes(draw(st.sampled_from(sorted(edit.nodes))), edit)))
        case "drop" if edit.nodes:
            edit.drop(edit.nodes[draw(st.sampled_from(sorted(edit.nodes)))])
        case "drop key" if edit.auth_keys:
            edit.drop(edit.auth_keys[draw(st.sampled_from(sorted(edit.auth_keys)))])
        case "drop user" if idle:
            edit.drop(draw(st.sampled_from(idle)))
        case _:
            pass
