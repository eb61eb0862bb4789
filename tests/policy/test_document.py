"""What is wrong with a policy is said with its place, all at once, with a suggestion."""

from __future__ import annotations

import pytest

from appliance.policy.text import rulesections
from appliance.policy.text.document import MAX_TEXT_CHARS, decode
from appliance.policy.text.mistakes import PolicyError
from appliance.policy.text.ports import PortError, Ports, parse_ports, parse_protocol
from appliance.policy.text.selectors import Kind

DOMAINS = frozenset({"example.com"})


def mistakes(text: str) -> list[tuple[int, int, str]]:
    with pytest.raises(PolicyError) as caught:
        decode(text, domains=DOMAINS)
    return [(each.spot.line, each.spot.column, each.text) for each in caught.value.mistakes]


def test_every_mistake_is_told_with_its_place() -> None:
    text = """{
  "acl": [],
  "groups": {"group:dev": ["group:ops", "alice@example.com"]},
  "acls": [
    {"action": "deny", "src": ["group:dve"], "dst": ["tag:web:22"]},
  ],
}"""
    assert mistakes(text) == [
        (2, 3, 'unknown field "acl"; did you mean "acls"?'),
        (3, 28, 'groups["group:dev"]: "group:ops": group members cannot be recursive'),
        (
            5,
            16,
            'action="deny" is not supported: rules only accept, what no rule accepts is denied',
        ),
        (
            5,
            32,
            'src=group not defined in policy: "group:dve"; did you mean "group:dev"?',
        ),
        (5, 54, 'dst="tag:web": tag not found: "tag:web"'),
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "want a name"),
        ("[]", "expected an object, found a list"),
        ('{"groups": 1}', "expected an object, found a number"),
        ('{"hosts": {"h": "10.0.0"}}', "want an IP address or a prefix"),
        ('{"hosts": {"a b": "10.0.0.1"}}', "a host name has letters"),
        ('{"hosts": {"10.0.0.1": "10.0.0.0/8"}}', "would hide what rules mean"),
        ('{"hosts": {"10.0.0.1-10.0.0.9": "0.0.0.0/0"}}', "would hide what rules mean"),
        ('{"tagOwners": {"web": []}}', "must start with 'tag:'"),
        ('{"tagOwners": {"tag:1": []}}', "tag names must start with a letter, after 'tag:'"),
        ('{"tagOwners": {"tag:a": ["10.0.0.1"]}}', "an owner or approver is a user"),
        ('{"postures": {"posture:x": ["node:os"]}}', "not a condition"),
        ('{"postures": {"posture:x": ["os == \'a\'"]}}', "unknown attribute"),
        ('{"postures": {"posture:x": []}}', "without a condition every device would be in it"),
        ('{"postures": {"posture:x": ["node:osVersion >= \'Big\'"]}}', "a number or a version"),
        ('{"postures": {"posture:x": ["custom:x < true"]}}', "a number or a version"),
        ('{"defaultSrcPosture": ["posture:x"]}', "posture not found"),
        ('{"ipsets": {"ipset:a": ["add ipset:a"]}}', "contains this set"),
        ('{"ipsets": {"ipset:a": ["add ipset:b"], "ipset:b": ["ipset:a"]}}', "contains this set"),
        ('{"ipsets": {"ipset:a": ["add nowhere"]}}', "no address, prefix, range, host or ipset"),
        ('{"OneCGNATRoute": "x"}', "mac-always"),
        ('{"randomizeClientPort": 1}', "expected true or false"),
        ('{"derpMap": []}', "expected an object, found a list"),
        ('{"attrConfig": 1}', "expected an object, found a number"),
        ('{"autoApprovers": {"services": {"web": []}}}', 'host not defined in policy: "web"'),
        ('{"autoApprovers": {"services": {"bob@": []}}}', "the name of a service starts with svc:"),
        ('{"autoApprovers": {"services": {"tag:x": []}}}', 'tag not found: "tag:x"'),
        ('{"autoApprovers": {"services": {"svc:web": ["10.0.0.1"]}}}', "an owner or approver is"),
        ('{"acls": [{"action": "accept", "src": ["alice"]}]}', 'if it is a user, write "alice@"'),
        ('{"tagOwners": {"tag:a": ["alice.b"]}}', 'if it is a user, write "alice.b@"'),
        ('{"acls": [], "acls": []}', 'duplicate name "acls"'),
        ('{"acls": [], "ACLs": []}', '"ACLs" and "acls" are one field'),
        ('{"ssh": [{"SRC": ["*"], "src": []}]}', '"src" and "SRC" are one field'),
        ('{"acls": [{"Users": ["*"], "src": ["*"]}]}', '"Users" is the old name of "src"'),
        ('{"acls": [{"ports": ["*:1"], "dst": ["*:*"]}]}', '"ports" is the old name of "dst"'),
        ('{"tests": [{"user": "a@", "src": "b@"}]}', '"user" is the old name of "src"'),
        ('{"tests": [{"allow": [], "accept": []}]}', '"allow" is the old name of "accept"'),
        ('{"autoApprovers": {"routes": {"x": []}}}', "is no prefix"),
        ('{"grants": [{"src": ["*"], "dst": ["*"]}]}', "ip and app can not both be empty"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["tcp:0"]}]}', "must be >0"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["a:b:1"]}]}', "only one colon"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": [":1"]}]}', "empty protocol"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": [""]}]}', "empty string"),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["tcp:"]}]}', 'invalid port list: ""'),
        ('{"acls": [{"action": "accept", "src": ["*"], "dst": ["h"]}]}', 'contain a colon (":")'),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"], "via": ["tag:x"]}]}', "not found"),
        ('{"nodeAttrs": [{"target": ["autogroup:self"]}]}', "does not support"),
        ('{"nodeAttrs": [{"target": ["*"], "ipPool": ["10.0.0.0/8"]}]}', "within 100.64.0.0/10"),
        ('{"nodeAttrs": [{"target": ["*"], "attr": ["nextdns:a/b"]}]}', "a NextDNS profile has"),
        ('{"nodeAttrs": [{"target": ["*"], "attr": ["nextdns:"]}]}', "a NextDNS profile has"),
        ('{"tagOwners": {"tag:a b": []}}', "no blanks"),
        ('{"acls": [{"action": "accept", "src": ["*"], "dst": ["[1.2.3.4]:1"]}]}', "square"),
        ('{"ssh": [{"src": ["*"], "dst": ["*"], "users": ["a"]}]}', "action must be specified"),
        (
            '{"groups": {"group:g": []}, "ssh": [{"action": "accept", "src": ["a@b.c"], '
            '"dst": ["group:g"], "users": ["a"]}]}',
            'invalid dst "group:g": devices of users',
        ),
        ('{"ssh": [{"action": "accept", "src": ["web"], "dst": ["db"]}]}', 'invalid src "web"'),
        ('{"ssh": [{"action": "accept", "src": ["web"], "dst": ["db"]}]}', 'invalid dst "db"'),
        ('{"ssh": [{"action": "accept", "acceptEnv": ["A", ""]}]}', "acceptEnv values cannot be"),
        ('{"ssh": [{"action": "accept", "recorder": ["autogroup:self"]}]}', "name its tag"),
        ('{"ssh": [{"action": "accept", "enforceRecorder": true}]}', "needs a recorder"),
        ('{"sshTests": [{"src": "", "dst": []}]}', "SSH tests entry must have at least one dst"),
    ],
)
def test_mistake_is_told(text: str, part: str) -> None:
    assert any(part in each for _, _, each in mistakes(text))


def test_no_variables_are_none() -> None:
    """An empty list says as much as an absent one."""
    rule = '{"action": "accept", "src": ["a@b.c"], "dst": ["autogroup:self"], "users": ["root"]'
    policy = decode('{"ssh": [' + rule + ', "acceptEnv": []}]}')
    assert policy.ssh[0].accept_env == ()


def test_too_long_texts_are_refused_unread() -> None:
    assert "longer" in mistakes(" " * (MAX_TEXT_CHARS + 1))[0][2]
    assert "values" in mistakes("[" + "1," * 70_000 + "1]")[0][2]


def test_many_mistakes_are_cut_in_the_sentence_only() -> None:
    text = '{"acls": [' + '{"action": "x"},' * 100 + "]}"
    with pytest.raises(PolicyError) as caught:
        decode(text)
    assert len(caught.value.mistakes) == 100
    assert caught.value.sentence.endswith("and 80 more")


def test_field_names_are_read_as_go_reads_them() -> None:
    text = """{"ACLs": [{"Action": "accept", "Users": ["*"], "Ports": ["*:22"], "#why": "x"}]}"""
    policy = decode(text)
    assert policy.acls is not None
    assert policy.acls[0].src[0].kind is Kind.EVERYONE
    assert policy.acls[0].dst[0].ports == (Ports(22, 22),)


def test_empty_text_is_the_empty_policy() -> None:
    assert decode("").allows_all
    assert not decode('{"acls": []}').allows_all


def test_ports_and_protocols_in_their_forms() -> None:
    assert parse_ports("22, 80-90") == (Ports(22, 22), Ports(80, 90))
    assert parse_protocol("ICMP") == (1,)
    assert parse_protocol("41") == (41,)
    assert parse_protocol("icmpv6") == (58,)
    for text in ("*", "01", "256", "none", "٣"):
        with pytest.raises(PortError):
            parse_protocol(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", 'invalid port list: ""'),
        ("ssh", 'port range "ssh": invalid first integer'),
        ("22,ssh", 'port range "ssh": invalid first integer'),
        ("-1", 'port range "-1": invalid first integer'),
        ("80-", 'port range "80-": invalid last integer'),
        ("1-2-3", 'port range "1-2-3": too many dashes(-)'),
        ("90-80", 'port range "90-80": first port must be >= last port: write 80-90'),
        ("0-9", "port range \"0-9\": first port must be >0, or use '*' for wildcard"),
        ("70000", 'port range "70000": invalid first integer, which is at most 65535'),
        ("٣", "invalid first integer"),
    ],
)
def test_ports_that_are_none_are_told_as_the_hosted_service_does(text: str, part: str) -> None:
    with pytest.raises(PortError) as caught:
        parse_ports(text)
    assert part in str(caught.value)


APP = '{"grants": [{"src": ["*"], "dst": ["*"], "app": {"NAME": [{}]}}]}'


@pytest.mark.parametrize(
    "name",
    ["golink", "tailsql", "setec", "tsidp", "secrets", "drive", "relay", "anything-new", "a/b"],
)
def test_vendors_capabilities_for_programs_are_granted(name: str) -> None:
    """F8: new programs ask for new ones; a list of those that are allowed goes stale."""
    capability = f"tailscale.com/cap/{name}"
    policy = decode(APP.replace("NAME", capability))
    assert policy.grants is not None
    assert list(policy.grants[0].app) == [capability]


@pytest.mark.parametrize(
    "name",
    [
        *sorted(rulesections.OURS),
        "tailscale.com/cap/Is-Admin",
        "Tailscale.com/cap/golink",
        "tailscale.com/cap/funnel-ports?ports=443",
        "tailscale.com/cap/",
        "tailscale.com/cap",
        "tailscale.com/app-connectors",
        "tailscale.com/x",
    ],
)
def test_capabilities_that_the_server_gives_out_are_granted_by_no_policy(name: str) -> None:
    assert mistakes(APP.replace("NAME", name))[0][2].startswith(
        "capability name must not be in the tailscale.com domain"
    )
    assert "must have the form" in mistakes(APP.replace("NAME", f"https://{name}"))[0][2]


@pytest.mark.parametrize("text", ['\ufeff{"acls": []}', b'\xef\xbb\xbf{"acls": []}'])
def test_byte_order_mark_is_skipped(text: str | bytes) -> None:
    """F11: editors on Windows put one before the text."""
    assert decode(text).acls == ()
    broken = text[:-1] + (b"x" if isinstance(text, bytes) else "x")  # type: ignore[operator]  # same type
    with pytest.raises(PolicyError) as caught:
        decode(broken)
    assert caught.value.mistakes[0].spot == (1, 12)
    with pytest.raises(PolicyError):
        decode(text[: -len('{"acls": []}')])
