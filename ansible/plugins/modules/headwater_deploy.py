#!/usr/bin/python
"""Hand a generation to the host's own ``headwater-release``, and report what it did to Ansible.

Not for deciding anything: the program on the host compares, changes, waits and takes back, also when
this module is cut off from it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from typing import Any

DOCUMENTATION = r"""
module: headwater_deploy
short_description: Make a release with its files, units, firewall and secrets run, or take all of it back
description:
  - Compares the host as it is with what is wanted. Without a difference nothing is done.
  - What does not become well is taken back, with its secrets.
  - Supports check mode and diff. The contents of secrets are never shown.
options:
  tool: {description: The program on the host., type: path, required: true}
  version: {description: The release that is to run., type: str, required: true}
  manifest: {description: "Names of the config, secrets, sockets, services, firewall unit and user.", type: dict, required: true}
  files: {description: "By the path of each, its text, and its mode if that is not 0644.", type: dict, required: true}
  links: {description: By the path of each link its target., type: dict, default: {}}
  secrets: {description: By the path of each its contents., type: dict, default: {}}
  timeout: {description: Seconds in which it must become well., type: int, default: 60}
  settle: {description: Seconds for which it must stay well., type: int, default: 3}
  came: {description: SSH_CONNECTION of the user by whom Ansible came in., type: str, default: ""}
  prove: {description: Seconds in which a changed firewall must be confirmed., type: int, default: 60}
author: [The Headwater authors]
"""
EXAMPLES = r"""
- name: Make it run, or take it back
  headwater.headwater.headwater_deploy:
    tool: /opt/headwater/headwater-release
    version: 0.1.0
    manifest: {config: /etc/headwater/config.json, services: [headwater.service]}
    files:
      /etc/headwater/config.json: {text: "{}\n"}
"""
RETURN = r"""
result:
  description: "One of unchanged, planned, applied, rolled-back, failed, refused."
  type: str
  returned: always
version: {description: The release that runs now., type: str, returned: always}
reason: {description: Why it was not well., type: str, returned: always}
journal: {description: What the journal says of that., type: list, elements: str, returned: always}
left: {description: What a first deploy that failed leaves on the host., type: list, elements: str, returned: always}
pending: {description: Whether the firewall waits for its proof., type: bool, returned: always}
"""

# What each of them may take at most, beside the seconds that it is given: downloading nothing, but
# stopping a server with many connections, copying a database, waiting for another deploy to end.
SPARE_S = 600

CHANGED = ("planned", "applied", "rolled-back", "failed")

Run = Callable[[list[str], str], "tuple[str, str]"]


def command(parameters: Mapping[str, Any], *, dry: bool) -> list[str]:
    """Return the command line; nothing of it is secret."""
    return [
        parameters["tool"],
        f"--timeout={parameters['timeout']}",
        f"--settle={parameters['settle']}",
        f"--prove={parameters['prove']}",
        f"--came={parameters['came']}",
        "plan" if dry else "apply",
        parameters["version"],
    ]


def deploy(parameters: Mapping[str, Any], run: Run, *, dry: bool) -> dict[str, Any]:
    """Let the program do it, and return its answer in the form that Ansible wants."""
    given = {name: parameters[name] for name in ("manifest", "files", "links", "secrets")}
    said, complaint = run(command(parameters, dry=dry), json.dumps(given))
    try:
        answer: dict[str, Any] = json.loads(said)
    except ValueError:
        reason = complaint.strip() or "headwater-release says nothing"
        answer = {"result": "refused", "version": "", "reason": reason, "diff": []}
    defaults = {"journal": [], "left": [], "pending": False}
    return {**defaults, **answer, "changed": answer["result"] in CHANGED}


def run_tool(arguments: list[str], given: str) -> tuple[str, str]:
    """Run the program in a session of its own: a connection that breaks does not reach it."""
    done = subprocess.run(
        arguments,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=SPARE_S,
        start_new_session=True,
        cwd="/",
    )
    return done.stdout, done.stderr


def main() -> None:
    """Run as a module of Ansible."""
    from ansible.module_utils.basic import (
        AnsibleModule,
    )

    module = AnsibleModule(
        argument_spec={
            "tool": {"type": "path", "required": True},
            "version": {"type": "str", "required": True},
            "manifest": {"type": "dict", "required": True},
            "files": {"type": "dict", "required": True},
            "links": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "timeout": {"type": "int", "default": 60},
            "settle": {"type": "int", "default": 3},
            "came": {"type": "str", "default": ""},
            "prove": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        answer = deploy(module.params, run_tool, dry=module.check_mode)
    except (OSError, subprocess.TimeoutExpired) as error:
        module.fail_json(msg=f"{module.params['tool']} cannot be run: {error}", result="refused")
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
