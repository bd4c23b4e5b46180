"""Votes and work go on while the store's primary dies: each counts once, and none is lost."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from approvals import audit
from jobs.limits import Limits
from sandbox.ha import PairSandbox
from sandbox.slack.errors import CannotError
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot import world as world_module
from tests.bot.world import CHANNEL, World, running
from tests.conftest import Target
from tests.own_store import PairStore, losing, store_on

COLOURS = ("red", "green", "blue", "white")
CLAIMS = b"SET attempts = o.attempts + 1"
SETTLES = b"SET state = 'sent'"
SOON = Limits(
    poll=timedelta(milliseconds=200),
    heartbeat=timedelta(seconds=2),
    stale=timedelta(seconds=20),
    reap=timedelta(seconds=1),
    lock_grace=timedelta(seconds=8),
    cleanup=timedelta(seconds=8),
    stop_grace=timedelta(seconds=2),
)
VOTES = "SELECT request_id, person FROM votes WHERE verdict = 'approve'"


@pytest.fixture
async def own(pair: PairSandbox) -> AsyncIterator[PairStore]:
    async with store_on(pair) as made:
        yield made


async def test_votes_runs_and_messages_outlive_the_failover_of_the_store(
    slack: SlackStandIn,
    own: PairStore,
    target: Target,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What was taken at the very moment of the failover is given back when its lease ends.
    pace = replace(
        world_module.FAST, lease=timedelta(seconds=10), delivery_max=timedelta(seconds=8)
    )
    monkeypatch.setattr(world_module, "FAST", pace)
    monkeypatch.setattr(world_module, "Limits", lambda **_: SOON)
    await own.is_synchronous()
    async with (
        running(slack, own.store, tmp_path, target.dsn, http=False) as one,
        running(slack, own.another(size=10), tmp_path, target.dsn, http=False),
    ):
        for number, colour in enumerate(COLOURS, 1):
            await slack.command("U0ANA", CHANNEL, f"/db paint orders {colour}")
            await one.card(f"Request {number} ")
        await _approve(one, "U0BEN")
        await slack.wait_for(lambda: len(stored(slack, "U0BEN")) == len(COLOURS), seconds=30)
        voting = asyncio.create_task(_approve(one, "U0CLEO"))
        await slack.wait_for(lambda: bool(stored(slack, "U0CLEO")), seconds=30)
        await own.lose_the_primary()
        await voting
        during = await slack.command("U0ANA", CHANNEL, "/db paint orders black")
        assert "own database does not answer" in during.ephemerals[0]["text"]
        acknowledged = stored(slack, "U0CLEO")
        await own.promote()
        kept = await rows(own.store, VOTES)
        assert acknowledged <= {row["request_id"] for row in kept if "cleo" in row["person"]}
        async with asyncio.timeout(90):
            while not all("Done" in card["text"] for card in one.cards()):
                await _approve(one, "U0CLEO")
                await asyncio.sleep(0.2)
            while await rows(own.store, "SELECT id FROM outbox WHERE state <> 'sent'"):
                await asyncio.sleep(0.05)
    await _each_once(slack, own.store, len(COLOURS))
    assert len(one.cards()) == len(COLOURS)


@pytest.mark.parametrize("commit", [CLAIMS, SETTLES])
async def test_a_message_whose_claim_or_end_was_not_heard_of_is_posted_once(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path, commit: bytes
) -> None:
    async with (
        losing(store, tmp_path, after=commit) as (way, lossy),
        running(slack, lossy, tmp_path, target.dsn, http=False) as world,
    ):
        await slack.command("U0ANA", CHANNEL, "/db free orders blue")
        await asyncio.wait_for(way.lost.wait(), 30)
        # What was claimed and not heard of waits until its lease ends; nobody waits that long.
        await rows(store, "UPDATE outbox SET due_at = now() WHERE state = 'waiting' RETURNING id")
        await world.card("Done")
        async with asyncio.timeout(60):
            while await rows(store, "SELECT id FROM outbox WHERE state <> 'sent'"):
                await asyncio.sleep(0.05)
    await _each_once(slack, store, 1)
    assert len(world.cards()) == 1


async def test_a_message_that_was_posted_and_not_noted_is_found_while_it_is_still_ours(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with (
        losing(store, tmp_path, before=SETTLES) as (way, lossy),
        running(slack, lossy, tmp_path, target.dsn, http=False) as world,
    ):
        await slack.command("U0ANA", CHANNEL, "/db free orders blue")
        await asyncio.wait_for(way.lost.wait(), 30)
        await world.card("Done")
        async with asyncio.timeout(40):  # a lease ends after 60 s
            while await rows(store, "SELECT id FROM outbox WHERE state <> 'sent'"):
                await asyncio.sleep(0.05)
    await _each_once(slack, store, 1)
    assert len(world.cards()) == 1


async def test_a_command_whose_commit_was_not_heard_of_is_stored_and_said_to_be_uncertain(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with (
        losing(store, tmp_path, alone=b"INSERT INTO requests") as (way, lossy),
        running(slack, lossy, tmp_path, target.dsn, http=False, worker=False) as world,
    ):
        typed = await slack.command("U0ANA", CHANNEL, "/db paint orders")
        assert way.lost.is_set()
        assert "Whether this was stored is not certain" in typed.ephemerals[0]["text"]
        await world.card("Request 1 ")
        assert len(world.cards()) == 1


async def test_a_vote_whose_commit_was_not_heard_of_counts_once_when_it_is_repeated(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> None:
    async with (
        losing(store, tmp_path, after=b"INSERT INTO votes") as (way, lossy),
        running(slack, lossy, tmp_path, target.dsn, http=False) as world,
    ):
        await slack.command("U0ANA", CHANNEL, "/db paint orders")
        card = await world.card("Waiting")
        await slack.click("U0BEN", CHANNEL, card["ts"], "approve")
        assert way.lost.is_set()
        await world.told("U0BEN", "Whether this was stored is not certain")
        assert (await slack.click("U0BEN", CHANNEL, card["ts"], "approve", shown=card)).ok
        assert len(await rows(store, VOTES)) == 1
        await world.card("1 approval of dba")
        await slack.click("U0CLEO", CHANNEL, card["ts"], "approve")
        await world.card("Done")
    await _each_once(slack, store, 1)


async def _approve(world: World, user: str) -> None:
    """Press Approve on every card that has it, as somebody does who is not sure."""
    for card in world.cards():
        with suppress(CannotError):  # it has no such button any more
            await world.slack.click(user, CHANNEL, card["ts"], "approve")


async def _each_once(slack: SlackStandIn, store: Store, requests: int) -> None:
    """Each request was begun and ended once, by two people, and told once; the audit holds."""
    async with store.begin() as conn:
        await conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        report = await audit.check_store(conn)
    assert report.findings_count == 0
    entries = await rows(store, "SELECT request_id, action FROM audit_log")
    counted = Counter((row["request_id"], row["action"]) for row in entries)
    for number in range(1, requests + 1):
        assert counted[number, "begin"] == counted[number, "finish"] == 1
    voted = Counter((row["request_id"], row["person"]) for row in await rows(store, VOTES))
    assert set(voted.values()) <= {1}
    ran = await rows(store, "SELECT request_id, state FROM runs ORDER BY request_id")
    assert [tuple(row.values()) for row in ran] == [(n, "done") for n in range(1, requests + 1)]
    posted = Counter(
        message["metadata"]["event_payload"]["outbox_id"]
        for message in slack.messages(CHANNEL)
        if message.get("metadata")
    )
    assert set(posted.values()) == {1}
    painted = Counter(re.findall(r"Painted \w+", json.dumps(slack.messages(CHANNEL))))
    assert painted, "the results are told"


def stored(slack: SlackStandIn, user: str) -> set[int]:
    """The requests of which somebody was told that their vote is stored."""
    said = [message["text"] for message in slack.ephemerals(user)]
    found = [re.search(r"approve of request (\d+) is stored", text) for text in said]
    return {int(each[1]) for each in found if each}


async def rows(store: Store, query: str) -> list[Any]:
    """What the store says."""
    async with store.begin() as conn:
        return [dict(row) for row in (await conn.execute(sa.text(query))).mappings()]
