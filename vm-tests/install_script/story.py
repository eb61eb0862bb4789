"""The install script of a release, on hosts with nothing on them, typed by somebody without Ansible.

On each system with that system's own Ansible: 2.14 on Debian 12, 2.19 on Debian 13.
"""

from __future__ import annotations

import re

from driver import releases
from driver.authority import Authority
from driver.container import Container
from driver.face import Machine, Machines

FOLDER = "/root/headwater-release"
RUN = f"sh {FOLDER}/install.sh"
HOME = "/root/headwater"
LEFT = f"find /etc /opt /usr/local /var/lib /run /root -name '*headwater*' ! -path '{FOLDER}*'"
LAST_RECAP = f"grep -h changed= {HOME}/install.log"


def story(machines: Machines) -> None:
    """Be refused, install, join, repeat, remove; then once more with a certificate."""
    for machine in machines.values():
        machine.wait_for_unit("multi-user.target")
    older, newer = machines["debian12"], machines["debian13"]
    for host in (older, newer):
        assert isinstance(host, Container)
        host.copy_from_host(str(releases.current(host.spec.suite).whole()), FOLDER)
    refusals(machines, older)
    authority(machines, older, machines["node"])
    certificate(machines, newer)


def refusals(machines: Machines, host: Machine) -> None:
    """What it will not do, and that it has done nothing then."""
    with machines.subtest("it refuses, says why, and has changed nothing"):
        before = host.succeed("dpkg-query --show", "ls /root")
        named = f"{RUN} --domain debian12 --yes"
        for command, reason in (
            (
                f"cp -r {FOLDER} /tmp/r && setpriv --reuid 65534 sh /tmp/r/install.sh",
                "run it as root",
            ),
            (f"{RUN} --domain 'a b' --yes", "--domain: a b is not such a value"),
            (f"{RUN} --tls files --cert x", "needs --cert FILE and --key FILE"),
            (f"{RUN} < /dev/null", "give --domain (there is nobody to ask)"),
            (on_other_system("ID=fedora\nVERSION_ID=43\n", named), "this system is fedora 43"),
            (on_other_system("ID=nixos\nVERSION_ID=26.05\n", named), "on NixOS use the module"),
            (f"mv {FOLDER}/SHA256SUMS /tmp && {named}", "there is no release beside this script"),
        ):
            said = host.fail(f"{{ {command}; }} 2>&1")
            assert reason in said, said
        host.succeed(f"mv /tmp/SHA256SUMS {FOLDER}; rm -r /tmp/r")
        assert host.succeed("dpkg-query --show", "ls /root") == before
        assert host.succeed(LEFT) == ""

    with machines.subtest("a damaged archive is not installed"):
        archive = host.succeed(f"ls {FOLDER}/headwater-*-cp*.tar").strip()
        host.succeed(f"cp {archive} /tmp/whole; echo more >> {archive}")
        assert "is damaged" in host.fail(f"{named} 2>&1")
        host.fail("test -e /opt/headwater")
        host.succeed(f"mv /tmp/whole {archive}")


def on_other_system(release: str, command: str) -> str:
    """A command, in a shell that finds another /etc/os-release."""
    inner = f"mount --bind /tmp/os /etc/os-release && {command}"
    return f"printf '{release}' > /tmp/os && unshare --mount sh -c \"{inner}\""


def authority(machines: Machines, host: Machine, node: Machine) -> None:
    """With an authority of its own, from nothing to a first node and back."""
    with machines.subtest("one command from nothing to a server, and the lines for a node"):
        said = host.succeed(f"{RUN} --domain debian12 --tls local-ca --yes 2>&1", timeout=300)
        host.succeed("headwater health", "systemctl is-enabled headwater.service headwater.socket")
        machines.say(said)

    with machines.subtest("a node joins by those lines, as they are printed"):
        (copy,) = re.findall(r"^  scp root@debian12:(\S+) (\S+)$", said, re.MULTILINE)
        assert isinstance(host, Container)
        assert isinstance(node, Container)
        node.write(copy[1], host.read(copy[0]).decode())  # there is no sshd in this story
        node.succeed("systemctl start tailscaled")
        for line in re.findall(r"^  ((?:update-ca|tailscale up).*)$", said, re.MULTILINE):
            node.succeed(line, timeout=60)
        assert "node" in host.succeed("headwater nodes list")

    with machines.subtest(
        "typed again it changes nothing, and another answer is not taken silently"
    ):
        again = host.succeed(f"{RUN} --domain debian12 --tls local-ca --yes 2>&1", timeout=300)
        assert "preauthkeys create -u NAME" in again
        assert "hskey-auth" not in again
        assert "changed=0 " in host.succeed(LAST_RECAP)
        other = host.fail(f"{RUN} --domain other.example.com --tls local-ca --yes 2>&1")
        assert "site.yaml is there and says something else" in other

    with machines.subtest("an edited site file is applied by the command that the script left"):
        host.succeed(f"printf 'log:\\n  level: debug\\n' >> {HOME}/site.yaml")
        host.succeed(f"{HOME}/apply --check", f"{HOME}/apply", timeout=200)
        assert '"debug"' in host.succeed("headwater config show -o json")

    with machines.subtest("--uninstall --purge leaves nothing of it"):
        told = host.succeed(f"{RUN} --uninstall --purge 2>&1", timeout=200)
        assert "Stays: the journal\n" in told, told
        left = host.succeed(LEFT)
        assert left == "", left
        host.fail("getent passwd headwater || getent group headwater")
        assert "headwater" not in host.succeed("systemctl list-units --all --no-legend")


def certificate(machines: Machines, host: Machine) -> None:
    """With a certificate that its owner brings."""
    with machines.subtest("a certificate and its key are taken from files"):
        given = Authority().issue(
            "debian13", certificate="/root/pair/cert.pem", key="/root/pair/key.pem"
        )
        assert isinstance(host, Container)
        for path, text in given.items():
            place = path if path.startswith("/root/") else "/root/pair/ca.pem"
            host.write(place, text, "0600")
        files = "--cert pair/cert.pem --key /root/pair/key.pem --ca /root/pair/ca.pem"
        said = host.succeed(f"cd /root && {RUN} --domain debian13 {files} --yes 2>&1", timeout=300)
        assert "tailscale up --login-server https://debian13 --auth-key hskey-auth-" in said
        assert "scp" not in said
        host.succeed("headwater health")
        shown = host.succeed("stat -c %a%U /etc/headwater/secrets/privkey.pem")
        assert shown == "400root\n"
        secret = given["/root/pair/key.pem"].splitlines()[1]
        host.fail(f"grep -rlF '{secret}' {HOME} /etc/headwater/config.yaml")

    with machines.subtest("whoever knows Ansible runs it on the host itself with -c local"):
        own = f"sed '/ansible_connection/d; s/localhost/debian13/' {HOME}/inventory.yml > /root/own.yml"
        place = f"export LC_ALL=C.UTF-8 ANSIBLE_COLLECTIONS_PATH={HOME}/collections"
        run = "ansible-playbook -c local -i /root/own.yml headwater.headwater.site"
        played = host.succeed(f"{own}; {place}; {run} 2>&1", timeout=200)
        assert "changed=0 " in played, played

    with machines.subtest("behind a proxy that is yet to come, it listens for that alone"):
        host.succeed(f"{RUN} --uninstall --purge 2>&1", timeout=200)
        host.succeed(f"{RUN} --domain debian13 --tls off --yes 2>&1", timeout=300)
        listening = host.succeed("ss -Hltn")
        assert "127.0.0.1:8080" in listening
        assert ":443" not in listening
        assert "{ 22, 80, 443 }" in host.succeed("nft list table inet headwater")
