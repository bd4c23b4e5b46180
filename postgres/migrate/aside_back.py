"""How what was kept aside is put back, from the catalog of now. Pure.

First one short transaction; then values are filled in, a part of the copy at a time, so that it
can be stopped and done again; last what must run alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from postgres.migrate.aside_words import COPIED, Kept, What
from postgres.migrate.backfill.kept import written_names
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.schema.again import (
    column_again,
    column_and_its_own,
    constraint_again,
    sequence_again,
    view_again,
)
from postgres.schema.catalog import Catalog, Relation, full, ident

# Of the copy, how much goes into one transaction: 2 MB of it.
BLOCKS: Final = 256
# Nobody waits long for a row that gets its old value back. Before 14 each part reads all of the
# copy, so that small ones would take for ever.
_SHORT_BLOCKS: Final = 32
_SHORT_FROM: Final = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """Statements over a part of the copy ($1, $2: from and to which ctid), and what is left.

    `conflicts`: one row with `conflicts` and `gone`, of what differs or has no place any more.
    """

    batch: str
    conflicts: str
    is_whole: bool = False  # all in one transaction: there is no key to go by
    blocks: int = BLOCKS


@dataclass(frozen=True, slots=True, kw_only=True)
class PutBack:
    """`problems`: with any, nothing runs. `notes`: what people should know."""

    first: tuple[str, ...] = ()
    fill: Fill | None = None
    last: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def statements(self) -> tuple[str, ...]:
        """All of them, for people."""
        return (*self.first, *((self.fill.batch,) if self.fill else ()), *self.last)


def put_back(kept: Kept, now: Catalog, *, overwrite: bool = False) -> PutBack:
    """What puts it back. `now` has what stands where it was, and the copy.

    `overwrite`: old values also for rows that somebody else has written since a backfill did.
    """
    if kept.name not in now.aside:
        return PutBack(problems=(f"{kept.kept} is not there any more",))
    there = now.relation(kept.before.schema, kept.before.name)
    if kept.what in COPIED:
        if there is None:
            return PutBack(problems=(f"{kept.before.sql} is not there any more",))
        return _filled(kept, there, now.major, overwrite=overwrite)
    if there is not None:
        return PutBack(problems=(f"{there.sql} is there again: rename or drop it first",))
    if kept.what is What.VIEW:
        note = f"{kept.before.sql} gets what its query finds today."
        return PutBack(first=view_again(kept.before), notes=(note,))
    return _moved(kept)


def _filled(kept: Kept, there: Relation, major: int, *, overwrite: bool) -> PutBack:
    match kept.what:
        case What.VALUES:
            return _values(kept, there, major, overwrite=overwrite)
        case What.COLUMN:
            return _column(kept, there)
        case _:
            return _rows(kept, there)


def _moved(kept: Kept) -> PutBack:
    before = kept.before
    word = "SEQUENCE" if kept.what is What.SEQUENCE else "TABLE"
    indexes = {each.name for each in before.indexes}
    named = [
        f"ALTER {'INDEX' if old in indexes else 'SEQUENCE'} {full(before.schema, new)}"
        f" RENAME TO {ident(old)}"
        for old, new in kept.renamed.items()
    ]
    keys = [each for each in before.constraints if each.kind == "f"]
    added = [constraint_again(before.sql, each, None) for each in keys]
    owned: tuple[str, ...] = ()
    if before.sequence is not None and before.sequence.owner_column:
        owned = sequence_again(before)[-1:]
    return PutBack(
        first=(
            f"ALTER {word} {kept.sql} SET SCHEMA {ident(before.schema)}",
            f"ALTER {word} {full(before.schema, kept.name)} RENAME TO {ident(before.name)}",
            *named,
            *owned,
            *(each[0] for each in added),
        ),
        last=tuple(text for each in added for text in each[1:]),
    )


def _column(kept: Kept, there: Relation) -> PutBack:
    if again := [name for name in kept.columns if there.column(name) is not None]:
        missing: tuple[str, ...] = ()
        note = f"{', '.join(again)} is there again: only rows where it is NULL are filled in."
    else:
        missing, note = kept.columns, ""
    if gone := [name for name in there_key(kept) if there.column(name) is None]:
        return PutBack(problems=(f"{there.sql} has no {', '.join(gone)} any more",))
    columns = [each for each in kept.before.columns if each.name in kept.columns]
    match = " AND ".join(f"t.{ident(each)} = a.{ident(each)}" for each in there_key(kept))
    sets = ", ".join(f"{ident(n)} = coalesce(t.{ident(n)}, a.{ident(n)})" for n in kept.columns)
    empty = " OR ".join(
        f"(t.{ident(n)} IS NULL AND a.{ident(n)} IS NOT NULL)" for n in kept.columns
    )
    differs = " OR ".join(
        f"t.{ident(n)}::text IS DISTINCT FROM a.{ident(n)}::text" for n in kept.columns
    )
    last = [text for each in columns for text in _of_column(kept.before, each.name)]
    return PutBack(
        first=tuple(
            column_again(there.sql, each, with_default=False)
            for each in columns
            if each.name in missing
        ),
        fill=Fill(
            batch=f"UPDATE {there.sql} AS t SET {sets} FROM {kept.sql} AS a"  # noqa: S608
            f" WHERE a.ctid >= $1 AND a.ctid < $2 AND {match} AND ({empty})",
            conflicts=f"SELECT count(*) FILTER (WHERE {differs}) AS conflicts,"  # noqa: S608
            f" (SELECT count(*) FROM {kept.sql} AS a"
            f" WHERE NOT EXISTS (SELECT FROM {there.sql} AS t WHERE {match})) AS gone"
            f" FROM {kept.sql} AS a JOIN {there.sql} AS t ON {match}",
        ),
        last=tuple(dict.fromkeys(last)),
        notes=(note,) if note else (),
    )


def _values(kept: Kept, there: Relation, major: int, *, overwrite: bool) -> PutBack:
    key, columns = there_key(kept), kept.columns
    if gone := [name for name in (*key, *columns) if there.column(name) is None]:
        return PutBack(problems=(f"{there.sql} has no {', '.join(gone)} any more",))
    match = " AND ".join(f"t.{ident(each)} = a.{ident(each)}" for each in key)
    sets = ", ".join(f"{ident(name)} = a.{ident(name)}" for name in columns)
    # As text: some types have no equality, and the equality of others is not sameness.
    differs = " OR ".join(
        f"t.{ident(name)}::text IS DISTINCT FROM a.{ident(name)}::text" for name in columns
    )
    still = " AND ".join(
        f"t.{ident(name)}::text IS NOT DISTINCT FROM a.{written}::text"
        for name, written in zip(columns, written_names(len(columns)), strict=True)
    )
    only = "" if overwrite else f" AND {still}"
    place = f"t.{ident(key[0])}"  # of a key, which is never NULL
    fires = [each.name for each in there.triggers if each.enabled in ("O", "A")]
    notes = [f"Triggers of {there.sql} may fire: {', '.join(fires)}."] if fires else []
    if overwrite:
        notes.append("Rows that somebody has changed since lose what they were changed to.")
    return PutBack(
        fill=Fill(
            batch=f"UPDATE {there.sql} AS t SET {sets} FROM {kept.sql} AS a"  # noqa: S608
            f" WHERE a.ctid >= $1 AND a.ctid < $2 AND {match} AND ({differs}){only}",
            conflicts=f"SELECT count(*) FILTER (WHERE {place} IS NOT NULL AND ({differs}))"  # noqa: S608
            f" AS conflicts, count(*) FILTER (WHERE {place} IS NULL) AS gone"
            f" FROM {kept.sql} AS a LEFT JOIN {there.sql} AS t ON {match}",
            blocks=_SHORT_BLOCKS if major >= _SHORT_FROM else BLOCKS,
        ),
        notes=tuple(notes),
    )


def there_key(kept: Kept) -> tuple[str, ...]:
    """The columns that rows of the copy are told apart by."""
    return kept.key or kept.before.key


def _of_column(before: Relation, name: str) -> list[str]:
    """Default, NOT NULL, constraints and indexes, after the values."""
    column = before.column(name)
    if column is None:
        return []
    found = list(column_and_its_own(before, column)[1:])
    alter = f"ALTER TABLE {before.sql} ALTER COLUMN {ident(name)}"
    if column.default and not column.generated:
        found.insert(0, f"{alter} SET DEFAULT {column.default}")
    if column.not_null:
        check = ident(f"{name[:40]}_not_null_again")
        says = f"CHECK ({ident(name)} IS NOT NULL)"
        found += [
            f"ALTER TABLE {before.sql} ADD CONSTRAINT {check} {says} NOT VALID",
            f"ALTER TABLE {before.sql} VALIDATE CONSTRAINT {check}",
            f"{alter} SET NOT NULL",
            f"ALTER TABLE {before.sql} DROP CONSTRAINT IF EXISTS {check}",
        ]
    return found


def _rows(kept: Kept, there: Relation) -> PutBack:
    names = [each.name for each in kept.before.columns if not each.generated]
    if gone := [name for name in names if there.column(name) is None]:
        return PutBack(problems=(f"{there.sql} has no {', '.join(gone)} any more",))
    listed = ", ".join(ident(each) for each in names)
    key = there_key(kept)
    into = f"INSERT INTO {there.sql} ({listed}) OVERRIDING SYSTEM VALUE SELECT {listed}"
    if not key:
        empty = f"NOT EXISTS (SELECT FROM {there.sql})"
        return PutBack(
            fill=Fill(
                batch=f"{into} FROM {kept.sql} AS a WHERE {empty}",
                conflicts=f"SELECT greatest((SELECT count(*) FROM {kept.sql})"  # noqa: S608
                f" - (SELECT count(*) FROM {there.sql}), 0) AS conflicts, 0::bigint AS gone",
                is_whole=True,
            ),
            notes=(f"{there.sql} has no primary key: rows come back only while it is empty.",),
        )
    match = " AND ".join(f"t.{ident(each)} = a.{ident(each)}" for each in key)
    differs = " OR ".join(f"t.{ident(n)}::text IS DISTINCT FROM a.{ident(n)}::text" for n in names)
    return PutBack(
        fill=Fill(
            batch=f"{into} FROM {kept.sql} AS a WHERE a.ctid >= $1 AND a.ctid < $2"
            f" AND NOT EXISTS (SELECT FROM {there.sql} AS t WHERE {match})"
            " ON CONFLICT DO NOTHING",
            conflicts=f"SELECT count(*) FILTER (WHERE {differs}) AS conflicts,"  # noqa: S608
            f" (SELECT count(*) FROM {kept.sql} AS a"
            f" WHERE NOT EXISTS (SELECT FROM {there.sql} AS t WHERE {match})) AS gone"
            f" FROM {kept.sql} AS a JOIN {there.sql} AS t ON {match}",
        ),
    )


def in_one_go(kept: Kept) -> tuple[str, ...]:
    """What puts it back right after, where nothing else stands in its place. The copy stays."""
    if kept.what in (What.COLUMN, What.ROWS):
        bare = replace(kept.before, columns=tuple(
            each for each in kept.before.columns if each.name not in kept.columns
        ))  # fmt: skip
        found = _column(kept, bare) if kept.what is What.COLUMN else _rows(kept, kept.before)
        parts = " a.ctid >= $1 AND a.ctid < $2 AND"
        filled = (found.fill.batch.replace(parts, ""),) if found.fill else ()
        return (*found.first, *filled, *found.last)
    return view_again(kept.before) if kept.what is What.VIEW else _moved(kept).statements


def drop_statement(kept: Kept) -> str:
    """What ends it for good."""
    word = "SEQUENCE" if kept.what is What.SEQUENCE else "TABLE"
    return f"DROP {word} {kept.sql}"


def place_of(name: str) -> tuple[str, str]:
    """Schema and name, for who reads the catalog."""
    return ASIDE_SCHEMA, name
