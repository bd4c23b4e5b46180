"""Cancelling what a session runs, and ending it: who it is, whether that may be, and doing it.

A pid is used again: each step says by the time at which the session (and, to cancel, its
statement) began which one is meant, and the check and the signal are one statement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import asyncpg
from pydantic import JsonValue

from jobs.backend_words import doing, transaction_text, who
from jobs.operation import Attempt, Context, Database, Job, JobError, Plan, Reader
from jobs.text import count_text, span_text
from postgres.connect import connection
from postgres.dsn import parse_dsn
from postgres.health.blocking import LOOK, Backend, backend_of, backends, held_up_by

GONE_WITHIN: Final = timedelta(seconds=30)
STEP_LIMIT: Final = timedelta(minutes=2)
LOOK_EVERY: Final = timedelta(milliseconds=100)
_PIDS_SAID_MAX: Final = 8
_ACTIVE: Final = frozenset({"active", "fastpath function call"})

FIND: Final = """
    SELECT /* twokey-monitor */
           a.pid, a.usename AS user, a.application_name AS application, a.datname AS database,
           host(a.client_addr) AS client, a.backend_type, a.state, a.query, a.backend_start,
           a.xact_start, a.query_start, a.state_change, a.backend_xid IS NOT NULL AS has_written,
           clock_timestamp() AS seen_at, '{}'::int[] AS blocked_by, NULL AS locktype,
           NULL AS mode, NULL::timestamptz AS since, NULL AS relation, a.leader_pid,
           current_user::text AS us,
           a.usename = current_user AND a.application_name LIKE 'twokey%' AS is_ours,
           coalesce(theirs.rolsuper, false) AND NOT ours.rolsuper AS is_above_us,
           ours.rolsuper OR pg_has_role('pg_signal_backend', 'USAGE')
               OR coalesce(pg_has_role(theirs.oid, 'USAGE'), false) AS may_signal
      FROM pg_stat_activity a
      JOIN pg_roles ours ON ours.rolname = current_user
      LEFT JOIN pg_roles theirs ON theirs.oid = a.usesysid
     WHERE a.pid = $1
"""


class Signal(StrEnum):
    """What is sent."""

    CANCEL = "cancel"
    TERMINATE = "terminate"


# The function is called for the row that is left, which is none if it is not the very one.
SEND: Final[Mapping[Signal, str]] = {
    Signal.CANCEL: """
        SELECT pg_cancel_backend(a.pid) AS sent FROM pg_stat_activity a
         WHERE a.pid = $1 AND a.backend_start = $2 AND a.query_start = $3
           AND a.state IN ('active', 'fastpath function call')
    """,
    Signal.TERMINATE: """
        SELECT pg_terminate_backend(a.pid) AS sent FROM pg_stat_activity a
         WHERE a.pid = $1 AND a.backend_start = $2
    """,
}
STILL: Final[Mapping[Signal, str]] = {
    Signal.CANCEL: """
        SELECT FROM pg_stat_activity a
         WHERE a.pid = $1 AND a.backend_start = $2 AND a.query_start = $3
           AND a.state IN ('active', 'fastpath function call')
    """,
    Signal.TERMINATE: """
        SELECT FROM pg_stat_activity a WHERE a.pid = $1 AND a.backend_start = $2
    """,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A session, and what our user may do to it."""

    pid: int
    backend: Backend
    us: str
    is_ours: bool
    is_above_us: bool
    may_signal: bool
    leader_pid: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it. `sent` False: it had ended by itself. `waiting`: still for it."""

    sent: bool
    seconds: float
    held_up: int
    waiting: int


async def find(reader: Reader, pid: int) -> Target | None:
    """The session that has this pid now."""
    rows = await reader.rows(FIND, pid)
    if not rows:
        return None
    row = rows[0]
    return Target(
        pid=pid,
        backend=backend_of(row),
        us=row["us"],
        is_ours=bool(row["is_ours"]),
        is_above_us=bool(row["is_above_us"]),
        may_signal=bool(row["may_signal"]),
        leader_pid=row["leader_pid"],
    )


async def plan_of(context: Context, pid: int, signal: Signal) -> Plan:
    """Who it is, what it does and holds up, and what will be lost.

    Raises:
        JobError: there is no such session, or it must not or cannot be ended by us.
    """
    target = await find(context.reader, pid)
    name = context.database.name
    if target is None:
        raise JobError(
            f"{name} has no session {pid}: it has ended.",
            next_step=f"See who waits now: /db locks {name}",
        )
    if objection := objection_to(target, signal, name):
        raise objection
    held_up = held_up_by(backends(await context.reader.rows(LOOK)), pid)
    backend = target.backend
    is_cancel = signal is Signal.CANCEL
    same = "session and statement" if is_cancel else "session"
    return Plan(
        title=f"Cancel what session {pid} of {name} runs"
        if is_cancel
        else f"End session {pid} of {name}",
        steps=(
            f"See that {pid} is still the {same} that is shown here; if not, do nothing",
            f"Send it {'a cancel' if is_cancel else 'the signal to end'}, once",
            f"Wait until it has ended, for at most {span_text(GONE_WITHIN)}",
        ),
        statements=(f"SELECT pg_{signal}_backend({pid});",),
        facts=(
            ("Who", who(backend)),
            ("Database", backend.database or "-"),
            ("Connected for", _age(backend, backend.backend_start)),
            ("Does", doing(backend)),
            ("Transaction open for", transaction_text(backend)),
            ("Holds up", _held_up(held_up)),
            ("Will be rolled back", _lost(backend)),
        ),
        warnings=() if is_cancel else (_CUT_OFF,),
        estimate_seconds=1,
        undo="Nothing brings it back: its application must run it again.",
        pins=pins_of(backend, signal),
    )


_CUT_OFF: Final = (
    "Its client loses the connection: it gets an error, and must connect again. Where it does so at"
    " once and runs the same, only its application can end that."
)


async def pins_now(context: Context, pid: int, signal: Signal, plan: Plan) -> Mapping[str, str]:
    """Which session (and statement) has the pid now; as planned where it has ended by itself.

    Then there is nothing left to do, which is what the run will say. Another one with the same
    pid is another fact: the request goes back.
    """
    target = await find(context.reader, pid)
    if target is None:
        return plan.pins
    now = pins_of(target.backend, signal)
    same_session = now.get("session") == plan.pins.get("session")
    if signal is Signal.CANCEL and same_session and target.backend.state not in _ACTIVE:
        return plan.pins
    return now


def pins_of(backend: Backend, signal: Signal) -> Mapping[str, str]:
    """What tells this session, and to cancel this statement, from any later one."""
    pins = {"session": f"{backend.key} since {_moment(backend.backend_start)}"}
    if signal is Signal.CANCEL:
        pins["statement"] = f"since {_moment(backend.query_start)}"
    return pins


def objection_to(target: Target, signal: Signal, name: str) -> JobError | None:
    """Why this session must not be ended, or cannot be by us; None when it can."""
    return (
        _not_a_client(target, name)
        or _no_right(target)
        or (_nothing_to_cancel(target, name) if signal is Signal.CANCEL else None)
    )


def _not_a_client(target: Target, name: str) -> JobError | None:
    pid, backend = target.pid, target.backend
    if target.is_ours:
        return JobError(
            f"{pid} is a session of Twokey itself.",
            next_step="Cancel the request that it works for: /db requests lists them.",
        )
    if backend.is_against_wraparound:
        return JobError(
            f"{pid} is an autovacuum that prevents transaction id wraparound: without it the"
            " server stops taking writes.",
            next_step="Let it end. What waits for it (DDL, mostly) is better taken back meanwhile.",
        )
    return None if backend.backend_type == "client backend" else _other_kind(target, name)


def _other_kind(target: Target, name: str) -> JobError:
    pid, backend = target.pid, target.backend
    match backend.backend_type:
        case "walsender":
            return JobError(
                f"{pid} is a walsender ({backend.application or 'no name'}): a standby, an archive"
                " or a backup hangs on it.",
                next_step="Stop it where it comes from; /db replication shows the standbys.",
            )
        case "parallel worker" if target.leader_pid is not None:
            return JobError(
                f"{pid} only helps session {target.leader_pid}.",
                next_step=f"Ask for that one: /db cancel-backend {name} {target.leader_pid}",
            )
        case "":
            return JobError(
                f"Our user {target.us} may not see what {pid} is.",
                next_step=f"As a superuser there: GRANT pg_monitor TO {target.us}; then ask again.",
            )
        case kind:
            return JobError(
                f"{pid} is a process of the server itself ({kind}), no client's session.",
                next_step="An autovacuum gives way to whoever waits for it. Leave others alone.",
            )


def _no_right(target: Target) -> JobError | None:
    if target.is_above_us:
        return JobError(
            f"{target.pid} is a superuser's session ({target.backend.user}), which only a"
            " superuser may end.",
            next_step="Ask who has that login, or a superuser of the server.",
        )
    if not target.may_signal:
        return JobError(
            f"Our user {target.us} may not end sessions of {target.backend.user}.",
            next_step=f"As a superuser there: GRANT pg_signal_backend TO {target.us};"
            " then ask again.",
        )
    return None


def _nothing_to_cancel(target: Target, name: str) -> JobError | None:
    backend = target.backend
    if backend.state in _ACTIVE and backend.query_start is not None:
        return None
    return JobError(
        f"{target.pid} runs nothing that could be cancelled: it is {backend.state or 'not seen'}.",
        next_step=f"To free its locks, end the session: /db terminate-backend {name} {target.pid}",
    )


async def signalled(job: Job, attempt: Attempt, pid: int, signal: Signal, plan: Plan) -> JsonValue:
    """Send it to the very session (and statement) of the plan, and wait until that has ended.

    Safe to do again: the statement that sends checks whom it sends to, and a second signal to
    the same one changes nothing.

    Raises:
        JobError: it did not end in time, or our right is gone.
    """
    pinned = _pinned(plan, signal)
    loop = asyncio.get_running_loop()
    async with connection(parse_dsn(job.database.dsn.get_secret_value())) as conn:
        before = held_up_by(backends(await conn.fetch(LOOK)), pid)
        sent_before = attempt.checkpoint == "sending"
        await attempt.save("sending")
        begin = loop.time()
        sent = await _send(conn, job.database, signal, pid, pinned)
        if sent:
            await _gone(conn, signal, pid, pinned)
        after = held_up_by(backends(await conn.fetch(LOOK)), pid)
        return {
            "sent": sent or sent_before,
            "seconds": round(loop.time() - begin, 3),
            "held_up": len(before),
            "waiting": len(before & after),
        }


def outcome_of(result: JsonValue) -> Outcome:
    """What `signalled` has returned, perhaps before a crash."""
    told = result if isinstance(result, dict) else {}
    return Outcome(
        sent=bool(told.get("sent")),
        seconds=float(str(told.get("seconds", 0))),
        held_up=int(str(told.get("held_up", 0))),
        waiting=int(str(told.get("waiting", 0))),
    )


async def _send(
    conn: Any, database: Database, signal: Signal, pid: int, pinned: tuple[datetime, ...]
) -> bool:
    try:
        rows = await conn.fetch(SEND[signal], pid, *pinned)
    except asyncpg.InsufficientPrivilegeError:
        raise JobError(
            f"Our user may not end session {pid} of {database.name} (any more).",
            next_step="As a superuser there: GRANT pg_signal_backend TO our user, then ask again.",
        ) from None
    return any(row["sent"] for row in rows)


async def _gone(conn: Any, signal: Signal, pid: int, pinned: tuple[datetime, ...]) -> None:
    try:
        async with asyncio.timeout(GONE_WITHIN.total_seconds()):
            while await conn.fetch(STILL[signal], pid, *pinned):  # noqa: ASYNC110 - not ours
                await asyncio.sleep(LOOK_EVERY.total_seconds())
    except TimeoutError:
        raise JobError(
            f"{pid} was told to end, and has not within {span_text(GONE_WITHIN)}.",
            next_step="It may be in a call that cannot be interrupted (disk, network): look again"
            " with /db locks. Never kill -9 it: that restarts the whole server.",
        ) from None


def _pinned(plan: Plan, signal: Signal) -> tuple[datetime, ...]:
    """The times that the plan pinned, as the statements want them."""
    names = ("session", "statement") if signal is Signal.CANCEL else ("session",)
    return tuple(datetime.fromisoformat(plan.pins[name].rpartition("since ")[2]) for name in names)


def _moment(at: datetime | None) -> str:
    return at.isoformat() if at is not None else "unknown"


def _age(backend: Backend, since: datetime | None) -> str:
    return "-" if since is None else span_text(backend.seen_at - since)


def _held_up(pids: frozenset[int | str]) -> str:
    if not pids:
        return "nobody"
    said = ", ".join(sorted(map(str, pids))[:_PIDS_SAID_MAX])
    more = ", …" if len(pids) > _PIDS_SAID_MAX else ""
    return f"{count_text(len(pids), 'session')}: {said}{more}"


def _lost(backend: Backend) -> str:
    if backend.has_written:
        return f"all that its transaction wrote, which is open for {transaction_text(backend)}"
    return "nothing: its transaction has written nothing so far"
