"""Identity providers of others on loopback: fetched once into the cache, started, signed in to.

For: oidc-provider (npm, certified), Keycloak (Maven, certified) and canaille (PyPI). Not for ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tarfile
import venv
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.interop.build import TOOLS, Unavailable, _locked
from tests.support.browser import Browser, Page
from tests.support.ports import free_port

HERE = Path(__file__).resolve().parent
OIDC_PROVIDER = "9.13.3"
KEYCLOAK = "26.7.3"
PYTEST_IAM = "0.3.0"
FETCH_TIMEOUT_S = 300
START_TIMEOUT_S = 400
"""Keycloak needs 20 s on a quiet machine."""
CLIENT_ID, CLIENT_SECRET = "headwater", "s3cret"


@dataclass(frozen=True)
class Running:
    """A provider that runs; ``sign_in`` leads a browser through its pages, back to us."""

    name: str
    issuer: str
    scopes: tuple[str, ...]
    sign_in: Callable[[Browser, Page, str], Awaitable[Page]]


@asynccontextmanager
async def oidc_provider(
    redirect: str, logout: str = "", *, userinfo_only: bool = False
) -> AsyncIterator[Running]:
    """Run npm's oidc-provider. Raises Unavailable."""
    node = shutil.which("node")
    folder = TOOLS / f"oidc-provider-{OIDC_PROVIDER}"
    if node is None:
        raise Unavailable("no node here for oidc-provider")
    _once(folder, lambda: _npm(folder))
    port = free_port()
    env = {"MODULES": str(folder), "USERINFO_ONLY": "1" if userinfo_only else "0"}
    command = [node, str(HERE / "provider.mjs"), str(port), redirect, logout]
    issuer = f"http://127.0.0.1:{port}"
    async with _running(command, env, issuer):
        scopes = ("openid", "profile", "email", "groups", "offline_access")
        yield Running("oidc-provider", issuer, scopes, _through_dev_pages)


@asynccontextmanager
async def keycloak(redirect: str, logout: str = "") -> AsyncIterator[Running]:
    """Run Keycloak. Raises Unavailable."""
    if shutil.which("java") is None or shutil.which("mvn") is None:
        raise Unavailable("no java or no mvn here for Keycloak")
    folder = TOOLS / f"keycloak-{KEYCLOAK}"
    _once(folder, lambda: _maven(folder))
    port = free_port()
    home = folder / "runs" / str(port)
    shutil.copytree(folder / f"keycloak-{KEYCLOAK}", home, symlinks=True)
    try:
        realm = (HERE / "realm.json").read_text()
        realm = realm.replace("REDIRECT", redirect).replace("LOGOUT", logout)
        (home / "data" / "import").mkdir(parents=True, exist_ok=True)
        (home / "data" / "import" / "main.json").write_text(realm)
        env = {"JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx512m"}
        command = [str(home / "bin" / "kc.sh"), "start", "--optimized", "--http-enabled=true"]
        command += ["--hostname-strict=false", "--http-host=127.0.0.1"]
        command += [f"--http-port={port}", "--import-realm"]
        issuer = f"http://127.0.0.1:{port}/realms/main"
        async with _running(command, env, issuer):
            yield Running("keycloak", issuer, ("openid", "profile", "email"), _through_keycloak)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def canaille(redirect: str) -> AsyncIterator[Running]:
    """Run pytest-iam's canaille, where alice is signed in. Raises Unavailable."""
    folder = TOOLS / f"pytest-iam-{PYTEST_IAM}"
    _once(folder, lambda: _pip(folder))
    # Outside our tests, whose conftest.py would be read.
    host = str(shutil.copy(HERE / "canaille_host.py", folder))
    port = free_port()
    command = [str(folder / "bin" / "python"), "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, "--rootdir", str(folder), host]
    issuer = f"http://localhost:{port}"
    async with _running(command, {"PORT": str(port), "REDIRECT": redirect}, issuer):
        yield Running("canaille", issuer, ("openid", "profile", "email", "groups"), _at_once)


# ── through their pages ──────────────────────────────────────────────────────────────────────────


async def _through_dev_pages(browser: Browser, page: Page, user: str) -> Page:
    for _ in range(4):
        if not page.forms or page.url.startswith("https:"):
            return page
        form = page.forms[0]
        fields = {"login": user, "password": "x"} if "login" in form.fields else {}
        page = await browser.send(page, form, **fields)
    return page


async def _through_keycloak(browser: Browser, page: Page, user: str) -> Page:
    form = next(form for form in page.forms if "password" in form.fields)
    return await browser.send(page, form, username=user, password=user)


async def _at_once(browser: Browser, page: Page, user: str) -> Page:
    assert user == "alice"
    del browser
    return page


# ── fetched and started ──────────────────────────────────────────────────────────────────────────


def _once(folder: Path, fetch: Callable[[], None]) -> None:
    """Fetch into a folder, if no run before has done it."""
    done = folder / "complete"
    with _locked():
        if done.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            fetch()
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"{folder.name} cannot be fetched here: {error}") from error
        done.touch()


def _run(command: Sequence[str], folder: Path) -> None:
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
    )


def _npm(folder: Path) -> None:
    (folder / "package.json").write_text(json.dumps({"private": True}))
    package = f"oidc-provider@{OIDC_PROVIDER}"
    _run(["npm", "install", "--silent", "--no-audit", "--no-fund", package], folder)


def _maven(folder: Path) -> None:
    artifact = f"org.keycloak:keycloak-quarkus-dist:{KEYCLOAK}:tar.gz"
    copy = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}"]
    _run([*copy, f"-DoutputDirectory={folder}"], folder)
    archive = next(folder.glob("keycloak-quarkus-dist-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
    # What it would otherwise do at every start, for 20 s of both cores.
    _run([str(folder / f"keycloak-{KEYCLOAK}" / "bin" / "kc.sh"), "build", "--db=dev-file"], folder)


def _pip(folder: Path) -> None:
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, f"pytest-iam=={PYTEST_IAM}"], folder)


async def _answers(session: aiohttp.ClientSession, issuer: str) -> bool:
    try:
        async with session.get(f"{issuer}/.well-known/openid-configuration") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def _running(command: Sequence[str], env: dict[str, str], issuer: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **env},
        start_new_session=True,
    )
    try:
        async with aiohttp.ClientSession() as session:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await _answers(session, issuer):
                    assert process.returncode is None, f"{command[0]} ended by itself"
                    await asyncio.sleep(0.1)
        yield
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
        await process.wait()
