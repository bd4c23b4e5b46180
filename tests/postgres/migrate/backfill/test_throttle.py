"""What a backfill waits for: every signal alone, and how long. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postgres.migrate.backfill.course import BLIND, Course
from postgres.migrate.backfill.spec import BackfillLimits
from postgres.migrate.backfill.throttle import (
    Cause,
    Reason,
    ReplicaLag,
    Signals,
    Throttle,
    decide,
    load_of,
    settled,
)
from tests.postgres.migrate.backfill.support import Switch

LIMITS = BackfillLimits(wal_max=100 * 2**20)
MB = 2**20


def lagging(mb: float | None, seconds: float | None = 0.0) -> Signals:
    behind = None if mb is None else int(mb * MB)
    return Signals(
        at=1.0, replicas=(ReplicaLag(name="b", bytes_behind=behind, seconds_behind=seconds),)
    )


def busy(at: float, age_ms: float, probe_ms: float = 0.5, count: int = 3) -> Signals:
    return Signals(at=at, ages_ms=(age_ms,) * count, probe_ms=probe_ms)


def after(seen: Sequence[Signals], limits: BackfillLimits = LIMITS, /, **known: object) -> Throttle:
    now = replace(Throttle(), **known)
    for look in seen:
        now = decide(now, look, limits)
    return now


QUIET = settled([busy(at / 4, 4.0) for at in range(8)])


@pytest.mark.parametrize(
    ("seen", "cause", "text"),
    [
        (lagging(65), Cause.LAG, "b is 65 MB behind (at most 64 MB)"),
        (lagging(1, 5.5), Cause.LAG, "b is 5.5 s behind (at most 5 s)"),
        (Signals(at=1, waiters=6), Cause.WAITERS, "6 sessions wait for locks (at most 5)"),
        (Signals(at=1, dead=0.6), Cause.DEAD, "0.60 dead rows per live row (at most 0.5)"),
        (Signals(at=1, free_bytes=MB), Cause.DISK, "1 MB of the disk are free (at least 1 GB)"),
    ],
)
def test_a_signal_over_its_limit_is_waited_for(seen: Signals, cause: Cause, text: str) -> None:
    now = after([seen])
    assert now.reason is not None
    assert now.reason.cause is cause
    assert text in now.reason.text


@pytest.mark.parametrize(
    "seen",
    [
        Signals(at=1),
        lagging(64, 5.0),
        lagging(None, None),
        Signals(at=1, waiters=5, dead=0.5, free_bytes=2**30, wal_bytes=10**15),
    ],
)
def test_what_is_at_its_limit_or_not_known_is_not_waited_for(seen: Signals) -> None:
    assert after([seen]).reason is None


@pytest.mark.parametrize(
    "seen",
    [
        lagging(10**6, 10**6),
        Signals(at=1, waiters=500),
        Signals(at=1, dead=99.0),
        Signals(at=1, free_bytes=0),
    ],
)
def test_a_limit_of_zero_is_none(seen: Signals) -> None:
    limits = BackfillLimits(lag_bytes_max=0, waiters_max=0, dead_max=0, free_min=0)
    limits = replace(limits, lag_max=limits.lag_max * 0)
    assert after([seen], limits).reason is None


def test_it_is_well_again_only_some_way_below_the_limit() -> None:
    now = after([lagging(65), lagging(60), lagging(49)])
    assert now.reason is not None
    assert now.reason.cause is Cause.LAG
    assert after([lagging(47)], LIMITS, reason=now.reason).reason is None
    assert after([lagging(60)]).reason is None


def test_one_cause_does_not_lower_the_limit_of_another() -> None:
    lag = after([lagging(65)]).reason
    assert after([Signals(at=2, waiters=5)], reason=lag).reason is None


def test_the_wal_rate_is_of_the_last_looks() -> None:
    def at(quarter: int, mb: float) -> Signals:
        return Signals(at=quarter / 4, wal_bytes=int(mb * MB))

    slow = after([at(0, 0), at(1, 20), at(2, 40), at(3, 60)])
    assert slow.reason is None
    fast = after([at(0, 0), at(1, 30), at(2, 60), at(3, 90)])
    assert fast.reason is not None
    assert "writes 120 MB of WAL a second (at most 100 MB)" in fast.reason.text
    assert after([at(4, 95), at(5, 97), at(6, 98)], looks=fast.looks).reason is None


def test_the_wal_of_another_server_is_no_rate() -> None:
    now = after([Signals(at=0, wal_bytes=10**12), Signals(at=1, wal_bytes=5)])
    assert now.reason is None


def test_others_that_slow_down_are_waited_for_and_get_more_of_the_time() -> None:
    now = after([busy(2 + at / 4, 60.0) for at in range(8)], **fields(QUIET))
    assert now.reason is not None
    assert now.reason.cause is Cause.SLOWER
    assert "others are 6.0 times slower (at most 2)" in now.reason.text
    assert now.share == pytest.approx(0.7)


def test_a_slow_read_of_our_own_counts_as_well() -> None:
    now = after([busy(2 + at / 4, 4.0, probe_ms=30.0) for at in range(8)], **fields(QUIET))
    assert now.reason is not None
    assert now.reason.cause is Cause.SLOWER


@pytest.mark.parametrize(
    "looks",
    [
        [busy(2 + at / 4, 9.0) for at in range(8)],  # slower, but fast enough for anybody
        [busy(2 + at / 4, 60_000.0) for at in range(8)],  # reports, that nobody slowed down
        [busy(2 + at / 4, 500.0, count=int(at == 3)) for at in range(8)],  # one statement
        [busy(2 + at / 4, 4.0, probe_ms=200.0 if at == 3 else 0.5) for at in range(8)],  # a hiccup
    ],
)
def test_what_is_no_slower_load_is_not_waited_for(looks: list[Signals]) -> None:
    assert after(looks, **fields(QUIET)).reason is None


def test_nobody_is_compared_with_what_was_not_seen() -> None:
    assert after([busy(at / 4, 500.0) for at in range(12)]).reason is None


def test_a_load_that_stays_while_we_wait_is_not_ours_and_becomes_the_measure() -> None:
    looks = [busy(2 + at / 4, 100.0) for at in range(60)]
    now, reasons, notes = QUIET, [], []
    for look in looks:
        now = decide(now, look, LIMITS)
        reasons.append(now.reason is not None)
        notes += now.notes
    assert any(reasons)
    assert not now.reason
    assert len(notes) == 1
    assert "Others are as slow while this waits (p95 100 ms)" in notes[0]
    assert 40 <= sum(reasons) <= 44  # ten seconds, and no longer
    slower = after([busy(20 + at / 4, 250.0) for at in range(12)], **fields(now))
    assert slower.reason is not None


def test_the_share_of_the_time_grows_back_and_has_a_floor() -> None:
    now = replace(QUIET, share=0.3)
    looks = [busy(2 + at / 4, 4.0) for at in range(4 * 60)]
    assert after(looks, **fields(now)).share == 1.0
    assert after(looks[:16], **fields(now)).share == pytest.approx(0.3)
    worst = replace(QUIET, share=0.21)
    slowed = after([busy(2 + at / 4, 60.0) for at in range(8)], **fields(worst))
    assert slowed.share == pytest.approx(0.2)


@given(
    st.lists(
        st.tuples(st.floats(0, 200), st.integers(0, 20), st.floats(0, 2), st.floats(0, 300)),
        max_size=60,
    )
)
def test_what_is_remembered_is_bounded_and_what_is_well_is_not_waited_for(
    seen: list[tuple[float, int, float, float]],
) -> None:
    now = QUIET
    for step, (mb, waiters, dead, age) in enumerate(seen):
        look = replace(lagging(mb), at=2 + step / 4, waiters=waiters, dead=dead)
        now = decide(now, replace(look, ages_ms=(age,) * 4), LIMITS)
        assert len(now.looks) <= 8
        assert 0.2 <= now.share <= 1
        if mb > 64 or waiters > 5 or dead > 0.5:
            assert now.reason is not None
    for step in range(12):
        now = decide(now, busy(100 + step / 4, 1.0), LIMITS)
    assert now.reason is None


def test_the_p95_of_nobody_is_nothing() -> None:
    assert load_of([Signals(at=1)]) == load_of([])
    assert settled([]).baseline is None


def fields(now: Throttle) -> dict[str, object]:
    return {name: getattr(now, name) for name in Throttle.__slots__}


@pytest.mark.parametrize(
    ("share", "reason", "spared"), [(0.5, None, 0.01), (1.0, None, 0.0), (0.5, BLIND, 0.0)]
)
async def test_what_is_left_to_others_between_batches_is_counted_once(
    share: float, reason: Reason | None, spared: float
) -> None:
    course = Course(
        control=Switch(), limits=BackfillLimits(), total=1, rows=0, passed=0, reason=reason,
        throttle=Throttle(share=share),
    )  # fmt: skip
    await course.breathe(0.01)
    assert course.spared == pytest.approx(spared)
