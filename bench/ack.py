"""An acknowledged `/db backup orders`, stored, beside a Bolt app that only acks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import asyncpg
import psutil

from bench.load import Load, run_load
from bench.places import Place, floor, free_port, place, process
from bench.table import Result, percentile

WARM_UP = 20
ROUNDS: Mapping[int, int] = {1: 300, 50: 2000, 200: 2000}
TWOKEY = ".venv/bin/twokey"


async def measure() -> list[Result]:
    """p50, p99 and rate at 1, 50 and 200 concurrent, and the memory of `twokey serve`."""
    async with place() as where:
        port = free_port()
        environ = where.environ(TWOKEY_HTTP_PORT=str(port))
        async with process(TWOKEY, "serve", environ=environ) as pid:
            rest = _megabytes(pid)
            ours = f"http://127.0.0.1:{port}/slack/events"
            results = await _compare(where, ours)
            peak = _megabytes(pid)
            await _all_stored(where)
    memory = Result(
        what="memory of twokey serve, at rest and after 200 concurrent",
        ours=f"{rest:.0f} MB, {peak:.0f} MB",
    )  # fmt: skip
    return [*results, memory]


async def _compare(where: Place, ours: str) -> list[Result]:
    secret = where.slack.signing_secret
    results: list[Result] = []
    async with floor(secret) as base:
        for concurrency, requests in ROUNDS.items():
            found: dict[str, Mapping[str, Any]] = {}
            for name, url in (("floor", base), ("ours", ours)):
                load = Load(
                    url=url, secret=secret, concurrency=concurrency, requests=requests,
                    warm_up=WARM_UP,
                )  # fmt: skip
                found[name] = await run_load(load)
            results += _rows(concurrency, found["ours"], found["floor"])
    return results


def _rows(concurrency: int, ours: Mapping[str, Any], base: Mapping[str, Any]) -> list[Result]:
    assert not ours["failures"], f"{ours['failures']} of our acks failed"
    mine, floor_ms = ours["ms"], base["ms"]
    middle, middle_base = percentile(mine, 0.5), percentile(floor_ms, 0.5)
    late = sum(ms > 3000 for ms in mine)
    return [
        Result(
            what=f"ack of a stored command, {concurrency} concurrent: p50 / p99",
            ours=f"{middle:.1f} / {percentile(mine, 0.99):.1f} ms",
            floor=f"{middle_base:.1f} / {percentile(floor_ms, 0.99):.1f} ms",
            ratio=f"+{middle - middle_base:.1f} ms",
            aim={1: "p50 within +10 ms", 200: f"p99 < 1 s, none past 3 s ({late})"}.get(
                concurrency, ""
            ),
        ),
        Result(
            what=f"ack of a stored command, {concurrency} concurrent: per second",
            ours=f"{ours['per_second']:.0f}",
            floor=f"{base['per_second']:.0f}",
            ratio=f"{ours['per_second'] / base['per_second']:.2f}",
            aim="at least 0.25" if concurrency == 50 else "",
        ),
    ]


async def _all_stored(where: Place) -> None:
    """Every ack that was counted stands for a stored request, with its entry and its message."""
    sent = sum(ROUNDS.values()) + len(ROUNDS) * WARM_UP
    conn = await asyncpg.connect(where.store_dsn)
    try:
        for table in ("requests", "audit_log", "outbox"):
            stored = await conn.fetchval(f"SELECT count(*) FROM {table}")
            assert stored >= sent, f"{sent} commands, {stored} rows in {table}"
    finally:
        await conn.close()


def _megabytes(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20
