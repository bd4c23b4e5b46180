"""A backup through a run beside `pg_basebackup -Fp`, and its proof beside the same by hand."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from approvals.service import Approvals, Seen
from approvals.words import RequestId
from bench.places import Place, place
from bench.table import Result
from bench.town import DBAS, Town, approvals_on, ask_for, ballot, database_of
from bot.app import utc_now
from jobs.operation import Operation
from jobs.pinned import planned
from jobs.reader import LiveContext, Readers
from jobs.registry import load_operations
from jobs.worker import Worker
from postgres.programs import Finished, run_program
from postgres.server import Binaries, Server
from store.connect import Store, connect

SCALE = 70  # pgbench: about 1 GB
ROUNDS = 3
LIMIT = timedelta(hours=1)
RUN_SECONDS_MAX = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Wall time and the processor's time of the whole machine, in seconds."""

    wall: float
    cpu: float


async def measure() -> list[Result]:
    """Medians of interleaved rounds, on rows that compress well and on rows that do not."""
    async with place() as where:
        store = connect(where.store_dsn, size=10)
        try:
            size = await _fill(where)
            well = await _compare(where, store, f"{size / 1e9:.2f} GB that compress 20:1")
            size = await _harden(where)
            return well + await _compare(where, store, f"{size / 1e9:.2f} GB that compress 3:1")
        finally:
            await store.close()


async def _compare(where: Place, store: Store, what: str) -> list[Result]:
    costs: dict[str, list[Cost]] = {"plain": [], "backup": [], "hand": [], "verify": []}
    approvals = approvals_on(store, where)
    operations = load_operations("commands")
    readers = Readers()
    context = LiveContext(target=database_of(where), readers=readers, store=store, clock=utc_now)
    worker = _worker(store, where, approvals, operations)
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))

    async def by_run(name: str) -> None:
        await _run(store, approvals, context, operations[name])

    try:
        for _ in range(ROUNDS):
            shutil.rmtree(where.folder / "plain", ignore_errors=True)
            costs["plain"].append(await cost(lambda: _plain(where)))
            costs["backup"].append(await cost(lambda: by_run("backup")))
            costs["hand"].append(await cost(lambda: _by_hand(where)))
            costs["verify"].append(await cost(lambda: by_run("verify")))
    finally:
        stop.set()
        await running
        await readers.close()
    return [
        _row(f"backup of {what}", "pg_basebackup -Fp", costs["backup"],
             costs["plain"], "wall at most 0.6"),
        _row("verify of that backup", "by hand", costs["verify"], costs["hand"],
             "wall at most 1.15"),
    ]  # fmt: skip


def _row(what: str, floor: str, ours: list[Cost], base: list[Cost], aim: str) -> Result:
    wall, wall_base = middle(ours, "wall"), middle(base, "wall")
    cpu, cpu_base = middle(ours, "cpu"), middle(base, "cpu")
    return Result(
        what=f"{what}: wall / CPU",
        ours=f"{wall:.1f} / {cpu:.1f} s",
        floor=f"{wall_base:.1f} / {cpu_base:.1f} s ({floor})",
        ratio=f"{wall / wall_base:.2f} / {cpu / cpu_base:.2f}",
        aim=aim,
    )


def middle(costs: list[Cost], name: str) -> float:
    return sorted(float(getattr(cost, name)) for cost in costs)[len(costs) // 2]


async def cost(work: Callable[[], Awaitable[object]]) -> Cost:
    busy, start = _busy(), time.perf_counter()
    await work()
    return Cost(wall=time.perf_counter() - start, cpu=_busy() - busy)


def _busy() -> float:
    """The machine's processors' time that was not idle; nothing else should run meanwhile."""
    times = psutil.cpu_times()
    return float(times.user + times.system)


async def _fill(where: Place) -> int:
    """Fill `orders` by pgbench; the size in bytes."""
    server = where.server
    await tool(server, "pgbench", "--initialize", f"--scale={SCALE}", "--quiet", "orders")
    return await _settled(server)


async def _harden(where: Place) -> int:
    """Give the rows a filler of hexadecimal digits, about as hard to compress as real rows."""
    sql = (
        "ALTER TABLE pgbench_accounts ALTER filler TYPE text"
        " USING md5(aid::text) || md5((aid + 1)::text) || repeat(' ', 20)"
    )
    await tool(where.server, "psql", "--quiet", "--dbname=orders", f"--command={sql}")
    return await _settled(where.server)


async def _settled(server: Server) -> int:
    """The size, once nothing is left to write."""
    for statement in ("VACUUM FREEZE ANALYZE", "CHECKPOINT"):
        await tool(server, "psql", "--quiet", "--dbname=orders", f"--command={statement}")
    found = await tool(
        server, "psql", "-At", "-d", "orders", "-c", "SELECT pg_database_size('orders')"
    )
    return int(found.stdout)


async def _plain(where: Place) -> None:
    await tool(
        where.server, "pg_basebackup", f"--pgdata={where.folder / 'plain'}", "--format=plain",
        "--checkpoint=fast", as_server=False,
    )  # fmt: skip


async def _by_hand(where: Place) -> None:
    """What a careful DBA would type: unpack, verify, start, amcheck, count, check pages."""
    newest = max((where.folder / "backups").iterdir())
    work = where.folder / "by-hand"
    script = _SCRIPT.format(
        bin=where.server.binaries.folder,
        backup=newest,
        work=work,
        port=where.server.port + 1,
        # PostgreSQL refuses to run as root.
        give="chown -R postgres: " + str(work) if os.getuid() == 0 else "true",
        become="runuser -u postgres --" if os.getuid() == 0 else "",
    )
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    await checked(["bash", "-c", script], as_server=False, environ=path)


_SCRIPT = """
set -euo pipefail
umask 077
cd /
rm -rf {work}; mkdir -p {work}/s {work}/d/pg_wal
zstd -dcq {backup}/base.tar.zst | tar -x -C {work}/d
tar -xf {backup}/pg_wal.tar -C {work}/d/pg_wal
cp {backup}/backup_manifest {work}/d/
{give}
at="-h {work}/s -p {port} -U postgres"
{become} {bin}/pg_verifybackup -q {work}/d
cat >> {work}/d/postgresql.auto.conf <<X
port = {port}
listen_addresses = ''
unix_socket_directories = '{work}/s'
archive_mode = off
fsync = off
X
{become} {bin}/pg_ctl -D {work}/d -l {work}/log -w start >/dev/null
{become} {bin}/pg_amcheck $at --all --install-missing --heapallindexed -j 2
for table in accounts branches tellers history; do
  {become} {bin}/psql $at -d orders -Atc "SELECT count(*) FROM pgbench_$table" >/dev/null
done
{become} {bin}/pg_ctl -D {work}/d -m fast -w stop >/dev/null
{become} {bin}/pg_checksums --check -D {work}/d >/dev/null
rm -rf {work}
"""


async def _run(
    store: Store, approvals: Approvals, context: LiveContext, operation: Operation
) -> None:
    """Ask, agree twice, and wait for the run's end."""
    params = operation.params(database="orders")
    plan = await planned(operation, context, params)
    asked = await approvals.ask(ask_for(operation.name, plan=plan))
    assert asked.request is not None, asked.problem
    request = asked.request
    seen = Seen(plan_hash=request.plan_hash, policy_hash=request.policy_hash, step=request.step)
    for voter in DBAS[:2]:
        decided = await approvals.vote(ballot(request.id, voter, seen))
        assert decided.ok, decided.problem
    await _done(store, request.id)


async def _done(store: Store, request_id: RequestId) -> None:
    conn = await store.direct()
    try:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            while not (row := await conn.fetchrow(ENDED, request_id)):
                await asyncio.sleep(0.02)
    finally:
        await conn.close()
    assert row["state"] == "done", row["outcome"]


ENDED = "SELECT state, outcome FROM runs WHERE request_id = $1 AND ended_at IS NOT NULL"


def _worker(
    store: Store, where: Place, approvals: Approvals, operations: Mapping[str, Operation]
) -> Worker:
    return Worker(
        store=store, approvals=approvals, directory=Town(), operations=operations,
        databases={"orders": database_of(where)}, home=where.folder / "home", clock=utc_now,
    )  # fmt: skip


async def tool(server: Server, program: str, *arguments: str, as_server: bool = True) -> Finished:
    connection = {"PGHOST": str(server.sockets), "PGPORT": str(server.port), "PGUSER": "postgres"}
    binaries: Binaries = server.binaries
    return await checked(
        [binaries.program(program), *arguments], as_server=as_server, environ=connection
    )


async def checked(
    command: list[str | Path], *, as_server: bool, environ: Mapping[str, Any] | None = None
) -> Finished:
    done = await run_program(command, time_limit=LIMIT, as_server=as_server, environ=environ)
    assert done.code == 0, f"{command[0]}: {done.stderr[-2000:]}"
    return done
