"""Which indexes are missing: statements, candidates, and the planner's own word on them.

pg_stat_statements says what is heavy, PostgreSQL's grammar which columns it compares, hypopg
makes an index that exists for this session's planner alone, and EXPLAIN says whether it is used
and what it saves. Nothing is executed and nothing written: the session only reads.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import asyncpg

from postgres.health.advisor_candidates import Candidate, Gain, Proposal, merged
from postgres.health.advisor_catalog import Catalog, read_catalog
from postgres.health.advisor_planner import AdviceLimits, Found, Planner
from postgres.health.advisor_statements import (
    SEES_ALL,
    WHERE_EXTENSIONS,
    Statement,
    Wants,
    read_statements,
    read_wants,
    written_columns,
)
from postgres.health.explain import Session
from postgres.health.statement_text import UnreadableError, as_select

# For the session that this works on: plans are made anew, and none is worth a compilation.
SETTINGS: Final[Mapping[str, str]] = {
    "application_name": "twokey-advisor",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "lock_timeout": "200",
}


USUAL: Final = AdviceLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that would be needed to say more: the problem, and what to do about it."""

    problem: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What was found. `skipped`: why nothing is proposed for how many statements.

    `since`: from when on statements are counted; None: PostgreSQL 13 does not say. `at`: now,
    by the server's clock.
    """

    proposals: tuple[Proposal, ...]
    looked_at: int
    left_out: int  # for lack of time
    skipped: Mapping[str, int]
    since: datetime | None
    writes_since: datetime | None
    at: datetime | None
    missing: tuple[Missing, ...]


async def advise(session: Session, *, limits: AdviceLimits = USUAL) -> Advice:
    """Proposals for the session's database. The session must be one that only reads.

    Raises:
        asyncpg.PostgresError: the server does not answer what anybody may ask it.
    """
    schemas = {row["extname"]: row["schema"] for row in await session.fetch(WHERE_EXTENSIONS)}
    if "pg_stat_statements" not in schemas:
        return _nothing(NO_STATEMENTS)
    try:
        read = await read_statements(
            session, schemas["pg_stat_statements"], count_max=limits.statements
        )
    except asyncpg.ObjectNotInPrerequisiteStateError:
        return _nothing(NOT_LOADED)
    sees_all = (await session.fetch(SEES_ALL))[0]["sees_all"]
    known = _readable(read)
    names = {each.relname for _, wants in known for each in wants.tables.values()}
    functions = {name for _, wants in known for name in wants.functions}
    catalog = await read_catalog(session, names, functions)
    work = Planner(session=session, catalog=catalog, limits=limits, hypopg=schemas.get("hypopg"))
    heavy = [pair for pair in known if pair[0].mean_ms >= limits.mean_ms_min][: limits.looked_at]
    deadline = asyncio.get_running_loop().time() + limits.whole.total_seconds()
    proposals: list[Proposal] = []
    skipped: Counter[str] = Counter()
    done = 0
    for statement, wants in heavy:
        if asyncio.get_running_loop().time() > deadline:
            break
        done += 1
        found = await work.look_at(statement, wants)
        proposals += _proposals(statement, found)
        if found.why:
            skipped[found.why] += 1
    return Advice(
        proposals=tuple(_weighed(merged(proposals), known)),
        looked_at=done,
        left_out=len(heavy) - done,
        skipped=skipped,
        since=min((each.since for each in read if each.since), default=None),
        writes_since=catalog.since,
        at=catalog.now,
        missing=tuple(_missing(catalog, hypopg="hypopg" in schemas, sees_all=sees_all)),
    )


NO_STATEMENTS: Final = Missing(
    problem="pg_stat_statements is not there, so nobody knows which statements are heavy.",
    next_step="shared_preload_libraries = 'pg_stat_statements' and a restart, then"
    " CREATE EXTENSION pg_stat_statements in this database.",
)
NOT_LOADED: Final = Missing(
    problem="pg_stat_statements is created here, but the server has not loaded it.",
    next_step="Add it to shared_preload_libraries, and restart the server.",
)
NO_HYPOPG: Final = Missing(
    problem="hypopg is missing, so the planner cannot be asked: what follows is a guess by the"
    " columns that are compared, without numbers.",
    next_step="Install it (Debian: postgresql-15-hypopg for version 15; it needs no restart),"
    " then CREATE EXTENSION hypopg in this database.",
)


def _readable(read: Sequence[Statement]) -> list[tuple[Statement, Wants]]:
    """The statements that could be read, UPDATE and DELETE as the SELECT that finds their rows."""
    known: list[tuple[Statement, Wants]] = []
    for statement in read:
        try:
            wants = read_wants(statement.text)
            if (select := as_select(wants.tree)) is not None:
                changes = wants
                wants = read_wants(select)
                wants.kind, wants.sets, wants.changed = changes.kind, changes.sets, changes.changed
        except UnreadableError:
            continue  # a utility statement or an INSERT
        known.append((statement, wants))
    return known


def _proposals(statement: Statement, found: Found) -> list[Proposal]:
    if found.guessed is not None:
        gain = Gain(statement=statement, cost_before=found.cost, cost_after=None, saved_ms=None)
        return [_proposal(found.guessed, None, gain)]
    return [
        _proposal(
            choice.candidate,
            choice.size_bytes,
            Gain(
                statement=statement,
                cost_before=choice.cost_before,
                cost_after=choice.cost_after,
                # Several that pay only together share what they save.
                saved_ms=statement.total_ms * choice.saving / len(found.choices),
                hint=found.hint,
            ),
        )
        for choice in found.choices
    ]


def _proposal(candidate: Candidate, size_bytes: int | None, gain: Gain) -> Proposal:
    return Proposal(
        table=candidate.table,
        terms=candidate.terms,
        columns=candidate.columns,
        size_bytes=size_bytes,
        gains=(gain,),
    )


def _weighed(
    proposals: Sequence[Proposal], known: Sequence[tuple[Statement, Wants]]
) -> list[Proposal]:
    """Proposals with the HOT updates that would end: those that write one of their columns."""
    sets = written_columns(known)
    weighed: list[Proposal] = []
    for each in proposals:
        table = each.table
        calls = sum(sets.get(table.name, Counter())[column] for column in each.columns)
        hot = table.hot_updates / table.updates if table.updates else 0.0
        weighed.append(replace(each, hot_lost=calls * hot))
    return weighed


def _missing(catalog: Catalog, *, hypopg: bool, sees_all: bool) -> list[Missing]:
    found = [] if hypopg else [NO_HYPOPG]
    if not sees_all:
        found.append(
            Missing(
                problem="Texts of other users' statements are hidden from us.",
                next_step="GRANT pg_read_all_stats (or pg_monitor) TO our user.",
            )
        )
    closed = [table.text for table in catalog.tables if table.kind != "v" and not table.may_read]
    if closed:
        shown = ", ".join(closed[:3]) + (f" and {len(closed) - 3} more" if closed[3:] else "")
        found.append(
            Missing(
                problem=f"We may not read {shown}: neither plans nor column statistics.",
                next_step="GRANT pg_read_all_data TO our user (PostgreSQL 14 and newer), or SELECT"
                " on these tables.",
            )
        )
    return found


def _nothing(missing: Missing) -> Advice:
    return Advice(
        proposals=(),
        looked_at=0,
        left_out=0,
        skipped={},
        since=None,
        writes_since=None,
        at=None,
        missing=(missing,),
    )
