"""The run of a restore into a scratch server: recover, open it to people, and enter it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import JsonValue

from jobs.engines import engine_of
from jobs.operation import Answer, Attempt, Context, Job, JobError, Mode
from jobs.scratches import folder_of, home_of, this_host
from jobs.text import count_text, span_text
from postgres.binaries import find_binaries
from postgres.restore.lasting import (
    Lasting,
    alone,
    empty_lasting,
    make_lasting,
    remove_lasting,
)
from postgres.restore.recovery import Recovered, recover
from postgres.restore.target import RecoveryTarget
from postgres.restore.window import Choice
from postgres.sizes import pretty_bytes
from store.scratches import Scratch, record_scratch, running_scratches

LIMIT: Final = timedelta(hours=24)
ATTEMPTS: Final = 2


async def check_room_for_one(context: Context, *, but: str = "") -> None:
    """See whether one more scratch server may run; one called `but` does not count.

    Raises:
        JobError: so many run already as are allowed.
    """
    limits = context.database.backups.scratch
    async with context.store.begin() as conn:
        running = await running_scratches(conn, database=context.database.name)
    ids = [one.id for one in running if one.id != but]
    if len(ids) >= limits.open_max:
        raise JobError(
            f"{count_text(len(ids), 'scratch server')} of {context.database.name} run already:"
            f" {', '.join(ids)}.",
            next_step=f"End one with /db drop-scratch {ids[0]}, or wait until its time is up.",
        )


async def run_scratch(job: Job, choice: Choice, lifetime: timedelta) -> Answer:
    """Recover, open to people, and enter into the store: all of it is one step.

    Raises:
        JobError: too many run already.
        PostgresError: it could not be recovered. Nothing is left behind.
    """
    scratch_id = f"{job.database.name}-{job.request_id}"
    await check_room_for_one(job, but=scratch_id)

    async def restore(_: Attempt) -> JsonValue:
        return await _restore(job, scratch_id, choice, lifetime)

    # Retryable: an attempt begins by removing what an earlier one left, a running server too.
    done = await job.step(
        "restore", restore, mode=Mode.RETRYABLE, time_limit=LIMIT, attempts=ATTEMPTS
    )
    return _answer(job, scratch_id, choice.target, done if isinstance(done, dict) else {})


async def _restore(job: Job, scratch_id: str, choice: Choice, lifetime: timedelta) -> JsonValue:
    """A lasting server that is entered into the store, or nothing."""
    folder = folder_of(home_of(job.folder), scratch_id)
    engine = engine_of(job.database)
    binaries = await asyncio.to_thread(find_binaries, os.environ, major=choice.backup.major)
    with alone(folder, make=True):
        try:
            await empty_lasting(folder)
            recovered = await recover(engine, binaries, choice, folder, on_step=job.report)
            await job.report("Opening the copy to people")
            host = job.database.backups.scratch.host
            lasting = await make_lasting(recovered.server, recovered.facts, folder, host=host)
            expires_at = job.now + lifetime
            async with job.store.begin() as conn:
                await record_scratch(conn, _record(job, scratch_id, recovered, lasting, expires_at))
        except BaseException:
            await asyncio.shield(remove_lasting(folder))
            raise
    return _told(recovered, lasting, expires_at)


def _record(
    job: Job, scratch_id: str, recovered: Recovered, lasting: Lasting, expires_at: datetime
) -> Scratch:
    return Scratch(
        id=scratch_id,
        request_id=job.request_id,
        database=job.database.name,
        backup_id=recovered.facts.id,
        target=str(recovered.target),
        host=this_host(),
        folder=str(lasting.folder),
        port=lasting.port,
        dsn=lasting.dsn,
        state="running",
        created_at=job.now,
        expires_at=expires_at,
        detail={
            "environment": job.database.environment,
            "reached_lsn": recovered.reached_lsn,
            "reached_at": _iso(recovered.reached_at),
            "timeline": recovered.timeline,
            "restore_seconds": recovered.seconds,
            "data_bytes": recovered.facts.data_bytes,
        },
    )


def _told(recovered: Recovered, lasting: Lasting, expires_at: datetime) -> JsonValue:
    """What the answer is made of, also after a crash."""
    return {
        "dsn": lasting.dsn,
        "passfile": str(lasting.passfile),
        "host": this_host(),
        "expires_at": expires_at.isoformat(),
        "seconds": recovered.seconds,
        "lay_out_seconds": recovered.lay_out_seconds,
        "replay_seconds": recovered.replay_seconds,
        "wal_bytes": recovered.wal_bytes,
        "data_bytes": recovered.facts.data_bytes,
        "reached_lsn": recovered.reached_lsn,
        "reached_at": _iso(recovered.reached_at),
        "note": recovered.note,
    }


def _answer(
    job: Job, scratch_id: str, target: RecoveryTarget, told: Mapping[str, JsonValue]
) -> Answer:
    name, host = job.database.name, str(told["host"])
    until = datetime.fromisoformat(str(told["expires_at"]))
    seconds, wal_bytes = float(str(told["seconds"])), int(str(told["wal_bytes"]))
    data_bytes = int(str(told["data_bytes"]))
    return Answer(
        title=f"{name} as of {target} runs as {scratch_id}",
        lines=(
            f"Connect on {host}: {told['dsn']}",
            f"The password is in {told['passfile']} there; nobody else has it.",
            f"One table back: /db recover-table {name} <schema.table> --from {scratch_id}",
            f"Done with it: /db drop-scratch {scratch_id}",
            *([str(told["note"])] if told["note"] else []),
        ),
        facts=(
            ("Lives until", f"{until:%Y-%m-%d %H:%M UTC} ({span_text(until - job.now)})"),
            ("Last commit in it", _commit(told["reached_at"])),
            ("Ends at", f"LSN {told['reached_lsn']}"),
            (
                "Took",
                f"{_span(told['seconds'])}, of which replay {_span(told['replay_seconds'])}",
            ),
            ("Laid out", f"{pretty_bytes(data_bytes)} in {_span(told['lay_out_seconds'])}"),
            ("WAL replayed", pretty_bytes(wal_bytes)),
        ),
        numbers={
            "into": "scratch",
            "scratch": scratch_id,
            "seconds": seconds,
            "wal_bytes": wal_bytes,
            "data_bytes": data_bytes,
        },
    )


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _commit(reached_at: JsonValue) -> str:
    if not reached_at:
        return "none was replayed"
    moment = datetime.fromisoformat(str(reached_at)).astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S.%f UTC}"


def _span(seconds: JsonValue) -> str:
    return span_text(timedelta(seconds=float(str(seconds))))
