"""What the planner itself says of an index that does not exist yet.

hypopg makes an index that only the planner of this session sees. Each candidate is tried on the
statement, planned anew: what is not used, or saves too little, is not proposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import asyncpg

from postgres.health.advisor_candidates import (
    Candidate,
    Choice,
    candidates,
    choose,
    guess,
    returns_much,
    why_none,
)
from postgres.health.advisor_catalog import Catalog
from postgres.health.advisor_probe import probe
from postgres.health.advisor_statements import Statement, Wants
from postgres.health.explain import NoPlanError, PlanNode, Session, generic_plan
from postgres.health.index_nodes import FORMAT

PRETEND: Final = "SELECT indexrelid, indexname FROM {schema}.hypopg_create_index($1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviceLimits:
    """What is worth a look and a proposal. `cost_min` is in the planner's units."""

    statements: int = 200  # read; those with a mean of `mean_ms_min` are looked at
    looked_at: int = 50
    mean_ms_min: float = 1.0
    rows_min: float = 10_000
    cost_min: float = 1_000.0
    saving_min: float = 0.5
    whole: timedelta = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one statement: choices with their hint, or the reason why there are none."""

    choices: tuple[Choice, ...] = ()
    guessed: Candidate | None = None
    cost: float = 0.0
    hint: str = ""
    why: str = ""


class Planner:
    """One look at one database: the planner is asked on its session."""

    def __init__(
        self, *, session: Session, catalog: Catalog, limits: AdviceLimits, hypopg: str | None
    ) -> None:
        self._session = session
        self._catalog = catalog
        self._limits = limits
        self._hypopg = hypopg

    async def look_at(self, statement: Statement, wants: Wants) -> Found:
        """What one statement would gain by which index."""
        found = candidates(wants, self._catalog, rows_min=self._limits.rows_min)
        if not found:
            return Found(why=why_none(wants, self._catalog, rows_min=self._limits.rows_min))
        if returns_much(statement, wants, self._catalog):
            return Found(why="gives back a large part of its table")
        if self._catalog.own_functions & wants.functions:
            return Found(why="calls a function of the database's own, which planning might run")
        self._qualify(wants)
        try:
            return await self._judge(statement, wants, found)
        except NoPlanError as error:
            return Found(why=error.problem.rstrip(".").lower())
        except asyncpg.PostgresConnectionError:
            raise
        except asyncpg.PostgresError as error:
            # Its own words may hold a value.
            return Found(
                why=f"is not planned for us (SQLSTATE {getattr(error, 'sqlstate', 'unknown')})"
            )

    async def _judge(self, statement: Statement, wants: Wants, found: Sequence[Candidate]) -> Found:
        sql = _sql(wants)
        plan = await generic_plan(self._session, sql)
        if plan.cost < self._limits.cost_min:
            return Found(why="is cheap already")
        if self._hypopg is None:
            guessed = guess(found, _read_whole(plan), statement, wants)
            why = "" if guessed else "has its indexes, or compares nothing that one helps"
            return Found(guessed=guessed, cost=plan.cost, why=why)
        sure = [each for each in found if not each.needs_probe]
        choices = await self._choices(sql, plan.cost, sure)
        if choices:
            return Found(choices=choices)
        tried = await probe(self._session, statement, wants, self._catalog)
        if tried is None:
            return Found(why="would gain less than half by any index")
        before = (await generic_plan(self._session, tried.sql)).cost
        choices = await self._choices(tried.sql, before, found)
        if choices:
            return Found(choices=choices, hint=tried.hint)
        return Found(why="would gain less than half by any index")

    async def _choices(
        self, sql: str, before: float, found: Sequence[Candidate]
    ) -> tuple[Choice, ...]:
        """The one that pays, or several that pay only together (OR); none: ()."""
        used: list[Choice] = []
        for candidate in found:
            used += await self._tried(sql, before, [candidate])
        best = choose(used)
        if best is None or best.saving < self._limits.saving_min:
            single = [each for each in found if each.width == 1]
            together = await self._tried(sql, before, single) if len(single) > 1 else ()
            return tuple(each for each in together if each.saving >= self._limits.saving_min)
        return await self._with_another(sql, best, found)

    async def _with_another(
        self, sql: str, best: Choice, found: Sequence[Candidate]
    ) -> tuple[Choice, ...]:
        """The best one, and one on another table (a join) where it pays as much again."""
        if best.cost_after < self._limits.cost_min:
            return (best,)
        pairs: dict[int, Sequence[Choice]] = {}
        for place, other in enumerate(found):
            if other.table.oid != best.candidate.table.oid:
                tried = await self._tried(sql, best.cost_before, [best.candidate, other])
                if len(tried) > 1:
                    pairs[place] = tried
        if not pairs:
            return (best,)
        pair = min(pairs.values(), key=lambda each: each[0].cost_after)
        enough = best.cost_after * (1 - self._limits.saving_min)
        return tuple(pair) if pair[0].cost_after <= enough else (best,)

    async def _tried(self, sql: str, before: float, found: Sequence[Candidate]) -> Sequence[Choice]:
        """Those of these candidates that the plan uses when all of them are there."""
        made: dict[str, tuple[Candidate, int]] = {}
        try:
            for candidate in found:
                name, oid = await self._pretend(candidate)
                made[name] = (candidate, oid)
            plan = await generic_plan(self._session, sql)
            return [
                Choice(
                    candidate=candidate,
                    cost_before=before,
                    cost_after=plan.cost,
                    size_bytes=await self._size(oid),
                )
                for name, (candidate, oid) in made.items()
                if name in plan.indexes
            ]
        except asyncpg.PostgresConnectionError:
            raise
        except (NoPlanError, asyncpg.PostgresError):
            return []  # no such index can be made, or no plan: then it is not proposed
        finally:
            await self._session.fetch(f"SELECT {self._hypopg}.hypopg_reset()")

    async def _pretend(self, candidate: Candidate) -> tuple[str, int]:
        body = candidate.terms.body()
        text = await self._session.fetch(
            FORMAT,
            f"CREATE INDEX ON %I.%I {body.template}",
            [candidate.table.schema, candidate.table.name, *body.args],
        )
        (row,) = await self._session.fetch(
            PRETEND.replace("{schema}", str(self._hypopg)), text[0]["sql"]
        )
        return row["indexname"], row["indexrelid"]

    async def _size(self, oid: int) -> int:
        query = f"SELECT {self._hypopg}.hypopg_relation_size($1) AS bytes"
        return int((await self._session.fetch(query, oid))[0]["bytes"])

    def _qualify(self, wants: Wants) -> None:
        """Give tables their schema: the application's search_path is not ours."""
        for each in wants.tables.values():
            table = self._catalog.find(each.schemaname, each.relname)
            if table is not None:
                each.schemaname = table.schema


def _sql(wants: Wants) -> str:
    from pglast.stream import RawStream  # noqa: PLC0415 - a heavy import, for those who need it

    return str(RawStream()(wants.tree))


def _read_whole(plan: PlanNode) -> list[tuple[str, str]]:
    return [
        (node.schema or "", node.relation)
        for node in plan.nodes()
        if node.node_type == "Seq Scan" and node.has_filter and node.relation
    ]
