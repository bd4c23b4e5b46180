"""A hundred approvers press Approve at once: how soon each is answered, and that it is right.

The bot is a process of its own; Slack, its directory and the clicks share the bench's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg

from bench.ack import TWOKEY
from bench.places import Place, free_port, place, process
from bench.table import Result, percentile
from bot.edge import sign

PEOPLE = 100
QUORUM = 60
ACK_SECONDS = 3.0  # Slack's own limit
_CARD_SECONDS_MAX = 30.0


async def measure() -> list[Result]:
    """p50 and p99 of all answers, and how many came after Slack's limit."""
    async with place() as where:
        users = await _crowd(where)
        policy = (where.folder / "policy.yml").read_text(encoding="utf-8")
        rule = "- name: production backups and restore tests"
        head, _, rest = policy.partition(rule)
        asked = rest.replace("approve: 2", f"approve: {QUORUM}", 1)
        (where.folder / "policy.yml").write_text(head + rule + asked)
        port = free_port()
        url = f"http://127.0.0.1:{port}/slack/events"
        where.slack.set_request_url(url)
        async with process(TWOKEY, "bot", environ=where.environ(TWOKEY_HTTP_PORT=str(port))):
            card = await _card(where)
            took = await _all_at_once(where, url, card, users)
            await asyncio.sleep(0)
            votes, granted = await _stored(where)
    late = sum(ms > ACK_SECONDS * 1000 for ms in took)
    assert votes <= QUORUM, f"{votes} votes where {QUORUM} suffice"
    assert granted == (votes == QUORUM), f"{votes} votes, {granted} runs"
    return [
        Result(
            what=f"{PEOPLE} approvers at once, {QUORUM} must agree: p50 / p99 of the answers",
            ours=f"{percentile(took, 0.5):.0f} / {percentile(took, 0.99):.0f} ms",
            aim=f"none past 3 s ({late}), {QUORUM} votes ({votes}), one run ({granted})",
        )
    ]


async def _crowd(where: Place) -> Sequence[str]:
    model = where.slack.workspace.people["U0BEN"]
    users = [f"U0N{number:03}" for number in range(PEOPLE)]
    for user in users:
        email = f"{user.lower()}@acme.example"
        await where.slack.admin.join(replace(model, id=user, name=user.lower(), email=email))
    await where.slack.admin.set_group("S0DBA", tuple(users))
    return users


async def _card(where: Place) -> Mapping[str, Any]:
    await where.slack.command("U0ANA", "C0DBOPS", "/db backup orders")

    def found() -> Mapping[str, Any] | None:
        cards = [m for m in where.slack.messages("C0ORDERS") if "approve" in json.dumps(m)]
        return cards[-1] if cards else None

    return await where.slack.wait_for(found, _CARD_SECONDS_MAX)


async def _all_at_once(
    where: Place, url: str, card: Mapping[str, Any], users: Sequence[str]
) -> list[float]:
    button = next(
        element
        for block in card["blocks"]
        for element in block.get("elements", ())
        if element.get("action_id") == "approve"
    )
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        bodies = [_signed(where, user, card, button["value"]) for user in users]

        async def click(body: bytes, headers: Mapping[str, str]) -> float:
            start = time.perf_counter()
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            return (time.perf_counter() - start) * 1000

        return sorted(await asyncio.gather(*(click(*body) for body in bodies)))


def _signed(
    where: Place, user: str, card: Mapping[str, Any], value: str
) -> tuple[bytes, Mapping[str, str]]:
    payload = {
        "type": "block_actions",
        "team": {"id": "T0DEMO"},
        "user": {"id": user, "team_id": "T0DEMO"},
        "channel": {"id": "C0ORDERS"},
        "container": {"type": "message", "channel_id": "C0ORDERS", "message_ts": card["ts"]},
        "trigger_id": f"bench.{user}",
        "actions": [
            {"type": "button", "block_id": "decide", "action_id": "approve", "value": value}
        ],
    }
    body = urlencode({"payload": json.dumps(payload)}).encode()
    at = int(time.time())
    return body, {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": str(at),
        "X-Slack-Signature": sign(where.slack.signing_secret, timestamp=at, body=body),
    }


async def _stored(where: Place) -> tuple[int, int]:
    conn = await asyncpg.connect(where.store_dsn)
    try:
        votes = await conn.fetchval("SELECT count(DISTINCT person) FROM votes")
        return votes, await conn.fetchval("SELECT count(*) FROM runs")
    finally:
        await conn.close()
