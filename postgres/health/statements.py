"""What statements cost, as pg_stat_statements counts it, and their texts for few of them.

The counters are read without texts, which PostgreSQL would read from one large file. A text is
asked for once: to know what a statement is, and to store it. It never leaves this module with a
literal in it: constants are masked, and of a utility statement only its first words are told,
because PostgreSQL keeps those as they were typed, passwords included.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import asyncpg

from postgres.health.counters import StatementCounters, StatementKey, StatementSample
from postgres.health.statement_deltas import Kind

# More entries than this make the reading itself a load.
ENTRIES_MAX: Final = 20_000
TEXT_CHARS_MAX: Final = 8_000

# One row, or none where the extension was not created here.
EXTENSION: Final = """
    SELECT /* twokey-monitor */ quote_ident(n.nspname) AS space,
           e.extversion AS version,
           current_setting('pg_stat_statements.track', true) AS track
      FROM pg_extension e
      JOIN pg_namespace n ON n.oid = e.extnamespace
     WHERE e.extname = 'pg_stat_statements'
"""

# Hidden from logins without pg_read_all_settings: no row then.
PRELOADED: Final = """
    SELECT /* twokey-monitor */ setting FROM pg_settings WHERE name = 'shared_preload_libraries'
"""

_COUNTERS: Final = """
    SELECT /* twokey-monitor */
           userid::bigint, dbid::bigint, queryid, {is_top},
           calls, total_exec_time, calls * (stddev_exec_time ^ 2 + mean_exec_time ^ 2),
           max_exec_time, rows, shared_blks_hit, shared_blks_read, temp_blks_written,
           wal_bytes::bigint, {since}
      FROM {space}.pg_stat_statements(false)
     WHERE queryid IS NOT NULL AND calls > 0
     LIMIT {limit}
"""

_MOMENT: Final = """
    SELECT /* twokey-monitor */ extract(epoch FROM clock_timestamp())::float8 AS at,
           pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
           {reset} AS reset
"""

_TEXTS: Final = """
    SELECT /* twokey-monitor */ DISTINCT ON (queryid) queryid, left(query, {chars}) AS text
      FROM {space}.pg_stat_statements(true)
     WHERE queryid = ANY($1::text::bigint[])
"""

_VERSION_MIN: Final = (1, 8)  # of PostgreSQL 13: total_time became total_exec_time
_OUR_MARK: Final = "/* twokey-monitor */"
_UTILITY_CHARS_MAX: Final = 60
# What is planned and executed; everything else is a utility statement for PostgreSQL.
_PLANNED: Final = frozenset(
    {"SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE"}
)
_NOISE: Final = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|\()*", re.DOTALL)
_WORD: Final = re.compile(r"[A-Za-z]+")
_TOKENS: Final = re.compile(
    r"""(?P<name>"(?:[^"]|"")*")
      | (?P<comment>--[^\n]*|/\*.*?(?:\*/|$))
      | (?P<text>[eE]'(?:[^'\\]|\\.|'')*(?:'|$)
               | (?:[uU]&|[bBxXnN])?'(?:[^']|'')*(?:'|$)
               | \$(?P<tag>[A-Za-z_]\w*|)\$.*?(?:\$(?P=tag)\$|$))""",
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementsAt:
    """Where pg_stat_statements stands in a database, and what this version of it tells."""

    space: str
    version: tuple[int, ...]

    def counters(self) -> str:
        """All counters; the columns are those of `StatementKey` and `StatementCounters`."""
        return _COUNTERS.format(
            is_top="toplevel" if self.version >= (1, 9) else "true",
            since="extract(epoch FROM stats_since)::float8" if self.version >= (1, 11) else "NULL",
            space=self.space,
            limit=ENTRIES_MAX + 1,
        )

    def moment(self) -> str:
        """One row: at, sees_all, reset."""
        reset = (
            f"(SELECT extract(epoch FROM stats_reset)::float8 FROM {self.space}"  # noqa: S608
            ".pg_stat_statements_info)"
        )
        return _MOMENT.format(reset=reset if self.version >= (1, 9) else "NULL::float8")

    def texts(self) -> str:
        """Texts of the queryids in $1."""
        return _TEXTS.format(space=self.space, chars=TEXT_CHARS_MAX)


async def find_statements(conn: Any, *, limit: float) -> StatementsAt | str:
    """Where they are, or why there are none and what to do, in sentences."""
    row = await conn.fetchrow(EXTENSION, timeout=limit)
    if row is None:
        preloaded = await conn.fetchval(PRELOADED, timeout=limit)
        return _not_created(preloaded)
    version = tuple(int(part) for part in re.findall(r"\d+", row["version"]))
    if version < _VERSION_MIN:
        return (
            f"The extension pg_stat_statements is of version {row['version']}, from an older "
            "PostgreSQL. Run: ALTER EXTENSION pg_stat_statements UPDATE"
        )
    if row["track"] == "none":
        return (
            "pg_stat_statements is told to track nothing. Set pg_stat_statements.track = top and "
            "reload."
        )
    return StatementsAt(space=row["space"], version=version)


async def read_statements(conn: Any, where: StatementsAt, *, limit: float) -> StatementSample | str:
    """All counters, or why there are none and what to do, in sentences."""
    try:
        moment = await conn.fetchrow(where.moment(), timeout=limit)
        rows = await conn.fetch(where.counters(), timeout=limit)
    except asyncpg.ObjectNotInPrerequisiteStateError:
        return _NOT_LOADED
    if len(rows) > ENTRIES_MAX:
        return (
            f"pg_stat_statements holds more than {ENTRIES_MAX} statements: reading them would be "
            "a load of its own. Lower pg_stat_statements.max."
        )
    if not moment["sees_all"]:
        return "The login may not see the statements of others. Grant it pg_monitor."
    return StatementSample(
        at=moment["at"],
        reset=moment["reset"],
        sees_all=moment["sees_all"],
        rows=MappingProxyType(_by_key(rows)),
    )


_NOT_LOADED: Final = (
    "pg_stat_statements is created here, but the server has not loaded it. Add it to "
    "shared_preload_libraries and restart the server."
)


def _not_created(preloaded: str | None) -> str:
    create = "run: CREATE EXTENSION pg_stat_statements (on the primary, in this database)"
    if preloaded is not None and "pg_stat_statements" in preloaded:
        return f"The extension pg_stat_statements is loaded, but not created here: {create}"
    return (
        "Statements are not measured: the extension pg_stat_statements is missing. Add it to "
        f"shared_preload_libraries, restart the server, then {create}"
    )


def _by_key(rows: Iterable[Any]) -> dict[StatementKey, StatementCounters]:
    found: dict[StatementKey, StatementCounters] = {}
    for row in rows:
        user, database, queryid, is_top, *counters = row
        found[StatementKey(user, database, queryid, is_top)] = StatementCounters(*counters)
    return found


async def read_texts(
    conn: Any, where: StatementsAt, queryids: Sequence[int], *, limit: float
) -> Mapping[int, str]:
    """The texts as PostgreSQL keeps them: for `kind_of` and `told` alone."""
    listed = "{" + ",".join(map(str, queryids)) + "}"  # asyncpg would look up what a bigint[] is
    rows = await conn.fetch(where.texts(), listed, timeout=limit)
    return {row["queryid"]: row["text"] or "" for row in rows}


def kind_of(text: str) -> Kind:
    """What a statement is, by its first word; brackets and comments before it do not count."""
    if _OUR_MARK in text:
        return Kind.OURS
    word = _first_word(text)
    return Kind.ORDINARY if word in _PLANNED or not word else Kind.UTILITY


def told(text: str) -> str:
    """The text as people may see it: no literal of anybody's data in it.

    Of a utility statement its first words, such as "ALTER ROLE …".
    """
    if kind_of(text) is Kind.UTILITY:
        words = _WORD.findall(_after_noise(text)[:_UTILITY_CHARS_MAX])
        return " ".join(word.upper() for word in words[:2]) + " …"
    cut = " …" if len(text) >= TEXT_CHARS_MAX else ""
    return _TOKENS.sub(_masked, text).strip() + cut


def _masked(token: re.Match[str]) -> str:
    if token["name"]:
        return token["name"]
    return "" if token["comment"] else "'…'"


def _first_word(text: str) -> str:
    word = _WORD.match(_after_noise(text))
    return word[0].upper() if word else ""


def _after_noise(text: str) -> str:
    noise = _NOISE.match(text)
    return text[noise.end() :] if noise else text
