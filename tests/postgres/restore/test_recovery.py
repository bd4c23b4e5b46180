"""Recovering to a moment, on real servers: every kind of target, and what can go wrong."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from postgres.restore.recovery import Recovered, plan_recovery, recover
from postgres.restore.scratch import remove_scratch
from postgres.restore.target import RecoveryTarget, at_time, parse_target
from tests.postgres.restore.conftest import History


async def rows(recovered: Recovered) -> list[str]:
    conn = await asyncpg.connect(recovered.dsn.url(), timeout=10)
    try:
        return [row["note"] for row in await conn.fetch("SELECT note FROM rows")]
    finally:
        await conn.close()


async def recovered_rows(
    history: History, target: RecoveryTarget, home: Path, backup_id: str | None = None
) -> tuple[list[str], Recovered]:
    choice = await plan_recovery(history.engine, target, marks=history.marks, backup_id=backup_id)
    recovered = await recover(history.engine, history.binaries, choice, home / "work")
    try:
        return await rows(recovered), recovered
    finally:
        await recovered.server.stop("immediate")
        await remove_scratch(home / "work")
        assert not list((home / "work").iterdir())


def target_of(history: History, text: str) -> RecoveryTarget:
    """`at one` is the time of the moment `one`, `lsn at one` and `xid of one` its others."""
    kind, _, name = text.rpartition(" ")
    moment = history.moments[name]
    match kind:
        case "at":
            return at_time(moment.at)
        case "lsn at":
            return parse_target(f"lsn {moment.lsn}", now=moment.at)
        case "xid after":
            return parse_target(f"xid {moment.xid}", now=moment.at)
        case _:
            return parse_target(f"before xid {moment.xid}", now=moment.at)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("at one", ["one"]),
        ("at two", ["one", "two"]),
        ("lsn at one", ["one"]),
        ("xid after one", ["one", "two"]),
        ("before xid after one", ["one"]),
        ("at mistake", []),
        ("at raised", ["raised"]),
        ("at promoted", ["raised", "promoted"]),
        ("at quiet", ["raised", "promoted", "last"]),
    ],
)
async def test_a_recovery_has_all_that_was_committed_by_then_and_nothing_later(
    history: History, home: Path, text: str, wanted: list[str]
) -> None:
    target = target_of(history, text)
    found, recovered = await recovered_rows(history, target, home)
    assert found == wanted
    assert recovered.target == target
    if target.at is not None:
        assert recovered.reached_at is not None
        assert recovered.reached_at <= target.at
