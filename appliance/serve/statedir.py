"""The state directory: keys that are made once and kept, and who may read them.

Not for the database (``store``) nor certificates (``tls``). Files appear whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from appliance.wire.errors import ProtocolError
from appliance.wire.keys import PrivateKey

MAX_KEY_FILE_BYTES = 4096
"""A key file is one line."""


class StateError(Exception):
    """The state directory cannot be used; the text says why and what to do."""


def prepare(path: Path) -> None:
    """Make the directory if it is missing; mode 0700. Raises StateError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise StateError(
            f"the state directory {path} cannot be made or restricted: {error.strerror};"
            " run as the user who owns it, or name another one with 'state_dir'"
        ) from error


def private_key(path: Path, random_bytes: Callable[[int], bytes]) -> PrivateKey:
    """Read a key, or make and keep a new one. Raises StateError if it is damaged."""
    try:
        with path.open() as file:
            text = file.read(MAX_KEY_FILE_BYTES)
    except FileNotFoundError:
        key = PrivateKey.generate(random_bytes)
        write_secret(path, key.reveal_text() + "\n")
        return key
    except OSError as error:
        raise StateError(f"the key {path} cannot be read: {error.strerror}") from error
    try:
        return PrivateKey.parse(text)
    except ProtocolError as error:
        raise StateError(
            f"{path} holds no key (privkey: and 64 hex digits); restore it from a backup."
            " A new key would lock out every node that knows the old one"
        ) from error


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 0600, durably and all at once."""
    trial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        trial.replace(path)
        sync_directory(path.parent)
    finally:
        trial.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make a new name in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
