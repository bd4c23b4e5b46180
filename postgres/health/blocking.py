"""Who waits for whose locks: the sessions that wait and block, and the tree that they make.

The look is one statement; the tree is made from its rows without any I/O. A prepared
transaction blocks without a session: it is known by its gid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

SHOWN_MAX: Final = 50
DEPTH_MAX: Final = 8

# A pid, or the gid of a prepared transaction.
Key = int | str

# pg_blocking_pids takes every lock of the lock manager for a moment: only for so many, those
# that wait the longest. `waitstart` is missing before PostgreSQL 14, so it is read as JSON. Who
# waits for a row waits for its writer's transaction: the lock on the row says the table.
LOOK: Final = """
    WITH /* twokey-monitor */ waiting AS MATERIALIZED (
        SELECT a.pid, pg_blocking_pids(a.pid) AS blocked_by
          FROM pg_stat_activity a
         WHERE a.wait_event_type = 'Lock' AND a.pid <> pg_backend_pid()
         ORDER BY a.query_start, a.pid
         LIMIT 200
    ), locks AS MATERIALIZED (
        SELECT l.pid, l.granted, l.locktype, l.mode, (to_jsonb(l) ->> 'waitstart')::timestamptz AS since,
               CASE WHEN l.database = (SELECT oid FROM pg_database
                                        WHERE datname = current_database())
                    THEN l.relation::regclass::text END AS relation
          FROM pg_locks l
         WHERE NOT l.granted OR l.locktype = 'tuple'
    ), involved AS (
        SELECT pid FROM waiting
         UNION
        SELECT unnest(blocked_by) FROM waiting
    )
    SELECT a.pid, a.usename AS user, a.application_name AS application, a.datname AS database,
           host(a.client_addr) AS client, a.backend_type, a.state, a.query, a.backend_start,
           a.xact_start, a.query_start, a.state_change, a.backend_xid IS NOT NULL AS has_written,
           clock_timestamp() AS seen_at, coalesce(w.blocked_by, '{}') AS blocked_by,
           asked.locktype, asked.mode, asked.since,
           coalesce(asked.relation,
                    (SELECT min(l.relation) FROM locks l
                      WHERE l.pid = a.pid AND l.locktype = 'tuple')) AS relation
      FROM involved i
      JOIN pg_stat_activity a ON a.pid = i.pid
      LEFT JOIN waiting w ON w.pid = a.pid
      LEFT JOIN LATERAL (SELECT l.* FROM locks l
                          WHERE l.pid = a.pid AND NOT l.granted LIMIT 1) asked ON true
"""  # noqa: E501 - one thought, one line

# The locks of prepared transactions on what somebody waits for. They belong to no session; which
# transaction's they are says the lock that each transaction holds on its own number.
PREPARED: Final = """
    SELECT /* twokey-monitor */
           w.pid, w.mode AS wanted, h.mode AS held, p.gid, p.prepared, p.owner AS user,
           p.database, clock_timestamp() AS seen_at
      FROM pg_locks w
      JOIN pg_locks h ON h.pid IS NULL AND h.granted AND h.locktype = w.locktype
       AND (h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid,
            h.objsubid)
           IS NOT DISTINCT FROM
           (w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid,
            w.objsubid)
      JOIN pg_locks own ON own.pid IS NULL AND own.locktype = 'transactionid'
       AND own.virtualtransaction = h.virtualtransaction
      JOIN pg_prepared_xacts p ON p.transaction = own.transactionid
     WHERE NOT w.granted AND w.pid IS NOT NULL
     ORDER BY p.prepared, p.gid
     LIMIT 200
"""

_TABLE: Final = ("AccessShare", "RowShare", "RowExclusive", "ShareUpdateExclusive", "Share",
                 "ShareRowExclusive", "Exclusive", "AccessExclusive")  # fmt: skip
# From PostgreSQL's table of conflicting lock modes: each with those that it must wait for.
_CONFLICTS: Final[Mapping[str, frozenset[str]]] = {
    mode: frozenset(_TABLE[place] for place in places)
    for mode, places in zip(
        _TABLE,
        ((7,), (6, 7), (4, 5, 6, 7), (3, 4, 5, 6, 7), (2, 3, 5, 6, 7), (2, 3, 4, 5, 6, 7),
         (1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 4, 5, 6, 7)),
        strict=True,
    )
}  # fmt: skip
_WRAPAROUND: Final = "(to prevent wraparound)"
_HIDDEN: Final = "<insufficient privilege>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A session that waits or blocks; times are the server's own, aware.

    `query` is as it was sent, with its literals: show it through `statement_text.shown` alone.
    `since` is when its wait began (PostgreSQL 13: when its statement began).
    """

    key: Key
    user: str
    seen_at: datetime
    application: str = ""
    database: str = ""
    client: str = ""
    backend_type: str = "client backend"
    state: str = ""
    query: str = ""
    backend_start: datetime | None = None
    xact_start: datetime | None = None
    query_start: datetime | None = None
    state_change: datetime | None = None
    has_written: bool = False
    blocked_by: tuple[Key, ...] = ()
    mode: str = ""
    locktype: str = ""
    relation: str = ""
    since: datetime | None = None

    @property
    def is_prepared(self) -> bool:
        """A prepared transaction: it has no session that could be ended."""
        return isinstance(self.key, str)

    @property
    def is_hidden(self) -> bool:
        """Our user may not see what it does."""
        return self.query == _HIDDEN

    @property
    def is_against_wraparound(self) -> bool:
        """An autovacuum that does not give way."""
        return self.backend_type == "autovacuum worker" and _WRAPAROUND in self.query

    @property
    def waited(self) -> timedelta:
        """For how long it has been waiting."""
        return self.seen_at - (self.since or self.query_start or self.seen_at)

    @property
    def transaction_age(self) -> timedelta | None:
        """For how long its transaction has been open, if it is in one."""
        return None if self.xact_start is None else self.seen_at - self.xact_start


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A session's place in the tree. `also`: whom it waits for besides the one above it."""

    depth: int
    backend: Backend
    also: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Who waits for nobody, and for whom others wait; `waiting`: how many, all the way down.

    In a circle nobody is a root: then the one that began first stands for it.
    """

    backend: Backend
    waiting: int
    is_circle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """All trees, those that hold up most first; `left_out`: sessions that are not shown."""

    roots: tuple[Root, ...]
    branches: tuple[Branch, ...]
    left_out: int
    waiting: int


def backends(
    rows: Iterable[Mapping[str, Any]], prepared: Iterable[Mapping[str, Any]] = ()
) -> tuple[Backend, ...]:
    """What `LOOK` and `PREPARED` found. Who is gone by now blocks nobody."""
    found = {row["pid"]: backend_of(row) for row in rows}
    gids = _prepared(prepared)
    ghosts = {each.key: each for _, each in gids}
    known = found.keys() | ghosts.keys()
    waiting_for: dict[Key, list[Key]] = {}
    for pid, ghost in gids:
        waiting_for.setdefault(pid, []).append(ghost.key)
    told = [
        replace(
            each,
            blocked_by=tuple(
                dict.fromkeys(
                    key
                    for key in (*each.blocked_by, *waiting_for.get(each.key, ()))
                    if key in known and key != each.key
                )
            ),
        )
        for each in found.values()
    ]
    return (*told, *ghosts.values())


def forest(found: Sequence[Backend], *, shown_max: int = SHOWN_MAX) -> Forest:
    """The trees of who waits for whom: each session once, under the first that it waits for."""
    by_key = {each.key: each for each in found}
    below: dict[Key, list[Backend]] = {}
    for each in sorted(found, key=lambda each: (-each.waited.total_seconds(), str(each.key))):
        for key in each.blocked_by:
            below.setdefault(key, []).append(each)
    roots = _roots(by_key, below)
    placed: set[Key] = {root.backend.key for root in roots}
    branches: list[Branch] = []
    for root in roots:
        branches.append(Branch(depth=0, backend=root.backend))
        _grow(root.backend.key, 1, below, placed, branches)
    shown = tuple(branches[:shown_max])
    involved = sum(1 for each in found if each.blocked_by or each.key in below)
    return Forest(
        roots=roots,
        branches=shown,
        left_out=involved - len(shown),
        waiting=sum(1 for each in found if each.blocked_by),
    )


def held_up_by(found: Sequence[Backend], key: Key) -> frozenset[Key]:
    """All who wait for it, directly or not."""
    below: dict[Key, list[Backend]] = {}
    for each in found:
        for above in each.blocked_by:
            below.setdefault(above, []).append(each)
    return frozenset(_reach(key, below) - {key})


def _roots(by_key: Mapping[Key, Backend], below: Mapping[Key, list[Backend]]) -> tuple[Root, ...]:
    free = [key for key in below if not by_key[key].blocked_by]
    roots = [Root(backend=by_key[key], waiting=len(_reach(key, below) - {key})) for key in free]
    reached = set().union(*(_reach(key, below) for key in free), free)
    circled = sorted(
        (by_key[key] for key in below if key not in reached),
        key=lambda each: (each.xact_start or each.seen_at, str(each.key)),
    )
    for each in circled:
        if each.key not in reached:
            more = _reach(each.key, below)
            reached |= more | {each.key}
            roots.append(Root(backend=each, waiting=len(more - {each.key}), is_circle=True))
    return tuple(sorted(roots, key=lambda root: (-root.waiting, str(root.backend.key))))


def _reach(key: Key, below: Mapping[Key, list[Backend]]) -> set[Key]:
    """Everybody who waits for it, directly or not; itself too, where that is a circle."""
    seen: set[Key] = set()
    ahead = [key]
    while ahead:
        for each in below.get(ahead.pop(), ()):
            if each.key not in seen:
                seen.add(each.key)
                ahead.append(each.key)
    return seen


def _grow(
    above: Key,
    depth: int,
    below: Mapping[Key, list[Backend]],
    placed: set[Key],
    branches: list[Branch],
) -> None:
    """Put those who wait for `above` under it, down to `DEPTH_MAX`; who is deeper is left out."""
    if depth > DEPTH_MAX:
        return
    for each in below.get(above, ()):
        if each.key in placed:
            continue
        placed.add(each.key)
        also = tuple(key for key in each.blocked_by if key != above)
        branches.append(Branch(depth=depth, backend=each, also=also))
        _grow(each.key, depth + 1, below, placed, branches)


def backend_of(row: Mapping[str, Any]) -> Backend:
    """A session from a row of `LOOK`."""
    return Backend(
        key=row["pid"],
        user=row["user"] or "",
        seen_at=row["seen_at"],
        application=row["application"] or "",
        database=row["database"] or "",
        client=row["client"] or "",
        backend_type=row["backend_type"] or "",
        state=row["state"] or "",
        query=row["query"] or "",
        backend_start=row["backend_start"],
        xact_start=row["xact_start"],
        query_start=row["query_start"],
        state_change=row["state_change"],
        has_written=row["has_written"],
        blocked_by=tuple(row["blocked_by"]),
        mode=(row["mode"] or "").removesuffix("Lock"),
        locktype=row["locktype"] or "",
        relation=row["relation"] or "",
        since=row["since"],
    )


def _prepared(rows: Iterable[Mapping[str, Any]]) -> list[tuple[int, Backend]]:
    """Each waiting pid with a prepared transaction that it really waits for."""
    return [
        (
            row["pid"],
            Backend(
                key=str(row["gid"]),
                user=row["user"] or "",
                seen_at=row["seen_at"],
                database=row["database"] or "",
                backend_type="prepared transaction",
                xact_start=row["prepared"],
                has_written=True,
            ),
        )
        for row in rows
        if _conflict(row["wanted"].removesuffix("Lock"), row["held"].removesuffix("Lock"))
    ]


def _conflict(wanted: str, held: str) -> bool:
    return held in _CONFLICTS.get(wanted, frozenset())
