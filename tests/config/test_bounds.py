"""Deep and swollen documents are refused in a sentence, in YAML, TOML and JSON alike (H8)."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import config
from appliance.config.bounds import MAX_DEPTH, MAX_VALUES, TooLarge, check_brackets
from appliance.config.yamlfile import parse

LEVELS = 200_000

LAUGHS = "\n".join(
    ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    + ["server_url: *a11"]
)
MERGES = "\n".join(
    ["b0: &b0 {x0: 1, y0: 1}"]
    + [f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}'] * 9)}]}}" for n in range(1, 12)]
)

DEEP = {
    "lists.yaml": "server_url: " + "[" * LEVELS + "]" * LEVELS,
    "open.yaml": "server_url: " + "[" * LEVELS,
    "maps.yaml": "{a: " * LEVELS + "1" + "}" * LEVELS,
    "blocks.yaml": "- " * LEVELS + "1",
    "lists.json": '{"server_url": ' + "[" * LEVELS + "]" * LEVELS + "}",
    "maps.json": '{"a":' * 150_000 + "1" + "}" * 150_000,
    "lists.toml": "server_url = " + "[" * LEVELS + "]" * LEVELS,
    "maps.toml": "a = " + "{a = " * 20_000 + "1" + "}" * 20_000,
    "keys.toml": "a." * LEVELS + "a = 1",
    "table.toml": "[" + "a." * LEVELS + "a]",
    "quoted.toml": '"a".' * LEVELS + "a = 1",
    "some.yaml": "a: " + "[" * 3000 + "]" * 3000,
    "some.json": '{"a": ' + "[" * 3000 + "]" * 3000 + "}",
    "some.toml": "a = " + "[" * 3000 + "]" * 3000,
    "just.toml": "a = " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
    "dotted.toml": "\n".join(f"{'a.' * n}b{n} = 1" for n in range(MAX_DEPTH + 2)),
}
SWOLLEN = {
    "laughs.yaml": LAUGHS,
    "merges.yaml": MERGES,
    "itself.yaml": "a: &a [*a]",
    "inside.yaml": "a: &a {b: {c: [*a]}}",
    "many.json": '{"a": [' + "0," * MAX_VALUES + "0]}",
    "many.toml": "a = [" + "0," * MAX_VALUES + "0]",
    "many.yaml": "a: [" + "0," * MAX_VALUES + "0]",
}
ODD = {
    "sexagesimal.yaml": "a: 1" + ":59" * 100_000 + ".5",
    "digits.yaml": "a: " + "9" * 100_000,
    "digits.json": '{"a": ' + "9" * 100_000 + "}",
    "digits.toml": "a = " + "9" * 100_000,
    "date.yaml": "a: 2026-99-99",
    "bool.yaml": "a: !!bool x",
    "stamp.yaml": "a: !!timestamp x",
    "empty.yaml": 'a: !!int ""',
    "own.yaml": "a: !mine x",
    "set.yaml": "a: !!set {x}",
    "key.yaml": "? [a]\n: 1",
    "twice.json": '{"a": 1, "a": 2}',
    "nan.json": '{"a": NaN}',
    "latin.yaml": "a: \udce4".encode("utf-8", "surrogateescape").decode("latin-1"),
    "two.yaml": "a: 1\n---\nb: 1",
}


def refused(path: Path, text: str) -> str:
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(config.ConfigError) as raised:
        config.load(path)
    return str(raised.value)


@pytest.mark.parametrize("name", DEEP)
def test_depth_is_bounded(tmp_path: Path, name: str) -> None:
    """H8: 200,000 levels ended the process, 3,000 gave a traceback."""
    said = refused(tmp_path / name, DEEP[name])
    assert "levels inside one another" in said
    assert len(said) < 500


@pytest.mark.parametrize("name", SWOLLEN)
def test_size_is_bounded_while_the_document_is_put_together(tmp_path: Path, name: str) -> None:
    """H8: 570 bytes of aliases took gigabytes."""
    said = refused(tmp_path / name, SWOLLEN[name])
    assert "values" in said or "inside what it stands for" in said
    assert len(said) < 500


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_config_errors(tmp_path: Path, name: str) -> None:
    assert len(refused(tmp_path / name, ODD[name])) < 1000


def test_the_deepest_that_may_be_is_read(tmp_path: Path) -> None:
    inner = MAX_DEPTH - 2
    for name, text in {
        "a.json": '{"a": ' + "[" * inner + "]" * inner + "}",
        "a.yaml": "a: " + "[" * inner + "]" * inner,
        "a.toml": "a = " + "[" * inner + "]" * inner,
    }.items():
        assert "an unknown key" in refused(tmp_path / name, text)


def test_brackets_in_texts_and_comments_are_none() -> None:
    brackets = "[" * 500
    check_brackets(f'{{"a": "{brackets}\\"{brackets}"}}', "json")
    for text in (f'"{brackets}"', f"'{brackets}'", f'"""{brackets}\n"""', f"'''{brackets}\n'''"):
        check_brackets(f"a = {text} # {brackets}", "toml")
    with pytest.raises(TooLarge):
        check_brackets(f'a = "\\"" # no\nb = {brackets}', "toml")


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    for ending, text in {
        "yaml": "server_url: https://hw.example.com\ntls: {mode: local_ca}",
        "json": '{"server_url": "https://hw.example.com", "tls": {"mode": "local_ca"}}',
        "toml": 'server_url = "https://hw.example.com"\n[tls]\nmode = "local_ca"',
    }.items():
        path = tmp_path / f"site.{ending}"
        path.write_text(text, encoding="utf-8-sig")
        assert config.load(path).host == "hw.example.com"


@given(st.text(alphabet="&*ab01:.-![]{}, \n'\"#|>?%@~<=", max_size=60))
def test_any_yaml_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        parse(text)


@pytest.mark.parametrize("command", ["check", "show", "convert"])
def test_a_process_survives_what_is_deep(tmp_path: Path, command: str) -> None:
    """H8: ``config check`` and ``config convert`` ended with SIGSEGV."""
    path = tmp_path / "site.yaml"
    path.write_text(DEEP["lists.yaml"])
    line = [sys.executable, "-m", "appliance", "config", command, str(path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "levels inside one another" in done.stderr
