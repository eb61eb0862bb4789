"""A site file, read: TOML, YAML or JSON by its ending, into checked ``Settings``.

``load`` gives the settings or raises ``ConfigError`` with all mistakes at once. Pure but for reading
the file: it is what Nix and Ansible run before a deploy. Not for the keys (``settings``) nor for
what is wrong with values (``reader``, ``checks``).
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from appliance.config.bounds import TOO_DEEP, check_brackets, check_values
from appliance.config.reader import Mistake, Reader
from appliance.config.settings import RENAMED, ConfigError, Settings
from appliance.redaction import redact

MAX_ERROR = 300
"""Characters of a parser's sentence that are shown."""
MAX_FILE_BYTES = 1 << 20
"""A site file is some kilobytes; a larger one is another file by mistake."""


def load(path: Path) -> Settings:
    """Read and check a site file. Raises ConfigError."""
    return build(read_document(path), source=str(path))


def read_document(path: Path) -> object:
    """Read the plain content of a file. Raises ConfigError if it is no TOML, YAML or JSON."""
    source = str(path)
    parse = FORMATS.get(path.suffix.lower())
    if parse is None:
        endings = ", ".join(FORMATS)
        raise ConfigError(source, (Mistake("", f"the ending {path.suffix!r}", endings),))
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        fix = "name the file with -c FILE"
        found = error.strerror or str(error)
        raise ConfigError(source, (Mistake("", found, "a readable file", fix),)) from error
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(source, (Mistake("", "a file over 1 MiB", "a site file"),))
    try:
        return parse(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        found = f"a byte that is no UTF-8, at {error.start}"
        raise ConfigError(source, (Mistake("", found, f"valid {path.suffix[1:]}"),)) from error
    except ValueError as error:
        found = redact(str(error))[:MAX_ERROR]
        raise ConfigError(source, (Mistake("", found, f"valid {path.suffix[1:]}"),)) from error


def build(document: object, *, source: str = "settings") -> Settings:
    """Make settings from plain values. Raises ConfigError with all mistakes."""
    from appliance.config.checks import CHECKS  # commands that only look for the socket need none

    reader = Reader(RENAMED)
    settings = reader.struct(Settings, document)
    if settings is not None:
        for check in CHECKS:
            check(settings, reader)
    if settings is None or reader.mistakes:
        raise ConfigError(source, tuple(reader.mistakes))
    return settings


def _parse_toml(text: str) -> object:
    check_brackets(text, "toml")
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    check_values(document)
    return document


def _parse_json(text: str) -> object:
    check_brackets(text, "json")
    document: object = json.loads(
        text, object_pairs_hook=_distinct, parse_constant=_refuse_constant
    )
    check_values(document)
    return document


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make a mapping; a key that is written twice is a mistake, as in YAML and TOML."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = Counter(key for key, _ in pairs)
        twice = names.most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return made


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number of JSON's")


def _parse_yaml(text: str) -> object:
    from appliance.config.yamlfile import parse  # YAML is slow to import, and TOML files need none

    return parse(text)


FORMATS: dict[str, Callable[[str], object]] = {
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".toml": _parse_toml,
    ".json": _parse_json,
}
