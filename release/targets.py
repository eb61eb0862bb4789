"""The kinds of machines that a release is made for. Not for what it is made of (``wheelhouse``)."""

from __future__ import annotations

from dataclasses import dataclass

GLIBC_MINORS = (5, 12, *range(17, 37))
"""Wheels for glibc up to 2.36, which Debian 12 has; newer systems run them too."""
OLD_TAGS = {
    "x86_64": ("manylinux1", "manylinux2010", "manylinux2014"),
    "aarch64": ("manylinux2014",),
}
PYTHONS = ("3.11", "3.12", "3.13")
"""Debian 12, Ubuntu 24.04, Debian 13."""
MACHINES = tuple(OLD_TAGS)


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of machine: its Python and its processor."""

    python: str
    machine: str

    @property
    def tag(self) -> str:
        """The part of an archive's name that says for which machines it is."""
        return f"cp{self.python.replace('.', '')}-{self.machine}"

    @property
    def platforms(self) -> list[str]:
        """Every platform tag whose wheels run there."""
        numbered = (f"manylinux_2_{minor}" for minor in GLIBC_MINORS)
        return [f"{tag}_{self.machine}" for tag in (*numbered, *OLD_TAGS[self.machine])]

    def fits(self, marker: str) -> bool:
        """Tell whether a requirement with this marker is needed there."""
        environment = {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        if not marker:
            return True
        from packaging.markers import Marker  # only a build has it

        return Marker(marker).evaluate(environment)
