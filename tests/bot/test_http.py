"""The HTTP side: nothing malformed passes, nothing raises, and an operator sees how it is."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg
import pytest
import sqlalchemy as sa

from bot.edge import BODY_BYTES_MAX, sign
from bot.http import readiness
from sandbox.slack.server import SlackStandIn
from store.connect import Store, connect
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target

FORM = "application/x-www-form-urlencoded"
SLASH = {
    "command": "/db", "text": "help", "user_id": "U0ANA", "channel_id": CHANNEL,
    "team_id": "T0DEMO", "trigger_id": "1.2.3", "response_url": "http://127.0.0.1:9/",
}  # fmt: skip


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[World]:
    async with running(slack, store, tmp_path, target.dsn, http=True, worker=False) as made:
        yield made


async def send(
    world: World,
    session: aiohttp.ClientSession,
    body: bytes,
    *,
    kind: str = FORM,
    **headers: str,
) -> aiohttp.ClientResponse:
    """A signed request, unless a header says otherwise."""
    now = int(time.time())
    signed = {
        "Content-Type": kind,
        "X-Slack-Request-Timestamp": str(now),
        "X-Slack-Signature": sign(world.slack.signing_secret, timestamp=now, body=body),
    }
    answer = await session.post(f"{world.url}/slack/events", data=body, headers=signed | headers)
    await answer.read()
    return answer


def slash(**changes: str) -> bytes:
    return urlencode(SLASH | changes).encode()


async def test_a_signed_command_is_answered_once(
    world: World, session: aiohttp.ClientSession
) -> None:
    now = str(int(time.time()))
    body = slash()
    fixed = {
        "X-Slack-Request-Timestamp": now,
        "X-Slack-Signature": sign(world.slack.signing_secret, timestamp=int(now), body=body),
    }
    first = await send(world, session, body, **fixed)
    assert first.status == 200
    assert "What /db can do" in (await first.json())["text"]
    assert (await send(world, session, body, **fixed)).status == 401


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (slash(), {"X-Slack-Signature": "v0=" + "0" * 64}, 401),
        (slash(), {"X-Slack-Signature": "v0=ü"}, 401),
        (slash(), {"X-Slack-Signature": ""}, 401),
        (slash(), {"X-Slack-Request-Timestamp": "soon"}, 401),
        (slash(), {"X-Slack-Request-Timestamp": ""}, 401),
        (slash(), {"X-Slack-Request-Timestamp": "1"}, 401),
        (slash(), {"X-Slack-Request-Timestamp": "99999999999"}, 401),
        (b"ssl_check=1", {"X-Slack-Signature": ""}, 401),
        (b"x" * (BODY_BYTES_MAX + 5), {}, 401),
        (b"\xff\xfe=1", {}, 400),
        (b"", {}, 400),
        (b"payload={", {}, 400),
        (b"payload={}", {}, 400),
        (b"payload=%7B%22type%22%3A%22block_actions%22%7D", {}, 400),
        (b"payload=%7B%22type%22%3A%22block_actions%22%2C%22actions%22%3A%5B%5D%7D", {}, 400),
        (b"payload=%7B%22type%22%3A%22view_submission%22%2C%22view%22%3A%7B%7D%7D", {}, 400),
        (b"command=/db", {}, 400),
        (b"command=/db&team_id=T0DEMO", {}, 400),
        (b"command=/other&team_id=T0DEMO", {}, 400),
        (slash(text="\x00"), {}, 200),
        (b"{}", {"Content-Type": "application/json"}, 400),
        (b'{"type":"event_callback"}', {"Content-Type": "application/json"}, 400),
        (b'{"type":"event_callback","event":[]}', {"Content-Type": "application/json"}, 400),
        (b'{"type":"event_callback","event":"x"}', {"Content-Type": "application/json"}, 400),
        (b"[1]", {"Content-Type": "application/json"}, 400),
        (b"<xml/>", {"Content-Type": "application/xml"}, 400),
    ],
)  # fmt: skip
async def test_whatever_comes_is_turned_away_in_order(
    world: World,
    session: aiohttp.ClientSession,
    body: bytes,
    headers: dict[str, Any],
    status: int,
) -> None:
    answer = await send(world, session, body, **headers)
    assert answer.status == status


async def test_nothing_of_what_was_refused_is_logged(
    world: World, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="twokey")
    await send(world, session, b"command=/db&text=my-secret", **{"X-Slack-Signature": "v0=00"})
    assert "turned away" in caplog.text
    assert "my-secret" not in caplog.text


async def test_another_workspace_is_not_served(
    world: World, session: aiohttp.ClientSession
) -> None:
    answer = await send(world, session, slash(team_id="T0OTHER", text="colours orders"))
    assert answer.status == 200
    assert "of another workspace" in await answer.text()


async def test_a_url_verification_is_answered(world: World, session: aiohttp.ClientSession) -> None:
    body = json.dumps({"type": "url_verification", "challenge": "abc"}).encode()
    answer = await send(world, session, body, kind="application/json")
    assert answer.status == 200
    assert "abc" in await answer.text()


async def test_an_event_that_we_do_not_know_is_accepted(
    world: World, session: aiohttp.ClientSession
) -> None:
    body = json.dumps(
        {"type": "event_callback", "team_id": "T0DEMO", "event": {"type": "star_added"}}
    ).encode()
    assert (await send(world, session, body, kind="application/json")).status == 200


async def test_a_button_of_another_version_gets_an_answer(
    world: World, session: aiohttp.ClientSession
) -> None:
    payload = {
        "type": "block_actions", "team": {"id": "T0DEMO"},
        "user": {"id": "U0ANA", "team_id": "T0DEMO"}, "trigger_id": "1", "api_app_id": "A",
        "channel": {"id": CHANNEL}, "actions": [{"action_id": "old", "block_id": "b",
        "type": "button", "value": "x"}],
    }  # fmt: skip
    body = urlencode({"payload": json.dumps(payload)}).encode()
    assert (await send(world, session, body)).status == 200
    await world.told("U0ANA", "not known")


@pytest.mark.parametrize("value", ["", "forged", "a.b", "12", "é"])
async def test_a_forged_button_is_refused(
    world: World, session: aiohttp.ClientSession, value: str
) -> None:
    payload = {
        "type": "block_actions", "team": {"id": "T0DEMO"},
        "user": {"id": "U0BEN", "team_id": "T0DEMO"}, "trigger_id": "1", "api_app_id": "A",
        "channel": {"id": CHANNEL}, "actions": [{"action_id": "approve", "block_id": "b",
        "type": "button", "value": value}],
    }  # fmt: skip
    body = urlencode({"payload": json.dumps(payload)}).encode()
    assert (await send(world, session, body)).status == 200
    await world.told("U0BEN", "not made by Twokey")


async def test_an_operator_sees_how_it_is(world: World, session: aiohttp.ClientSession) -> None:
    health = await session.get(f"{world.url}/healthz")
    assert (health.status, await health.json()) == (200, {"ok": True})
    ready = await session.get(f"{world.url}/readyz")
    assert ready.status == 200
    assert [check["name"] for check in (await ready.json())["checks"]] == [
        "store", "schema", "outbox",
    ]  # fmt: skip
    await world.slack.command("U0ANA", CHANNEL, "/db paint orders")
    await world.card("Waiting")
    text = await (await session.get(f"{world.url}/metrics")).text()
    assert 'twokey_requests{state="pending"} 1.0' in text
    assert 'twokey_decisions_total{action="ask",door="slack",result="ok"} 1.0' in text
    assert 'twokey_ack_seconds_count{kind="command"} 1.0' in text
    assert "twokey_outbox_waiting" in text


async def test_a_jammed_outbox_is_not_ready(world: World, session: aiohttp.ClientSession) -> None:
    async with world.store.begin() as conn:
        await conn.execute(
            sa.text("""
            INSERT INTO outbox (topic, channel, payload, created_at, due_at)
            VALUES ('note', 'C0OLD', '{"text": "x"}', now() - interval '1 hour', now())
        """)
        )
    ready = await session.get(f"{world.url}/readyz")
    assert ready.status == 503
    assert "1 waiting" in (await ready.json())["checks"][2]["says"]


async def test_connections_that_were_cut_do_not_hurt_the_next_command(world: World) -> None:
    await world.slack.command("U0ANA", CHANNEL, "/db requests")
    admin = await asyncpg.connect(world.store.dsn.get_secret_value())
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await admin.close()
    await world.slack.command("U0ANA", CHANNEL, "/db paint orders")
    await world.card("Waiting")


async def test_a_store_that_is_gone_is_not_ready() -> None:
    away = connect("postgresql://127.0.0.1:9/none", size=1)
    [check] = await readiness(away, now=datetime.now(UTC))
    await away.close()
    assert not check.ok
