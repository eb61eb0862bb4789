"""The state directory: keys that are made once and kept, and who may read them.

Not for the database (``store``) nor certificates (``tls``). Files appear whole or not at all.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

from appliance.files import write_whole
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import PrivateKey

MAX_KEY_FILE_BYTES = 4096
"""A key file is one line."""
OURS = frozenset({"noise.key", "derp.key", "headwater.db", "tls"})
"""What only headwater puts into a directory."""
NOBODYS = frozenset({"lost+found"})
"""What a file system of one's own begins with."""


class StateError(Exception):
    """The state directory cannot be used; the text says why and what to do."""


class ForeignDirectory(StateError):
    """The state directory belongs to another user."""


def prepare(path: Path) -> None:
    """Make the directory if it is missing; mode 0700. Raises StateError.

    One that is there is restricted only if it is ours: it belongs to this user, and is empty or has
    files of headwater's. Else a wrong word in the site file would lock others out of theirs.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid != os.geteuid():
            raise ForeignDirectory(
                f"the state directory {path} belongs to {_user(status.st_uid)}, and this process "
                f"runs as {_user(os.geteuid())}; run as the owner, or name another directory with "
                "'state_dir'"
            )
        if status.st_mode & 0o077:
            _check_ours(path)
            path.chmod(0o700)
    except OSError as error:
        raise StateError(
            f"the state directory {path} cannot be made or restricted: {error.strerror};"
            " run as the user who owns it, or name another one with 'state_dir'"
        ) from error


def _check_ours(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()} - NOBODYS
    if names and names.isdisjoint(OURS):
        raise StateError(
            f"the state directory {path} has files of others ({min(names)}, …) and may be read by "
            "others, so it is not restricted; name an empty or a missing one with 'state_dir', "
            f"or, if it is meant, 'chmod 700 {path}'"
        )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def private_key(path: Path, random_bytes: Callable[[int], bytes]) -> PrivateKey:
    """Read a key, or make and keep a new one. Raises StateError if it is damaged.

    Two processes that make one at once end up with the same.
    """
    if (known := known_key(path)) is not None:
        return known
    key = PrivateKey.generate(random_bytes)
    try:
        write_whole(path, f"{key.reveal_text()}\n".encode(), is_new=True)
    except FileExistsError:
        return private_key(path, random_bytes)
    except OSError as error:
        raise StateError(f"the key {path} cannot be written: {error.strerror}") from error
    return key


def known_key(path: Path) -> PrivateKey | None:
    """Read a key; None if there is none yet. Raises StateError if it is damaged."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"the key {path} cannot be read: {error.strerror}") from error
    try:
        text = data.decode().strip()
        if not set(text.rpartition(":")[2]) - {"0"}:
            raise ProtocolError("a key of zeros: what a crash may leave")  # noqa: TRY301 one answer
        return PrivateKey.parse(text)
    except (ProtocolError, UnicodeDecodeError) as error:
        raise StateError(
            f"{path} holds no key (privkey: and 64 hex digits); restore it from a backup."
            " A new key would lock out every node that knows the old one"
        ) from error


def write_secret(path: Path, text: str) -> None:
    """Write a file of mode 0600, durably and all at once."""
    write_whole(path, text.encode())
