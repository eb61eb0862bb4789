"""What nodes say of themselves, merged and bounded."""

from __future__ import annotations

from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import NotFound
from appliance.records import Node, NodeID
from appliance.tailnet import checkin, nodes
from appliance.tailnet.snapshot import Edit
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey
from tests.support.builder import build, disco_key, edit_of

FIRST = NodeID(1)


@pytest.fixture
def edit() -> Edit:
    return edit_of(build("alice: laptop phone"))


def ports(*texts: str) -> tuple[tailcfg.AddrPort, ...]:
    return tuple(tailcfg.AddrPort.parse(text) for text in texts)


def say(edit: Edit, **fields: object) -> Node:
    """Check in as node 1; what is not given is as the builder made it."""
    node = edit.nodes[FIRST]
    known: dict[str, object] = {
        "version": node.capver,
        "disco_key": node.disco_key,
        "hostinfo": node.hostinfo,
        "endpoints": node.endpoints,
    }
    request = msgspec.structs.replace(tailcfg.MapRequest(), **(known | fields))
    return checkin.check_in(edit, FIRST, request)


def tell(edit: Edit, **fields: object) -> Node:
    """Check in with a Hostinfo that has these fields."""
    hostinfo = msgspec.structs.replace(edit.nodes[FIRST].hostinfo, **fields)
    return say(edit, hostinfo=hostinfo)


def test_nothing_new_changes_nothing(edit: Edit) -> None:
    before = edit.nodes[FIRST]
    assert say(edit) is before
    assert edit.finish()[0] is edit.base


def test_equal_parts_keep_their_objects(edit: Edit) -> None:
    before = edit.nodes[FIRST]
    copy = msgspec.json.decode(msgspec.json.encode({"Hostname": "laptop", "OS": "linux"}))
    hostinfo = tailcfg.Hostinfo(hostname=copy["Hostname"], os=copy["OS"])
    node = say(edit, hostinfo=hostinfo, version=131)
    assert node is not before
    assert node.capver == 131
    assert node.hostinfo is before.hostinfo
    assert node.endpoints is before.endpoints


def test_unknown_node_is_not_found(edit: Edit) -> None:
    with pytest.raises(NotFound):
        checkin.check_in(edit, NodeID(99), tailcfg.MapRequest())


def test_absent_hostinfo_and_zero_disco_key_stay(edit: Edit) -> None:
    before = edit.nodes[FIRST]
    node = say(edit, hostinfo=None, disco_key=DiscoKey.zero())
    assert node is before
    assert say(edit, disco_key=disco_key("new")).disco_key == disco_key("new")


@pytest.mark.parametrize(("version", "kept"), [(-5, 0), (2**40, 2**31 - 1), (145, 145)])
def test_capability_version_is_kept_within_bounds(edit: Edit, version: int, kept: int) -> None:
    assert say(edit, version=version).capver == kept


class TestNetInfo:
    """NetInfo comes inside Hostinfo and is kept beside it."""

    def test_it_is_kept_when_a_later_message_leaves_it_out(self, edit: Edit) -> None:
        node = tell(edit, net_info=tailcfg.NetInfo(preferred_derp=3, have_port_map=True))
        assert node.home_derp == 3
        assert node.net_info is not None
        assert node.hostinfo.net_info is None
        again = tell(edit, net_info=None, os_version="7")
        assert again.net_info is node.net_info
        assert again.home_derp == 3

    def test_unknown_home_keeps_the_last_one(self, edit: Edit) -> None:
        tell(edit, net_info=tailcfg.NetInfo(preferred_derp=3))
        node = tell(edit, net_info=tailcfg.NetInfo(preferred_derp=0, have_port_map=True))
        assert node.home_derp == 3
        assert node.net_info == tailcfg.NetInfo(preferred_derp=3, have_port_map=True)

    @pytest.mark.parametrize("region", [-1, 0, 65536, 2**62])
    def test_impossible_regions_are_unknown(self, edit: Edit, region: int) -> None:
        before = edit.nodes[FIRST].home_derp
        assert tell(edit, net_info=tailcfg.NetInfo(preferred_derp=region)).home_derp == before

    def test_it_is_bounded(self, edit: Edit) -> None:
        many = {f"{n}-v4": 0.1 for n in range(checkin.MAX_DERP_LATENCIES + 1)}
        node = tell(edit, net_info=tailcfg.NetInfo(derp_latency=many, link_type="x" * 9999))
        assert node.net_info is not None
        assert not node.net_info.derp_latency
        assert len(node.net_info.link_type) == checkin.MAX_TEXT_CHARS
        node = tell(edit, net_info=tailcfg.NetInfo(derp_latency={"1\0-v4": 0.1}))
        assert node.net_info
        assert not node.net_info.derp_latency
        node = tell(edit, net_info=tailcfg.NetInfo(derp_latency={"1" * 9999: 0.1}))
        assert node.net_info is not None
        assert not node.net_info.derp_latency

    def test_the_same_again_changes_nothing(self, edit: Edit) -> None:
        info = tailcfg.NetInfo(preferred_derp=3, derp_latency={"3-v4": 0.01})
        node = tell(edit, net_info=info)
        assert tell(edit, net_info=info) is node


class TestEndpoints:
    """Endpoints: usable ones, once each, in a bounded number."""

    def test_they_are_replaced(self, edit: Edit) -> None:
        new = ports("198.51.100.7:41641", "[2001:db8::1]:41641")
        assert say(edit, endpoints=new).endpoints == new
        assert say(edit, endpoints=()).endpoints == ()

    def test_a_shuffle_is_no_change(self, edit: Edit) -> None:
        first = say(edit, endpoints=ports("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"))
        second = say(edit, endpoints=ports("10.0.0.3:1", "10.0.0.1:1", "10.0.0.2:1"))
        assert second is first

    def test_useless_ones_are_left_out(self, edit: Edit) -> None:
        said = ports("0.0.0.0:1", "[::]:1", "224.0.0.1:1", "10.0.0.1:0", "10.0.0.1:1", "10.0.0.1:1")
        assert say(edit, endpoints=said).endpoints == ports("10.0.0.1:1")

    def test_local_ones_go_first_when_there_are_too_many(self, edit: Edit) -> None:
        local = ports(*(f"10.0.{n // 250}.{n % 250 + 1}:1" for n in range(500)))
        public = ports("198.51.100.1:1", "198.51.100.2:2")
        node = say(edit, endpoints=local + public, endpoint_types=(1,) * 500 + (2, 3))
        assert len(node.endpoints) == checkin.MAX_ENDPOINTS
        assert node.endpoints == local[: checkin.MAX_ENDPOINTS - 2] + public

    def test_missing_types_are_unknown(self, edit: Edit) -> None:
        many = ports(*(f"10.0.{n // 250}.{n % 250 + 1}:1" for n in range(100)))
        assert say(edit, endpoints=many).endpoints == many[: checkin.MAX_ENDPOINTS]


class TestName:
    """The MagicDNS label follows the machine's name, unless somebody chose it."""

    def test_it_follows_the_host_name(self, edit: Edit) -> None:
        node = tell(edit, hostname="Desk.local")
        assert (node.hostname, node.name) == ("Desk.local", "desk")
        assert edit.by_name == {"desk": FIRST, "phone": 2}

    def test_it_avoids_the_names_of_others(self, edit: Edit) -> None:
        assert tell(edit, hostname="phone").name == "phone-1"
        assert tell(edit, hostname="phone", os_version="7").name == "phone-1"

    def test_it_stays_when_the_plain_label_becomes_free(self, edit: Edit) -> None:
        tell(edit, hostname="phone")
        nodes.delete(edit, NodeID(2))
        assert tell(edit, hostname="phone", os_version="7").name == "phone-1"
        assert tell(edit, hostname="PHONE").name == "phone-1"

    def test_it_stays_when_an_administrator_chose_it(self, edit: Edit) -> None:
        nodes.rename(edit, FIRST, "tower")
        node = tell(edit, hostname="desk")
        assert (node.hostname, node.name) == ("desk", "tower")


class TestBounds:
    """A stranger's machine wrote it."""

    def test_texts_are_cut_and_cleaned(self, edit: Edit) -> None:
        node = tell(edit, os_version="x" * 9999, distro="a\0b\x1b[31mc\n", hostname="\x07pc\u00a0a")
        assert len(node.hostinfo.os_version) == checkin.MAX_TEXT_CHARS
        assert node.hostinfo.distro == "ab[31mc "
        assert node.hostname == "pc a"
        assert node.name == "pc-a"

    def test_lists_are_cut(self, edit: Edit) -> None:
        node = tell(
            edit,
            routable_ips=tuple(ip_network(f"10.{n // 250}.{n % 250}.0/24") for n in range(5000)),
            request_tags=("tag:" + "x" * 9999,) * 100,
            wol_macs=("00:00:5e:00:53:01",) * 100,
            ssh_host_keys=("ssh-rsa " + "A" * 9999,) * 100,
            services=(tailcfg.Service(proto="tcp", port=80, description="x" * 9999),) * 1000
            + (tailcfg.Service(proto="peerapi4", port=7),),
        )
        hostinfo = node.hostinfo
        assert len(hostinfo.routable_ips) == checkin.MAX_ROUTES
        assert len(hostinfo.request_tags) == checkin.MAX_REQUEST_TAGS
        assert len(hostinfo.request_tags[0]) == checkin.MAX_TEXT_CHARS
        assert len(hostinfo.wol_macs) == checkin.MAX_WOL_MACS
        assert len(hostinfo.ssh_host_keys) == checkin.MAX_SSH_KEYS
        assert len(hostinfo.ssh_host_keys[0]) == checkin.MAX_SSH_KEY_CHARS
        assert len(hostinfo.services) == checkin.MAX_SERVICES
        assert hostinfo.services[0].proto == "peerapi4"
        assert len(hostinfo.services[1].description) == checkin.MAX_TEXT_CHARS

    def test_cut_hostinfo_said_again_changes_nothing(self, edit: Edit) -> None:
        said = tailcfg.Hostinfo(hostname="x" * 9999, os_version="y" * 9999)
        first = say(edit, hostinfo=said)
        assert say(edit, hostinfo=said) is first

    def test_parts_inside_are_cut_too(self, edit: Edit) -> None:
        node = tell(
            edit,
            location=tailcfg.Location(country="x" * 9999, latitude=1.5),
            tpm=tailcfg.TPMInfo(vendor="y\0" * 9999, model=7, firmware_version=2**64 - 1),
        )
        assert node.hostinfo.location is not None
        assert node.hostinfo.location.country == "x" * checkin.MAX_TEXT_CHARS
        assert node.hostinfo.location.latitude == 1.5
        assert node.hostinfo.tpm is not None
        assert node.hostinfo.tpm.vendor == "y" * (checkin.MAX_TEXT_CHARS // 2)
        assert node.hostinfo.tpm.model == 7
        assert tailcfg.encode(node.hostinfo)

    def test_the_whole_is_bounded(self, edit: Edit) -> None:
        texts = dict.fromkeys(checkin._TEXTS, "é" * 99999)
        node = tell(edit, **texts)
        assert len(tailcfg.encode(node.hostinfo)) < 40_000

    def test_ordinary_hostinfo_is_kept_as_it_is(self, edit: Edit) -> None:
        said = tailcfg.Hostinfo(
            ipn_version="1.80.2-tabc-gdef",
            hostname="Zoë's Mac",
            os="macOS",
            app="é ü",
            routable_ips=(ip_network("10.0.0.0/8"),),
            services=(tailcfg.Service(proto="peerapi4", port=7),),
            ssh_host_keys=("ssh-ed25519 AAAA",),
            location=tailcfg.Location(country="Österreich"),
        )
        assert say(edit, hostinfo=said).hostinfo == said


@given(st.text(max_size=600))
def test_plain_text_has_nothing_that_steers_a_terminal(text: str) -> None:
    plain = checkin.plain(text)
    assert plain.isprintable()
    assert len(plain) <= checkin.MAX_TEXT_CHARS
    assert checkin.plain(plain) is plain
    plain.encode()  # no lone surrogates
