"""Reads a `Catalog` with a few statements: of what is named, or of everything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from postgres.errors import PostgresError
from postgres.schema.catalog import Catalog
from postgres.schema.reading_sql import (
    ALL,
    FOUND_ROUTINES,
    FOUND_TYPES,
    RELATIONS,
    RESOLVE,
    ROUTINES,
    SURROUNDINGS,
    TYPES,
)

OBJECTS_MAX: Final = 20_000


class Reads(Protocol):
    """A connection, or a read-only session of one."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]:
        """All rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a look is about. `relations`: (schema or '', name) each, as they are written."""

    relations: frozenset[tuple[str, str]] = frozenset()
    routines: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()


async def read_named(conn: Reads, names: Names) -> Catalog:
    """What the names mean to this session now. Several statements: best in one snapshot."""
    written = sorted(names.relations)
    found = await conn.fetch(RESOLVE, [each[0] for each in written], [each[1] for each in written])
    resolved = [(row["schema"], row["name"], row["oid"]) for row in found if row["oid"]]
    routines = {
        row["oid"]: row["is_visible"]
        for row in await conn.fetch(FOUND_ROUTINES, sorted(names.routines))
    }
    types = {
        row["oid"]: row["is_visible"] for row in await conn.fetch(FOUND_TYPES, sorted(names.types))
    }
    oids = sorted({oid for _, _, oid in resolved})
    return await _read(conn, oids, routines, types, written=resolved, is_whole=False)


async def read_everything(conn: Reads) -> Catalog:
    """All that people made in the database: neither what extensions brought nor what is ours.

    Raises:
        PostgresError: it is more than `OBJECTS_MAX`.
    """
    found = await conn.fetch(ALL, OBJECTS_MAX + 1)
    if len(found) > OBJECTS_MAX:
        raise PostgresError(
            f"There are more than {OBJECTS_MAX:,} tables, functions and types.",
            next_step="Compare such a schema with its own tool.",
        )
    by_kind: dict[str, list[int]] = {"relation": [], "routine": [], "type": []}
    for row in found:
        by_kind[row["what"]].append(row["oid"])
    return await _read(
        conn,
        by_kind["relation"],
        dict.fromkeys(by_kind["routine"], True),
        dict.fromkeys(by_kind["type"], True),
        written=(),
        is_whole=True,
    )


async def _read(
    conn: Reads,
    relations: Sequence[int],
    routines: Mapping[int, bool],
    types: Mapping[int, bool],
    *,
    written: Sequence[tuple[str, str, int]],
    is_whole: bool,
) -> Catalog:
    (around,) = await conn.fetch(SURROUNDINGS)
    # Definitions are to have all names in full, whatever the session looks through.
    await conn.fetch("SELECT set_config('search_path', 'pg_catalog', false)")
    try:
        found: dict[str, Any] = {
            "relations": await _objects(conn, RELATIONS, relations, is_whole),
            "functions": await _objects(conn, ROUTINES, sorted(routines)),
            "types": await _objects(conn, TYPES, sorted(types)),
        }
    finally:
        await conn.fetch("SELECT set_config('search_path', $1, false)", around["search_path"])
    for kind, visible in (("functions", routines), ("types", types)):
        for each in found[kind]:
            each["is_visible"] = visible[each["oid"]]
    surroundings: dict[str, Any] = {
        name: around[name] for name in ("path", "schemas", "extensions", "aside", "major")
    }
    stored: Any = {**surroundings, **found, "written": [list(each) for each in written]}
    return Catalog.from_json(stored)


async def _objects(
    conn: Reads, query: str, oids: Sequence[int], *more: object
) -> list[dict[str, Any]]:
    if not oids:
        return []
    return [json.loads(row["found"]) for row in await conn.fetch(query, list(oids), *more)]
