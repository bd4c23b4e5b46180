"""The copy that is to take the place of a server: recovered beside it, looked at, stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from jobs.backup_settings import ArchiveMethod
from jobs.engines import engine_of
from jobs.operation import Database, Job, JobError
from postgres.account import server_account
from postgres.backup.wal_archive import WalArchive
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.restore.branch import branch, histories_in
from postgres.restore.control import ControlFacts, control_facts, read_instance
from postgres.restore.exchange import sync_folder, sync_tree
from postgres.restore.folders import remove_scratch
from postgres.restore.light import index_problem, login_problem, next_xid
from postgres.restore.looks import check_queries
from postgres.restore.recovery import Recovered, recover
from postgres.restore.report import Record
from postgres.restore.ways import Ways, beside
from postgres.restore.window import Choice
from postgres.server import Binaries, find_binaries

STOP_LIMIT: Final = timedelta(minutes=30)
COPY_LIMIT: Final = timedelta(hours=24)


class NewTimeline(BaseModel):
    """A stopped server's timeline. `first_wal`: see `give_first_wal`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeline: int
    first_wal: tuple[str, ...]


class Copy(NewTimeline):
    """A copy that stands ready. `next_xid`: what its next transaction would have been there."""

    reached: str
    next_xid: int
    seconds: float


async def make_copy(job: Job, choice: Choice, ways: Ways) -> Copy:
    """Recover, promote, check and stop a copy at `ways.coming`; what was there is removed.

    Raises:
        JobError: the copy is not what it should be. It is removed.
        PostgresError: it cannot be recovered. Nothing is left.
    """
    await asyncio.to_thread(sweep, ways.data)
    database = job.database
    binaries = await asyncio.to_thread(find_binaries, os.environ, major=choice.backup.major)
    recovered = await recover(engine_of(database), binaries, choice, ways.work, on_step=job.report)
    try:
        xid = await _checked(job, recovered, binaries)
        await job.report("Stopping the copy in good order")
        await recovered.server.stop(time_limit=STOP_LIMIT)
        timeline = await _finished(database, recovered, ways)
        await asyncio.to_thread(_put_ready, recovered.server.data, ways)
    finally:
        await asyncio.shield(recovered.server.stop("immediate"))
        await asyncio.shield(remove_scratch(ways.work))
        await asyncio.to_thread(shutil.rmtree, ways.work, ignore_errors=True)
    return Copy(
        reached=str(recovered.reached_at or recovered.reached_lsn),
        next_xid=xid,
        seconds=recovered.seconds,
        **timeline.model_dump(),
    )


def sweep(data: Path) -> None:
    """Remove the copies beside a data folder that never came into its place.

    Call it only while nobody else works there: see `place.alone`.
    """
    for what in ("new-*", "work-*"):
        for path in data.parent.glob(beside(data, what).name):
            shutil.rmtree(path, ignore_errors=True)


async def own_timeline(database: Database, data: Path, other: Path) -> NewTimeline:
    """Give the stopped server on `data` a timeline that nobody has had yet.

    `other` is the data folder that it is exchanged with, whose timelines are taken.

    Raises:
        PostgresError: it cannot be promoted.
    """
    archive = await engine_of(database).archive()
    taken: Mapping[str, str] = {
        **{f"{timeline:08X}.history": text for timeline, text in archive.histories.items()},
        **await asyncio.to_thread(histories_in, other),
    }
    programs = (await asyncio.to_thread(read_instance, other)).folder
    facts = await branch(data, programs, taken)
    first = await asyncio.to_thread(give_first_wal, database, data, facts)
    return NewTimeline(timeline=facts.timeline, first_wal=first)


def give_first_wal(database: Database, data: Path, facts: ControlFacts) -> tuple[str, ...]:
    """See that the first WAL of a stopped server's new timeline gets archived; its names.

    Whoever receives WAL from a server gets it only from where its start begins to read. What
    is older the server's own archiver sends when it starts, where it has one; else `hand_over`
    keeps it.
    """
    wal, mine = data / "pg_wal", f"{facts.timeline:08X}"
    segments = sorted(path for path in wal.glob(f"{mine}????????????????") if path.is_file())
    history = wal / f"{mine}.history"
    files = [
        *([history] if history.exists() else []),
        *(path for path in segments if path.name < facts.redo_wal),
    ]
    if database.backups.archive.method in (ArchiveMethod.COMMAND, ArchiveMethod.ENGINE):
        for path in files:
            _mark_for_archiver(path)
    return tuple(path.name for path in files)


async def hand_over(database: Database, data: Path, names: Sequence[str]) -> str:
    """Keep the first WAL of a new timeline in our archive; '' or why that did not work."""
    settings = database.backups
    if settings.archive.method is not ArchiveMethod.RECEIVE:
        return ""
    keys = settings.encryption
    archive = WalArchive(
        database.backup_folder / "wal",
        keys.recipient if keys else None,
        keys.identity if keys else None,
    )
    try:
        for name in names:
            await archive.push(data / "pg_wal" / name, name)
    except PostgresError as error:
        return f"{error.problem} {error.next_step}"
    except OSError as error:
        return f"The first WAL of the new timeline was not kept: {error.strerror or error}."
    return ""


def _mark_for_archiver(path: Path) -> None:
    mark = path.parent / "archive_status" / f"{path.name}.ready"
    mark.touch(mode=0o600)
    if account := server_account():
        os.chown(mark, account.uid, account.gid)


async def _checked(job: Job, recovered: Recovered, binaries: Binaries) -> int:
    """Whether people can use it; the number of its next transaction, before ours."""
    xid = await next_xid(recovered.dsn)
    wanted = parse_dsn(job.database.dsn.get_secret_value())
    if problem := await login_problem(recovered.dsn, wanted):
        raise _unusable(problem)
    if "amcheck" in binaries.extensions:
        await job.report("Checking the copy's indexes (amcheck)")
        if problem := await index_problem(recovered.dsn):
            raise _unusable(f"an index is broken: {problem}")
    record = Record(job.report)
    queries = [(q.name, q.sql, q.expect) for q in job.database.critical_queries]
    await check_queries(recovered.scratch, queries, record)
    if bad := [check.detail for check in record.checks if not check.ok]:
        raise _unusable("; ".join(bad))
    return xid


async def _finished(database: Database, recovered: Recovered, ways: Ways) -> NewTimeline:
    """The stopped copy, on a timeline of its own."""
    data = recovered.server.data
    programs = recovered.server.binaries.folder
    facts = await control_facts(programs, data)
    here = await control_facts(programs, ways.data)
    if facts.system_identifier != here.system_identifier:
        raise PostgresError(
            f"The backup {recovered.facts.id} is of another cluster ({facts.system_identifier})"
            f" than the server on {ways.data} ({here.system_identifier}).",
            next_step="A logical backup, for one, makes a new cluster: restore it with --into"
            " scratch.",
        )
    if facts.timeline <= here.timeline:
        return await own_timeline(database, data, ways.data)
    first = await asyncio.to_thread(give_first_wal, database, data, facts)
    return NewTimeline(timeline=facts.timeline, first_wal=first)


def _put_ready(data: Path, ways: Ways) -> None:
    """All of it on the disk, and then its name: where that stands, the copy is whole."""
    sync_tree(data)
    data.rename(ways.coming)
    sync_folder(ways.coming.parent)


def _unusable(problem: str) -> JobError:
    return JobError(
        f"The copy was recovered, but {problem.removesuffix('.')}. The server was not touched.",
        next_step="Choose another target, or restore --into scratch and look at it there.",
    )
