"""What a drill takes beside the failover that it rehearses, and what its ledger costs others.

A pair, and a real worker that is given requests nobody has to agree to. That a backup was proven,
without which there is no drill, stands in the store as a row: it is not what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from approvals.policy_file import parse_policy
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.words import RequestId
from bench.clusters import database_on, folder
from bench.gap import WAIT_SECONDS_MAX
from bench.places import KEY, Place, place
from bench.table import Result
from bench.town import Town, ask_for
from bot.process import utc_now
from commands import drill
from jobs.cluster_settings import DrillKind
from jobs.drill_words import REPORT, DrillEnd, DrillReport, Phase
from jobs.engine import PgQueue
from jobs.operation import Database
from jobs.reader import LiveContext, Readers
from jobs.worker import Worker
from postgres.cluster.ledger import Ledger, remove
from postgres.programs import run_program
from sandbox.ha import PairSandbox
from store.backups import BackupRecord, Verification, record_backup, record_verification
from store.connect import Store, connect
from store.drills import drill_of

ROUNDS: Final = 3
KINDS: Final = (DrillKind.SWITCHOVER, DrillKind.PRIMARY_CRASH)
_LOAD: Final = ("--client=8", "--jobs=2", "--no-vacuum", "--progress=60")
_LOAD_SECONDS: Final = 15
_SCALE: Final = 20  # about 0.3 GB
_DRILL_SECONDS_MAX: Final = 180
_ANYBODY: Final = {"rules": [{"name": "all", "fallback": True, "gates": []}]}
_TPS: Final = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A pair, and what is asked for on it."""

    pair: PairSandbox
    database: Database
    store: Store
    approvals: Approvals


async def measure(rounds: int = ROUNDS, load_seconds: int = _LOAD_SECONDS) -> list[Result]:
    """Drills of each kind, `rounds` times, then the load as often with the ledger and without."""
    async with place() as where, folder() as home, AsyncExitStack() as stack:
        store = connect(where.store_dsn, size=10)
        stack.push_async_callback(store.close)
        pair = await PairSandbox.start(home / "pair")
        stack.push_async_callback(pair.remove)
        await _prove_backup(store)
        scene = await stack.enter_async_context(_working(where, store, pair))
        reports = {kind: [await _drilled(scene, kind) for _ in range(rounds)] for kind in KINDS}
        with_it, without = await _loads(pair, home, rounds, load_seconds)
    return [*(_row(kind, found) for kind, found in reports.items()), _cost(with_it, without)]


@asynccontextmanager
async def _working(where: Place, store: Store, pair: PairSandbox) -> AsyncIterator[Scene]:
    approvals = Approvals(
        store=store,
        keys=VoteKeys(current=KEY.encode()),
        queue=PgQueue(store),
        clock=utc_now,
        policy=parse_policy(_ANYBODY),
        directory=Town(),
    )
    database = database_on(pair)
    worker = Worker(
        store=store,
        approvals=approvals,
        directory=Town(),
        operations={"drill": drill.OPERATION},
        databases={database.name: database},
        home=where.folder / "home",
        clock=utc_now,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        yield Scene(pair=pair, database=database, store=store, approvals=approvals)
    finally:
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _drilled(scene: Scene, kind: DrillKind) -> DrillReport:
    """One drill, asked for and run; without the way back, which would be a second failover."""
    await scene.pair.healthy()
    request = await _ask(scene, kind)
    async with asyncio.timeout(_DRILL_SECONDS_MAX):
        while (found := await _ended(scene.store, request)) is None:
            await asyncio.sleep(0.1)
    assert found.end is DrillEnd.PASSED, found.missed
    return found


async def _ask(scene: Scene, kind: DrillKind) -> RequestId:
    params = drill.Params(database=scene.database.name, kind=kind, back=False)
    readers = Readers()
    try:
        context = LiveContext(
            target=scene.database, readers=readers, store=scene.store, clock=utc_now
        )
        plan = await drill.plan(context, params)
    finally:
        await readers.close()
    asked = ask_for("drill", plan=plan, database=scene.database.name)
    decided = await scene.approvals.ask(replace(asked, params=params.model_dump(mode="json")))
    assert decided.request is not None, decided.problem
    return decided.request.id


async def _ended(store: Store, request: RequestId) -> DrillReport | None:
    async with store.begin() as conn:
        stored = await drill_of(conn, request)
    if stored is None or stored.ended_at is None:
        return None
    return REPORT.validate_python(stored.report)


async def _loads(
    pair: PairSandbox, home: Path, rounds: int, seconds: int
) -> tuple[list[float], list[float]]:
    """Transactions per second with a ledger beside them and without, in turn."""
    await pair.healthy()
    primary = await pair.primary()
    await _pgbench(pair, primary, "--initialize", f"--scale={_SCALE}", "--quiet")
    with_it: list[float] = []
    without: list[float] = []
    for number in range(rounds):
        for found in (with_it, without) if number % 2 else (without, with_it):
            async with AsyncExitStack() as stack:
                if found is with_it:
                    await stack.enter_async_context(_ledger(pair, primary, home / f"l{number}"))
                words = (*_LOAD, f"--time={seconds}")
                said = await _pgbench(pair, primary, *words)
            told = _TPS.search(said)
            assert told is not None, said
            found.append(float(told[1]))
    return with_it, without


@asynccontextmanager
async def _ledger(pair: PairSandbox, primary: str, home: Path) -> AsyncIterator[None]:
    limit = timedelta(seconds=WAIT_SECONDS_MAX)
    async with Ledger(None, pair.specs, "bench", home, clock=utc_now) as ledger:
        assert await ledger.until(lambda now: now.acknowledged > 0, limit=limit)
        yield
    await remove(pair.spec(primary).target, "bench")


async def _pgbench(pair: PairSandbox, name: str, *words: str) -> str:
    limit = timedelta(seconds=_DRILL_SECONDS_MAX)
    program = pair.binaries.program("pgbench")
    done = await run_program([program, *words, pair.dsn(name)], time_limit=limit)
    assert done.code == 0, done.stderr
    return done.stdout


def _row(kind: DrillKind, found: Sequence[DrillReport]) -> Result:
    """Medians; the ratio is what the drill adds."""
    whole = statistics.median((each.ended_at - each.started_at).total_seconds() for each in found)
    own = statistics.median(_failover_seconds(each) for each in found)
    gap = statistics.median(each.cost.write_gap_seconds for each in found if each.cost)
    before = statistics.median((each.begun_at - each.started_at).total_seconds() for each in found)
    after = statistics.median(
        (each.ended_at - _at(each, Phase.CONNECTED)).total_seconds() for each in found
    )
    return Result(
        what=f"drill {kind} of a pair, whole, without the way back, median of {len(found)};"
        " floor: from the fault until it is proven that applications write",
        ours=f"{whole:.1f} s ({before:.1f} before, {after:.1f} after)",
        floor=f"{own:.1f} s (no writes for {gap:.2f})",
        ratio=f"{whole - own:+.1f} s",
    )


def _failover_seconds(report: DrillReport) -> float:
    return (_at(report, Phase.CONNECTED) - report.begun_at).total_seconds()


def _at(report: DrillReport, phase: Phase) -> datetime:
    at = report.at(phase)
    assert at is not None, f"the drill has not reached {phase}"
    return at


def _cost(with_it: Sequence[float], without: Sequence[float]) -> Result:
    ours, floor = statistics.median(with_it), statistics.median(without)
    return Result(
        what=f"pgbench beside a drill's ledger, 8 clients, median of {len(with_it)};"
        " floor: without it",
        ours=f"{ours:,.0f} tps",
        floor=f"{floor:,.0f} tps",
        ratio=f"{ours / floor:.3f}",
    )


async def _prove_backup(store: Store) -> None:
    at = utc_now()
    backup = BackupRecord(
        id="bench", database="bench", kind="full", engine="native", state="complete",
        folder="/nowhere", started_at=at, ended_at=at, seconds=1.0, size_bytes=1, data_bytes=1,
        start_lsn="0/1", end_lsn="0/2", timeline=1, system_identifier="1", major=17,
        manifest_sha256="", row_counts={}, request_id=None,
    )  # fmt: skip
    proof = Verification(
        backup_id=backup.id, at=at, ok=True, restore_seconds=1.0, total_seconds=1.0, checks=(),
        request_id=None,
    )  # fmt: skip
    async with store.begin() as conn:
        await record_backup(conn, backup)
        await record_verification(conn, proof)
