"""A slow, obvious reading of a policy: may this address send to that port of that one?

Reads the document as written, with none of the engine's tables: every word is looked up in lists,
every time. What it does not know (capabilities) it does not answer.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from appliance.records import Address, Network, Node, Role
from tests.policy.worlds import World

DEFAULT = {1, 6, 17, 58}
NUMBERS = {"tcp": 6, "udp": 17}
CGNAT, CHROME, ULA = (
    ip_network(text) for text in ("100.64.0.0/10", "100.115.92.0/23", "fd7a:115c:a1e0::/48")
)
PRIVATE = [
    ip_network(text)
    for text in ("10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
]
GLOBAL = ip_network("2000::/3")


def is_in(posture: str, node: Node) -> bool:
    """Tell whether a node is in one of the postures of ``worlds``."""
    given = {each.name: each.value for each in node.attributes}
    level, country = given.get("custom:level"), given.get("ip:country")
    is_number = isinstance(level, int | float) and not isinstance(level, bool)
    return {
        "posture:mac": node.hostinfo.os == "macOS",
        "posture:high": is_number and float(level or 0) >= 1,
        "posture:one": is_number and level == 1 and country == "DE",
        "posture:new": level is None and country is not None,
    }[posture]


class Oracle:
    """Answers for one document and one tailnet."""

    def __init__(self, document: dict[str, Any], world: World) -> None:
        self.document = document
        self.world = world

    def subnets(self, node: Node) -> list[Network]:
        return [route for route in node.approved_routes if route.prefixlen > 0]

    def is_exit(self, node: Node) -> bool:
        return any(route.prefixlen == 0 for route in node.approved_routes)

    def may(self, src: Address, router: Node, dst: Address, port: int, protocol: int) -> bool:
        """Tell whether ``router``, which has ``dst`` or carries packets to it, lets this in."""
        if src.version != dst.version:
            return False
        if "acls" not in self.document and "grants" not in self.document:
            return self.is_everyone(src)
        return any(
            self.grant_lets(grant, src, router, dst, port, protocol)
            for grant in self.document.get("grants", ())
        ) or any(
            self.acl_lets(acl, src, router, dst, port, protocol)
            for acl in self.document.get("acls", ())
        )

    def acl_lets(
        self,
        acl: dict[str, Any],
        src: Address,
        router: Node,
        dst: Address,
        port: int,
        protocol: int,
    ) -> bool:
        allowed = {NUMBERS[acl["proto"]]} if "proto" in acl else DEFAULT
        if protocol not in allowed or not self.is_in_posture(acl, src):
            return False
        for target in acl["dst"]:
            word, _, ports = target.rpartition(":")
            if not is_port(ports, port):
                continue
            if word == "autogroup:self":
                if self.is_own(acl["src"], src, router, dst):
                    return True
            elif self.is_any_source(acl["src"], src) and self.is_destination(word, router, dst):
                return True
        return False

    def grant_lets(
        self,
        grant: dict[str, Any],
        src: Address,
        router: Node,
        dst: Address,
        port: int,
        protocol: int,
    ) -> bool:
        if not self.is_any_source(grant["src"], src):
            return False
        if not any(is_internet(text, port, protocol) for text in grant.get("ip", ())):
            return False
        if "via" in grant:
            return bool(set(grant["via"]) & set(router.tags)) and any(
                self.is_behind(word, router, dst) for word in grant["dst"]
            )
        return any(self.is_destination(word, router, dst) for word in grant["dst"])

    def log_in(self, src: Node, dst: Node, local_user: str) -> str:
        """Tell how a login is let in: "check", "accept", or "" if it is refused."""
        for action in ("check", "accept"):
            for rule in self.document.get("ssh", ()):
                if rule["action"] == action and self.ssh_lets(rule, src, dst, local_user):
                    return action
        return ""

    def ssh_lets(self, rule: dict[str, Any], src: Node, dst: Node, local_user: str) -> bool:
        if not any(self.is_named(word, src) for word in rule["src"]):
            return False
        if "srcPosture" in rule and src.hostinfo.os != "macOS":
            return False
        is_own = is_same_owner(src, dst)
        if not any(
            is_own if word == "autogroup:self" else self.is_named(word, dst) for word in rule["dst"]
        ):
            return False
        users = rule["users"]
        if local_user in users or ("autogroup:nonroot" in users and local_user != "root"):
            return True
        owner = None if src.tags or src.user_id is None else self.world.users.get(src.user_id)
        if "localpart:*@example.com" not in users or owner is None:
            return False
        return owner.email == f"{local_user}@example.com"

    def node_at(self, address: Address) -> Node | None:
        for node in self.world.nodes.values():
            if address in (node.ipv4, node.ipv6):
                return node
        return None

    def is_in_posture(self, rule: dict[str, Any], src: Address) -> bool:
        if "srcPosture" not in rule:
            return True
        node = self.node_at(src)
        return node is not None and any(is_in(name, node) for name in rule["srcPosture"])

    def is_own(self, words: list[str], src: Address, router: Node, dst: Address) -> bool:
        node = self.node_at(src)
        if node is None or node.tags or router.tags or dst not in (router.ipv4, router.ipv6):
            return False
        if node.user_id is None or node.user_id != router.user_id:
            return False
        return any(word == "*" or self.is_named(word, node) for word in words)

    def is_any_source(self, words: list[str], src: Address) -> bool:
        return any(self.is_source(word, src) for word in words)

    def is_source(self, word: str, src: Address) -> bool:
        if word == "autogroup:danger-all":
            return True
        if word == "*":
            return self.is_everyone(src)
        spans = self.addresses(word)
        if spans is not None:
            return any(src.version == span.version and src in span for span in spans)
        node = self.node_at(src)
        return node is not None and self.is_named(word, node)

    def is_everyone(self, src: Address) -> bool:
        if src.version == 4 and src in CGNAT and src not in CHROME:
            return True
        if src.version == 6 and src in ULA:
            return True
        return any(
            src.version == route.version and src in route
            for node in self.world.nodes.values()
            for route in self.subnets(node)
        )

    def is_destination(self, word: str, router: Node, dst: Address) -> bool:
        if word == "*":
            return True
        if word == "autogroup:internet":
            return self.is_exit(router) and is_public(dst)
        spans = self.addresses(word)
        if spans is None:
            return dst in (router.ipv4, router.ipv6) and self.is_named(word, router)
        for span in spans:
            if span.version == dst.version and dst in span:
                own = any(a in span for a in router.addresses if a.version == span.version)
                leads = any(
                    route.version == span.version and route.overlaps(span)
                    for route in self.subnets(router)
                )
                through = self.is_exit(router) and is_public_net(span)
                if own or leads or through:
                    return True
        return False

    def is_behind(self, word: str, router: Node, dst: Address) -> bool:
        if word == "autogroup:internet":
            return self.is_exit(router) and is_public(dst)
        return any(
            span.version == dst.version
            and dst in span
            and any(
                route.version == span.version and route.overlaps(span)
                for route in self.subnets(router)
            )
            for span in self.addresses(word) or ()
        )

    def addresses(self, word: str) -> list[Network] | None:
        """Give the networks that a word spells out; None if it names nodes."""
        if word in self.document["hosts"]:
            return [ip_network(self.document["hosts"][word])]
        if word == "ipset:s":
            left: list[Network] = list(
                IPv4Network("10.1.0.0/16").address_exclude(IPv4Network("10.1.2.0/24"))
            )
            return [*left, ip_network(self.document["hosts"]["h3"])]
        try:
            return [ip_network(word)]
        except ValueError:
            return None

    def is_named(self, word: str, node: Node) -> bool:
        if node.tags:
            return word == "autogroup:tagged" or word in node.tags
        user = self.world.users.get(node.user_id) if node.user_id is not None else None
        if user is None:
            return False
        role = self.world.roles.get(user.id, Role.MEMBER)
        match word:
            case "autogroup:member":
                return True
            case "autogroup:admin":
                return role in (Role.ADMIN, Role.OWNER)
            case "user:*@example.com":
                return user.email.endswith("@example.com")
            case _ if word.startswith("group:"):
                return user.email in self.document["groups"][word]
            case _:
                return word == user.email


def is_same_owner(one: Node, other: Node) -> bool:
    return not (one.tags or other.tags) and one.user_id is not None and one.user_id == other.user_id


def is_port(text: str, port: int) -> bool:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if part == "*" or (int(first) <= port <= int(last) if dash else port == int(first)):
            return True
    return False


def is_internet(text: str, port: int, protocol: int) -> bool:
    name, colon, ports = text.rpartition(":")
    return protocol in ({NUMBERS[name]} if colon else DEFAULT) and is_port(ports, port)


def is_public(address: Address) -> bool:
    if address.version == 6:
        return address in GLOBAL
    return not any(address in net for net in PRIVATE if net.version == 4)


def is_public_net(net: Network) -> bool:
    if isinstance(net, IPv6Network):
        return isinstance(GLOBAL, IPv6Network) and net.subnet_of(GLOBAL)
    return not any(net.overlaps(private) for private in PRIVATE if isinstance(private, IPv4Network))


def holds(texts: tuple[str, ...], address: Address) -> bool:
    """Tell whether a rule's list of addresses names this one, as a client reads it."""
    for text in texts:
        if text == "*":
            return True
        if "-" in text:
            low, high = map(ip_address, text.split("-"))
            if low.version == address.version and int(low) <= int(address) <= int(high):
                return True
        else:
            net = ip_network(text)
            if net.version == address.version and address in net:
                return True
    return False
