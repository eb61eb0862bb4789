"""An authority of a story's own, which every machine of the story trusts.

For: certificates of several servers of one story under our driver; the NixOS counterpart is made
by a derivation. Not for the program's own authority (`tls.mode: local_ca`), which most stories use.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from appliance.deploy import facts
from tests.interop import certificates

TRUST = "update-ca-certificates >/dev/null 2>&1"
"""What a machine does before it boots, so that all its programs believe the authority."""

_TRUSTED = "/usr/local/share/ca-certificates/story.crt"


class Authority:
    """One authority; it lives as long as the process that runs the story."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headwater-vm-")
        self._authority = certificates.Authority(Path(self._folder.name))

    @property
    def files(self) -> dict[str, str]:
        """What a machine needs to trust it, together with `TRUST`."""
        return {_TRUSTED: self._authority.file.read_text()}

    def issue(
        self,
        *hosts: str,
        certificate: str = f"{facts.SECRETS_DIR}/fullchain.pem",
        key: str = f"{facts.SECRETS_DIR}/key.pem",
    ) -> dict[str, str]:
        """Issue a certificate; give its files, and those of `files`."""
        folder = Path(self._folder.name)
        paths = folder / "issued.crt", folder / "issued.key"
        self._authority.issue(*paths, hosts)
        return {certificate: paths[0].read_text(), key: paths[1].read_text(), **self.files}
