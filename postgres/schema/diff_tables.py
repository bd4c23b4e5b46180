"""DDL from one table to another. Pure. See `postgres.schema.diff`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from postgres.schema.again import (
    column_again,
    concurrently,
    constraint_again,
    identity_clause,
    options_clause,
    table_again,
    trigger_again,
)
from postgres.schema.catalog import Column, Constraint, Relation, ident
from postgres.schema.diff_words import Step


def table_steps(before: Relation, table: Relation, undone: list[str]) -> Iterator[Step]:
    """Columns and storage of a table that is there."""
    if (before.partition_key, before.bound, before.parents) != (
        table.partition_key, table.bound, table.parents,
    ):  # fmt: skip
        undone.append(f"{table.sql} is partitioned in another way")
    for column in table.columns:
        was = before.column(column.name)
        if was is None:
            yield from _new_column(table, column)
        elif was != column:
            yield from _column(table, was, column, undone)
    if before.options != table.options:
        unset = ", ".join(each.partition("=")[0] for each in before.options)
        if unset:
            yield Step(sql=f"ALTER TABLE {table.sql} RESET ({unset})")
        if table.options:
            yield Step(sql=f"ALTER TABLE {table.sql} SET{options_clause(table)[5:]}")
    if before.persistence != table.persistence:
        word = "UNLOGGED" if table.persistence == "u" else "LOGGED"
        yield Step(sql=f"ALTER TABLE {table.sql} SET {word}", note="It rewrites the table.")


def changes_type(before: Relation, table: Relation) -> bool:
    """Whether a column gets another type, which no view on it allows."""
    return any(
        (was := before.column(each.name)) is not None
        and (was.type, was.collation) != (each.type, each.collation)
        for each in table.columns
    )


def _column(table: Relation, was: Column, column: Column, undone: list[str]) -> Iterator[Step]:
    if (was.generated, was.generated and was.default) != (
        column.generated, column.generated and column.default,
    ):  # fmt: skip
        undone.append(f"{table.sql}.{column.name} is generated in another way")
        return
    alter = f"ALTER TABLE {table.sql} ALTER COLUMN {ident(column.name)}"
    yield from _type_and_default(alter, was, column)
    if was.not_null and not column.not_null:
        yield Step(sql=f"{alter} DROP NOT NULL")
    if column.not_null and not was.not_null:
        yield from _not_null(table.sql, column.name)
    if column.identity and not was.identity:
        yield Step(sql=f"{alter} ADD {identity_clause(column)}")
    elif column.identity != was.identity and column.identity:
        when = "ALWAYS" if column.identity == "a" else "BY DEFAULT"
        yield Step(sql=f"{alter} SET GENERATED {when}")


def _type_and_default(alter: str, was: Column, column: Column) -> Iterator[Step]:
    is_other = (was.type, was.collation) != (column.type, column.collation)
    if was.identity and not column.identity:
        yield Step(sql=f"{alter} DROP IDENTITY")
    if is_other:
        if was.default and not was.generated:
            yield Step(sql=f"{alter} DROP DEFAULT")
        collate = f" COLLATE {column.collation}" if column.collation else ""
        using = f"USING {ident(column.name)}::{column.type}"
        yield Step(
            sql=f"{alter} TYPE {column.type}{collate} {using}",
            note=f"It was {was.type}. On a large table declare it as a change instead:"
            " /db change with a shadow column.",
        )
    if column.generated or (was.default == column.default and not (is_other and was.default)):
        return
    does = f"SET DEFAULT {column.default}" if column.default else "DROP DEFAULT"
    yield Step(sql=f"{alter} {does}")


def new_table(table: Relation) -> Iterator[Step]:
    """Everything of a new table but its constraints, which come when all tables are there."""
    skipped = ("OWNER TO", "GRANT ", "COMMENT ON")
    for sql in table_again(table, keys=False):
        if " ADD CONSTRAINT " in sql or any(word in sql[:12] for word in skipped[1:]):
            continue
        if f" {skipped[0]} " in sql and sql.startswith("ALTER TABLE"):
            continue
        yield Step(sql=sql)


def _new_column(table: Relation, column: Column) -> Iterator[Step]:
    if not column.not_null or column.default or column.identity or column.generated:
        yield Step(sql=column_again(table.sql, column))
        if column.generated and column.not_null:
            yield from _not_null(table.sql, column.name)
        return
    yield Step(
        sql=column_again(table.sql, column),
        note="It is declared NOT NULL and has no default: fill it (/db backfill) before what"
        " follows.",
    )
    yield from _not_null(table.sql, column.name)


def _not_null(table: str, column: str) -> Iterator[Step]:
    """By a checked constraint: SET NOT NULL itself would scan under a lock of everybody."""
    check = ident(f"{column[:40]}_not_null")
    says = f"CHECK ({ident(column)} IS NOT NULL)"
    yield Step(sql=f"ALTER TABLE {table} ADD CONSTRAINT {check} {says} NOT VALID")
    yield Step(sql=f"ALTER TABLE {table} VALIDATE CONSTRAINT {check}")
    yield Step(sql=f"ALTER TABLE {table} ALTER COLUMN {ident(column)} SET NOT NULL")
    yield Step(sql=f"ALTER TABLE {table} DROP CONSTRAINT {check}")


def constraints(before: Relation | None, table: Relation) -> Iterator[Step]:
    had = {each.name: each for each in before.constraints} if before else {}
    wanted = {each.name: each for each in table.constraints if not each.inherited}
    for name, old in had.items():
        if not old.inherited and not _same(old, wanted.get(name)):
            yield Step(sql=f"ALTER TABLE {table.sql} DROP CONSTRAINT {ident(name)}")
    for each in sorted(wanted.values(), key=lambda one: "puxcf".index(one.kind)):
        if _same(each, had.get(each.name)):
            continue
        index = next((i for i in table.indexes if i.name == each.index), None)
        is_plain = before is None or table.kind == "p" or table.has_children
        for sql in constraint_again(table.sql, each, index, is_partitioned=is_plain):
            yield Step(sql=sql)


def _same(one: Constraint, other: Constraint | None) -> bool:
    return other is not None and one.definition == other.definition


def indexes(before: Relation, table: Relation) -> Iterator[Step]:
    had = {i.name: i for i in before.indexes if not i.constraint and not i.inherited}
    wanted = {i.name: i for i in table.indexes if not i.constraint and not i.inherited}
    online = "" if table.kind == "p" else "CONCURRENTLY "
    for name, old in had.items():
        new = wanted.get(name)
        if new is None or new.definition != old.definition:
            # An index of a column that goes may be gone with it by then.
            yield Step(sql=f"DROP INDEX {online}IF EXISTS {ident(table.schema)}.{ident(name)}")
    for name, new in wanted.items():
        old_one = had.get(name)
        if old_one is None or old_one.definition != new.definition:
            yield Step(sql=concurrently(new.definition) if online else new.definition)


def on_table(before: Relation, table: Relation) -> Iterator[Step]:
    """Triggers, policies, row security and rules of a table that is there."""
    triggers = {each.name: each.definition + each.enabled for each in before.triggers}
    policies = {each.name: each.definition for each in before.policies}
    wanted_triggers = {each.name: each.definition + each.enabled for each in table.triggers}
    wanted_policies = {each.name: each.definition for each in table.policies}
    yield from _gone("TRIGGER", table.sql, triggers, wanted_triggers)
    yield from _gone("POLICY", table.sql, policies, wanted_policies)
    for trigger in table.triggers:
        if triggers.get(trigger.name) != wanted_triggers[trigger.name]:
            yield from (Step(sql=sql) for sql in trigger_again(table.sql, trigger))
    for policy in table.policies:
        if policies.get(policy.name) != policy.definition:
            yield Step(sql=policy.definition)
    if before.row_security != table.row_security:
        word = "ENABLE" if table.row_security else "DISABLE"
        yield Step(sql=f"ALTER TABLE {table.sql} {word} ROW LEVEL SECURITY")
    if before.force_row_security != table.force_row_security:
        word = "FORCE" if table.force_row_security else "NO FORCE"
        yield Step(sql=f"ALTER TABLE {table.sql} {word} ROW LEVEL SECURITY")
    yield from (Step(sql=each.rstrip(";")) for each in table.rules if each not in before.rules)


def _gone(
    word: str, table: str, had: Mapping[str, str], wanted: Mapping[str, str]
) -> Iterator[Step]:
    for name, text in had.items():
        if wanted.get(name) != text:
            yield Step(sql=f"DROP {word} {ident(name)} ON {table}")
