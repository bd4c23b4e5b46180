"""The last phase drops columns: what they hold is kept aside first where it fits.

The copy is made under the lock of the drop, by `postgres.migrate.aside`, so it has a bound; what
is larger is said to be lost, and only a backup has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.change_look import LOOK_LIMIT, SETTINGS, Outlook
from jobs.operation import Context, Database
from jobs.text import span_text
from postgres.migrate.aside import with_aside
from postgres.migrate.aside_words import COPY_BYTES_PER_SECOND, AsideBounds, Kept
from postgres.migrate.changes.compile import dropped_sql
from postgres.migrate.changes.machine import Phase
from postgres.migrate.changes.steps import Short, Step
from postgres.migrate.reverse import read_reverse_facts
from postgres.migrate.review.reading import read_facts
from postgres.migrate.review.reviewer import review


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """The steps of a phase that keep what they would drop; `problems`: why they do not."""

    steps: tuple[Step, ...]
    kept: tuple[Kept, ...] = ()
    problems: tuple[str, ...] = ()

    def facts(self, database: Database) -> Sequence[tuple[str, str]]:
        """What is kept, where, and for how long."""
        span = span_text(database.migrations.keep_aside)
        found: list[tuple[str, str]] = []
        for each in self.kept:
            seconds = max(1, round(each.before.bytes / COPY_BYTES_PER_SECOND))
            text = f"{each.original} as {each.kept} for {span}, copied while others wait"
            found.append(("Kept aside", f"{text}: at most {seconds} s"))
        return found


async def keeping(context: Context, outlook: Outlook, phase: Phase) -> Aside:
    """The steps of a phase, where it drops columns with what keeps their values.

    Raises:
        PostgresError: the catalog cannot be read.
    """
    steps = outlook.steps(phase)
    dropped = dropped_sql(outlook.change)
    if phase is not Phase.CONTRACT or not dropped:
        return Aside(steps=steps)
    (sql,) = dropped
    async with context.reader.session(limit=LOOK_LIMIT, settings=SETTINGS) as session:
        known = await read_facts(session, [sql])
        catalog = await read_reverse_facts(session, sql)
    change = outlook.change
    seen = await review(
        sql, facts=known, major=outlook.facts.major, name=change.file, is_transactional=True
    )
    made = with_aside(seen, catalog, AsideBounds())
    if made.problems or not made.kept:
        said = " ".join(each.text for each in made.problems)
        return Aside(
            steps=steps,
            problems=(f"What the old columns hold is lost, and only a backup has it. {said}",),
        )
    instead = made.review.statements[0].sql
    return Aside(steps=tuple(_with(step, sql, instead) for step in steps), kept=made.kept)


def _with(step: Step, sql: str, instead: str) -> Step:
    if not isinstance(step, Short):
        return step
    statements = tuple(instead if each == sql else each for each in step.statements)
    return replace(step, statements=statements)
