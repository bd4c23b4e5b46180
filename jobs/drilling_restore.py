"""A drill of the kind `restore`: the database rebuilt elsewhere, as if all its servers were gone.

While a ledger writes rows into the live primary, a moment is declared the disaster; nothing is
harmed. What had reached the archive by then is frozen (`postgres.backup.frozen`), no WAL switch is
made before, and the newest proven backup is restored from there alone. What the copy lacks of the
acknowledged rows is the RPO; the RTO ends when the copy is usable. Then it is removed.

What was frozen a moment before the ledger ended counts: a row too many may be called lost, never
one too few.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from jobs.cluster_of import specs_of
from jobs.drill_restore_words import (
    Copied,
    Disaster,
    RestoreDrilled,
    archive_words,
    cost_of_restore,
    disaster_json,
    disaster_of,
    facts_of_copy,
    holds_until,
    is_all_lost,
    is_of_the_backup,
    loss_words,
)
from jobs.drill_words import Cost, Phase
from jobs.engines import engine_of
from jobs.operation import Attempt, Job, JobError
from jobs.recoverable import Kept, what_is_kept
from jobs.rehearsing_choice import check_room, way_to
from postgres.backup.frozen import FrozenEngine, freeze
from postgres.binaries import find_binaries
from postgres.cluster.ledger import Ledger, measure, remove
from postgres.cluster.ledger_file import is_begun
from postgres.cluster.ledger_writer import Standing
from postgres.cluster.look import look_at
from postgres.cluster.words import NodeSpec
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.restore.first_row import first_row_problem
from postgres.restore.folders import remove_scratch
from postgres.restore.light import login_problem
from postgres.restore.looks import check_queries
from postgres.restore.recovery import Recovered, recover
from postgres.restore.report import Record
from postgres.restore.target import LATEST
from postgres.restore.window import Choice

log: Final = logging.getLogger("twokey.drills")

LIMIT: Final = timedelta(hours=12)  # of the step: as long as a recovery may take
BASELINE_ROWS: Final = 300  # three seconds of them
BASELINE_LIMIT: Final = timedelta(seconds=60)
_LOOK_LIMIT: Final = timedelta(seconds=5)
FROZEN: Final = "archive"
# As a server that takes over runs: what is not durable is restored sooner than it would be.
_DURABLE: Final[Mapping[str, str]] = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "5min",
}
_ELSEWHERE: Final = "what was acknowledged was written down by a worker that is gone"

Note: TypeAlias = Callable[[Phase, str], Awaitable[None]]
Clock: TypeAlias = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOrder:
    """A rehearsed restore. `backup_id`: what the plan names; `key`: the ledger's rows' name.

    `folder`: where the ledger writes and what was frozen is kept, ours alone. It should outlive
    a life of the run: without it the next life cannot tell what was lost.
    """

    backup_id: str
    key: str
    folder: Path
    baseline_rows: int = BASELINE_ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    """Time since the disaster. `is_one_life`: by a steady clock, in the process that saw it."""

    disaster: Disaster
    steady: float | None
    clock: Clock

    @property
    def is_one_life(self) -> bool:
        return self.steady is not None

    @property
    def seconds(self) -> float:
        if self.steady is not None:
            return time.monotonic() - self.steady
        return max((self.clock() - self.disaster.at).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usable:
    """What was found of the running copy. `problem`: '' where it can be worked with."""

    row_seconds: float | None
    seconds: float
    problem: str
    queries: int


async def rehearse(
    job: Job, attempt: Attempt, order: RestoreOrder, *, clock: Clock, note: Note
) -> RestoreDrilled:
    """Declare the disaster, restore elsewhere, measure, and remove the copy.

    The body of a RESUMABLE step that may be begun anew at any point: the disaster's moment is its
    checkpoint, and whatever else an earlier life left is removed first. A backup that turns out
    damaged, or a copy that cannot be worked with, is a result. `note` hears of each phase, those
    after the disaster again in a next life.

    Raises:
        JobError: there is no room, no way leads from the backup, or no row is acknowledged.
        PostgresError: it could not be tried. Nothing was harmed, no copy is left.
    """
    is_over = False
    try:
        drilled = await _rehearsed(job, attempt, order, clock=clock, note=note)
    except (JobError, PostgresError):
        is_over = True
        raise
    else:
        is_over = True
        return drilled
    finally:
        await asyncio.shield(_clear(job, order, clock, is_over=is_over))


async def _rehearsed(
    job: Job, attempt: Attempt, order: RestoreOrder, *, clock: Clock, note: Note
) -> RestoreDrilled:
    await _prepare(job, order)
    declared = disaster_of(attempt.checkpoint)
    if declared is None:
        watch = await _declare(job, attempt, order, clock=clock, note=note)
    else:
        watch = _Watch(disaster=declared, steady=None, clock=clock)
    return await _restored(job, order, watch, note)


async def _prepare(job: Job, order: RestoreOrder) -> None:
    """See that it can be done, before anything is declared."""
    await remove_scratch(job.folder)
    choice = await asyncio.to_thread(way_to, await what_is_kept(job, LATEST), order.backup_id)
    await asyncio.to_thread(find_binaries, os.environ, major=choice.backup.major)
    await asyncio.to_thread(check_room, job.folder, choice, 0)


async def _declare(
    job: Job, attempt: Attempt, order: RestoreOrder, *, clock: Clock, note: Note
) -> _Watch:
    """Write rows, and end that together with what counts of the archive."""
    endpoint, nodes = doors_of(job)
    await asyncio.to_thread(shutil.rmtree, order.folder, ignore_errors=True)
    await remove(await _writable(job, clock), order.key)
    await job.report("Writing rows until one moment is declared the disaster")
    async with Ledger(endpoint, nodes, order.key, order.folder, clock=clock) as ledger:
        await _baseline(ledger, order.baseline_rows)
        await note(Phase.WRITING, "Rows are acknowledged by the live primary")
        stand = await freeze(engine_of(job.database), order.folder / FROZEN)
        await ledger.stop()
    steady, standing = time.monotonic(), ledger.standing
    disaster = Disaster(at=clock(), acked_at=_acked_at(standing), stand=stand)
    await attempt.save(disaster_json(disaster))
    await note(Phase.INJECTED, "Declared lost; nothing is harmed, and only the archive counts now")
    return _Watch(disaster=disaster, steady=steady, clock=clock)


def doors_of(job: Job) -> tuple[Target | None, tuple[NodeSpec, ...]]:
    """Where the ledger's rows go: through the cluster's endpoint, else as the inventory says.

    Raises:
        PostgresError: a DSN cannot be understood.
    """
    settings = job.database.cluster
    if settings is None:
        return None, (NodeSpec(name=job.database.name, target=_live(job)),)
    endpoint = settings.endpoint
    return parse_dsn(endpoint.get_secret_value()) if endpoint else None, specs_of(settings)


def _live(job: Job) -> Target:
    return parse_dsn(job.database.dsn.get_secret_value())


async def _writable(job: Job, clock: Clock) -> Target:
    """The server that holds the ledger's rows: of a cluster, the one that takes writes."""
    if job.database.cluster is None:
        return _live(job)
    nodes = specs_of(job.database.cluster)
    seen = await look_at(nodes, clock=clock, limit=_LOOK_LIMIT)
    writers = [each.name for each in seen if each.is_writable]
    return next((each.target for each in nodes if [each.name] == writers), _live(job))


async def _baseline(ledger: Ledger, rows: int) -> None:
    if await ledger.until(lambda now: now.acknowledged >= rows, limit=BASELINE_LIMIT):
        return
    standing = ledger.standing
    raise JobError(
        f"Only {standing.acknowledged} rows were acknowledged in"
        f" {BASELINE_LIMIT.total_seconds():.0f} s. {standing.problem}".strip(),
        next_step="See whether the database takes writes; nothing was harmed.",
    )


def _acked_at(standing: Standing) -> datetime:
    if standing.acked_at is None:  # see `_baseline`
        raise AssertionError(standing)
    return standing.acked_at


async def _restored(job: Job, order: RestoreOrder, watch: _Watch, note: Note) -> RestoreDrilled:
    """Restore what counts, use it, and count what it lacks."""
    kept = await what_is_kept(job, LATEST)
    frozen = FrozenEngine(
        engine=kept.engine, stand=watch.disaster.stand, folder=order.folder / FROZEN
    )
    kept = replace(kept, engine=frozen, archive=await frozen.archive())
    choice = await asyncio.to_thread(way_to, kept, order.backup_id)
    recovered: Recovered | None = None
    try:
        try:
            recovered = await _recover(job, kept, choice)
        except PostgresError as error:
            if not is_of_the_backup(error):
                raise
            return _failed(order, watch, error)
        await note(Phase.PROMOTED, f"A copy of {order.backup_id} takes writes")
        usable = await _use(job, order, recovered, watch)
        if not usable.problem:
            await note(Phase.CONNECTED, _connectivity(usable))
        copied = _copied(kept, recovered, usable)
        cost, why = await _weigh(order, watch, recovered, copied)
        has_copy = (order.folder / FROZEN).exists()
        archive = archive_words(
            watch.disaster.stand, job.database.backups.archive.method, has_copy=has_copy
        )
        drilled = _drilled(watch, copied, usable, cost, (archive, loss_words(cost, why)), choice)
        await note(Phase.MEASURED, f"Lost: {loss_words(cost, why)}")
        return drilled
    finally:
        if recovered is not None:
            await asyncio.shield(recovered.server.stop("immediate"))
        await asyncio.shield(remove_scratch(job.folder))


async def _recover(job: Job, kept: Kept, choice: Choice) -> Recovered:
    binaries = await asyncio.to_thread(find_binaries, os.environ, major=choice.backup.major)
    return await recover(
        kept.engine, binaries, choice, job.folder, settings=_DURABLE, on_step=job.report
    )


async def _use(job: Job, order: RestoreOrder, recovered: Recovered, watch: _Watch) -> _Usable:
    """Write the first row and ask what applications would ask."""
    queries = [(each.name, each.sql, each.expect) for each in job.database.critical_queries]
    row = f"{order.key}/{watch.disaster.at.isoformat()}"
    problem = await first_row_problem(recovered.dsn, row)
    row_seconds = None if problem else watch.seconds
    if not problem:
        problem = await _login_problem(job, recovered)
    if not problem:
        record = Record(job.report)
        await check_queries(recovered.scratch, queries, record)
        problem = "; ".join(each.detail for each in record.checks if not each.ok)
    return _Usable(
        row_seconds=row_seconds, seconds=watch.seconds, problem=problem, queries=len(queries)
    )


async def _login_problem(job: Job, recovered: Recovered) -> str:
    """Whether those who connect to the original could connect to the copy."""
    endpoint, _ = doors_of(job)
    try:
        return await login_problem(recovered.dsn, endpoint or _live(job)) or ""
    except PostgresError as error:
        return error.problem.removesuffix(".")


def _connectivity(usable: _Usable) -> str:
    if usable.problem:
        return f"The copy cannot be worked with: {usable.problem}."
    asked = (
        f"{usable.queries} critical queries answered as expected"
        if usable.queries
        else "no critical query is defined"
    )
    return f"The copy took a row and gave it back; {asked}."


def _copied(kept: Kept, recovered: Recovered, usable: _Usable) -> Copied:
    return Copied(
        backup_id=recovered.facts.id,
        reached_lsn=recovered.reached_lsn,
        reached_at=recovered.reached_at,
        holds=holds_until(
            backup_ended_at=recovered.facts.ended_at,
            reached_at=recovered.reached_at,
            reached_lsn=recovered.reached_lsn,
            timeline=recovered.timeline,
            marks=kept.marks,
        ),
        lay_out_seconds=recovered.lay_out_seconds,
        replay_seconds=recovered.replay_seconds,
        promote_seconds=recovered.promote_seconds,
        row_seconds=usable.row_seconds,
        usable_seconds=None if usable.problem else usable.seconds,
    )


async def _weigh(
    order: RestoreOrder, watch: _Watch, recovered: Recovered, copied: Copied
) -> tuple[Cost | None, str]:
    """What was lost; or None and why nobody can tell."""
    if not await asyncio.to_thread(is_begun, order.folder):
        return None, _ELSEWHERE
    disaster = watch.disaster
    try:
        loss = await measure(
            recovered.dsn, key=order.key, folder=order.folder,
            injected_at=disaster.at, until=disaster.at,
        )  # fmt: skip
    except PostgresError as error:
        return None, error.problem.removesuffix(".")
    return cost_of_restore(loss, disaster, copied, is_one_life=watch.is_one_life), ""


def _drilled(
    watch: _Watch,
    copied: Copied,
    usable: _Usable,
    cost: Cost | None,
    words: tuple[str, str],
    choice: Choice,
) -> RestoreDrilled:
    archive, lost = words
    age = watch.disaster.at - choice.backup.ended_at
    facts = facts_of_copy(copied, watch.disaster, backup_age=age, archive=archive, lost=lost)
    return RestoreDrilled(
        at=watch.disaster.at,
        backup_id=copied.backup_id,
        cost=cost,
        is_connected=not usable.problem,
        connectivity=_connectivity(usable),
        seconds=copied.usable_seconds,
        is_exact=watch.is_one_life,
        is_rpo_exact=cost is not None and not is_all_lost(cost),
        facts=tuple(facts),
    )


def _failed(order: RestoreOrder, watch: _Watch, error: PostgresError) -> RestoreDrilled:
    """There is no copy: what it would have lacked is everything, and so nobody can say how much."""
    return RestoreDrilled(
        at=watch.disaster.at,
        backup_id=order.backup_id,
        cost=None,
        is_connected=False,
        connectivity=error.problem,
        seconds=None,
        is_exact=watch.is_one_life,
        is_rpo_exact=False,
        facts=(
            ("Backup", order.backup_id),
            ("Restore", f"failed: {error.problem} {error.next_step}".strip()),
        ),
    )


async def _clear(job: Job, order: RestoreOrder, clock: Clock, *, is_over: bool) -> None:
    """Remove the ledger's rows from the live primary; a next try takes what stays.

    What was written down goes too, with the copy of WAL, unless another life may go on with it.
    """
    if is_over:
        await asyncio.to_thread(shutil.rmtree, order.folder, ignore_errors=True)
    try:
        await remove(await _writable(job, clock), order.key)
    except PostgresError as error:
        log.warning("%s %s", error.problem, error.next_step)
