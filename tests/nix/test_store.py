"""What may lie in the Nix store and what may not: secrets are refused in every spelling of Nix."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.deploy.document import document
from tests.nix.evaluation import LIBRARIES, Box, EvaluationError, needs_nix, unchecked

pytestmark = needs_nix

HEAD = """{ pkgs, ... }: {
  services.headwater = {
    enable = true;
    settings = {
      server_url = "https://hw.example.com";
      tailnet.base_domain = "tailnet.example.net";
    };
  };
"""
TLS = '  services.headwater.settings.tls.mode = "local_ca";\n'

SPELLINGS = {
    "a Nix path": "./key",
    "a Nix path, interpolated": '"${./key}"',
    "a Nix path as text": "toString ./key",
    "text": '"/nix/store/00000000000000000000000000000000-key"',
    "a way around": '"/run/../nix/store/00000000000000000000000000000000-key"',
    "a derivation": '(pkgs.writeText "key" "secret")',
    "a derivation, interpolated": '"${pkgs.writeText "key" "secret"}"',
    "an output of a flake": '{ outPath = "/nix/store/00000000000000000000000000000000-in"; }',
    "a file of NixOS in /etc": '"/etc/headwater/key"',
}


def keys_of_files(schema: object, path: str = "") -> list[str]:
    """Name every key that ends in _file, nested ones with ``*`` for the members of a list."""
    found: list[str] = []
    for key, kind in cast("dict[str, dict[str, Any]]", schema).items():
        here = f"{path}.{key}" if path else key
        inner = kind
        if kind["kind"] == "list":
            inner, here = kind["each"], f"{here}.*"
        if inner["kind"] == "section":
            found += keys_of_files(inner["keys"], here)
        elif key.endswith("_file"):
            found.append(here)
    return found


FILES = keys_of_files(document()["settings"])
PUBLIC = [key for key in FILES if re.search(r"\b(cert|ca)_file$", key)]
SECRET = [key for key in FILES if key not in PUBLIC]


def setting(key: str, value: str) -> str:
    """Write a definition of one setting; a list gets one member."""
    before, star, after = key.partition(".*.")
    if star:
        return f"  services.headwater.settings.{before} = [ {{ {after} = {value}; }} ];\n"
    return f"  services.headwater.settings.{key} = {value};\n"


def evaluated(home: Path, text: str, nixpkgs: str) -> Box:
    """Evaluate a module that stands beside a file ``key``."""
    (home / "key").write_text("secret")
    (home / "page.nix").write_text(HEAD + text + "}\n")
    return unchecked(more=home / "page.nix", nixpkgs=nixpkgs)


def refusals(home: Path, text: str, nixpkgs: str) -> str:
    """Give what the evaluation refuses, be it by assertions or by failing."""
    try:
        return "\n".join(evaluated(home, text, nixpkgs)["failed"])
    except EvaluationError as error:
        return str(error)


def in_etc(spelling: str) -> str:
    if "/etc/" in spelling:
        return '  environment.etc."headwater/key".source = ./key;\n'
    return ""


def test_the_schema_is_read_to_its_last_key() -> None:
    assert {"database_password_file", "tls.key_file", "derp.server.mesh.key_file"} <= set(SECRET)
    assert {"tls.cert_file", "derp.server.mesh.ca_file"} <= set(PUBLIC)


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("key", SECRET)
def test_a_secret_in_the_store_is_refused(
    key: str, spelling: str, nixpkgs: str, tmp_path: Path
) -> None:
    if spelling == "toString ./key" and not str(tmp_path).startswith("/nix"):
        spelling = '"${builtins.storeDir}/x-source/key"'  # what it is in a flake
    found = refusals(tmp_path, setting(key, spelling) + in_etc(spelling), nixpkgs)
    name = key.replace(".*.", "[0].")
    assert f"services.headwater.settings.{name}: found" in found
    assert "outside the Nix store" in found


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_credential_in_the_store_is_refused(spelling: str, nixpkgs: str, tmp_path: Path) -> None:
    text = setting("tls.cert_file", '"/etc/c.pem"') + setting("tls.key_file", '"k"')
    spelling = spelling.replace("toString ./key", '"${builtins.storeDir}/x-source/key"')
    text += f"  services.headwater.secrets.k = {spelling};\n" + in_etc(spelling)
    found = refusals(tmp_path, text, nixpkgs)
    assert "services.headwater.secrets.k: found" in found
    assert "sops-nix" in found


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_node_s_key_in_the_store_is_refused(spelling: str, nixpkgs: str, tmp_path: Path) -> None:
    spelling = spelling.replace("toString ./key", '"${builtins.storeDir}/x-source/key"')
    node = f'enable = true; serverUrl = "https://hw.example.com"; authKeyFile = {spelling};'
    text = TLS + f"  services.headwater-node = {{ {node} }};\n" + in_etc(spelling)
    found = refusals(tmp_path, text, nixpkgs)
    assert "services.headwater-node.authKeyFile: found" in found
    assert "outside the Nix store" in found


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
def test_a_credential_that_is_a_certificate_may_lie_in_the_store(
    nixpkgs: str, tmp_path: Path
) -> None:
    text = setting("tls.cert_file", '"c"') + setting("tls.key_file", '"k"')
    text += '  services.headwater.secrets = { c = "${./key}"; k = "/run/k"; };\n'
    assert refusals(tmp_path, text, nixpkgs) == ""


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
def test_the_message_itself_copies_nothing(nixpkgs: str, tmp_path: Path) -> None:
    """To show a Nix path as JSON would put the secret into the store, to say that it must not."""
    text = setting("tls.cert_file", '"/etc/c.pem"') + setting("tls.key_file", "./key")
    found = refusals(tmp_path, text, nixpkgs)
    assert f"found the Nix path {tmp_path}/key" in found
    assert "/nix/store" not in found


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("parameter", ["passfile", "sslkey"])
@pytest.mark.parametrize("place", ["/nix/store/x-pw", "%2Fnix%2Fstore%2Fx-pw", "${./key}"])
def test_a_secret_of_the_database_url_in_the_store_is_refused(
    parameter: str, place: str, nixpkgs: str, tmp_path: Path
) -> None:
    text = TLS + setting("database_url", f'"postgresql://hw@db/hw?{parameter}={place}"')
    found = refusals(tmp_path, text, nixpkgs)
    assert "services.headwater.settings.database_url: found" in found
    assert "outside the Nix store" in found


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
def test_the_password_s_place_in_the_database_url_may_be_elsewhere(
    nixpkgs: str, tmp_path: Path
) -> None:
    url = '"postgresql://hw@db/hw?passfile=/run/secrets/pw&application_name=a"'
    assert refusals(tmp_path, TLS + setting("database_url", url), nixpkgs) == ""


PUBLIC_SPELLINGS = {
    "a Nix path": ("./key", "/key"),
    "a Nix path, interpolated": ('"${./key}"', "-key"),
    "a derivation": ('(pkgs.writeText "policy" "{}")', "-policy"),
    "text": ('"/etc/headwater/policy.hujson"', "/etc/headwater/policy.hujson"),
}


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("spelling", PUBLIC_SPELLINGS.values(), ids=PUBLIC_SPELLINGS)
@pytest.mark.parametrize("key", ["tailnet.policy.path", "tailnets.*.policy.path"])
def test_a_policy_is_a_path_a_text_or_a_derivation(
    key: str, spelling: tuple[str, str], nixpkgs: str, tmp_path: Path
) -> None:
    value, ending = spelling
    rest = 'name = "b"; base_domain = "b.example.net"; policy.mode = "file"; policy.path'
    text = setting(key.replace("policy.path", rest) if "*" in key else key, value)
    if "*" not in key:
        text += setting("tailnet.policy.mode", '"file"')
    found = evaluated(tmp_path, TLS + text, nixpkgs)
    assert found["failed"] == []
    settings = found["settings"]
    place = settings["tailnets"][0] if "*" in key else settings["tailnet"]
    assert place["policy"]["path"].endswith(
        ending.removeprefix("/") if ending == "/key" else ending
    )
    # What is built is the same text, and the unit reloads for another one.
    assert json.loads(found["siteFile"]) == settings


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("key", PUBLIC)
def test_a_certificate_and_an_authority_may_lie_in_the_store(
    key: str, nixpkgs: str, tmp_path: Path
) -> None:
    files = {
        "tls.cert_file": setting("tls.key_file", '"/run/k.pem"'),
        "tls.ca_file": setting("tls.mode", '"acme"'),
    }.get(key, TLS)
    found = refusals(tmp_path, files + setting(key, "./key"), nixpkgs)
    assert f"{key.replace('.*.', '[0].')}: found" not in found
    assert found == "" or ".*." in key, "a member of a list lacks what it must have"


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
def test_a_program_that_sets_dns_records_may_be_a_derivation(nixpkgs: str, tmp_path: Path) -> None:
    text = setting("tls.mode", '"acme"') + setting(
        "tls.dns.hook", '(pkgs.writeShellScript "hook" "true")'
    )
    found = evaluated(tmp_path, text, nixpkgs)
    assert found["failed"] == []
    assert found["settings"]["tls"]["dns"]["hook"].endswith("-hook")


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("key", ["state_dir", "socket.path"])
def test_what_is_no_file_of_the_store_is_written_as_text(
    key: str, nixpkgs: str, tmp_path: Path
) -> None:
    found = refusals(tmp_path, TLS + setting(key, "./key"), nixpkgs)
    assert f"{key}: found" in found
    assert "write the path as text" in found


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
def test_a_policy_as_text_of_the_file_itself(nixpkgs: str, tmp_path: Path) -> None:
    text = TLS + setting("tailnet.policy", '{ mode = "settings"; text = builtins.readFile ./key; }')
    found = evaluated(tmp_path, text, nixpkgs)
    assert found["failed"] == []
    assert found["settings"]["tailnet"]["policy"]["text"] == "secret"
