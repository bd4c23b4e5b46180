"""Looks at a primary and its standby on real servers, well, frozen, closed and promoted."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from postgres.binaries import find_binaries
from postgres.cluster.judge import writable_servers
from postgres.cluster.look import APPLICATION, HIDDEN, look_at, parse
from postgres.cluster.words import NodeSeen, NodeSpec, Role
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.ports import free_port
from postgres.server import Server, create, standby
from tests.conftest import folder_of_its_own

FAST = {
    "fsync": "off", "shared_buffers": "16MB", "max_connections": "20",
    "max_prepared_transactions": "2", "wal_receiver_status_interval": "1",
    "wal_retrieve_retry_interval": "100ms",
}  # fmt: skip
SYSTEM = """
    CREATE ROLE looker LOGIN;
    CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
    CREATE TABLE notes (note text);
    ALTER TABLE notes ALTER note SET STORAGE PLAIN;
"""
CONTROL = ("pg_control_system()", "pg_control_checkpoint()", "pg_control_recovery()")
GENEROUS = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Two:
    """A primary and a standby that streams from it."""

    east: Server
    west: Server

    def specs(self, user: str = "postgres") -> tuple[NodeSpec, NodeSpec]:
        east, west = (parse_dsn(each.dsn(user=user)) for each in (self.east, self.west))
        return (
            NodeSpec(name="east", target=east, region="us"),
            NodeSpec(name="west", target=west, region="eu"),
        )


@pytest.fixture(scope="module", params=[17, 15])
def two(request: pytest.FixtureRequest) -> Iterator[Two]:
    try:
        binaries = find_binaries(os.environ, major=request.param)
    except PostgresError as error:
        pytest.skip(error.problem)
    home = folder_of_its_own()

    async def made() -> Two:
        east = await create(binaries, home / "east", settings=FAST, sync=False)
        await east.start()
        async with on(east) as conn:
            await conn.execute(SYSTEM)
        west = await standby(east, home / "west")
        await west.start()
        return Two(east=east, west=west)

    found = asyncio.run(made())
    try:
        yield found
    finally:
        for server in (found.west, found.east):
            asyncio.run(server.stop("immediate"))
        shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def on(server: Server) -> AsyncIterator[Any]:
    conn = await asyncpg.connect(server.dsn())
    try:
        yield conn
    finally:
        await conn.close()


def now() -> datetime:
    return datetime.now(UTC)


async def seen(two: Two, user: str = "postgres") -> tuple[NodeSeen, NodeSeen]:
    east, west = await look_at(two.specs(user), clock=now, limit=GENEROUS)
    return east, west


async def streaming(two: Two) -> tuple[NodeSeen, NodeSeen]:
    """As soon as the standby has replayed all that was written."""
    async with asyncio.timeout(GENEROUS.total_seconds()):
        while True:
            east, west = await seen(two)
            if [each.replay_behind for each in east.senders] == [0]:
                return east, west
            await asyncio.sleep(0.05)


async def test_a_primary_and_its_standby_are_seen_from_both_sides(two: Two) -> None:
    async with on(two.east) as conn:
        await conn.execute("INSERT INTO notes VALUES ('x')")
    east, west = await streaming(two)
    assert (east.name, east.region, east.role, east.is_writable) == (
        "east", "us", Role.PRIMARY, True,
    )  # fmt: skip
    assert (west.name, west.region, west.role, west.is_writable) == (
        "west", "eu", Role.STANDBY, False,
    )  # fmt: skip
    assert east.is_reached
    assert east.system_identifier == west.system_identifier != ""
    assert (east.timeline, west.timeline) == (1, 1)
    assert east.version == west.version >= 150000
    # The servers write on their own account too, between the answers of the two.
    assert east.position is not None
    assert west.position is not None
    assert west.received is not None
    assert west.position <= west.received
    assert abs(east.position - west.position) < 2**20 < east.position
    assert (west.receiver, west.is_replay_paused) == ("streaming", False)
    assert west.replay_age is not None
    assert west.message_age is not None
    assert east.started_at
    assert west.started_at
    assert east.started_at < west.started_at <= now()
    assert abs(west.clock_ahead or 99.0) < GENEROUS.total_seconds()
    [sender] = east.senders
    assert (sender.name, sender.state, sender.sync_state) == ("west", "streaming", "async")
    assert (sender.flush_behind, sender.replay_behind) == (0, 0)
    assert sender.reply_age is not None
    [slot] = east.slots
    assert (slot.name, slot.kind, slot.is_active) == ("west", "physical", True)
    assert slot.retained is not None
    assert slot.retained < 2**20
    assert (west.senders, west.slots) == ((), ())


async def test_the_look_leaves_no_connection_behind(two: Two) -> None:
    await seen(two)
    async with on(two.east) as conn, asyncio.timeout(GENEROUS.total_seconds()):
        while await conn.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", APPLICATION
        ):
            await asyncio.sleep(0.02)


async def test_one_that_hangs_costs_the_limit_and_the_others_answer(two: Two) -> None:
    east, west = two.specs()
    nobody = NodeSpec(
        name="gone", target=parse_dsn(f"postgresql://x@127.0.0.1:{free_port()}/x"), region="us"
    )
    pid = postmaster(two.west)
    loop = asyncio.get_running_loop()
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = loop.time()
        limit = timedelta(seconds=1)
        first, second, third = await look_at((east, west, nobody), clock=now, limit=limit)
        took = loop.time() - begun
    finally:
        os.kill(pid, signal.SIGCONT)
    assert first.is_writable
    assert second.problem.startswith("no answer within 1 s from ")
    assert (second.role, second.region) == (None, "eu")
    assert third.problem == f"connection refused by {nobody.target.place}"
    assert 1 <= took < 10  # one limit and not two; the rest is a busy machine


async def test_one_that_hangs_in_its_answer_costs_the_limit_too(two: Two) -> None:
    """Connected, and then nothing: here a lock that the answer has to wait for."""
    async with on(two.east) as conn, conn.transaction():
        await conn.execute("LOCK pg_stat_progress_basebackup IN ACCESS EXCLUSIVE MODE")
        [east] = await look_at(two.specs()[:1], clock=now, limit=timedelta(seconds=0.5))
    assert east.problem.startswith("no answer within 0.5 s from ")


async def test_a_server_that_refuses_us_says_why_in_a_phrase(two: Two) -> None:
    spec = NodeSpec(name="east", target=parse_dsn(two.east.dsn("nowhere")))
    [east] = await look_at([spec], clock=now, limit=GENEROUS)
    assert east.problem == 'database "nowhere" does not exist'
    bad = NodeSpec(name="east", target=parse_dsn("postgresql://x@127.0.0.1/x?sslmode=perhaps"))
    [east] = await look_at([bad], clock=now, limit=GENEROUS)
    assert "sslmode" in east.problem
    assert not east.problem.endswith(".")


async def test_what_holds_for_our_login_alone_keeps_nobody_from_writing(two: Two) -> None:
    async with on(two.east) as conn:
        await conn.execute("ALTER ROLE monitor SET default_transaction_read_only = on")
        ours = (await seen(two, "monitor"))[0]
        await conn.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await conn.execute("SELECT pg_reload_conf()")
        closed = await _writable(two, wanted=False)
        await conn.execute("SET default_transaction_read_only = off")
        await conn.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await conn.execute("SELECT pg_reload_conf()")
        opened = await _writable(two, wanted=True)
    assert ours.is_writable
    assert (closed.role, opened.role) == (Role.PRIMARY, Role.PRIMARY)


async def _writable(two: Two, *, wanted: bool) -> NodeSeen:
    async with asyncio.timeout(GENEROUS.total_seconds()):
        while (east := (await seen(two))[0]).is_writable is not wanted:
            await asyncio.sleep(0.02)
    return east


async def test_without_pg_monitor_replication_is_hidden_and_said_to_be(two: Two) -> None:
    east, west = await seen(two, "looker")
    [sender] = east.senders
    assert (sender.state, sender.sync_state, sender.flush_behind) == (HIDDEN, HIDDEN, None)
    assert west.receiver == HIDDEN
    assert east.is_writable
    east, west = await seen(two, "monitor")
    assert (east.senders[0].state, west.receiver) == ("streaming", "streaming")


async def test_where_the_control_file_is_closed_the_timeline_is_still_known(two: Two) -> None:
    async with on(two.east) as conn:
        try:
            for function in CONTROL:
                await conn.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC, pg_monitor")
            await streaming(two)  # the standby replays it
            east, west = await seen(two, "monitor")
        finally:
            for function in CONTROL:
                await conn.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
    assert (east.problem, east.timeline, east.system_identifier) == ("", 1, "")
    assert (west.problem, west.timeline) == ("", 1)


async def test_replay_that_is_paused_shows_as_backlog_on_both_sides(two: Two) -> None:
    async with on(two.east) as east, on(two.west) as west:
        await west.execute("SELECT pg_wal_replay_pause()")
        try:
            await east.execute(
                "INSERT INTO notes SELECT repeat('x', 1000) FROM generate_series(1, 500)"
            )
            async with asyncio.timeout(GENEROUS.total_seconds()):
                while True:
                    primary, behind = await seen(two)
                    if (primary.senders[0].replay_behind or 0) > 500_000:
                        break
                    await asyncio.sleep(0.05)
        finally:
            await west.execute("SELECT pg_wal_replay_resume()")
    assert behind.is_replay_paused
    assert (behind.received or 0) - (behind.position or 0) > 500_000
    assert primary.senders[0].flush_behind == 0
    assert behind.timeline == 1


async def test_what_waits_on_a_primary_is_counted(two: Two) -> None:
    async with on(two.east) as conn, on(two.east) as other:
        await conn.execute("SELECT pg_create_physical_replication_slot('idle', true)")
        await conn.execute("BEGIN; INSERT INTO notes VALUES ('y'); PREPARE TRANSACTION 'half'")
        await conn.execute("SELECT pg_switch_wal()")
        await other.execute("BEGIN; SELECT 1")
        try:
            east, _ = await seen(two)
        finally:
            await other.execute("ROLLBACK")
            await conn.execute("ROLLBACK PREPARED 'half'")
            await conn.execute("SELECT pg_drop_replication_slot('idle')")
    idle = next(each for each in east.slots if each.name == "idle")
    assert (idle.is_active, idle.wal_status) == (False, "reserved")
    assert (idle.retained or 0) > 1_000_000
    assert (east.prepared_transactions, east.base_backups) == (1, 0)
    assert east.oldest_transaction is not None


async def test_both_take_writes_after_a_promotion_that_nobody_fenced(two: Two) -> None:
    """The last test of its servers: nothing brings them together again."""
    async with on(two.east) as conn:
        # Pages enough for the checkpoint after the promotion to take its time: until its end the
        # control file has the old timeline.
        await conn.execute(
            "INSERT INTO notes SELECT repeat('x', 4000) FROM generate_series(1, 800)"
        )
    await streaming(two)
    await two.west.promote()
    east, west = await seen(two)
    async with on(two.west) as conn:
        assert await conn.fetchval("SELECT timeline_id FROM pg_control_checkpoint()") == 1
    assert (east.is_writable, west.is_writable) == (True, True)
    assert (east.timeline, west.timeline) == (1, 2)
    assert [each.name for each in writable_servers((east, west))] == ["east", "west"]
    alias = NodeSpec(name="vip", target=two.specs()[0].target)
    twice = await look_at((two.specs()[0], alias), clock=now, limit=GENEROUS)
    assert [each.is_writable for each in twice] == [True, True]
    assert [each.name for each in writable_servers(twice)] == ["east"]


def postmaster(server: Server) -> int:
    return int((server.data / "postmaster.pid").read_text().split()[0])


def test_what_was_asked_a_moment_later_is_never_ahead_and_clocks_are_compared() -> None:
    answer = {
        "standby": False, "now": 1_000_000_030.0, "started": 999_999_000.0, "version": 160004,
        "read_only": None, "system": None, "timeline": 7, "position": 90, "received": None,
        "replay_age": None, "paused": False, "receiver": None, "message_age": None,
        "senders": [
            {"name": None, "address": "10.0.0.2", "state": "streaming", "sync_state": "sync",
             "flush_behind": -8, "replay_behind": None, "replay_lag": 0.5, "reply_age": 0.25},
        ],
        "slots": None, "base_backups": 1, "oldest_transaction": None, "prepared_transactions": 0,
        "sync_names": "*",
    }  # fmt: skip
    spec = NodeSpec(name="east", target=parse_dsn("host=x"), region="us")
    found = parse(spec, json.dumps(answer), now=datetime.fromtimestamp(1_000_000_000, UTC))
    assert found.clock_ahead == pytest.approx(30.0)
    assert (found.senders[0].flush_behind, found.senders[0].replay_behind) == (0, None)
    assert (found.is_writable, found.sync_names, found.slots) == (True, "*", ())
    assert found.started_at == datetime.fromtimestamp(999_999_000, UTC)
