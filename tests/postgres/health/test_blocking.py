"""The tree of who waits for whom: from made-up sessions, and from real ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from postgres.health.blocking import Backend, backends, forest

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def session(key: int | str, *blocked_by: int | str, waits_s: int = 0) -> Backend:
    return Backend(
        key=key, user="app", seen_at=NOW, blocked_by=blocked_by,
        since=NOW - timedelta(seconds=waits_s) if blocked_by else None,
    )  # fmt: skip


def drawn(*found: Backend, shown_max: int = 50) -> list[tuple[int, int | str]]:
    branches = forest(found, shown_max=shown_max).branches
    return [(each.depth, each.backend.key) for each in branches]


def test_nobody_waits() -> None:
    empty = forest([session(1), session(2)])
    assert (empty.roots, empty.branches, empty.left_out, empty.waiting) == ((), (), 0, 0)


def test_waiting_sessions_stand_under_whom_they_wait_for_the_longest_wait_first() -> None:
    assert drawn(
        session(1), session(2, 1, waits_s=5), session(3, 1, waits_s=50), session(4, 3), session(9)
    ) == [(0, 1), (1, 3), (2, 4), (1, 2)]


def test_whoever_holds_up_most_comes_first_also_over_others() -> None:
    trees = forest([session(1), session(2, 1), session(7), session(8, 7), session(9, 8)])
    assert [(root.backend.key, root.waiting) for root in trees.roots] == [(7, 2), (1, 1)]
    assert trees.waiting == 3


def test_a_session_that_waits_for_two_is_drawn_once_and_says_the_other() -> None:
    trees = forest([session(1), session(2), session(3, 1, 2)])
    assert [(each.depth, each.backend.key, each.also) for each in trees.branches] == [
        (0, 1, ()), (1, 3, (2,)), (0, 2, ()),
    ]  # fmt: skip
    assert [root.waiting for root in trees.roots] == [1, 1]


def test_a_circle_has_an_end() -> None:
    trees = forest([session(1, 2), session(2, 3), session(3, 1), session(4, 3), session(5)])
    assert [(root.backend.key, root.waiting, root.is_circle) for root in trees.roots] == [
        (1, 3, True)
    ]
    assert sorted(str(each.backend.key) for each in trees.branches) == ["1", "2", "3", "4"]


def test_a_prepared_transaction_is_a_root() -> None:
    assert drawn(session("gid-7"), session(3, "gid-7")) == [(0, "gid-7"), (1, 3)]


def test_what_is_shown_is_bounded_and_says_how_much_is_left_out() -> None:
    wide = forest([session(1), *(session(n, 1) for n in range(2, 200))])
    assert (len(wide.branches), wide.left_out) == (50, 149)
    deep = forest([session(1), *(session(n, n - 1) for n in range(2, 2_000))])
    assert (len(deep.branches), deep.left_out) == (9, 1990)
    assert deep.roots[0].waiting == 1998


def row(pid: int, *blocked_by: int) -> dict[str, object]:
    return {
        "pid": pid, "user": "app", "application": "web", "database": "shop", "client": None,
        "backend_type": "client backend", "state": "active", "query": "select 1",
        "backend_start": NOW, "xact_start": NOW, "query_start": NOW, "state_change": NOW,
        "has_written": False, "seen_at": NOW, "blocked_by": list(blocked_by),
        "locktype": "relation", "mode": "RowExclusiveLock", "since": NOW, "relation": "orders",
    }  # fmt: skip


def test_blockers_that_are_gone_by_now_block_nobody() -> None:
    [left] = backends([row(1, 99, 1)])
    assert left.blocked_by == ()


@pytest.mark.parametrize(
    ("wanted", "held", "waits"),
    [
        ("AccessShareLock", "AccessShareLock", False),
        ("AccessShareLock", "AccessExclusiveLock", True),
        ("RowExclusiveLock", "RowExclusiveLock", False),
        ("RowExclusiveLock", "ShareLock", True),
        ("ShareLock", "RowExclusiveLock", True),
        ("ShareLock", "ShareLock", False),
        ("ShareUpdateExclusiveLock", "ShareUpdateExclusiveLock", True),
        ("AccessExclusiveLock", "AccessShareLock", True),
    ],
)
def test_a_prepared_transaction_blocks_only_by_a_lock_that_conflicts(
    *, wanted: str, held: str, waits: bool
) -> None:
    ghost = {
        "pid": 1, "wanted": wanted, "held": held, "gid": "g", "prepared": NOW, "user": "app",
        "database": "shop", "seen_at": NOW,
    }  # fmt: skip
    found = backends([row(1, 0)], [ghost])
    assert found[0].blocked_by == (("g",) if waits else ())
