"""Statements that drop data, rewritten so that it is kept aside. Pure.

Each becomes one DO block, which is one statement: it runs whole or not at all, inside a
transaction or outside. A table or a sequence is moved to `twokey_aside`, where nobody but its
owner and we get at it; what is dropped in part is copied first, under the lock of the drop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from postgres.errors import PostgresError
from postgres.migrate.aside_words import (
    COPY_BYTES_PER_SECOND,
    AsideBounds,
    AsidePlan,
    AsideProblem,
    Kept,
    What,
)
from postgres.migrate.own_schema import ASIDE_SCHEMA
from postgres.migrate.reverse_names import parsed, path_of, split_name
from postgres.migrate.words import Finding, Level, Review, ReviewedStatement
from postgres.schema.catalog import Catalog, Relation, full, ident

_NAME_CHARS: Final = 40  # of 63: a number follows
_CHANGE: Final = "Declare it as a change instead: /db change drops it as its last phase."
_KINDS: Final = {"OBJECT_TABLE": "rp", "OBJECT_SEQUENCE": "S", "OBJECT_MATVIEW": "m"}


def with_aside(review: Review, facts: Catalog, bounds: AsideBounds) -> AsidePlan:
    """The review with every statement that loses data in the form that keeps it.

    `facts`: what `read_reverse_facts` read of the same text, before it runs.
    """
    return _Writer(facts=facts, bounds=bounds).plan(review)


class _ProblemError(Exception):
    def __init__(self, text: str, next_step: str = _CHANGE) -> None:
        super().__init__(text)
        self.next_step = next_step


@dataclass(slots=True, kw_only=True)
class _Writer:
    """Goes through a file once; remembers what it makes, renames and keeps."""

    facts: Catalog
    bounds: AsideBounds
    kept: list[Kept] = field(default_factory=list)
    problems: list[AsideProblem] = field(default_factory=list)
    made: set[tuple[str, str]] = field(default_factory=set)
    made_columns: set[tuple[int, str]] = field(default_factory=set)
    is_renamed: bool = False
    index: int = 0

    def plan(self, review: Review) -> AsidePlan:
        statements = tuple(self._statement(each) for each in review.statements)
        return AsidePlan(
            review=replace(review, statements=statements),
            kept=tuple(self.kept),
            problems=tuple(self.problems),
        )

    def _statement(self, statement: ReviewedStatement) -> ReviewedStatement:
        self.index = statement.index
        before = len(self.kept)
        try:
            (node,) = parsed(statement.sql)
            lines = self._lines(node, statement.sql)
        except (PostgresError, ValueError):
            return statement  # what does not parse is refused elsewhere
        except _ProblemError as problem:
            del self.kept[before:]
            self.problems.append(
                AsideProblem(
                    statement=statement.index, text=f"{problem}.", next_step=problem.next_step
                )
            )
            return statement
        kept = self.kept[before:]
        return _rewritten(statement, lines, kept) if kept else statement

    def _lines(self, node: Any, sql: str) -> Sequence[str]:
        """What runs in its place, and what is kept by it noted; nothing for the rest."""
        match type(node).__name__:
            case "DropStmt":
                return self._drop(node, sql)
            case "AlterTableStmt":
                return self._alter(node, sql)
            case "TruncateStmt":
                if node.behavior.name == "DROP_CASCADE":
                    raise _ProblemError("TRUNCATE … CASCADE empties more tables than it names")
                return self._emptied(node.relations, sql)
            case "DeleteStmt" if node.whereClause is None:
                if node.usingClause or node.withClause or node.returningClause:
                    raise _ProblemError("A DELETE of all rows does more besides")
                return self._emptied((node.relation,), sql)
            case "DropOwnedStmt":
                raise _ProblemError("DROP OWNED drops what it does not name")
            case _:
                self._note(node)
                return ()

    def _note(self, node: Any) -> None:
        """What later statements may mean by a name."""
        match type(node).__name__:
            case "CreateStmt" | "CreateSeqStmt":
                target = node.relation if hasattr(node, "relation") else node.sequence
                self._make(target)
            case "CreateTableAsStmt":
                self._make(node.into.rel)
            case "RenameStmt" | "AlterObjectSchemaStmt":
                self.is_renamed = True
            case _:
                pass

    def _make(self, target: Any) -> None:
        if self._known(target.schemaname, target.relname) is None:
            self.made.add((self.facts.where(target.schemaname), target.relname))

    def _known(self, schema: str | None, name: str) -> Relation | None:
        return self.facts.relation(schema or None, name)

    def _find(self, schema: str, name: str, *, missing_ok: bool = False) -> Relation | None:
        """What stands there since before the file; None: nothing that has data to keep."""
        found = self._known(schema, name)
        if (self.facts.where(schema), name) in self.made:
            return None
        if found is not None and not self.is_renamed:
            if any(each.before.oid == found.oid and not each.columns for each in self.kept):
                raise _ProblemError(f"{found.sql} is dropped twice in one file")
            return found
        if found is None and missing_ok and not self.is_renamed:
            return None
        raise _ProblemError(
            f"Which table {name} is at that place of the file is not certain",
            "Drop it in a file of its own, without renames before.",
        )

    def _drop(self, node: Any, sql: str) -> Sequence[str]:
        kind = node.removeType.name
        if node.behavior.name == "DROP_CASCADE" and kind not in ("OBJECT_VIEW", "OBJECT_INDEX"):
            raise _ProblemError(
                "DROP … CASCADE drops more than it names, which cannot be kept",
                "Name what depends on it in statements of their own, before it.",
            )
        if kind not in _KINDS:
            return ()
        names = [split_name(path_of(each)) for each in node.objects]
        found = [self._find(*name, missing_ok=node.missing_ok) for name in names]
        relations = [each for each in found if each is not None]
        if len(relations) != len(found) and relations:
            raise _ProblemError(
                "One DROP names what there is and what this file makes or what is not there",
                "Write a statement for each.",
            )
        if kind == "OBJECT_MATVIEW":
            return [*self._copies(relations, What.VIEW), sql]
        return self._moves(relations, kind)

    def _moves(self, relations: Sequence[Relation], kind: str) -> Sequence[str]:
        """Out of everybody's sight, where DROP would be allowed."""
        word = kind.removeprefix("OBJECT_")
        for each in relations:
            _must_be_plain(each)
            others = [name for name in each.dependents if not _is_among(name, relations)]
            if others:
                raise _ProblemError(
                    f"{', '.join(others[:3])} depends on {each.sql}: DROP would be refused",
                    "Drop or change that first.",
                )
        lines = _guard(word, [each.sql for each in relations]) if relations else []
        for each in relations:
            lines += self._move(each, word)
        return lines

    def _move(self, relation: Relation, word: str) -> Iterator[str]:
        name = self._free(relation.name)
        parts = [(f"{name}_i{n}", "INDEX", i.name) for n, i in enumerate(relation.indexes, 1)]
        parts += [(f"{name}_s{n}", "SEQUENCE", s) for n, s in enumerate(relation.sequences, 1)]
        self.kept.append(
            Kept(
                what=What.SEQUENCE if word == "SEQUENCE" else What.TABLE,
                name=name,
                before=relation,
                statement=self.index,
                renamed={old: new for new, _, old in parts},
            )
        )
        if relation.sequence is not None and relation.sequence.owner_column:
            yield f"ALTER SEQUENCE {relation.sql} OWNED BY NONE"
        for each in relation.constraints:
            if each.kind == "f":
                yield f"ALTER TABLE {relation.sql} DROP CONSTRAINT {ident(each.name)}"
        for new, kind, old in parts:
            yield f"ALTER {kind} {full(relation.schema, old)} RENAME TO {ident(new)}"
        yield f"ALTER {word} {relation.sql} RENAME TO {ident(name)}"
        yield f"ALTER {word} {full(relation.schema, name)} SET SCHEMA {ASIDE_SCHEMA}"

    def _alter(self, node: Any, sql: str) -> Sequence[str]:
        table = None
        gone: list[str] = []
        for each in node.cmds or ():
            kind = each.subtype.name
            if kind == "AT_AddColumn" and (found := self._maybe(node)) is not None:
                self.made_columns.add((found.oid, each.def_.colname))
            if kind != "AT_DropColumn":
                continue
            table = self._find(
                node.relation.schemaname or "", node.relation.relname, missing_ok=node.missing_ok
            )
            if table is None:
                return ()
            column = table.column(each.name)
            if column is None or column.generated or (table.oid, each.name) in self.made_columns:
                continue
            if each.behavior.name == "DROP_CASCADE":
                raise _ProblemError(
                    f"DROP COLUMN {each.name} CASCADE drops more than it names",
                    "Drop what depends on it first, by name.",
                )
            gone.append(each.name)
        if table is None or not gone:
            return ()
        return [*self._column_copy(table, tuple(gone)), sql]

    def _maybe(self, node: Any) -> Relation | None:
        return self._known(node.relation.schemaname, node.relation.relname)

    def _column_copy(self, table: Relation, columns: tuple[str, ...]) -> Sequence[str]:
        key = table.key
        if not key:
            raise _ProblemError(
                f"{table.sql} has no primary key, so {', '.join(columns)} could not be put back"
            )
        if set(key) & set(columns):
            raise _ProblemError(f"{', '.join(columns)} is in the primary key of {table.sql}")
        self._must_fit(table, f"column {', '.join(columns)} of {table.sql}")
        wanted = ", ".join(ident(each) for each in (*key, *columns))
        kept = self._keep(What.COLUMN, table, f"{table.name}_{columns[0]}", columns)
        return [
            f"LOCK TABLE {table.sql} IN ACCESS EXCLUSIVE MODE",
            f"CREATE TABLE {kept.sql} AS SELECT {wanted} FROM ONLY {table.sql}",  # noqa: S608
        ]

    def _emptied(self, targets: Sequence[Any], sql: str) -> Sequence[str]:
        found = [self._find(each.schemaname or "", each.relname) for each in targets]
        tables = [each for each in found if each is not None]
        for each in tables:
            cascading = [key.table for key in each.incoming if key.action in ("c", "n", "d")]
            if cascading and sql.lstrip()[:1].upper() == "D":
                raise _ProblemError(
                    f"DELETE reaches {', '.join(cascading)} as well, through its foreign key"
                )
        return [*self._copies(tables, What.ROWS), sql] if tables else ()

    def _copies(self, relations: Sequence[Relation], what: What) -> Iterator[str]:
        for each in relations:
            self._must_fit(each, f"the rows of {each.sql}")
            kept = self._keep(what, each, each.name, ())
            if what is What.ROWS:
                yield f"LOCK TABLE {each.sql} IN ACCESS EXCLUSIVE MODE"
                yield f"CREATE TABLE {kept.sql} AS SELECT * FROM ONLY {each.sql}"  # noqa: S608
            else:
                yield f"CREATE TABLE {kept.sql} AS SELECT * FROM {each.sql}"  # noqa: S608

    def _keep(self, what: What, before: Relation, name: str, columns: tuple[str, ...]) -> Kept:
        kept = Kept(
            what=what, name=self._free(name), before=before, statement=self.index, columns=columns
        )
        self.kept.append(kept)
        return kept

    def _must_fit(self, relation: Relation, what: str) -> None:
        _must_be_plain(relation)
        if relation.bytes > self.bounds.bytes or relation.rows > self.bounds.rows:
            raise _ProblemError(
                f"To keep {what}, {relation.bytes / 2**20:,.0f} MB would be copied while everybody"
                f" waits; {self.bounds.bytes / 2**20:,.0f} MB or {self.bounds.rows:,} rows are"
                " the most"
            )

    def _free(self, name: str) -> str:
        """A name in `twokey_aside` that nothing has: the same until something is kept there."""
        taken = {*self.facts.aside, *(each.name for each in self.kept)}
        base = name.encode()[:_NAME_CHARS].decode(errors="ignore")
        number = 1
        while f"{base}_{number}" in taken:
            number += 1
        return f"{base}_{number}"


def _must_be_plain(relation: Relation) -> None:
    if relation.kind == "p" or relation.has_children or relation.parents:
        raise _ProblemError(
            f"{relation.sql} is partitioned, or is a partition",
            "Detach the partitions first; each is then a table of its own.",
        )


def _is_among(dependent: str, relations: Sequence[Relation]) -> bool:
    """Whether what depends is part of what goes with it in the same statement."""
    return any(
        dependent.endswith((f" on table {each.sql}", f"table {each.sql}")) for each in relations
    )


def _guard(word: str, names: Sequence[str]) -> list[str]:
    """DROP itself says whether it would be allowed, and is undone at once."""
    tried = f"DROP {word} {', '.join(names)};\n        RAISE SQLSTATE 'TK001';"
    return [f"BEGIN\n        {tried}\n    EXCEPTION WHEN SQLSTATE 'TK001' THEN NULL;\n    END"]


def _rewritten(
    statement: ReviewedStatement, lines: Sequence[str], kept: Sequence[Kept]
) -> ReviewedStatement:
    copied = sum(each.before.bytes for each in kept if each.what not in (What.TABLE, What.SEQUENCE))
    seconds = copied / COPY_BYTES_PER_SECOND
    names = ", ".join(f"{each.original} as {each.kept}" for each in kept)
    note = Finding(
        rule="kept-aside",
        level=Level.NOTE,
        text=f"Kept aside: {names}.",
        line=statement.line,
        help=f"{copied / 2**20:,.0f} MB are copied under the lock, about {seconds:.1f} s."
        if copied
        else "It is moved, not copied.",
    )
    return replace(
        statement,
        sql=_block(lines),
        original=statement.sql,
        node="DoStmt",
        findings=(*statement.findings, note),
        low_seconds=(statement.low_seconds or 0.0) + seconds / 4,
        high_seconds=(statement.high_seconds or 0.0) + seconds + 0.1,
    )


def _ended(line: str) -> str:
    """With its semicolon, which a comment at the end must not swallow."""
    return f"    {line}\n    ;" if "--" in line else f"    {line};"


def _block(lines: Sequence[str]) -> str:
    """One statement of several. Row security must fail rather than leave rows out of a copy."""
    body = "\n".join(_ended(line.rstrip().rstrip(";")) for line in lines)
    tag = "$aside$"
    while tag in body:
        tag = f"{tag[:-1]}x$"
    return (
        f"DO {tag}\n#variable_conflict use_column\nDECLARE\n"
        "    row_security_before text := pg_catalog.current_setting('row_security');\n"
        "BEGIN\n    PERFORM pg_catalog.set_config('row_security', 'off', true);\n"
        f"{body}\n"
        "    PERFORM pg_catalog.set_config('row_security', row_security_before, true);\n"
        f"END\n{tag}"
    )
