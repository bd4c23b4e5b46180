"""Audit entries at 32 clients beside plain inserts, and how fast chains are verified."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from approvals import audit
from approvals.anchors import make_anchors
from approvals.anchors import to_line as anchor_line
from approvals.chain import GENESIS, Entry, Head, entry_hash, to_line
from approvals.evidence import Period, write_pack
from approvals.exports import Filters, first_lines
from bench.places import place
from bench.table import Result
from store.connect import Store, connect

CLIENTS = 32
EACH = 100
EXPORTED = 1_000_000
CHAINS = 16
DETAIL = {"plan": "h" * 64, "policy": "p" * 64, "verdict": "approve"}
NOW = datetime(2026, 11, 22, tzinfo=UTC)
PLAIN = sa.text("""
    INSERT INTO plain (at, actor, action, detail) VALUES (:at, :actor, :action, '{}')
""")


async def measure() -> list[Result]:
    """Rates of both, of one chain and of sixteen, and of the verification."""
    async with place() as where:
        store = connect(where.store_dsn, size=CLIENTS)
        owner = connect(where.store_dsn, size=CLIENTS, role="postgres")
        try:
            async with owner.begin() as conn:
                await conn.execute(sa.text(
                    "CREATE TABLE plain (id bigserial PRIMARY KEY, at timestamptz, actor text,"
                    " action text, detail jsonb)"
                ))  # fmt: skip
            plain = await _rate(lambda client: _plain(owner, client))
            one = await _rate(lambda _: _append(store, "orders"))
            many = await _rate(lambda client: _append(store, f"database-{client % 16}"))
            entries, seconds = await _verified(store)
            exported = await _offline()
            packed = await _evidence(store)
        finally:
            await store.close()
            await owner.close()
    return [
        Result(
            what=f"audit entries per second, {CLIENTS} clients, one chain / sixteen",
            ours=f"{one:.0f} / {many:.0f}",
            floor=f"{plain:.0f} plain inserts",
            ratio=f"{one / plain:.2f} / {many / plain:.2f}",
        ),
        Result(
            what=f"audit verify of the store: rows per second, {entries} entries",
            ours=f"{entries / seconds:.0f}",
        ),
        Result(
            what=f"audit verify of an export with anchors, {EXPORTED} entries: s / peak MB",
            ours=exported,
        ),
        Result(what=f"audit evidence, {entries} entries: s / MB", ours=packed),
    ]


async def _offline() -> str:
    """A process of its own, as an auditor starts it: how long, and how much memory at most."""
    with tempfile.TemporaryDirectory() as folder:
        export, anchors = Path(folder) / "audit.jsonl", Path(folder) / "anchors"
        await asyncio.to_thread(_write_export, export, anchors)
        code = (
            "import resource, sys, time; from approvals.offline import main;"
            "start = time.perf_counter(); status = main(sys.argv[1:]);"
            "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024;"
            "print(f'{time.perf_counter() - start:.1f} / {peak:.0f}'); sys.exit(status)"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(export), str(anchors), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out
        return out.decode().splitlines()[-1]


def _write_export(export: Path, anchors: Path) -> None:
    ends: list[Head] = []
    with export.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in first_lines(Filters(), "jsonl"))
        for number in range(CHAINS):
            end = Head(chain=f"database-{number}", seq=0, hash=GENESIS)
            for seq in range(1, EXPORTED // CHAINS + 1):
                entry = Entry(
                    chain=end.chain, seq=seq, at=NOW, actor="ben@acme.example", action="voted",
                    request_id=seq, database=end.chain, detail=DETAIL, prev_hash=end.hash, hash="",
                )  # fmt: skip
                end = Head(chain=end.chain, seq=seq, hash=entry_hash(entry))
                file.write(f"{to_line(replace(entry, hash=end.hash))}\n")
            ends.append(end)
    [anchor] = make_anchors(ends, at=NOW, prev=GENESIS)
    anchors.write_text(f"{anchor_line(anchor)}\n", encoding="utf-8")


async def _evidence(store: Store) -> str:
    period = Period(since=NOW, until=NOW + timedelta(days=1))
    start = time.perf_counter()
    with tempfile.TemporaryFile() as file:
        async with store.begin() as conn:
            await write_pack(conn, file, period)
        return f"{time.perf_counter() - start:.1f} / {file.tell() / 1e6:.1f}"


async def _rate(work: Callable[[int], Awaitable[None]]) -> float:
    async def client(number: int) -> None:
        for _ in range(EACH):
            await work(number)

    await work(0)
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number))
    return CLIENTS * EACH / (time.perf_counter() - start)


async def _plain(store: Store, client: int) -> None:
    async with store.begin() as conn:
        await conn.execute(PLAIN, {"at": NOW, "actor": str(client), "action": "voted"})


async def _append(store: Store, chain: str) -> None:
    async with store.begin() as conn:
        await audit.append(
            conn, chain=chain, at=NOW, actor="ben@acme.example", action="voted", detail=DETAIL
        )


async def _verified(store: Store) -> tuple[int, float]:
    start = time.perf_counter()
    async with store.begin() as conn:
        report = await audit.check_store(conn)
    assert report.ok, report.findings
    return report.entries, time.perf_counter() - start
