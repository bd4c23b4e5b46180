"""A phase of a declared change, planned: its SQL, its risk, what it holds up, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from jobs.backfilling import with_own_names
from jobs.change_aside import keeping
from jobs.change_files import changes_of
from jobs.change_look import LOOK_LIMIT, SETTINGS, Outlook, allowed, look, troubles
from jobs.change_words import (
    KINDS,
    fill_seconds,
    seconds_of,
    step_words,
    warnings_of,
    way_back,
)
from jobs.index_run import explained
from jobs.migration_settings import BackfillSettings
from jobs.operation import Answer, Context, Database, JobError, Plan, Suggestion, Table
from jobs.text import count_text
from postgres.dsn import Target, parse_dsn
from postgres.migrate.backfill.spec import BackfillLimits, BackfillSpec
from postgres.migrate.changes.compile import added_sql
from postgres.migrate.changes.machine import TRANSITIONS, Phase, State, first_of
from postgres.migrate.changes.steps import Fill, Short, Step
from postgres.migrate.changes.words import Change
from postgres.migrate.review.reading import read_facts
from postgres.migrate.review.reviewer import review
from postgres.migrate.words import StatementKind
from postgres.sizes import pretty_bytes
from store.change_phases import PhaseRow, phases_of

_SHA_SHOWN: Final = 12
_ROWS_SHOWN: Final = 20


async def plan_phase(context: Context, name: str, phase: Phase) -> Plan:
    """What a phase would do.

    Raises:
        JobError: there is no such change, or it may not do this now.
    """
    with explained():
        outlook = await look(context, name)
        after = await allowed(context, outlook, phase)
        if phase is Phase.EXPAND:
            await _review(context, outlook)
        aside = await keeping(context, outlook, phase)
    change, kind, steps = outlook.change, KINDS[phase], aside.steps
    return Plan(
        title=f"{kind.title} {change.name}: {change.title}",
        steps=tuple(step_words(step) for step in steps),
        statements=outlook.statements(steps),
        facts=(*_facts(outlook, after, steps), *aside.facts(context.database)),
        warnings=(*warnings_of(outlook, phase), *aside.problems),
        estimate_seconds=max(1, round(_seconds(context, outlook, steps))),
        undo=_undo(context.database.name, change, after),
        pins=outlook.pins,
        attributes={
            "phase": str(phase),
            "kind": str(kind.kind),
            "change": str(change.kind),
            "rows": outlook.facts.rows,
        },
        risk=kind.risk,
    )


async def pins_now(context: Context, name: str) -> Mapping[str, str]:
    """File, table, columns and state as they are now."""
    with explained():
        return (await look(context, name)).pins


async def status_answer(context: Context, name: str) -> Answer:
    """Where a change stands, by its marks and by the catalog, and what may follow."""
    with explained():
        outlook = await look(context, name)
    change, state = outlook.change, outlook.state
    async with context.store.begin() as conn:
        rows = await phases_of(conn, context.database.name, name)
    wrong = tuple(troubles(outlook))
    may = ", ".join(TRANSITIONS[state]) or "nothing: it is over"
    return Answer(
        title=f"{change.name} is {state}: {change.title}",
        lines=(*([change.why] if change.why else []), *(f"Does not fit: {each}" for each in wrong)),
        facts=(
            ("May follow", may),
            ("Way back", way_back(change, state)),
            ("File", f"{change.file}, SHA-256 {change.sha256[:_SHA_SHOWN]}"),
            ("Table", _size(outlook)),
        ),
        table=_history(rows) if rows else None,
        suggestions=tuple(suggestions(context.database.name, name, state)),
    )


async def whole_answer(context: Context, name: str) -> Answer:
    """The SQL of every phase from here on: for a review of the file."""
    with explained():
        outlook = await look(context, name)
        ahead: list[Phase] = []
        state = outlook.state
        while (phase := first_of(state)) is not None:
            ahead.append(phase)
            state = TRANSITIONS[state][phase]
        texts = [
            f"-- {phase}\n" + "\n".join(outlook.statements(outlook.steps(phase))) for phase in ahead
        ]
    change = outlook.change
    return Answer(
        title=f"{change.name}, phase by phase: {change.title}",
        lines=("Each phase is a request of its own, with its own approval.",),
        statements=tuple(texts),
        facts=tuple((f"After {each}", way_back(change, _after(each))) for each in ahead),
        suggestions=tuple(suggestions(context.database.name, name, outlook.state)),
    )


async def list_answer(context: Context) -> Answer:
    """Which changes there are."""
    names = await changes_of(context.database)
    database = context.database.name
    return Answer(
        title=f"{count_text(len(names), 'declared change')} of {database}",
        lines=tuple(f"/db change {database} {name}" for name in names),
    )


def suggestions(database: str, name: str, state: State) -> Sequence[Suggestion]:
    """Buttons for what may follow."""
    onward = first_of(state)
    wanted = [onward] if onward else []
    if Phase.BACK in TRANSITIONS[state]:
        wanted.append(Phase.BACK)
    return [
        Suggestion(
            text=f"{KINDS[phase].title} {name}" if phase is not Phase.BACK else f"Take {name} back",
            operation="change",
            params={"database": database, "change": name, "phase": str(phase)},
        )
        for phase in wanted
    ]


def fill_spec(change: Change, step: Fill, settings: BackfillSettings, key: str) -> BackfillSpec:
    """A backfill for the engine. `key`: what its ledger calls it."""
    return BackfillSpec(
        key=key,
        schema=change.schema,
        table=change.table,
        assignments_sql=step.assignments,
        where_sql=step.where,
        ranges=change.backfill.ranges or settings.ranges,
    )


def fill_limits(change: Change, settings: BackfillSettings) -> BackfillLimits:
    """How fast, and what makes it wait: as the file says, else as the inventory."""
    return BackfillLimits(
        rows=change.backfill.rows or settings.rows,
        batch=settings.batch,
        retries=settings.retries,
        time_limit=settings.time_limit,
        lag_max=settings.lag_max,
        lag_bytes_max=settings.lag_bytes_max,
        wal_max=settings.wal_max,
        dead_max=settings.dead_max,
        slower_max=settings.slower_max,
        waiters_max=settings.waiters_max,
        unwatched=frozenset(settings.unwatched),
    )


def target_of(database: Database) -> Target:
    """The target, where a name without a schema can only be PostgreSQL's own."""
    return with_own_names(parse_dsn(database.dsn.get_secret_value()))


async def _review(context: Context, outlook: Outlook) -> None:
    """Refuse new columns that are more than an entry in the catalog.

    Raises:
        JobError: adding them would scan or rewrite the table, or nobody can tell.
    """
    change, facts = outlook.change, outlook.facts
    (added,) = added_sql(change)
    async with context.reader.session(limit=LOOK_LIMIT, settings=SETTINGS) as session:
        known = await read_facts(session, [added])
    seen = await review(
        added, facts=known, major=facts.major, name=change.file, is_transactional=True
    )
    if seen.kind is StatementKind.ADDITIVE:
        return
    said = "; ".join(found.text for found in seen.all_findings) or str(seen.kind)
    raise JobError(
        f"{change.file}, expand: adding the columns is {seen.kind}: {said}",
        next_step="Add them without a default that is computed for each row; sync and backfill"
        " fill them.",
    )


def _seconds(context: Context, outlook: Outlook, steps: Sequence[Step]) -> float:
    """How long a phase takes, about, without what it waits for."""
    facts, settings = outlook.facts, context.database.migrations.backfill
    total = sum(seconds_of(step, rows=facts.rows, size_bytes=facts.size_bytes) for step in steps)
    if any(isinstance(step, Fill) for step in steps):
        indexes = sum(1 for each in facts.attached if each.kind in {"index", "p", "u"})
        ranges = outlook.change.backfill.ranges or settings.ranges
        total += fill_seconds(rows=facts.rows, indexes=indexes, ranges=ranges)
    return total


def _facts(outlook: Outlook, after: State, steps: Sequence[Step]) -> Sequence[tuple[str, str]]:
    change = outlook.change
    found = [
        ("Stands at", f"{outlook.state}; after this: {after}"),
        ("Table", _size(outlook)),
        ("Can be taken back now", way_back(change, outlook.state)),
        ("Can be taken back after", way_back(change, after)),
        ("Holds up", _holds_up(steps)),
        ("File", f"{change.file}, SHA-256 {change.sha256[:_SHA_SHOWN]}"),
    ]
    return [*([("Why", change.why)] if change.why else []), *found]


def _holds_up(steps: Sequence[Step]) -> str:
    locks = any(isinstance(step, Short) and "TABLE" in " ".join(step.statements) for step in steps)
    if not locks:
        return "nothing: reads and writes go on"
    return "reads and writes for milliseconds, each time it has the lock; never while it waits"


def _size(outlook: Outlook) -> str:
    facts = outlook.facts
    return f"{pretty_bytes(facts.size_bytes)}, about {facts.rows:,} rows"


def _undo(database: str, change: Change, after: State) -> str | None:
    return f"/db change {database} {change.name} back" if Phase.BACK in TRANSITIONS[after] else None


def _after(phase: Phase) -> State:
    """Where a change stands after an onward phase."""
    return next(row[phase] for state, row in TRANSITIONS.items() if first_of(state) is phase)


def _history(rows: Sequence[PhaseRow]) -> Table:
    return Table(
        columns=("Phase", "When", "How it went", "Request", "File"),
        rows=tuple(
            (
                row.phase,
                f"{row.at:%Y-%m-%d %H:%M} UTC",
                str(row.detail.get("state", "")),
                str(row.request_id or ""),
                row.sha256[:_SHA_SHOWN],
            )
            for row in rows[:_ROWS_SHOWN]
        ),
    )
