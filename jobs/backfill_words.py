"""What people are told of a backfill: before they agree to it, and when it is done. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from pydantic import JsonValue

from jobs.backfill_keeping import TIMES_AS_LONG, Keeping
from jobs.backfill_paces import CATALOG, Expected
from jobs.backfilling import Earlier, Wanted
from jobs.operation import Answer, Plan
from jobs.text import count_text, span_text
from postgres.migrate.backfill.spec import BackfillLimits
from postgres.migrate.backfill_catalog import Resolved
from postgres.sizes import pretty_bytes

LARGE_SHARE: Final = 0.5  # of the free disk
_LISTED_MAX: Final = 8
_SECOND_MS: Final = 1000


def loses_nothing(wanted: Wanted, keeping: Keeping | None) -> bool:
    """Whether every value that is overwritten can be put back, for certain.

    Of what a trigger, a function that may do anything, or another table's ON UPDATE changes
    elsewhere, nothing is kept.
    """
    is_kept = keeping is not None and not any(
        not each["is_own"] for each in wanted.around.foreign_keys
    )
    is_plain = not wanted.around.triggers and not wanted.resolved.opaque
    return overwrites_nothing(wanted) or (is_kept and is_plain)


def overwrites_nothing(wanted: Wanted) -> bool:
    """Whether every value that is written stands in the place of a NULL, for certain.

    A trigger or a function that may do anything makes nothing certain.
    """
    return wanted.terms.fills_null and not wanted.around.triggers and not wanted.resolved.opaque


def facts_of(
    wanted: Wanted,
    limits: BackfillLimits,
    expected: Expected,
    before: Earlier | None,
    free: int | None,
    keeping: Keeping | None,
) -> Iterator[tuple[str, str]]:
    """What it is about, what it takes, and what it watches."""
    around = wanted.around
    yield "Table", f"{pretty_bytes(around.whole_bytes)}, about {around.rows:,} rows"
    yield "Rows that match", _matching(wanted)
    if before is not None:
        left = max(before.total - before.passed, 0)
        passed = f"request {before.request_id} has passed {before.passed:,} rows"
        yield "Goes on", f"{passed}; about {left:,} are left"
    yield "Key", f"{', '.join(wanted.table.key.names)}, by {wanted.table.key.index}"
    yield "Side by side", count_text(wanted.ranges, "range")
    aim = short_text(limits.batch)
    yield "Batches", f"{limits.rows:,} rows at first, then as many as take {aim}"
    yield "Time", f"{_range_text(expected)} of work; stopped after {span_text(limits.time_limit)}"
    yield "Estimated", _source_text(expected)
    yield "Waits for", "; ".join(_throttles(limits)) or "nothing"
    yield "Standbys watched", _listed(around.standbys) or "none is connected"
    yield "Indexes", _indexes(wanted)
    bloat, wal = pretty_bytes(wanted.bloat_bytes), pretty_bytes(wanted.wal_bytes)
    yield "Grows by", f"up to {bloat} until VACUUM takes it; WAL about {wal}"
    yield "Free disk", pretty_bytes(free) if free is not None else "not known here"
    yield "Old values", _old_values(wanted, keeping)


def warnings_of(
    wanted: Wanted, before: Earlier | None, free: int | None, keeping: Keeping | None
) -> Iterator[str]:
    """What those who agree must have read."""
    around = wanted.around
    named = ", ".join(wanted.terms.assigned)
    if keeping is not None and not loses_nothing(wanted, keeping):
        yield f"Kept are the old values of {named} alone: not what is changed elsewhere by them."
    if keeping is None and not overwrites_nothing(wanted):
        yield (
            f"The old values of {named} are overwritten. Only a backup has them afterwards; with"
            " keep=7d they could be put back."
        )
    yield from _about_code(wanted.resolved)
    if wanted.terms.is_drifting:
        yield (
            "The condition changes by itself, with the time or by chance: rows may be left out, and"
            " a run that goes on later asks another question. Write the moment as a constant."
        )
    if around.triggers:
        listed = _listed([f"{row['name']} ({row['level']})" for row in around.triggers])
        yield f"Triggers fire, and do what they do: {listed}."
    if around.foreign_keys:
        listed = _listed([str(row["name"]) for row in around.foreign_keys])
        yield f"Foreign keys are checked for each row: {listed}."
    yield from _about_indexes(wanted)
    written = wanted.bloat_bytes + wanted.wal_bytes + (2 * keeping.bytes if keeping else 0)
    if free is not None and written > LARGE_SHARE * free:
        yield "What it writes may take more than half of the disk that is free."
    if not wanted.terms.fills_null:
        yield (
            "Rows that the application changes meanwhile get what follows from the values that they"
            " have then; what it writes after a row was done stays as it is written."
        )
    yield (
        "Rows that are inserted or changed afterwards are not covered: have the application or a"
        " trigger write the new value first. Then prove it: ADD CONSTRAINT … NOT VALID, and"
        " VALIDATE CONSTRAINT."
    )
    if before is None and not wanted.terms.where_text:
        yield "There is no condition: every row is written, also those that have the value already."


def answer_of(wanted: Wanted, done: Mapping[str, Any], plan: Plan) -> Answer:
    """What it came to, in numbers."""
    rows, seconds = int(done["rows"]), float(done["seconds"])
    waited = {str(cause): float(spent) for cause, spent in dict(done["waited"]).items()}
    worked = seconds - float(done["paused_seconds"])
    pace = round(int(done["passed_here"]) / worked) if worked > 0 else 0
    retries = count_text(int(done["retries"]), "retry", "retries")
    facts = [
        ("Rows", f"{rows:,} changed of {int(done['passed']):,} looked at"),
        ("Time", f"{span_text(timedelta(seconds=seconds))}, {pace:,} rows a second"),
        ("Estimate", _compared(plan, done)),
        ("Batches", f"{int(done['batches']):,}, {retries}"),
        ("Waited", _waited(float(done["throttled_seconds"]), waited)),
        ("Paused", span_text(timedelta(seconds=float(done["paused_seconds"])))),
        ("Still matching", _left(done)),
    ]  # fmt: skip
    numbers: dict[str, int | float | str] = {
        "rows": rows,
        "passed": int(done["passed"]),
        "batches": int(done["batches"]),
        "seconds": seconds,
        "rows_per_second": pace,
        "throttled_seconds": float(done["throttled_seconds"]),
        "paused_seconds": float(done["paused_seconds"]),
        **outcome_of(plan, done),
    }
    numbers |= {f"waited_{cause.replace(' ', '_')}": spent for cause, spent in waited.items()}
    return Answer(
        title=f"{rows:,} rows of {wanted.text} are changed",
        lines=tuple(str(note) for note in done["notes"]),
        facts=tuple(facts),
        numbers=numbers,
    )


def with_watch(answer: Answer, span: timedelta, *, is_watched: bool) -> Answer:
    """The answer with whether anybody looks at what follows. Pure."""
    said = (
        f"Errors, slow statements, locks and lag are compared with before for {span_text(span)}."
        if is_watched
        else "Nobody watches what follows: there are no samples of this database."
    )
    return replace(answer, lines=(*answer.lines, said))


def outcome_of(plan: Plan, done: Mapping[str, Any]) -> dict[str, int | float | str]:
    """What was estimated beside what it took, as a run keeps it. Pure.

    `worked_seconds` are without pauses and what it waited for, as the estimate is.
    `actual_of_likely` is there only where this life of the run did all of it.
    """
    likely = int(plan.attributes.get("seconds", 0))
    told: dict[str, int | float | str] = {
        "estimate_seconds": plan.estimate_seconds or 0,
        "likely_seconds": likely,
        "rehearsed": str(plan.attributes.get("rehearsed", "no")),
        "worked_seconds": round(worked_seconds(done), 3),
    }
    if likely and int(done["passed_here"]) == int(done["passed"]):
        told["actual_of_likely"] = round(worked_seconds(done) / likely, 2)
    return told


def worked_seconds(done: Mapping[str, Any]) -> float:
    """How long it was at work: neither paused nor waiting, nor leaving time to others. Pure."""
    names = ("paused_seconds", "throttled_seconds", "spared_seconds")
    idle = sum(float(done.get(name, 0.0)) for name in names)
    return max(float(done["seconds"]) - idle, 0.0)


def short_text(span: timedelta) -> str:
    """A span that may be very short: `50 ms`, `2 s`."""
    milliseconds = span.total_seconds() * 1000
    return f"{milliseconds:g} ms" if milliseconds < _SECOND_MS else span_text(span)


def _matching(wanted: Wanted) -> str:
    if not wanted.terms.where_text:
        return "all of them"
    if wanted.rows_planned is None:
        return "not known: to ask would run code of the database's own"
    return f"about {wanted.rows_to_change:,}, by the planner's statistics"


def _range_text(expected: Expected) -> str:
    low, high = (
        span_text(timedelta(seconds=max(seconds, 1)))
        for seconds in (expected.low_seconds, expected.high_seconds)
    )
    return f"about {low}" if low == high else f"{low} to {high}"


def _source_text(expected: Expected) -> str:
    if expected.is_measured:
        return expected.source
    why = expected.note or "no trial of it was made"
    return f"{expected.source}, as {why}: /db rehearse-backfill tries it on a copy"


def _throttles(limits: BackfillLimits) -> Iterator[str]:
    if limits.lag_max:
        yield f"replicas more than {span_text(limits.lag_max)} behind"
    if limits.lag_bytes_max:
        yield f"replicas more than {pretty_bytes(limits.lag_bytes_max)} behind"
    if limits.slower_max:
        yield f"others' statements {limits.slower_max:g} times as slow"
    if limits.waiters_max:
        yield f"more than {limits.waiters_max} sessions waiting for locks"
    if limits.wal_max:
        yield f"WAL above {pretty_bytes(limits.wal_max)} a second"
    if limits.dead_max:
        yield f"more than {limits.dead_max:g} dead rows per live row"


def _indexes(wanted: Wanted) -> str:
    touched = [str(row["name"]) for row in wanted.around.indexes if row["is_touched"]]
    total = count_text(len(wanted.around.indexes), "index", "indexes")
    if not touched:
        return f"none has these columns; {total} may still get new entries"
    return f"{_listed(touched)} of {total}"


def _about_code(resolved: Resolved) -> Iterator[str]:
    for opaque in resolved.opaque:
        yield f"{opaque} is volatile and the database's own: it may do anything, for each row."
    if resolved.own:
        yield f"It calls functions of the database's own, with our rights: {_listed(resolved.own)}."
    if resolved.changing:
        yield (
            f"{_listed(resolved.changing)} gives another value each time: nobody can check later"
            " what a row should have got."
        )


def _about_indexes(wanted: Wanted) -> Iterator[str]:
    touched = [row for row in wanted.around.indexes if row["is_touched"]]
    unique = [str(row["name"]) for row in touched if row["is_unique"]]
    if unique:
        yield f"A value that is there already stops it: {_listed(unique)} is unique."
    if touched and not unique:
        yield (
            "An index on a column that is filled makes it slower: where the index is new as well,"
            " create it afterwards."
        )


def _old_values(wanted: Wanted, keeping: Keeping | None) -> str:
    if keeping is not None:
        return (
            f"kept for {span_text(keeping.span)} in {keeping.place}: about"
            f" {pretty_bytes(keeping.bytes)}, at most {pretty_bytes(keeping.bytes_max)}; it takes"
            f" about {TIMES_AS_LONG:g} times as long"
        )
    if overwrites_nothing(wanted):
        return "none is overwritten: only NULLs are filled. Which rows were filled is not kept"
    return "overwritten, and not kept"


def _compared(plan: Plan, done: Mapping[str, Any]) -> str:
    told = outcome_of(plan, done)
    likely, most = (
        span_text(timedelta(seconds=float(told[name])))
        for name in ("likely_seconds", "estimate_seconds")
    )
    source = next((text for name, text in plan.facts if name == "Estimated"), CATALOG)
    said = f"about {likely}, at most {most}, {source.partition(',')[0]}"
    ratio = told.get("actual_of_likely")
    if ratio is None:
        return said
    took = span_text(timedelta(seconds=float(told["worked_seconds"])))
    return f"{said}; the work took {took}, {ratio} of it"


def _waited(throttled: float, waited: Mapping[str, float]) -> str:
    if not throttled:
        return "for nothing"
    parts = [
        f"{span_text(timedelta(seconds=spent))} for {cause}"
        for cause, spent in sorted(waited.items(), key=lambda item: -item[1])
    ]
    return f"{span_text(timedelta(seconds=throttled))}: {', '.join(parts)}" if parts else span_text(
        timedelta(seconds=throttled)
    )  # fmt: skip


def _left(done: Mapping[str, JsonValue]) -> str:
    left = done["rows_left"]
    if left is None:
        return "not counted"
    return f"{left:,} or more" if done["left_is_more"] else f"{left:,}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LISTED_MAX
    listed = ", ".join(names[:_LISTED_MAX])
    return f"{listed} and {more} more" if more > 0 else listed
