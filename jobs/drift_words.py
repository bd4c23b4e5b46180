"""How far a database is from its source of truth, before and after a migration, in few words.

Planning has no time to make a declared schema (about 2 s): it says what is remembered of the very
same files, and its age. A run may take the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from jobs.declared_schema import SCOPES, declared, remembered
from jobs.operation import Context, JobError
from jobs.text import count_text, span_text
from postgres.errors import PostgresError
from postgres.schema.declared import Declared, read_lines
from postgres.schema.drift import Drift, compare

LOOK_LIMIT: Final = timedelta(seconds=2)
_NAMED_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLook:
    """`drift` None: it is not known, and `why`. `age`: of what was declared, in this look."""

    drift: tuple[Drift, ...] | None
    why: str = ""
    age: timedelta = timedelta(0)

    @property
    def text(self) -> str:
        """For people; '' where nothing declares the schema."""
        if self.drift is None:
            return self.why
        aged = f" (declared schema as of {span_text(self.age)} ago)" if self.age else ""
        if not self.drift:
            return f"As declared{aged}"
        names = ", ".join(f"{each.kind}: {each.name}" for each in self.drift[:_NAMED_MAX])
        more = len(self.drift) - _NAMED_MAX
        rest = f" and {more} more" if more > 0 else ""
        return f"{count_text(len(self.drift), 'difference')}: {names}{rest}{aged}"


async def drift_now(context: Context, *, may_take_long: bool) -> DriftLook:
    """Compare the database with what declares it. `may_take_long`: make that where need be.

    It is no reason to stop: what goes wrong is said in `why`.
    """
    source = context.database.monitoring.schema
    if source is None:
        return DriftLook(drift=None)
    try:
        async with context.reader.session(limit=LOOK_LIMIT) as session:
            (row,) = await session.fetch("SHOW server_version_num")
            actual = await read_lines(session)
        major = int(row["server_version_num"]) // 10_000
        known = await remembered(source, major=major)
        if known is None and not may_take_long:
            name = context.database.name
            return DriftLook(drift=None, why=f"Not looked at yet: /db schema {name}")
        if known is None:
            made: Declared = (await declared(source, major=major))[0]
            known = (made, timedelta(0))
    except (JobError, PostgresError) as error:
        return DriftLook(drift=None, why=f"Not known: {error.problem}")
    wanted, age = known
    return DriftLook(
        drift=compare(wanted.lines, actual, scope=SCOPES[source.kind]),
        age=age if age >= timedelta(minutes=1) else timedelta(0),
    )


def drift_change(before: DriftLook, after: DriftLook) -> Sequence[str]:
    """What a migration has changed about it, as lines. Pure."""
    if before.drift is None or after.drift is None:
        said = after.text or before.text
        return (f"Source of truth: {said}",) if said else ()
    was = {(each.what, each.name) for each in before.drift}
    now = {(each.what, each.name) for each in after.drift}
    lines = [f"Source of truth: {count_text(len(was), 'difference')} before, {len(now)} after."]
    if new := sorted(name for _, name in now - was):
        lines.append(
            f"New: {', '.join(new[:_NAMED_MAX])}. Declare it, or the next look calls it drift."
        )
    return lines
