"""Where the old and the new values of a change stand, by what the columns are called now. Pure."""

from __future__ import annotations

from postgres.migrate.changes.facts import Facts
from postgres.migrate.changes.machine import State
from postgres.migrate.changes.steps import Compare
from postgres.migrate.changes.sync import Mode, Sync, Value, quoted
from postgres.migrate.changes.words import Change, ExpandContract, ShadowColumn


def old_column(what: ShadowColumn, state: State) -> str:
    """What the column of the old type is called in a state."""
    return what.old if state is State.SWITCHED else what.column


def new_column(what: ShadowColumn, state: State) -> str:
    """What the column of the new type is called in a state."""
    return what.column if state is State.SWITCHED else what.shadow


def sync_of(change: Change, facts: Facts, state: State) -> Sync:
    """How the two halves of a row follow each other in a state."""

    def kind(column: str) -> str:
        """By what the catalog calls it, which may be before or after the switch."""
        what = change.what
        if isinstance(what, ShadowColumn) and column in {what.column, what.old}:
            column = what.old if what.old in facts.columns else what.column
        return facts.columns[column].type

    match change.what:
        case ExpandContract() as wide:
            new = {column.name: column.type for column in wide.columns}
            return Sync(
                forward=tuple(
                    Value(column=name, type=new[name], expression=value)
                    for name, value in wide.forward.items()
                ),
                reverse=tuple(
                    Value(column=name, type=kind(name), expression=value)
                    for name, value in wide.reverse.items()
                ),
            )
        case ShadowColumn() as shadow:
            old, new_name = old_column(shadow, state), new_column(shadow, state)
            up = Value(
                column=new_name,
                type=shadow.bare_type,
                expression=shadow.up,
                names={shadow.column: old},
            )
            down = Value(
                column=old,
                type=kind(old),
                expression=shadow.down,
                names={shadow.column: new_name},
            )
            return Sync(forward=(up,), reverse=(down,))


def mode_of(change: Change, state: State) -> Mode:
    """Who is right in a state: with views of both versions, whoever has written last."""
    if change.views is not None:
        return Mode.TWO_WAY
    if state is not State.SWITCHED:
        return Mode.FORWARD
    return Mode.REVERSE if isinstance(change.what, ShadowColumn) else Mode.TWO_WAY


def fill_where(change: Change, facts: Facts, state: State) -> str:
    """Which rows a backfill changes: those that are not as they should be, and only once."""
    sync = sync_of(change, facts, state)
    parts = [f"NOT ({' AND '.join(value.is_held() for value in sync.forward)})"]
    if mode_of(change, state) is Mode.TWO_WAY:
        parts.append(f"NOT {_written_new(sync)}")
    if change.backfill.where is not None:
        parts.append(f"({change.backfill.where.text})")
    return " AND ".join(parts)


def compare_new(change: Change, facts: Facts, state: State) -> Compare:
    """The new columns hold what the old ones say."""
    sync = sync_of(change, facts, state)
    two_way = mode_of(change, state) is Mode.TWO_WAY
    return Compare(
        name="compare every row",
        expected=tuple(_expected(value, sync, two_way=two_way) for value in sync.forward),
        actual=tuple(quoted(name) for name in sync.new),
        where=change.compare_where.text if change.compare_where else "",
        meaning="the new columns do not hold what the old ones say",
        next_step="Ask for the backfill again: it writes the rows that differ. Where a value"
        " cannot be computed, correct the row or the expression.",
    )


def compare_old(change: Change, facts: Facts) -> Compare | None:
    """Nothing would be lost on the way back from the switch; None: nothing computes the old.

    A column of another type must give the very new value again. Old columns beside new ones need
    not, as three names do not fit into two: but they hold what the file says, and not NULL.
    """
    sync = sync_of(change, facts, State.SWITCHED)
    if not sync.reverse:
        return None
    if isinstance(change.what, ShadowColumn):
        expected = [value.typed() for value in sync.forward]
        actual = [quoted(value.column) for value in sync.forward]
    else:
        same = " AND ".join(value.is_held() for value in sync.forward)
        given = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in sync.new)
        empty = " OR ".join(f"{quoted(value.column)} IS NULL" for value in sync.reverse)
        expected = [
            f"CASE WHEN {same} THEN {quoted(value.column)} ELSE {value.typed()} END"
            for value in sync.reverse
        ]
        actual = [quoted(value.column) for value in sync.reverse]
        expected.append("false")
        actual.append(f"(NOT ({same}) AND ({given}) AND ({empty}))")
    return Compare(
        name="see that the old columns have every write",
        expected=tuple(expected),
        actual=tuple(actual),
        where="",
        meaning="the old columns do not hold what was written since the switch",
        next_step="Correct these rows, or stay with the new columns.",
    )


def compare_only_new(change: Change, facts: Facts, state: State) -> Compare:
    """No new column holds a value that the old ones do not: before new columns are dropped."""
    sync = sync_of(change, facts, state)
    two_way = mode_of(change, state) is Mode.TWO_WAY
    return Compare(
        name="see that nothing stands in the new columns alone",
        expected=tuple(_expected(value, sync, two_way=two_way) for value in sync.forward),
        actual=tuple(quoted(name) for name in sync.new),
        where=" OR ".join(f"{quoted(name)} IS NOT NULL" for name in sync.new),
        meaning="the new columns hold something that the old ones do not say",
        next_step="If the old ones are right, ask for the backfill first: it writes the new ones"
        " from them. Then come back.",
    )


def _expected(value: Value, sync: Sync, *, two_way: bool) -> str:
    if not two_way or not sync.reverse:
        return value.typed()
    return f"CASE WHEN {_written_new(sync)} THEN {quoted(value.column)} ELSE {value.typed()} END"


def _written_new(sync: Sync) -> str:
    """The row was written through the new columns: the old ones are what they say."""
    given = " OR ".join(f"{quoted(name)} IS NOT NULL" for name in sync.new)
    follows = " AND ".join(value.is_held() for value in sync.reverse)
    return f"(({given}) AND {follows or 'false'})"
