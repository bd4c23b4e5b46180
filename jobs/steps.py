"""The steps of a run: an intent before, an outcome after, and what a crash in between means."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias, assert_never

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy.dialects.postgresql import JSONB

from approvals.words import ExplainedError
from jobs import runs
from jobs.away import StoreAwayError, patiently
from jobs.limits import Limits
from jobs.operation import Attempt, JobError, Mode
from jobs.pulse import Leash
from jobs.runs import FencedError
from postgres.together import unbroken
from store.connect import Store
from store.quick import Statement
from store.redact import redact

Body: TypeAlias = Callable[[Attempt], Awaitable[JsonValue]]

log: Final = logging.getLogger("twokey.jobs")

ERROR_CHARS_MAX: Final = 2000


class AttentionError(ExplainedError):
    """A person must look: nobody knows whether a step that must not be repeated happened."""


class StuckError(AttentionError):
    """A body was cancelled and did not end: it may still be at work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A step as the store has it."""

    state: str
    attempt: int
    checkpoint: JsonValue
    result: JsonValue
    error: str


@dataclass(frozen=True, slots=True)
class Return:
    """The step is done: give its result back."""

    result: JsonValue


@dataclass(frozen=True, slots=True)
class Begin:
    """Begin the attempt of this number, from this checkpoint."""

    number: int
    checkpoint: JsonValue


@dataclass(frozen=True, slots=True)
class Fail:
    """The step has failed for good."""

    error: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Nobody knows whether it happened, and it must not happen twice."""


def decide(stored: Stored | None, *, mode: Mode, attempts: int) -> Return | Begin | Fail | Ask:
    """What to do about a step, by what an earlier life of the run has stored. Pure.

    A failed step without an error: a person said that it did not happen.
    """
    if stored is None:
        return Begin(1, None)
    if stored.state == "done":
        return Return(stored.result)
    tries = 1 if mode is Mode.ONCE else attempts
    if stored.state == "failed" and stored.error and stored.attempt >= tries:
        return Fail(stored.error)
    again = stored.attempt + 1
    match mode:
        case Mode.RETRYABLE:
            return Begin(again, None)
        case Mode.RESUMABLE:
            return Begin(again, stored.checkpoint)
        case Mode.ONCE:
            known = stored.state == "failed"
            return Begin(again, stored.checkpoint) if known else Ask()
        case _:
            assert_never(mode)


LOAD_STEP: Final = sa.text("""
    SELECT state, attempt, checkpoint, result, error
      FROM run_steps
     WHERE run_id = :run_id AND name = :name
""").columns(checkpoint=JSONB, result=JSONB)

# Step and log line are one statement, which commits in one round trip. FOR SHARE waits for
# a worker that is taking the run over, and then finds no row. Safe to
# repeat when the answer to the commit was lost: the same attempt overwrites itself.
INTENT: Final = Statement(
    sa.text("""
    WITH mine AS (
        SELECT id FROM runs
         WHERE id = :run_id AND epoch = :epoch AND worker = :worker AND state = 'running'
           FOR SHARE
    ), written AS (
        INSERT INTO run_steps AS s
               (run_id, name, position, mode, state, attempt, epoch, started_at, checkpoint)
        SELECT id, :name, :position, :mode, 'started', :attempt, :epoch, :now, :checkpoint
          FROM mine
        ON CONFLICT (run_id, name) DO UPDATE
           SET state = 'started', mode = :mode, attempt = :attempt, epoch = :epoch,
               started_at = :now, ended_at = NULL, result = NULL, error = ''
         WHERE s.state <> 'done'
           AND (s.attempt < :attempt OR (s.attempt = :attempt AND s.epoch = :epoch))
        RETURNING run_id
    ), logged AS (
        INSERT INTO run_log (run_id, at, line) SELECT run_id, :now, :line FROM written
    )
    SELECT run_id FROM written
""").bindparams(sa.bindparam("checkpoint", type_=JSONB))
)

# Also where there is no intent: an asynchronous failover of the store may have lost it.
OUTCOME: Final = Statement(
    sa.text("""
    WITH mine AS (
        SELECT id FROM runs
         WHERE id = :run_id AND epoch = :epoch AND worker = :worker AND state = 'running'
           FOR SHARE
    ), written AS (
        INSERT INTO run_steps AS s
               (run_id, name, position, mode, state, attempt, epoch, started_at, ended_at,
                checkpoint, result, error)
        SELECT id, :name, :position, :mode, :state, :attempt, :epoch, :now, :now,
               :checkpoint, :result, :error
          FROM mine
        ON CONFLICT (run_id, name) DO UPDATE
           SET state = :state, ended_at = :now, result = :result, error = :error
         WHERE s.attempt = :attempt AND s.epoch = :epoch
        RETURNING run_id
    ), logged AS (
        INSERT INTO run_log (run_id, at, line) SELECT run_id, :now, :line FROM written
    )
    SELECT run_id FROM written
""").bindparams(sa.bindparam("result", type_=JSONB), sa.bindparam("checkpoint", type_=JSONB))
)

CHECKPOINT: Final = Statement(
    sa.text("""
    WITH mine AS (
        SELECT id FROM runs
         WHERE id = :run_id AND epoch = :epoch AND worker = :worker AND state = 'running'
           FOR SHARE
    )
    UPDATE run_steps s
       SET checkpoint = :checkpoint
      FROM mine
     WHERE s.run_id = mine.id AND s.name = :name AND s.attempt = :attempt AND s.epoch = :epoch
       AND s.state = 'started'
    RETURNING s.run_id
""").bindparams(sa.bindparam("checkpoint", type_=JSONB))
)


class LiveAttempt:
    """One attempt at one step; implements `jobs.operation.Attempt`."""

    def __init__(self, steps: Steps, name: str, begin: Begin, mode: Mode, position: int) -> None:
        self._steps = steps
        self.name = name
        self.number = begin.number
        self.checkpoint = begin.checkpoint
        self.mode = mode
        self.position = position

    async def save(self, checkpoint: JsonValue) -> None:
        """Store how far the step is.

        Raises:
            FencedError: another worker has taken over.
        """
        await self._steps.write(
            CHECKPOINT, self, {"checkpoint": checkpoint}, what="store a checkpoint"
        )
        self.checkpoint = checkpoint


class Steps:
    """The steps of one life of a run."""

    def __init__(
        self,
        store: Store,
        leash: Leash,
        *,
        limits: Limits,
        clock: Callable[[], datetime],
        is_first_life: bool = False,
    ) -> None:
        """In its first life a run has no steps to look up.

        Nothing rests on that: an intent never overwrites a step of another life.
        """
        self._store = store
        self._leash = leash
        self._limits = limits
        self._clock = clock
        self._is_first_life = is_first_life
        self._names: list[str] = []
        self.in_doubt: set[str] = set()  # `once` steps that have begun, without an outcome

    async def step(
        self, name: str, body: Body, *, mode: Mode, time_limit: timedelta, attempts: int = 1
    ) -> JsonValue:
        """See `jobs.operation.Job.step`.

        Raises:
            AttentionError: a person must look before this can go on.
            FencedError: another worker has taken over.
            ExplainedError: the step failed; or whatever `body` raised last.
        """
        if name in self._names:
            raise RuntimeError(f"The run has two steps with the name {name!r}.")
        self._names.append(name)
        stored = None if self._is_first_life else await self._load(name)
        while True:
            match decide(stored, mode=mode, attempts=attempts):
                case Return(result):
                    return result
                case Fail(error):
                    raise _stored_error(error)
                case Ask():
                    raise self._unknown(name)
                case Begin() as begin:
                    attempt = LiveAttempt(self, name, begin, mode, len(self._names))
            await self._intend(attempt)
            try:
                return await self._attempt(attempt, body, mode=mode, time_limit=time_limit)
            except (FencedError, AttentionError, StoreAwayError):
                raise
            except Exception as error:
                await self._settle(attempt, "failed", error=_error_text(error))
                if mode is Mode.ONCE or attempt.number >= attempts:
                    raise
                log.info("Step %s of run %d failed: %s", name, self._leash.claim.run_id, error)
                await asyncio.sleep(_backoff_seconds(attempt.number, self._limits))
            stored = Stored(
                state="failed",
                attempt=attempt.number,
                checkpoint=attempt.checkpoint,
                result=None,
                error="",
            )

    async def write(
        self, statement: Statement, attempt: LiveAttempt, values: dict[str, Any], *, what: str
    ) -> None:
        """A fenced write about one attempt; not cut short by a cancellation."""

        async def once() -> None:
            await self._write(statement, attempt, values)

        await unbroken(patiently(once, patience=self._patience, what=what))

    async def _write(
        self, statement: Statement, attempt: LiveAttempt, values: dict[str, Any]
    ) -> None:
        claim = self._leash.claim
        fixed: dict[str, Any] = {"name": attempt.name, "attempt": attempt.number}
        fixed |= {"checkpoint": attempt.checkpoint, **claim.params()}
        if statement is not CHECKPOINT:
            fixed |= {"mode": str(attempt.mode), "position": attempt.position}
            state = values.get("state", "started")
            line = f"{attempt.name}: {state}, attempt {attempt.number} {values.get('error', '')}"
            fixed |= {"now": self._clock(), "line": line.strip()[: runs.LINE_CHARS_MAX]}
        if not await self._store.rows(statement, {**fixed, **values}):
            raise FencedError(f"run {claim.run_id} is not ours at epoch {claim.epoch}")

    async def _attempt(
        self, attempt: LiveAttempt, body: Body, *, mode: Mode, time_limit: timedelta
    ) -> JsonValue:
        """Run `body`; what it returned is stored, also when it ended while being cancelled."""
        task = asyncio.ensure_future(body(attempt))
        try:
            await asyncio.wait({task}, timeout=time_limit.total_seconds())
        except asyncio.CancelledError:
            await self._stop(attempt, task)
            if not task.cancelled() and task.exception() is None:
                await self._settle(attempt, "done", result=task.result())
            raise
        if not task.done():
            await self._stop(attempt, task)
            if task.cancelled():
                raise self._too_long(attempt.name, mode, time_limit)
        result = task.result()
        await self._settle(attempt, "done", result=result)
        return result

    async def _stop(self, attempt: LiveAttempt, task: asyncio.Future[Any]) -> None:
        """Cancel a body and let it clean up, for a limited time."""
        task.cancel()
        await unbroken(asyncio.wait({task}, timeout=self._limits.cleanup.total_seconds()))
        if not task.done():
            raise StuckError(
                f"Step “{attempt.name}” was told to stop and did not, so it may still be at work.",
                next_step="Restart this worker, and look at what the step was doing.",
            )

    async def _intend(self, attempt: LiveAttempt) -> None:
        if self._leash.pulled.is_set():
            raise asyncio.CancelledError
        if attempt.mode is Mode.ONCE:
            self.in_doubt.add(attempt.name)
        await self.write(INTENT, attempt, {}, what=f"begin step {attempt.name}")

    async def _settle(
        self, attempt: LiveAttempt, state: str, *, result: JsonValue = None, error: str = ""
    ) -> None:
        values = {"state": state, "result": result, "error": error}
        await self.write(OUTCOME, attempt, values, what=f"store that {attempt.name} is {state}")
        self.in_doubt.discard(attempt.name)

    async def _load(self, name: str) -> Stored | None:
        async def once() -> Stored | None:
            async with self._store.single() as conn:
                found = await conn.execute(
                    LOAD_STEP, {"run_id": self._leash.claim.run_id, "name": name}
                )
                row = found.mappings().one_or_none()
                return None if row is None else Stored(**row)

        return await patiently(once, patience=self._patience, what=f"read step {name}")

    def _patience(self) -> timedelta:
        """Whoever has been told to stop does not wait for the store any more."""
        return self._limits.cleanup / 2 if self._leash.pulled.is_set() else self._limits.patience

    def _too_long(self, name: str, mode: Mode, time_limit: timedelta) -> ExplainedError:
        if mode is Mode.ONCE:
            return self._unknown(name)
        return JobError(
            f"Step “{name}” took longer than its limit of {time_limit} and was stopped.",
            next_step="Look at the target's load and locks, then ask for the operation again.",
        )

    def _unknown(self, name: str) -> AttentionError:
        return unknown_outcome(name, run_id=self._leash.claim.run_id)


def unknown_outcome(name: str, *, run_id: int) -> AttentionError:
    """What to tell people about a `once` step that was begun and has no outcome."""
    return AttentionError(
        f"Step “{name}” of run {run_id} was begun, and nobody knows whether it happened.",
        next_step=(
            f"Look at the database whether “{name}” took effect. Then an operator runs"
            f" `twokey runs resolve {run_id}` with --happened, --did-not-happen or --abort."
            " Until then no other change of this database starts."
        ),
    )


def _backoff_seconds(number: int, limits: Limits) -> float:
    grown = limits.backoff.total_seconds() * 2.0 ** min(number - 1, 16)
    longest = min(grown, limits.backoff_max.total_seconds())
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing


def _error_text(error: Exception) -> str:
    problem, next_step = texts(error) or (f"{type(error).__name__}: {error}", "")
    return redact(f"{problem}\n{next_step}")[:ERROR_CHARS_MAX]


def _stored_error(error: str) -> JobError:
    problem, _, next_step = error.partition("\n")
    return JobError(problem, next_step=next_step or "Look at the log of the run.")


def texts(error: BaseException) -> tuple[str, str] | None:
    """Problem and next step of an error that is meant for people, whichever base it has."""
    problem, next_step = getattr(error, "problem", None), getattr(error, "next_step", None)
    if isinstance(problem, str) and isinstance(next_step, str):
        return problem, next_step
    return None
