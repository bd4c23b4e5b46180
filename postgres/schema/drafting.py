"""A migration drafted, and proved: on one small server, the schema as it is and as it is declared.

The order of the statements is the one in which they worked there. What is left different after
all of them is compared line by line, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from postgres.binaries import Binaries
from postgres.connect import connection
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError
from postgres.schema.catalog import Catalog
from postgres.schema.declared import (
    STATEMENT_SECONDS_MAX,
    Splitter,
    make_declared,
    make_empty,
    read_lines,
    scratch_server,
    without_psql,
)
from postgres.schema.diff import diff
from postgres.schema.diff_words import Step
from postgres.schema.drift import Drift, Scope, compare
from postgres.schema.reading import read_everything
from postgres.server import Server

STEPS_MAX: Final = 20_000
PRESENT: Final = "present"
_EMPTY: Final = Catalog(path=("public",), schemas=("public",), extensions=("plpgsql",))
_EXTENSION: Final = "CREATE EXTENSION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """`steps` worked, in this order; `failed` never did, each with why.

    `undone`: no statement is known for it. `remains`: what differs after all steps, drops of
    data included. `not_copied`: of the schema as it is, so nothing is said about it.
    """

    steps: tuple[Step, ...]
    failed: tuple[tuple[Step, str], ...] = ()
    undone: tuple[str, ...] = ()
    remains: tuple[Drift, ...] = ()
    not_copied: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the schema is as declared after it."""
        return not (self.failed or self.undone or self.remains)


@dataclass(slots=True)
class Tried:
    """Steps as they worked, and those that never did."""

    done: list[Step] = field(default_factory=list)
    failed: list[tuple[Step, str]] = field(default_factory=list)


async def draft(
    binaries: Binaries, ddl: str, *, split: Splitter, present: Catalog, scope: Scope
) -> Drafted:
    """What makes what `ddl` declares of `present`.

    Raises:
        PostgresError: what is declared cannot be made, or no server can be started here.
    """
    async with scratch_server(binaries) as server:
        declared = await make_declared(server, split(without_psql(ddl)))
        target, not_copied = await copy_present(server, present)
        declared_target = parse_dsn(server.dsn("declared", "declared"))
        async with connection(target) as conn, connection(declared_target) as other:
            found = diff(await read_everything(conn), await read_everything(other), scope=scope)
        tried = await _by_trying(server, target, found.steps)
        async with connection(target) as conn:
            remains = compare(declared.lines, await read_lines(conn), scope=scope)
    return Drafted(
        steps=tuple(tried.done),
        failed=tuple(tried.failed),
        undone=found.undone,
        remains=remains,
        not_copied=not_copied,
        left_out=declared.left_out,
    )


async def copy_present(server: Server, present: Catalog) -> tuple[Target, tuple[str, ...]]:
    """The schema as it is, empty, in a database of its own; and what of it is not there.

    Made from the catalog alone: nothing is dumped, and nothing locked, where it comes from.
    """
    target = await make_empty(server, PRESENT)
    made = diff(_EMPTY, present, scope=Scope.ALL)
    tried = await _by_trying(server, target, made.steps)
    missing = [f"{_begin(step.sql)}: {why}" for step, why in tried.failed]
    return target, (*made.undone, *missing)


async def _by_trying(server: Server, target: Target, steps: Sequence[Step]) -> Tried:
    """Run what works, again and again, until nothing more does."""
    if len(steps) > STEPS_MAX:
        raise PostgresError(
            f"There are more than {STEPS_MAX:,} differences.",
            next_step="Bring the two nearer first, with the tool that the schema comes from.",
        )
    tried = Tried()
    pending = list(steps)
    superuser = parse_dsn(server.dsn(PRESENT))
    async with connection(target) as conn, connection(superuser) as admin:
        # A body may name what comes later.
        await conn.execute("SET check_function_bodies = off")
        while pending:
            tried.failed = []
            for step in pending:
                maker = admin if step.sql.startswith(_EXTENSION) else conn
                why = await _one(maker, step)
                if why is None:
                    tried.done.append(step)
                else:
                    tried.failed.append((step, why))
            if len(tried.failed) == len(pending):
                break
            pending = [step for step, _ in tried.failed]
    return tried


async def _one(conn: Any, step: Step) -> str | None:
    """Run it; why it fails, or None."""
    try:
        await conn.execute(step.sql, timeout=STATEMENT_SECONDS_MAX)
    except asyncpg.PostgresError as error:
        return str(error)
    except TimeoutError:
        return f"it takes longer than {STATEMENT_SECONDS_MAX} s in an empty database"
    return None


def _begin(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 80 else f"{text[:79]}…"  # noqa: PLR2004 - a line
