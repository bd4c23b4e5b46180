"""The plan of a migration for those who must agree: what it does to the tables as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Final

from jobs.drift_words import drift_now
from jobs.migrating import Outlook
from jobs.migration_checks import (
    Evidence,
    Line,
    attributes,
    checklist,
    needs_window,
)
from jobs.migration_evidence import evidence_of, rehearsal_of
from jobs.migration_ways import Way, way_text, ways_back
from jobs.operation import Answer, Context, Plan, Risk, Suggestion, Table
from jobs.rehearsals import facts_for_people, from_json
from jobs.text import count_text, span_text
from postgres.migrate.apply_words import Unit
from postgres.migrate.words import (
    Direction,
    Finding,
    Lock,
    ReviewedStatement,
    StatementKind,
    Touched,
    Work,
)
from postgres.sizes import pretty_bytes

_TABLES_MAX: Final = 4
_FINDINGS_MAX: Final = 40
_ROWS_MAX: Final = 60
_SQL_CHARS_MAX: Final = 70
_REWRITES_MAX: Final = 20
_RISKS: Final[Mapping[StatementKind, Risk]] = {
    StatementKind.ADDITIVE: Risk.RECOVERABLE,
    StatementKind.ONLINE: Risk.RECOVERABLE,
    StatementKind.DATA: Risk.DISRUPTIVE,
    StatementKind.BLOCKING: Risk.DISRUPTIVE,
    StatementKind.DESTRUCTIVE: Risk.DESTRUCTIVE,
    StatementKind.OPAQUE: Risk.DESTRUCTIVE,
}


async def plan_of(context: Context, outlook: Outlook) -> Plan:
    """The plan of what would run, with the checklist, and what the policy matches on.

    Raises:
        JobError: the store or the target cannot be read.
    """
    rehearsal = await rehearsal_of(context, outlook)
    drift = await drift_now(context, may_take_long=False)
    ways = await ways_back(context, outlook)
    evidence = await evidence_of(context, outlook, rehearsal, way_back=way_text(ways))
    lines = checklist(evidence) if outlook.direction is Direction.UP else ()
    seen = facts_for_people(from_json(rehearsal.detail)) if rehearsal and rehearsal.ok else ()
    verb = "Migrate" if outlook.direction is Direction.UP else "Take back on"
    return Plan(
        title=f"{verb} {context.database.name}: {outlook.title}",
        steps=tuple(_steps(outlook, evidence)),
        statements=tuple(_statements(outlook.units)),
        facts=(
            *_facts(outlook, evidence, lines),
            *([("Source of truth", drift.text)] if drift.text else []),
            *seen,
        ),
        warnings=tuple(_warnings(outlook, ways)),
        estimate_seconds=_estimate(evidence),
        undo=_undo(context, outlook, ways),
        pins=pins_of(outlook),
        attributes=_attributes(outlook, evidence, lines),
        risk=risk_of(outlook, ways),
    )


def pins_of(outlook: Outlook) -> Mapping[str, str]:
    """What the run must find as it was planned: the files' bytes, and what the book says."""
    newest = outlook.stood.standing.newest
    return {"files": outlook.subject, "stands_at": newest.version if newest else "nothing"}


def risk_of(outlook: Outlook, ways: Sequence[Way]) -> Risk:
    """The worst that can happen: by the kinds of statements, and whether there is a way back."""
    risks = [_risk(each) for review in outlook.reviews for each in review.statements]
    order = [Risk.RECOVERABLE, Risk.DISRUPTIVE, Risk.DESTRUCTIVE]
    worst = max(risks, key=order.index, default=Risk.RECOVERABLE)
    if worst is Risk.RECOVERABLE and not all(way.is_there for way in ways):
        return Risk.DISRUPTIVE
    return worst


def _risk(statement: ReviewedStatement) -> Risk:
    """What is kept aside can be put back; but whoever still uses it notices."""
    if statement.original:
        return Risk.DISRUPTIVE
    return Risk.DESTRUCTIVE if statement.destroys else _RISKS[statement.kind]


def plan_answer(outlook: Outlook, plan: Plan, *, suggestions: tuple[Suggestion, ...]) -> Answer:
    """The same for somebody who only looks: statement by statement, with safer ways as SQL."""
    return Answer(
        title=plan.title,
        lines=tuple(plan.warnings),
        facts=plan.facts,
        statements=tuple(_rewrites(outlook)),
        table=Table(
            columns=("Lock", "Blocks", "Kind", "Work", "Takes", "Statement", "Tables", "Where"),
            rows=tuple(_rows(outlook)),
        ),
        suggestions=suggestions if outlook.direction is Direction.UP else (),
    )


def _steps(outlook: Outlook, evidence: Evidence) -> Iterator[str]:
    rehearsed = evidence.rehearsed
    if outlook.direction is Direction.UP and not (rehearsed and rehearsed.is_fresh):
        if evidence.backup is not None:
            yield f"Rehearse it on a copy restored from {evidence.backup[0]}; stop if that fails"
        else:
            yield "It is not rehearsed first, as there is no proven backup"
    if any(each.destroys for review in outlook.reviews for each in review.statements):
        yield "Name a restore point, for a recovery to just before"
    for unit in outlook.units:
        count = count_text(len(unit.review.statements), "statement")
        how = (
            "in one transaction, with the book's entry"
            if unit.review.is_transactional
            else "one by one, as some cannot be in a transaction; a crash goes on behind the last"
        )
        yield f"{unit.migration.title}: {count}, {how}"
    if evidence.is_monitored:
        yield f"Compare errors, slow statements, locks and lag for {span_text(evidence.watch)}"


def _statements(units: Sequence[Unit]) -> Iterator[str]:
    for unit in units:
        yield f"-- {unit.migration.title} ({unit.direction})"
        for each in unit.review.statements:
            yield f"{each.sql.strip().rstrip(';')};"


def _facts(
    outlook: Outlook, evidence: Evidence, lines: Sequence[Line]
) -> Iterator[tuple[str, str]]:
    stood = outlook.stood
    newest = stood.standing.newest
    yield "Folder", f"{stood.folder.path.name} ({stood.folder.tool}), book {stood.book.table}"
    yield "Stands at", newest.title if newest else "nothing is applied yet"
    yield "Strongest lock", _lock_text(evidence)
    if tables := _tables(outlook):
        yield "Tables", tables
    if evidence.rehearsed and outlook.direction is Direction.DOWN:
        yield "Rehearsed", "yes" if evidence.rehearsed.ok else evidence.rehearsed.problem
    for line in lines:
        yield line.name, line.text


def _lock_text(evidence: Evidence) -> str:
    if evidence.lock is Lock.NONE:
        return "none on a table that exists"
    said = f"{evidence.lock.words}: blocks {evidence.lock.blocks}"
    if evidence.lock < Lock.SHARE:
        return said
    if evidence.blocking_seconds is None:
        return f"{said}; for how long only a rehearsal tells"
    return f"{said}, for about {span_text(timedelta(seconds=evidence.blocking_seconds))}"


def _tables(outlook: Outlook) -> str:
    sizes: dict[str, Touched] = {}
    for review in outlook.reviews:
        for statement in review.statements:
            for each in statement.touched:
                if each.size_bytes is not None:
                    sizes[each.table] = each
    largest = sorted(sizes.values(), key=lambda each: -(each.size_bytes or 0))
    said = [
        f"{each.table} {pretty_bytes(each.size_bytes or 0)}, about {each.rows or 0:,} rows"
        for each in largest[:_TABLES_MAX]
    ]
    more = len(largest) - len(said)
    return "; ".join([*said, *([f"and {more} more"] if more else [])])


def _warnings(outlook: Outlook, ways: Sequence[Way]) -> Iterator[str]:
    for way in ways:
        if not way.is_there:
            yield f"{way.title} has no way back: {way.why}"
        elif way.loses:
            yield f"Taking {way.title} back loses data: {way.loses}"
    found = [
        (unit, finding) for unit in outlook.units for finding in unit.review.all_findings
    ]  # fmt: skip
    for unit, finding in found[:_FINDINGS_MAX]:
        yield _finding_text(unit, finding)
    if len(found) > _FINDINGS_MAX:
        yield f"{len(found) - _FINDINGS_MAX} more findings: look at the files with squawk."


def _finding_text(unit: Unit, finding: Finding) -> str:
    where = f"{unit.migration.path.name}:{finding.line}"
    help_ = f" {finding.help}" if finding.help else ""
    safer = " A safer way is shown by /db migrate with `plan`." if finding.rewrite else ""
    return f"{finding.level}, {where} ({finding.rule}): {finding.text}{help_}{safer}"


def _estimate(evidence: Evidence) -> int | None:
    if evidence.rehearsed and evidence.rehearsed.is_fresh and evidence.rehearsed.ok:
        return max(1, round(evidence.rehearsed.seconds))
    return None if evidence.high_seconds is None else max(1, round(evidence.high_seconds))


def _undo(context: Context, outlook: Outlook, ways: Sequence[Way]) -> str | None:
    if outlook.direction is Direction.DOWN:
        return f"/db migrate {context.database.name}" if outlook.units else None
    if not all(way.is_there for way in ways):
        return None
    first = outlook.migrations[0].version
    return f"/db migrate {context.database.name} rollback {first}"


def _attributes(
    outlook: Outlook, evidence: Evidence, lines: Sequence[Line]
) -> Mapping[str, str | int]:
    kinds = [review.kind for review in outlook.reviews]
    touched = [
        each for review in outlook.reviews for one in review.statements for each in one.touched
    ]
    found: dict[str, str | int] = {
        "direction": str(outlook.direction),
        "kind": str(max(kinds, key=lambda kind: kind.rank, default=StatementKind.ADDITIVE)),
        "blocks": evidence.lock.blocks,
        "table_bytes": max((each.size_bytes or 0 for each in touched), default=0),
        "table_rows": max((each.rows or 0 for each in touched), default=0),
        "files": len(outlook.units),
    }
    if outlook.direction is Direction.UP:
        return found | dict(attributes(evidence, lines))
    return found | {"needs_window": "yes" if needs_window(evidence) else "no"}


def _rewrites(outlook: Outlook) -> Iterator[str]:
    """Safer ways of what was found, each under what it is about."""
    count = 0
    for unit in outlook.units:
        for finding in unit.review.all_findings:
            if finding.rewrite and count < _REWRITES_MAX:
                count += 1
                yield f"-- instead of {unit.migration.path.name}:{finding.line} ({finding.rule})"
                yield from (f"{sql.strip().rstrip(';')};" for sql in finding.rewrite)


def _rows(outlook: Outlook) -> Iterator[tuple[str, ...]]:
    rows = [_row(unit, statement) for unit in outlook.units for statement in unit.review.statements]
    yield from rows[:_ROWS_MAX]


def _row(unit: Unit, statement: ReviewedStatement) -> tuple[str, ...]:
    text = " ".join(statement.sql.split())
    works = {each.work for each in statement.touched}
    work = next((w for w in (Work.UNKNOWN, Work.REWRITE, Work.SCAN) if w in works), Work.CATALOG)
    tables = ", ".join(
        f"{each.table} {pretty_bytes(each.size_bytes)}" if each.size_bytes else each.table
        for each in statement.touched[:_TABLES_MAX]
    )
    # What fits on a screen first: names of files are long.
    return (
        statement.lock.words.title() if statement.lock else "-",
        statement.lock.blocks if statement.lock else "nothing",
        str(statement.kind),
        str(work),
        _takes(statement),
        text if len(text) <= _SQL_CHARS_MAX else f"{text[: _SQL_CHARS_MAX - 1]}…",
        tables or "-",
        f"{unit.migration.path.name}:{statement.line}",
    )


def _takes(statement: ReviewedStatement) -> str:
    if statement.high_seconds is None:
        return "?"
    return f"≤ {span_text(timedelta(seconds=statement.high_seconds))}"
