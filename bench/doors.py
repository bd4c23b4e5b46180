"""A vote through Slack's door beside the same vote through the API: one decision, two envelopes."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from urllib.parse import urlencode

import aiohttp
from pydantic import SecretStr

from approvals.records import RequestRecord
from bench.places import KEY, Place, place
from bench.table import Result, as_markdown, percentile
from bench.town import ask_for
from bot.app import assembled
from bot.buttons import Purpose
from bot.edge import sign
from bot.inventory import load_inventory
from bot.process import Twokey
from bot.settings import Settings
from store.connect import connect

VOTES = 200
WARM_UP = 20
TEAM, VOTER = "T0DEMO", "U0BEN"
Vote = Callable[[RequestRecord], Awaitable[None]]
_numbers = itertools.count(1)


async def measure() -> list[Result]:
    """p50 and p99 of a first vote, one at a time, and what the API costs beside Slack."""
    async with (
        place() as where,
        _served(where) as (twokey, url),
        aiohttp.ClientSession() as session,
    ):
        slack = await _timed(twokey, _by_slack(twokey, where, url, session))
        api = await _timed(twokey, await _by_api(twokey, url, session))
    ratio = percentile(api, 0.5) / percentile(slack, 0.5)
    return [
        Result(
            what="a vote through the API beside one through Slack: p50 / p99",
            ours=f"{percentile(api, 0.5):.1f} / {percentile(api, 0.99):.1f} ms",
            floor=f"{percentile(slack, 0.5):.1f} / {percentile(slack, 0.99):.1f} ms",
            ratio=f"{ratio:.2f}",
            aim="at most 1.5",
        )
    ]


@asynccontextmanager
async def _served(where: Place) -> AsyncIterator[tuple[Twokey, str]]:
    settings = Settings(
        config=where.folder / "twokey.yml",
        home=where.folder / "home",
        store=SecretStr(where.store_dsn),
        vote_key=SecretStr(KEY),
        slack_bot_token=SecretStr(where.slack.bot_token),
        slack_signing_secret=SecretStr(where.slack.signing_secret),
        slack_api_url=where.slack.api_url,
        http_port=0,
    )
    store = connect(where.store_dsn)
    stop, urls = asyncio.Event(), asyncio.Queue[str]()
    async with assembled(settings, load_inventory(settings.config), store=store) as twokey:
        task = asyncio.create_task(twokey.run(stop, worker=False, listening=urls.put_nowait))
        try:
            async with asyncio.timeout(30):
                url = await urls.get()
            yield twokey, url
        finally:
            stop.set()
            await task
    await store.close()


async def _timed(twokey: Twokey, vote: Vote) -> Sequence[float]:
    """Milliseconds of each vote, every one on a request of its own."""
    found: list[float] = []
    for number in range(VOTES + WARM_UP):
        asked = await twokey.approvals.ask(ask_for("backup"))
        assert asked.request is not None, asked.problem
        start = time.perf_counter()
        await vote(asked.request)
        if number >= WARM_UP:
            found.append((time.perf_counter() - start) * 1000)
        after = await twokey.approvals.load(asked.request.id)
        assert after is not None
        assert len(after.votes) == 1, "the vote was not taken"
    return found


def _by_slack(twokey: Twokey, where: Place, url: str, session: aiohttp.ClientSession) -> Vote:
    async def vote(request: RequestRecord) -> None:
        payload = {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": VOTER, "team_id": TEAM},
            "channel": {"id": request.channel},
            "trigger_id": f"bench.{next(_numbers)}",
            "actions": [
                {
                    "type": "button",
                    "block_id": "decide",
                    "action_id": "approve",
                    "value": twokey.desk.cards.token(request, Purpose.APPROVE),
                }
            ],
        }
        body = urlencode({"payload": json.dumps(payload)}).encode()
        at = int(time.time())
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": str(at),
            "X-Slack-Signature": sign(where.slack.signing_secret, timestamp=at, body=body),
        }
        async with session.post(f"{url}/slack/events", data=body, headers=headers) as answer:
            assert answer.status == 200, answer.status
            await answer.read()

    return vote


async def _by_api(twokey: Twokey, url: str, session: aiohttp.ClientSession) -> Vote:
    person = await twokey.desk.person(TEAM, VOTER)
    issued = await twokey.desk.tokens.issue(
        person, lifetime=timedelta(hours=1), name="bench", delivery=""
    )
    assert issued.secret is not None
    headers = {"Authorization": f"Bearer {issued.secret.get_secret_value()}"}

    async def vote(request: RequestRecord) -> None:
        body = {
            "plan_hash": request.plan_hash,
            "policy_hash": request.policy_hash,
            "step": request.step,
        }
        key = {"Idempotency-Key": f"bench-{next(_numbers)}"}
        path = f"{url}/api/requests/{request.id}/approve"
        async with session.post(path, json=body, headers=headers | key) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()

    return vote


if __name__ == "__main__":
    print(as_markdown(asyncio.run(measure())))
