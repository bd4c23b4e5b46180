"""Before a run may begin: what it is, who still agrees, what has moved, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from approvals.by_the_clock import CLOCK
from approvals.plans import call_of as stored_call
from approvals.plans import plan_of
from approvals.words import (
    DirectoryDownError,
    Person,
    PersonId,
    RefusedError,
    State,
    Why,
)
from jobs import attention, runs
from jobs.engine import Drop, Later, Verdict
from jobs.grants import Grant, Ruling
from jobs.operation import Database, JobError, Operation, Plan, Runner
from jobs.pinned import what_moved
from jobs.progress import tell
from jobs.reader import LiveContext
from jobs.routing import refusal_of
from jobs.runs import Claim, Run, RunState
from jobs.steps import texts
from jobs.surroundings import Surroundings
from store import outbox

# How soon a run is looked at again that cannot start yet. The end of a run that held its
# database makes it sooner.
LOOK_AGAIN: Final = timedelta(seconds=2)
DIRECTORY_AGAIN: Final = timedelta(seconds=5)
TARGET_AGAIN: Final = timedelta(seconds=10)
PINS_SECONDS_MAX: Final = 30.0

PLAN: Final = TypeAdapter(Plan)

# The grant stands, only not now.
NOT_NOW: Final = frozenset({Why.LOCKED, Why.NOT_YET, Why.FROZEN, Why.DIRECTORY})
# The grant is over or was none; no vote can mend that.
OVER: Final = frozenset({Why.EXPIRED, Why.CLOSED, Why.NOT_APPROVED, Why.DUPLICATE, Why.SIGNATURE})


class PutOffError(Exception):
    """The run cannot begin now. `limited`: it waits no longer than `Limits.lock_wait`."""

    def __init__(self, text: str, delay: timedelta, *, limited: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.delay = delay
        self.limited = limited


class UnfitError(Exception):
    """The grant cannot be carried out by this program; asking anew may help."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What was granted, from the text that people agreed to."""

    operation: Operation
    run: Runner
    params: BaseModel
    plan: Plan
    database: Database | None


def call_of(given: Surroundings, run: Run, grant: Grant) -> Call:
    """What a grant says to do.

    Raises:
        PutOffError: this worker does not know the operation or the database.
        UnfitError: the stored text is not a call of it.
    """
    call = stored_call(grant.plan)
    if (call.get("operation"), call.get("database")) != (run.operation, run.database):
        raise UnfitError("The plan that was agreed to is not of this run.")
    operation = given.operations.get(run.operation)
    if operation is None or operation.run is None:
        raise PutOffError(f"No worker here knows the operation {run.operation}.", TARGET_AGAIN)
    database = given.databases.get(run.database)
    if run.database and database is None:
        raise PutOffError(f"No worker here has {run.database} in its inventory.", TARGET_AGAIN)
    try:
        params = operation.params.model_validate(call.get("params"))
        plan = PLAN.validate_python(plan_of(grant.plan))
    except ValidationError as error:
        first = error.errors()[0]["msg"]
        raise UnfitError(f"What was asked for is no longer understood: {first}.") from error
    return Call(operation=operation, run=operation.run, params=params, plan=plan, database=database)


async def led(given: Surroundings, call: Call) -> Call:
    """The call with its database where that takes writes now; a run that goes on looks anew too.

    Raises:
        PutOffError: nobody can tell where, and the run relies on its target.
    """
    if call.database is None or not call.operation.is_routed:
        return call
    there = await given.routes.of(call.database, anew=True)
    refusal = refusal_of(there)
    if refusal is not None and call.operation.pinned:
        raise PutOffError(f"Waiting: {refusal.problem} {refusal.next_step}", TARGET_AGAIN)
    return replace(call, database=there)


async def claim(given: Surroundings, run: Run, grant: Grant, call: Call) -> Claim | None:
    """Make the run ours and its request executing, in one transaction; None: it will not run.

    Raises:
        PutOffError: not now. Nothing has changed.
    """
    # Executing without having begun: somebody broke the glass.
    fresh = not run.begun and grant.state in {State.APPROVED, State.EXECUTING}
    people, moved = await _looked(given, grant, call) if fresh else ({}, None)
    now = given.clock()
    async with given.store.begin() as conn:
        mine = await runs.claim(conn, run.id, worker=given.worker, now=now)
        if mine is None:
            await _not_ours(conn, run)
            return None
        if run.begun:
            return await _resumed(given, conn, run, grant, mine)
        if moved is not None:
            await _refuse(given, conn, run, mine, grant, moved, send_back=True)
            return None
        ruling = await given.approvals.begin(conn, run.request_id, people=people)
        if ruling.ok:
            return mine
        if ruling.why in NOT_NOW:
            raise PutOffError(ruling.problem, TARGET_AGAIN, limited=ruling.why is Why.LOCKED)
        await _refuse(
            given, conn, run, mine, grant, _said(ruling), send_back=ruling.why not in OVER
        )
        return None


async def put_off(given: Surroundings, run: Run, grant: Grant, later: PutOffError) -> Verdict:
    """Tell people once why a run waits, and end the wait when it has lasted too long."""
    now = given.clock()
    over = (
        later.limited
        and run.waiting == later.text
        and run.waiting_since is not None
        and now - run.waiting_since >= given.limits.lock_wait
    )
    if over:
        await give_up(given, run, grant, f"It waited too long. {later.text}")
        return Drop()
    async with given.store.begin() as conn:
        if await runs.tell_waiting(conn, run.id, later.text, now=now):
            await tell(
                conn,
                request_id=run.request_id,
                channel=grant.channel,
                text=later.text,
                fraction=None,
                now=now,
            )
            await _redraw(conn, run, grant, given)
    return Later(later.delay)


async def give_up(given: Surroundings, run: Run, grant: Grant, said: str) -> None:
    """End a queued run: a new one asks for votes again, a begun one for a person."""
    now = given.clock()
    state = RunState.NEEDS_ATTENTION if run.begun else RunState.REFUSED
    next_step = (
        f"Look at what holds {run.database}; `twokey runs resolve {run.id} --abort` ends this run."
        if run.begun
        else "Whoever agreed may agree again when it can run."
    )
    outcome = {"problem": said, "next_step": next_step}
    async with given.store.begin() as conn:
        if not await runs.end_queued(conn, run, state=state, outcome=outcome, now=now):
            return
        await runs.write_line(conn, run.id, f"{state}: {said}", now=now)
        if not run.begun:
            await given.approvals.send_back(conn, run.request_id, problem=said)
        await outbox.post(
            conn,
            topic="result",
            request_id=run.request_id,
            channel=grant.channel,
            payload=outcome,
            now=now,
        )
        if run.begun:
            await attention.note(conn, run, worker=given.worker, problem=said, now=now)


def busy(held_by: Run) -> PutOffError:
    """Why a run waits whose database another run holds."""
    what = f"request {held_by.request_id} ({held_by.operation})"
    match held_by.state:
        case RunState.NEEDS_ATTENTION:
            text = f"Waiting: {what} stopped half-way on {held_by.database} and needs a person."
        case RunState.RUNNING:
            text = f"Waiting: {what} is at work on {held_by.database}."
        case _:
            text = f"Waiting: {what} is about to go on with {held_by.database}."
    return PutOffError(text, LOOK_AGAIN, limited=True)


def locked(database: str) -> PutOffError:
    """Why a run waits whose target lock is held: by a start next to it, or by a paused worker."""
    return PutOffError(
        f"Waiting: another worker holds the lock of {database}.", LOOK_AGAIN, limited=True
    )


def too_long(limit: timedelta) -> JobError:
    """Why a run was stopped that took longer than its operation may."""
    return JobError(
        f"The run took longer than its limit of {limit} and was stopped.",
        next_step="Look at the log of the run for what took the time, then ask again.",
    )


async def _looked(
    given: Surroundings, grant: Grant, call: Call
) -> tuple[Mapping[PersonId, Person], str | None]:
    """Who is concerned today, and what has moved; side by side, as each may ask far away."""
    moving = asyncio.create_task(_moved(given, call))
    try:
        return await _people(given, grant), await moving
    finally:
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)


async def _people(given: Surroundings, grant: Grant) -> Mapping[PersonId, Person]:
    """Everybody concerned as the directory knows them today; who is unknown is left out."""
    known = {vote.seat: vote.seat_slack for vote in grant.votes}
    known[grant.asked_by] = grant.asked_by_slack
    known.update({vote.person: vote.slack for vote in grant.votes})
    # No directory has the schedule; whether it was the one that asked, the request's door says.
    by_the_clock = known.pop(CLOCK.id, None) is not None
    looks = (given.directory.by_id(person, slack) for person, slack in known.items())
    found = await asyncio.gather(*looks, return_exceptions=True)
    people: dict[PersonId, Person] = {CLOCK.id: CLOCK} if by_the_clock else {}
    for person, answer in zip(known, found, strict=True):
        match answer:
            case Person():
                people[person] = answer
            case DirectoryDownError():
                raise PutOffError(answer.problem, DIRECTORY_AGAIN) from answer
            case RefusedError():
                continue
            case _:
                raise answer
    return people


async def _moved(given: Surroundings, call: Call) -> str | None:
    """Which pinned facts of the plan no longer hold, as a sentence; None when all do."""
    # New connections: those we have may lead to a server that the address no longer means.
    readers = given.readers.anew()
    context = LiveContext(
        target=call.database,
        readers=readers,
        store=given.store,
        clock=given.clock,
        in_force=given.policies,
    )
    try:
        async with asyncio.timeout(PINS_SECONDS_MAX):
            return await what_moved(call.operation, context, call.params, call.plan)
    except Exception as error:
        said = texts(error)
        if said is None and not isinstance(error, TimeoutError):
            raise
        problem = said[0] if said else f"{call.operation.name} could not look at its target."
        raise PutOffError(f"Waiting: {problem}", TARGET_AGAIN) from error
    finally:
        await readers.close()


async def _not_ours(conn: AsyncConnection, run: Run) -> None:
    """Why the claim found nothing: taken or ended meanwhile, or its database is not free."""
    again, held_by = await runs.load_with_holder(conn, run.id)
    if again is None or again.state is not RunState.QUEUED:
        return
    raise busy(held_by) if held_by else PutOffError("Waiting for its turn.", LOOK_AGAIN)


async def _resumed(
    given: Surroundings, conn: AsyncConnection, run: Run, grant: Grant, mine: Claim
) -> Claim | None:
    """The claim of a run that goes on, unless it ends its workers each time."""
    ruling = await given.approvals.resume(conn, run.request_id)
    if not ruling.ok:
        # The run's row says that it was begun, and what the request says is believed.
        await _refuse(given, conn, run, mine, grant, _said(ruling), send_back=False)
        return None
    # A claim and the recovery before it each add one to the epoch.
    if mine.epoch <= 2 * given.limits.claims_max:
        return mine
    outcome = {
        "problem": f"Run {run.id} was begun {given.limits.claims_max} times without an end.",
        "next_step": "Look at the workers' logs for what ended them. Then an operator runs"
        f" `twokey runs resolve {run.id} --abort`.",
    }
    now = given.clock()
    await runs.end(conn, mine, state=RunState.NEEDS_ATTENTION, outcome=outcome, now=now)
    await outbox.post(
        conn,
        topic="result",
        request_id=run.request_id,
        channel=grant.channel,
        payload=outcome,
        now=now,
    )
    await attention.note(conn, run, worker=given.worker, problem=outcome["problem"], now=now)
    return None


async def _refuse(
    given: Surroundings,
    conn: AsyncConnection,
    run: Run,
    mine: Claim,
    grant: Grant,
    said: str,
    *,
    send_back: bool,
) -> None:
    """End a run that must not be; its card says why, whoever queued it."""
    now = given.clock()
    outcome: dict[str, Any] = {"problem": said, "next_step": ""}
    await runs.end(conn, mine, state=RunState.REFUSED, outcome=outcome, now=now)
    await runs.write_line(conn, run.id, f"refused: {said}", now=now)
    if send_back:
        await given.approvals.send_back(conn, run.request_id, problem=said)
    elif run.begun or grant.state is State.PENDING:
        # Nobody granted it, so nothing else tells of it.
        await tell(
            conn,
            request_id=run.request_id,
            channel=grant.channel,
            text=f"A run was refused. {said}",
            fraction=None,
            now=now,
        )


async def _redraw(conn: AsyncConnection, run: Run, grant: Grant, given: Surroundings) -> None:
    await outbox.post(
        conn,
        topic="card",
        request_id=run.request_id,
        channel=grant.channel,
        payload={},
        now=given.clock(),
    )


def _said(ruling: Ruling) -> str:
    return ruling.problem or "The checks before the start refused this run."
