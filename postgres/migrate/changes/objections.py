"""Why a table cannot be changed as a file says. Pure.

What is not handled is refused by its name: a column that takes another's name while something
else holds on to the old one would part the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postgres.errors import PostgresError
from postgres.migrate.changes.facts import Attached, Dependant, Facts
from postgres.migrate.changes.sync import trigger_name
from postgres.migrate.changes.words import Change, ExpandContract, ShadowColumn

_KINDS: Final = {"v": "a view", "m": "a materialized view", "p": "partitioned", "f": "foreign"}
_SAID: Final = {"f": "foreign key", "p": "primary key", "x": "exclusion constraint"}
_INVOKER: Final = 15  # the major version from which views can use the rights of whoever asks


def table_objection(change: Change, facts: Facts) -> PostgresError | None:
    """Why this table is none that can be changed so, whatever the phase."""
    name = f"{change.schema}.{change.table}"
    if facts.kind != "r" or facts.is_partition or facts.family:
        kind = _KINDS.get(facts.kind, "a part of another table or has parts of its own")
        with_ = f" (with {', '.join(facts.family)})" if facts.family else ""
        return _no(f"{name} is {kind}{with_}.", "A declared change is of one plain table.")
    reasons = {
        f"{name} is temporary.": (facts.persistence == "t", "Name a table that stays."),
        f"{name} belongs to {facts.owner}.": (not facts.is_ours, "Only its owner may do this."),
        "standard_conforming_strings is off there, and constants would be read differently.": (
            not facts.strings_conform,
            "Turn it on for our role: ALTER ROLE … SET standard_conforming_strings = on",
        ),
        f"{name} has no primary key.": (
            not facts.key,
            "Give it one: its rows are walked through by it.",
        ),
        f"{', '.join(facts.volatile)} does not exist, or gives another value each time.": (
            bool(facts.volatile),
            "Take functions that are immutable or stable, with their schema.",
        ),
    }
    found = ((problem, step) for problem, (is_so, step) in reasons.items() if is_so)
    return next((_no(problem, step) for problem, step in found), None)


def expand_objection(change: Change, facts: Facts) -> PostgresError | None:
    """Why a change cannot begin."""
    what = change.what
    new = [what.shadow] if isinstance(what, ShadowColumn) else [c.name for c in what.columns]
    if there := [name for name in new if name in facts.columns]:
        return _no(
            f"{change.schema}.{change.table} has a column {there[0]} already.",
            "Take another name, or drop it first if nobody needs it.",
        )
    if facts.trigger(trigger_name(change.name)):
        return _no(
            f"The trigger {trigger_name(change.name)} is there already, and nothing says why.",
            "Look who made it, and drop it.",
        )
    return (
        _late_trigger(change, facts)
        or _columns(change, facts)
        or _published(change, facts)
        or _views(change, facts)
        or (_shadow(what, change, facts) if isinstance(what, ShadowColumn) else None)
    )


def switch_objection(change: Change, facts: Facts) -> PostgresError | None:
    """Why old and new cannot change places now, though they could when it began."""
    what = change.what
    if isinstance(what, ShadowColumn):
        return _shadow(what, change, facts) or _published(change, facts)
    return _unfilled(what, facts)


def contract_objection(change: Change, facts: Facts) -> PostgresError | None:
    """What still holds on to the columns that go."""
    what = change.what
    going = {what.old} if isinstance(what, ShadowColumn) else set(what.drop)
    held = [
        each.text for each in _others(change, facts) if each.column in going
    ] + [
        f"foreign key {each.name} of another table"
        for each in facts.attached
        if each.is_other and each.columns & going
    ]  # fmt: skip
    held += [
        f"replica identity {each.name}"
        for each in facts.attached
        if each.is_replica_identity and each.columns & going
    ]
    if going & set(facts.key):
        held.append("the primary key")
    if not held:
        return None
    return _no(
        f"{', '.join(sorted(going))} cannot go while they are needed: {'; '.join(held)}.",
        "Change or drop what is named, then ask again.",
    )


def goes_along(change: Change, facts: Facts) -> tuple[str, ...]:
    """Indexes and constraints that PostgreSQL drops with the columns of the last phase."""
    what = change.what
    going = {what.old} if isinstance(what, ShadowColumn) else set(what.drop)
    return tuple(
        f"{'index' if each.kind == 'index' else 'constraint'} {each.name}"
        for each in facts.attached
        if each.columns & going and not each.is_other
    )


def carried(what: ShadowColumn, facts: Facts, column: str) -> tuple[Attached, ...]:
    """The indexes, unique and check constraints of a column, which its shadow gets as well."""
    if not what.copies_indexes:
        return ()
    return tuple(
        each
        for each in facts.attached
        if column in each.columns and not each.is_other and each.kind in {"index", "u", "c"}
    )


def other_before_triggers(change: Change, facts: Facts) -> tuple[str, ...]:
    """Row triggers that may change a row before ours sees it."""
    ours = trigger_name(change.name)
    return tuple(each.name for each in facts.triggers if each.is_before_row and each.name != ours)


def _late_trigger(change: Change, facts: Facts) -> PostgresError | None:
    """Triggers fire by name: one after ours could change what ours has looked at."""
    ours = trigger_name(change.name)
    later = [name for name in other_before_triggers(change, facts) if name > ours]
    if not later:
        return None
    return _no(
        f"The trigger {later[0]} fires after ours and may change the row once more.",
        f"Rename it so that it sorts before {ours}: ALTER TRIGGER … RENAME TO …",
    )


def _columns(change: Change, facts: Facts) -> PostgresError | None:
    """The columns that the file names exist, and can be read before a row is written."""
    what = change.what
    if isinstance(what, ShadowColumn):
        named = {what.column, *what.up.columns, *(what.down.columns - {what.column})}
        if what.old in facts.columns:
            return _no(f"There is a column {what.old} already.", "Say another name under old.")
    else:
        new = {column.name for column in what.columns}
        named = {*what.drop, *what.reverse}
        for value in (*what.forward.values(), *what.reverse.values()):
            named |= value.columns
        named -= new
    if unknown := sorted(named - set(facts.columns)):
        return _no(
            f"{change.schema}.{change.table} has no column {unknown[0]}.",
            "Write it as the catalog has it: SQL folds names to small letters without quotes.",
        )
    if generated := sorted(name for name in named if facts.columns[name].is_generated):
        return _no(
            f"{generated[0]} is generated after triggers have run.",
            "Compute from what it is computed from.",
        )
    return None


def _published(change: Change, facts: Facts) -> PostgresError | None:
    if not facts.publications:
        return None
    named = ", ".join(facts.publications)
    if isinstance(change.what, ShadowColumn):
        return _no(
            f"The table is published ({named}), and subscribers go by the names of columns.",
            "Take it out of the publication, or use expand_contract with columns that stay.",
        )
    if change.is_published_prepared:
        return None
    return _no(
        f"The table is published ({named}): subscribers without the new columns would stop.",
        "Add the columns there first; then say so in the file: published: prepared",
    )


def _views(change: Change, facts: Facts) -> PostgresError | None:
    if change.views is None:
        return None
    if there := sorted(facts.views_there):
        return _no(
            f"There is a {there[0]}.{change.table} already.", "Name another schema under views."
        )
    missing = [name for name in (change.views.old, change.views.new) if name not in facts.others_in]
    if missing and not facts.may_create:
        return _no(
            f"Our user may create no schema {missing[0]}.", "GRANT CREATE ON DATABASE … TO it."
        )
    if facts.has_policies and facts.major < _INVOKER:
        return _no(
            "The table has row security, and views of this version look with their owner's rights.",
            "Leave the views out; from PostgreSQL 15 on they look with the rights of who asks.",
        )
    what = change.what
    if isinstance(what, ShadowColumn) and facts.columns[what.column].default is not None:
        return _no(
            f"{what.column} has a default: nobody can tell which version has left it out.",
            "Leave the views out, or let the application write the value.",
        )
    return None


def _shadow(what: ShadowColumn, change: Change, facts: Facts) -> PostgresError | None:
    """What cannot follow a column that another takes the name of."""
    column = facts.columns[what.column]
    held = [each.text for each in _others(change, facts) if each.column == what.column]
    for each in facts.attached:
        if what.column not in each.columns:
            continue
        if each.is_other:
            held.append(f"foreign key {each.name} of another table")
        elif each.kind in _SAID:
            held.append(f"{_SAID[each.kind]} {each.name}")
        elif each.is_replica_identity:
            held.append(f"replica identity {each.name}")
        elif each.kind != "c" and not each.is_valid:
            held.append(f"invalid index {each.name}")
    if column.is_identity:
        held.append("its identity sequence")
    if column.has_grants:
        held.append("privileges on the column alone")
    if not held:
        return None
    return _no(
        f"{what.column} cannot be exchanged: {'; '.join(held)}.",
        "Change what is named first, or use expand_contract with a column of another name.",
    )


def _others(change: Change, facts: Facts) -> Iterator[Dependant]:
    """What needs a column and is not one of our own views."""
    ours = {change.views.old, change.views.new} if change.views else set[str]()
    return (each for each in facts.dependants if each.schema not in ours or not each.schema)


def _unfilled(what: ExpandContract, facts: Facts) -> PostgresError | None:
    """A new version that writes only new columns must not fail at an old one."""
    for name in what.drop:
        column = facts.columns[name]
        if column.not_null and column.default is None and name not in what.reverse:
            return _no(
                f"{name} is NOT NULL, and nothing fills it when a new version writes a row.",
                "Say under sync.reverse how it is computed, or drop its NOT NULL first.",
            )
    return None


def _no(problem: str, next_step: str) -> PostgresError:
    return PostgresError(problem, next_step=next_step)
