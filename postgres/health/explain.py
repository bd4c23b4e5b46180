"""The plan of a statement whose constants are unknown: the generic plan, never executed.

A statement of pg_stat_statements has `$1` where its constants were. PostgreSQL 16 plans that
itself (`GENERIC_PLAN`); before, it is prepared, explained and deallocated. Nothing is run, and
the session is expected to be one that only reads. Used for slow statements and for index advice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import asyncpg

from postgres.errors import PostgresError
from postgres.health.statement_text import (
    StatementKind,
    UnreadableError,
    as_select,
    kind_of,
    nodes,
    parsed,
)

GENERIC_PLAN_SINCE: Final = 160000
_CHILDREN_MAX: Final = 2_000


class Session(Protocol):
    """One connection to a server, such as asyncpg's."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows."""
        ...

    async def execute(self, query: str) -> str:
        """Several statements, without parameters."""
        ...


class NoPlanError(PostgresError):
    """A statement has no plan that could be shown: why, and what to do. Holds no literal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanNode:
    """A node of a plan. Costs are the planner's units, `rows` its estimate for one loop."""

    node_type: str
    cost: float  # in all, with what is below
    rows: float
    schema: str | None = None
    relation: str | None = None
    alias: str | None = None
    index: str | None = None
    join_type: str | None = None
    relationship: str | None = None  # to its parent, such as "SubPlan"
    has_filter: bool = False
    subplans_removed: int = 0
    children: tuple[PlanNode, ...] = ()

    def nodes(self) -> Iterator[PlanNode]:
        """The node and all below it, from the top."""
        yield self
        for child in self.children:
            yield from child.nodes()

    @property
    def indexes(self) -> frozenset[str]:
        """The names of all indexes that it uses."""
        return frozenset(node.index for node in self.nodes() if node.index is not None)


# Planning may call functions that are not volatile, with our rights: only PostgreSQL's and
# extensions' own may be called so.
OWN_FUNCTIONS: Final = """
    SELECT DISTINCT p.proname AS name
      FROM pg_proc p
      JOIN pg_language l ON l.oid = p.prolang
     WHERE p.proname = ANY($1::text[]) AND l.lanname NOT IN ('internal', 'c')
       AND p.pronamespace <> 'pg_catalog'::regnamespace AND p.provolatile <> 'v'
"""


async def generic_plan(session: Session, sql: str) -> PlanNode:
    """The generic plan of a statement, without running it.

    Where the right to write is missing, an UPDATE or DELETE is planned as the SELECT that finds
    its rows. Prepared anew each time: a cached plan would not see indexes made since.

    Raises:
        NoPlanError: it is a utility statement, several statements or no SQL, calls a function of
            the database's own, or the server does not plan it for us (rights, names that are
            not there, locks).
    """
    text, tree = _plannable(sql)
    await _without_their_code(session, tree)
    try:
        return await _explained(session, text)
    except asyncpg.InsufficientPrivilegeError:
        rows_found = as_select(tree)
        if rows_found is None:
            raise _may_not(tree) from None
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError as error:
        raise _refused(error) from None
    return await _select_instead(session, rows_found)


def parse_plan(found: Mapping[str, Any]) -> PlanNode:
    """A node from `EXPLAIN (FORMAT JSON)`'s `Plan`."""
    return PlanNode(
        node_type=str(found["Node Type"]),
        cost=float(found["Total Cost"]),
        rows=float(found["Plan Rows"]),
        schema=found.get("Schema"),
        relation=found.get("Relation Name"),
        alias=found.get("Alias"),
        index=found.get("Index Name"),
        join_type=found.get("Join Type"),
        relationship=found.get("Parent Relationship"),
        has_filter="Filter" in found,
        subplans_removed=int(found.get("Subplans Removed", 0)),
        children=tuple(parse_plan(child) for child in found.get("Plans", ())[:_CHILDREN_MAX]),
    )


def _plannable(sql: str) -> tuple[str, Any]:
    try:
        text, tree = parsed(sql)
    except UnreadableError as error:
        raise NoPlanError(
            f"There is no plan for this statement: {error}.",
            next_step="Explain it by hand, as its application sends it.",
        ) from None
    if kind_of(tree) is StatementKind.UTILITY:
        raise NoPlanError(
            "There is no plan for this statement: it is a utility statement.",
            next_step="See what it waits for with /db locks.",
        )
    return text, tree


async def _without_their_code(session: Session, tree: Any) -> None:
    called = sorted(
        {node.funcname[-1].sval for node in nodes(tree) if type(node).__name__ == "FuncCall"}
    )
    if called and await session.fetch(OWN_FUNCTIONS, called):
        raise NoPlanError(
            "There is no plan for this statement: it calls a function of the database's own,"
            " which planning might run with our rights.",
            next_step="Explain it by hand, as who may run it.",
        )


async def _select_instead(session: Session, select: str) -> PlanNode:
    try:
        return await _explained(session, select)
    except asyncpg.PostgresConnectionError:
        raise
    except asyncpg.PostgresError as error:
        raise _refused(error) from None


# plpgsql sends it without parameters, as the extended protocol would want values for them. The
# statement is one: `parsed` has seen to it.
_EXPLAIN_GENERIC: Final = """
    DO $twokey$
    DECLARE plan text;
    BEGIN
        EXECUTE 'EXPLAIN (GENERIC_PLAN, VERBOSE, FORMAT JSON) '
                || current_setting('twokey.statement') INTO plan;
        PERFORM set_config('twokey.plan', plan, false);
    END $twokey$
"""
_VERSION: Final = "SELECT current_setting('server_version_num')::int AS version"
_SET: Final = "SELECT set_config($1, $2, false)"
_GET_PLAN: Final = "SELECT current_setting('twokey.plan') AS plan"
_PARAMETERS: Final = """
    SELECT cardinality(parameter_types) AS parameters
      FROM pg_prepared_statements WHERE name = 'twokey_explained'
"""


async def _explained(session: Session, sql: str) -> PlanNode:
    version = (await session.fetch(_VERSION))[0]["version"]
    if version >= GENERIC_PLAN_SINCE:
        await session.fetch(_SET, "twokey.statement", sql)
        await session.execute(_EXPLAIN_GENERIC)
        return _read((await session.fetch(_GET_PLAN))[0]["plan"])
    await session.fetch(_SET, "plan_cache_mode", "force_generic_plan")
    plan = await _prepared(session, sql)
    if not any(node.subplans_removed for node in plan.nodes()):
        return plan
    # Executed with NULL, no partition fits: they were removed from what is shown.
    await session.fetch(_SET, "enable_partition_pruning", "off")
    try:
        return await _prepared(session, sql)
    finally:
        await session.fetch(_SET, "enable_partition_pruning", "on")


async def _prepared(session: Session, sql: str) -> PlanNode:
    # With `fetch`, the server itself refuses several statements in one.
    await session.fetch(f"PREPARE twokey_explained AS {sql}")
    try:
        parameters = (await session.fetch(_PARAMETERS))[0]["parameters"] or 0
        nulls = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
        explain = f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE twokey_explained{nulls}"
        return _read((await session.fetch(explain))[0]["QUERY PLAN"])
    finally:
        await session.execute("DEALLOCATE twokey_explained")


def _read(plan: str) -> PlanNode:
    return parse_plan(json.loads(plan)[0]["Plan"])


def _may_not(tree: Any) -> NoPlanError:
    kind = kind_of(tree)
    if kind is StatementKind.SELECT:
        return NoPlanError(
            "Our user may not read the tables of this statement.",
            next_step="GRANT pg_read_all_data TO our user (twokey doctor names it), ask again.",
        )
    return NoPlanError(
        f"To plan this {kind}, our user would need the right to write to its table.",
        next_step="It need not have it: explain this one by hand, as its application's user.",
    )


def _refused(error: asyncpg.PostgresError) -> NoPlanError:
    """Why PostgreSQL does not plan it. Its own message may hold a literal, so it is not told."""
    match error:
        case asyncpg.InsufficientPrivilegeError():
            return NoPlanError(
                "Our user may not read the tables of this statement.",
                next_step="GRANT pg_read_all_data TO our user (twokey doctor names it), ask again.",
            )
        case asyncpg.QueryCanceledError() | asyncpg.LockNotAvailableError():
            return NoPlanError(
                "Planning this statement took too long, or waited for a lock.",
                next_step="Look who holds it with /db locks, then try again.",
            )
        case (
            asyncpg.UndefinedTableError()
            | asyncpg.UndefinedColumnError()
            | asyncpg.UndefinedFunctionError()
            | asyncpg.UndefinedObjectError()
            | asyncpg.InvalidSchemaNameError()
        ):
            return NoPlanError(
                "This statement names something that is gone, temporary, or not on the search_path"
                " of our user.",
                next_step="Explain it by hand, as its application's user.",
            )
        case asyncpg.IndeterminateDatatypeError() | asyncpg.AmbiguousFunctionError():
            return NoPlanError(
                "The types of this statement's parameters cannot be told from its text.",
                next_step="Explain it by hand, with values of the right types.",
            )
        case _:
            state = getattr(error, "sqlstate", "unknown")
            return NoPlanError(
                f"PostgreSQL does not plan this statement (SQLSTATE {state}).",
                next_step="Explain it by hand, as its application sends it.",
            )
