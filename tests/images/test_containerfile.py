"""The Containerfile says what `deploy/facts.py` says: the image of the flake is made of the latter."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from appliance import config
from appliance.deploy import facts
from tests.images.containerfile import Stage, stages

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "deploy" / "Containerfile"
LAST = stages(FILE.read_text())[-1]


def only(stage: Stage, instruction: str) -> str:
    (words,) = stage[instruction]
    return words


def test_the_image_says_of_itself_what_the_facts_say() -> None:
    environment = [word for line in LAST["ENV"] for word in shlex.split(line)]
    assert environment == facts.IMAGE["Env"]
    assert only(LAST, "USER") == facts.IMAGE["User"]
    assert json.loads(only(LAST, "ENTRYPOINT")) == facts.IMAGE["Entrypoint"]
    assert json.loads(only(LAST, "CMD")) == facts.IMAGE["Cmd"]
    assert only(LAST, "WORKDIR") == facts.IMAGE["WorkingDir"]
    assert {only(LAST, "VOLUME"): {}} == facts.IMAGE["Volumes"]
    assert {port: {} for port in only(LAST, "EXPOSE").split()} == facts.IMAGE["ExposedPorts"]
    assert only(LAST, "STOPSIGNAL") == facts.IMAGE["StopSignal"]


def test_the_health_check_is_that_of_the_facts() -> None:
    options, _, command = only(LAST, "HEALTHCHECK").partition(" CMD ")
    said = dict(re.findall(r"--([a-z-]+)=(\S+)", options))
    wanted = facts.IMAGE["Healthcheck"]
    assert isinstance(wanted, dict)
    assert ["CMD", *json.loads(command)] == wanted["Test"]
    assert int(said.pop("retries")) == wanted["Retries"]
    seconds = {name: int(value.removesuffix("s")) * 10**9 for name, value in said.items()}
    assert seconds == {
        "interval": wanted["Interval"],
        "timeout": wanted["Timeout"],
        "start-period": wanted["StartPeriod"],
    }


def test_the_exposed_ports_and_places_are_the_defaults_of_the_settings() -> None:
    settings = config.build({"server_url": "https://hw.example.com", "tls": {"mode": "local_ca"}})
    ports = {"80/tcp"} | {f"{place.port}/tcp" for place in settings.listen}
    ports |= {f"{place.port}/udp" for place in settings.derp.server.stun_listen}
    assert {port: {} for port in ports} == facts.IMAGE["ExposedPorts"]
    assert {str(settings.state_dir): {}} == facts.IMAGE["Volumes"]
    made = " ".join(line for stage in stages(FILE.read_text()) for line in stage.get("RUN", []))
    for place, mode in (
        (settings.state_dir, "0700"),
        (settings.socket.path.parent, "0755"),
    ):
        assert f"-o {facts.IMAGE_UID} -g {facts.IMAGE_UID} -m {mode} {place}" in made


def test_it_reads_nothing_but_a_release() -> None:
    """What is copied comes from the context, the folder of a release, or from an earlier stage."""
    copied = [line for stage in stages(FILE.read_text()) for line in stage.get("COPY", [])]
    assert copied == [". /release/", "--from=program /opt/headwater /opt/headwater"]
    assert not any("ADD" in stage for stage in stages(FILE.read_text()))
