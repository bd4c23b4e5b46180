"""A real Alertmanager, configured as in deploy/, tells of alerts and of their end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
import yaml

from postgres.ports import free_port
from store.connect import Store
from tests.bot.test_alertmanager import TOKEN, Door, serving

ROOT = Path(__file__).parents[2]
PROGRAM = "prometheus-alertmanager"


def configured(folder: Path, url: str) -> Path:
    """The example of deploy/ with this test's door, and no patience."""
    config = yaml.safe_load((ROOT / "deploy/alertmanager/alertmanager.yml").read_text())
    config["route"] |= {"group_wait": "100ms", "group_interval": "1s"}
    [webhook] = config["receivers"][0]["webhook_configs"]
    webhook["url"] = url
    token = folder / "token"
    token.write_text(TOKEN)
    webhook["http_config"]["authorization"]["credentials_file"] = str(token)
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@asynccontextmanager
async def alertmanager(config: Path) -> AsyncIterator[str]:
    """One of its own; its API's address once it is ready."""
    listen = f"127.0.0.1:{free_port()}"
    program = await asyncio.create_subprocess_exec(
        str(shutil.which(PROGRAM)), f"--config.file={config}",
        f"--storage.path={config.parent / 'data'}", f"--web.listen-address={listen}",
        "--cluster.listen-address=", "--log.level=error",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await ready(f"http://{listen}/-/ready")
        yield f"http://{listen}/api/v2/alerts"
    finally:
        program.terminate()
        async with asyncio.timeout(30):
            await program.wait()


async def ready(url: str) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.ok:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


async def state(door: Door, wanted: list[tuple[str, str]]) -> None:
    """Until the alerts stand like this."""
    async with asyncio.timeout(30):
        while sorted((name, state) for _, name, state in await door.alerts()) != wanted:
            await asyncio.sleep(0.05)


@pytest.mark.needs(PROGRAM)
async def test_what_a_real_alertmanager_sends_becomes_an_incident_and_ends(
    store: Store, tmp_path: Path
) -> None:
    async with (
        serving(store, tmp_path) as door,
        alertmanager(configured(tmp_path, door.url)) as url,
    ):
        door.now = datetime.now(UTC)
        told = [
            {
                "labels": {"alertname": name, "database": "orders", "severity": "critical"},
                "annotations": {"summary": f"{name} <!channel>"},
            }
            for name in ("First", "Second")
        ]
        async with door.session.post(url, json=told) as answer:
            assert answer.status == 200
        await state(door, [("First", "firing"), ("Second", "firing")])
        [incident, _] = await door.rows("SELECT key FROM incidents ORDER BY id")
        assert incident.key.startswith("orders:{}:{")
        over = [told[0] | {"endsAt": (datetime.now(UTC) - timedelta(seconds=1)).isoformat()}]
        async with door.session.post(url, json=over) as answer:
            assert answer.status == 200
        await state(door, [("First", "resolved"), ("Second", "firing")])
        states = await door.rows("SELECT state FROM incidents ORDER BY state")
        assert [row.state for row in states] == ["closed", "open"]
