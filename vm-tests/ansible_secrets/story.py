"""A certificate of one's own is renewed badly, twice: the good one is back each time, and that is proved."""

from __future__ import annotations

import json
from pathlib import Path

from driver import releases
from driver.ansible import Controller, Played
from driver.face import Machines

SITE = json.loads((Path(__file__).parent / "site.json").read_text())
NAME = "server"
OTHER_NAME = "elsewhere.example.com"
CERTIFICATES = "/etc/story"
AUTHORITY = "/usr/local/share/ca-certificates/story.crt"
DIGESTS = "sha256sum /etc/headwater/secrets/*; stat -c '%n %a %U' /etc/headwater/secrets/*"


def story(machines: Machines) -> None:
    """Serve with a good pair; bring garbage, then a pair for another name."""
    server = machines[NAME]
    controller = Controller(machines)
    server.wait_for_unit("multi-user.target")
    authority = Path("/run/headwater-story.crt")
    authority.write_text(server.succeed(f"cat {AUTHORITY}"))

    def pair(name: str) -> dict[str, str]:
        return {
            "fullchain.pem": server.succeed(f"cat {CERTIFICATES}/{name}.crt"),
            "key.pem": server.succeed(f"cat {CERTIFICATES}/{name}.key"),
        }

    def play(secrets: dict[str, str], *, fails: bool = False) -> Played:
        return controller.play(
            "site",
            {"headwater": [server]},
            fails=fails,
            headwater_release_dir=str(releases.current().folder()),
            headwater_settings={
                **SITE,
                "tls": {"mode": "files", "cert_file": "fullchain.pem", "key_file": "key.pem"},
            },
            headwater_secrets=secrets,
            headwater_verify_ca_file=str(authority),
            headwater_verify_timeout=5,
        )

    def is_served() -> None:
        server.succeed(f"curl -sSf -m 10 https://{NAME}/health")

    good = pair("good")
    with machines.subtest("a good pair is served"):
        play(good)
        is_served()
        kept = server.succeed(DIGESTS)
    with machines.subtest("a renewed key that is garbage is taken back"):
        played = play({**good, "key.pem": "garbage\n"}, fails=True)
        played.says("did not become healthy; the host is back as it was", "key.pem")
        assert server.succeed(DIGESTS) == kept
        is_served()
    with machines.subtest("a pair for the wrong name is taken back, and that is proved"):
        played = play(pair("other"), fails=True)
        played.says("The change was taken back, and the server answers as before.")
        assert server.succeed(DIGESTS) == kept
        is_served()
    with machines.subtest("with the good pair there is nothing to do"):
        assert play(good).changed == 0
    with machines.subtest("of the bad ones nothing is kept"):
        assert server.succeed("ls /opt/headwater/secrets | wc -l") == "2\n"
        assert server.succeed("stat -c '%a %U' /opt/headwater/secrets") == "700 root\n"
