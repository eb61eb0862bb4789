"""The smallest initial file system that finds a disk: busybox, one module, one script.

For: emulated machines, which would spend most of their boot in Debian's own one. Not for booting.
Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst, format "newc".
"""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

_SCRIPT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /dev /new
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
for try in 0 1 2 3 4 5 6 7 8 9; do
  /bin/busybox test -b /dev/vda && break
  /bin/busybox sleep 1
done
/bin/busybox mount -t ext4 /dev/vda /new && exec /bin/busybox switch_root /new /sbin/init
echo "no disk"
"""

_FOLDER, _PROGRAM, _FILE = 0o040755, 0o100755, 0o100644
_TRAILER = "TRAILER!!!"


def make(root: Path) -> bytes:
    """Pack it from a system that has busybox-static and one Linux."""
    (module,) = root.glob("lib/modules/*/kernel/drivers/block/virtio_blk.ko*")
    driver = module.read_bytes()
    if module.suffix == ".xz":
        driver = lzma.decompress(driver)
    members = [
        ("bin", _FOLDER, b""),
        ("bin/busybox", _PROGRAM, (root / "bin/busybox").read_bytes()),
        ("virtio_blk.ko", _FILE, driver),
        ("init", _PROGRAM, _SCRIPT.encode()),
        (_TRAILER, 0, b""),
    ]
    packed = b"".join(
        _member(number, name, mode, data) for number, (name, mode, data) in enumerate(members, 1)
    )
    return gzip.compress(packed, 1)


def _member(number: int, name: str, mode: int, data: bytes) -> bytes:
    text = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(text), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(head + text) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
