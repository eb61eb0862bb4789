"""The site file: its tree of settings, its strict reader, and what follows from it.

Not for the parts that obey the settings: ``serve``, ``cli`` and ``deploy`` read this room and hand
each part the few values that it needs.
"""

from appliance.config.settings import (
    RENAMED,
    ConfigError,
    Dns,
    Region,
    RelayServer,
    Settings,
    Tailnet,
    read_secret,
    secret_place,
)
from appliance.config.sitefile import FORMATS, MAX_FILE_BYTES, build, load, read_document

__all__ = [
    "ConfigError",
    "Dns",
    "FORMATS",
    "MAX_FILE_BYTES",
    "RENAMED",
    "Region",
    "RelayServer",
    "Settings",
    "Tailnet",
    "build",
    "load",
    "read_document",
    "read_secret",
    "secret_place",
]
