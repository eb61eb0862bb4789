"""A reload with a file that cannot be used changes nothing, says why, and shows no secret."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from appliance import config
from appliance.config import Settings
from tests.config.test_bounds import LAUGHS
from tests.serve.test_server import over_socket, plan, running

SECRET = "hunter2"  # what the log must not show

WRONG = {
    "deep.yaml": "server_url: " + "[" * 200_000,
    "deep.json": '{"server_url": ' + "[" * 200_000,
    "deep.toml": "server_url = " + "[" * 200_000,
    "swollen.yaml": LAUGHS,
    "secret.yaml": f"server_url: https://u:{SECRET}@hw.example.com\ntls: {{mode: local_ca}}\n",
    "database.yaml": "server_url: https://hw.example.com\ntls: {mode: local_ca}\n"
    f"database_url: postgresql://h/d?password={SECRET}\n",
    "no relay.yaml": "server_url: https://hw.example.com\ntls: {mode: local_ca}\n"
    "derp: {server: {enabled: false}}\n",
    "reserved.toml": 'server_url = "https://hw.example.com"\ntls.mode = "local_ca"\n'
    'tailnet.prefixes.v4 = "100.115.92.0/29"\n',
    "gone.yaml": "",
}


async def test_a_wrong_file_leaves_the_running_server_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """H8, H12, F1, F5: at a reload 200,000 levels ended the server, and a password was logged."""
    settings = plan(tmp_path)
    newest = tmp_path / "site.yaml"

    def again() -> Settings:
        return config.load(newest)

    async with running(settings, again) as server:
        for name, text in WRONG.items():
            newest = tmp_path / name
            if text:
                newest.write_text(text)
            caplog.clear()
            with caplog.at_level(logging.INFO):
                await server._reload()  # what SIGHUP begins, awaited
            said = [record for record in caplog.records if "the old ones stay" in record.message]
            assert len(said) == 1, name
            assert said[0].exc_info is None
            reason = str(said[0].__dict__["reason"])
            assert "mistake(s)" in reason
            assert SECRET not in reason
            assert len(reason) < 2000
            assert server.settings == settings
        health = await over_socket(settings.socket.path, "/api/v1/health")
        assert '"databaseConnectivity":true' in health
