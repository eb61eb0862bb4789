#!/usr/bin/python
"""Write some text files at once, owned by root, with check mode and diff.

Not for secrets (their contents would be shown) nor for anything but text. One module instead of one
task a file: a deploy of ten files takes one connection.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCUMENTATION = r"""
module: headwater_files
short_description: Write some text files at once, owned by root
description:
  - Missing folders are made, mode 0755. A file appears whole or not at all.
  - Supports check mode and diff.
options:
  files:
    description: By the path of each, its text, or C(text) and C(mode), if that is not 0644.
    type: dict
    required: true
author: [The Headwater authors]
"""
EXAMPLES = r"""
- name: Write two files
  headwater.headwater.headwater_files:
    files:
      /etc/example/one: "1\n"
      /etc/example/two: {text: "2\n", mode: "0600"}
"""
RETURN = r"""
written:
  description: The files that were not as they should be.
  type: list
  elements: str
  returned: always
"""

FOLDER_MODE = 0o755


class Wanted:
    """One file as it should be."""

    def __init__(
        self, path: str, given: str | Mapping[str, str], owner: tuple[int, int] = (0, 0)
    ) -> None:
        given = {"text": given} if isinstance(given, str) else given
        self.path = Path(path)
        self.text = given["text"]
        self.mode = int(given.get("mode") or "0644", 8)
        self.owner = owner

    def read(self) -> str | None:
        """Give what is there; None for nothing, or nothing that is a file."""
        if self.path.is_symlink() or not self.path.is_file():
            return None
        return self.path.read_text(errors="replace")

    def is_right(self) -> bool:
        """Tell whether there is nothing to do."""
        if self.read() != self.text:
            return False
        found = self.path.stat()
        return (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (self.mode, *self.owner)

    def difference(self) -> dict[str, str]:
        """Say what changes, in the form that Ansible prints."""
        before, after = self.read(), self.text
        marks = {"before": "", "after": f" (mode {self.mode:04o})"}
        if before is not None:
            marks["before"] = f" (mode {self.path.stat().st_mode & 0o7777:04o})"
        if before == after:  # Ansible prints nothing of what differs in its header alone
            before, after = (f"{marks[each].strip()}\n" for each in ("before", "after"))
        return {
            "before": before or "",
            "after": after,
            "before_header": f"{self.path}{marks['before']}",
            "after_header": f"{self.path}{marks['after']}",
        }

    def write(self) -> None:
        """Put it there, all at once."""
        for folder in reversed(self.path.parents):
            if not folder.exists():
                folder.mkdir()
                folder.chmod(FOLDER_MODE)
        descriptor, trial = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(self.text)
                file.flush()
                os.fsync(file.fileno())
            os.chown(trial, *self.owner)
            Path(trial).chmod(self.mode)
            Path(trial).replace(self.path)
        except BaseException:
            Path(trial).unlink(missing_ok=True)
            raise


def put(files: Sequence[Wanted], *, dry: bool) -> tuple[list[str], list[dict[str, str]]]:
    """Write those that are not right; give their names and what changes."""
    wrong = [each for each in files if not each.is_right()]
    differences = [each.difference() for each in wrong]
    if not dry:
        for each in wrong:
            each.write()
    return [str(each.path) for each in wrong], differences


def main() -> None:
    """Run as a module of Ansible."""
    from ansible.module_utils.basic import (
        AnsibleModule,
    )

    module = AnsibleModule(
        argument_spec={"files": {"type": "dict", "required": True}},
        supports_check_mode=True,
    )
    try:
        wanted = [Wanted(path, given) for path, given in module.params["files"].items()]
        written, differences = put(wanted, dry=module.check_mode)
    except (OSError, ValueError, KeyError) as error:
        module.fail_json(msg=f"cannot be written: {error}", written=[])
    module.exit_json(changed=bool(written), written=written, diff=differences)


if __name__ == "__main__":
    main()
