"""What the rows of a ledger say that a failover cost."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postgres.cluster.ledger_file import FOLD_SECONDS, _folded
from postgres.cluster.loss import GAPS_MAX, Kept, Life, Loss, Present, Span, weigh

START: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
T0: Final = START.timestamp()
OLD, NEW = "100", "200"
NAMES: Final = {OLD: "pg1", NEW: "pg2"}


def row(seq: int, at: float, server: str = OLD, *, is_local: bool = False) -> Span:
    """A row that was acknowledged `at` seconds after the start, and sent a millisecond before."""
    return Span(
        first=seq,
        last=seq,
        sent=T0 + at - 0.001,
        acked_first=T0 + at,
        acked_last=T0 + at,
        server=server,
        is_local=is_local,
    )


def kept(*spans: Span, lives: tuple[Life, ...] = ()) -> Kept:
    last = max((span.last for span in spans), default=0)
    return Kept(spans=spans, last=last, lives=lives, names=NAMES)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def weighed(
    written: Kept, present: set[int], *, injected: float = 1.0, until: float = 9.0, **more: object
) -> Loss:
    return weigh(
        written,
        Present.of(present),
        injected_at=at(injected),
        until=at(until),
        **more,  # type: ignore[arg-type]
    )


def near(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-5)


FAILOVER: Final = kept(
    row(1, 0.0), row(2, 0.4), row(3, 0.6), row(4, 0.9), row(6, 3.5, NEW), row(7, 3.6, NEW)
)


def test_nothing_is_lost_when_the_new_primary_has_all() -> None:
    found = weighed(FAILOVER, {1, 2, 3, 4, 6, 7}, until=3.6)
    assert (found.acknowledged, found.lost, found.ambiguous) == (6, 0, 0)
    assert found.rpo_seconds == 0
    assert found.write_gap_seconds == near(2.6)
    assert found.rto_seconds == near(2.5)
    assert found.first_ack_at == at(3.5)
    assert found.server == "pg2"


def test_loss_reaches_from_the_last_that_survived_to_the_last_lost_one() -> None:
    found = weighed(FAILOVER, {1, 2, 6, 7})
    assert (found.acknowledged, found.lost) == (6, 2)
    assert found.rpo_seconds == near(0.5)


def test_where_none_survived_the_loss_begins_when_the_first_was_sent() -> None:
    found = weighed(kept(row(1, 0.0), row(2, 0.4)), set())
    assert found.lost == 2
    assert found.rpo_seconds == near(0.401)


def test_a_row_that_is_there_but_was_never_acknowledged_is_ambiguous_not_lost() -> None:
    found = weighed(FAILOVER, {1, 2, 3, 4, 5, 6, 7})
    assert (found.lost, found.ambiguous) == (0, 1)


def test_rows_that_are_still_on_their_way_are_not_yet_ambiguous() -> None:
    present = {1, 2, 3, 4, 6, 7, 8, 9}
    assert weighed(FAILOVER, present, settled=7).ambiguous == 0
    assert weighed(FAILOVER, present).ambiguous == 2


def test_a_row_acknowledged_without_its_standby_counts_and_is_told_apart() -> None:
    local = kept(row(1, 0.0), row(2, 0.5, is_local=True), row(3, 0.9, is_local=True))
    found = weighed(local, {1, 2})
    assert (found.acknowledged, found.lost, found.local, found.lost_local) == (3, 1, 2, 1)
    assert found.rpo_seconds == near(0.4)


def test_what_the_old_primary_still_takes_is_no_return_to_work() -> None:
    switched = kept(row(1, 0.9), row(2, 1.3), row(3, 3.0, NEW))
    found = weighed(switched, {1, 2, 3}, until=3.0)
    assert found.rto_seconds == near(2.0)
    assert found.write_gap_seconds == near(1.7)


def test_nor_is_what_a_restarted_old_primary_took_and_then_lost() -> None:
    twice = kept(row(1, 0.9), row(2, 1.5, "150"), row(3, 4.0, NEW))
    found = weighed(twice, {1, 3})
    assert found.rto_seconds == near(3.0)
    assert (found.lost, found.server) == (1, "pg2")


def test_a_server_that_was_started_again_is_another() -> None:
    found = weighed(kept(row(1, 0.9), row(2, 3.0, "101")), {1, 2})
    assert found.rto_seconds == near(2.0)


def test_without_a_new_primary_there_is_no_time_of_return_and_the_gap_goes_on() -> None:
    found = weighed(kept(row(1, 0.5), row(2, 0.9)), {1, 2}, until=6.9)
    assert (found.rto_seconds, found.first_ack_at, found.server) == (None, None, "")
    assert found.write_gap_seconds == near(6.0)


def test_a_gap_before_the_injection_is_told_and_is_not_the_failovers() -> None:
    slow = kept(row(1, 0.0), row(2, 0.8), row(3, 0.9), row(4, 1.2, NEW))
    found = weighed(slow, {1, 2, 3, 4}, until=1.2)
    assert found.write_gap_seconds == near(0.3)
    assert [(gap.began_at, gap.server) for gap in found.gaps] == [(at(0), "pg1"), (at(0.9), "pg2")]


def test_the_time_in_which_no_ledger_was_writing_is_said() -> None:
    lives = (Life(began=T0, ended=T0 + 1.0), Life(began=T0 + 3.0, ended=T0 + 4.0))
    found = weighed(kept(row(1, 0.9), row(2, 3.5, NEW), lives=lives), {1, 2}, until=3.6)
    assert found.write_gap_seconds == near(2.6)
    assert found.blind_seconds == near(2.0)


def test_what_comes_after_the_last_life_is_blind_once_it_has_ended() -> None:
    ended = kept(row(1, 0.9), lives=(Life(began=T0, ended=T0 + 2.0),))
    assert weighed(ended, {1}, until=9.0).blind_seconds == near(7.0)
    assert weighed(ended, {1}, until=9.0, settled=1).blind_seconds == 0


def test_the_heartbeat_tells_the_same_by_another_way() -> None:
    found = weighed(FAILOVER, {1, 2, 6, 7}, beats={OLD: T0 + 0.35, NEW: T0 + 3.55})
    assert found.heartbeat_seconds == near(0.55)
    assert weighed(FAILOVER, {1, 2, 6, 7}, beats={NEW: T0 + 3.55}).heartbeat_seconds is None


def test_the_longest_gaps_are_kept_in_order_and_no_more() -> None:
    spans = [row(n, float(n * n)) for n in range(1, 40)]
    found = weighed(kept(*spans), set(range(1, 40)), until=1521.0)
    assert len(found.gaps) == GAPS_MAX
    assert found.gaps[-1].seconds == near(77)
    assert list(found.gaps) == sorted(found.gaps, key=lambda gap: gap.began_at)


def test_nothing_written_is_nothing_lost() -> None:
    found = weighed(kept(), set())
    assert (found.acknowledged, found.lost, found.ambiguous, found.gaps) == (0, 0, 0, ())
    assert (found.rto_seconds, found.write_gap_seconds) == (None, 0.0)


@given(st.sets(st.integers(0, 60)), st.integers(-1, 61))
def test_ranges_hold_what_they_were_made_of(numbers: set[int], top: int) -> None:
    present = Present.of(numbers)
    assert {n for n in range(-2, 63) if n in present} == numbers
    assert present.count(top) == len({n for n in numbers if n <= top})
    assert present.count(None) == len(numbers)


# A row: how long after the one before in ms, who took it (None: it failed), local, there or not.
ROWS: Final = st.lists(
    st.tuples(
        st.integers(1, 400), st.sampled_from((OLD, OLD, NEW, None)), st.booleans(), st.booleans()
    ),
    max_size=40,
)
Drawn = list[tuple[int, str | None, bool, bool]]


def story(drawn: Drawn) -> tuple[list[Span], set[int]]:
    spans, present, now = [], set(), 0.0
    for seq, (pause, server, is_local, is_there) in enumerate(drawn, 1):
        now += pause / 1000
        if server:
            spans.append(row(seq, now, server, is_local=is_local))
        if is_there:
            present.add(seq)
    return spans, present


@given(ROWS, st.floats(0, 10))
@example([(10, OLD, False, True), (10, OLD, False, False), (10, NEW, False, True)], 0.02)
def test_every_history_is_counted_as_by_hand(drawn: Drawn, injected: float) -> None:
    spans, present = story(drawn)
    found = weighed(kept(*spans), present, injected=injected, until=30.0)
    acked = {span.first: span.acked_last for span in spans}
    lost = sorted(set(acked) - present)
    assert found.acknowledged == len(acked)
    assert found.lost == len(lost)
    assert found.ambiguous == len(present - set(acked))
    assert found.lost_local == sum(span.is_local for span in spans if span.first in lost)
    if lost:
        before = [acked[seq] for seq in acked if seq < lost[0]]
        since = before[-1] if before else spans[0].sent
        assert found.rpo_seconds == pytest.approx(acked[lost[-1]] - since)
    else:
        assert found.rpo_seconds == 0
    times = [*acked.values(), T0 + 30.0]
    gaps = [b - a for a, b in pairwise(times) if b > T0 + injected]
    assert found.write_gap_seconds == pytest.approx(max(gaps) if acked else 0.0)


@given(ROWS, st.randoms(use_true_random=False))
def test_order_and_repetition_of_what_was_written_down_change_nothing(
    drawn: Drawn, chance: object
) -> None:
    spans, present = story(drawn)
    again = spans + [span for span in spans if span.first % 3 == 0]
    chance.shuffle(again)  # type: ignore[attr-defined]
    assert weighed(kept(*again), present) == weighed(kept(*spans), present)


@given(ROWS)
def test_folding_keeps_every_count_and_hardly_moves_a_time(drawn: Drawn) -> None:
    spans, present = story([(pause % 90 + 1, *rest) for pause, *rest in drawn])  # type: ignore[misc]
    whole = weighed(kept(*spans), present, injected=0.5, until=30.0)
    found = weighed(kept(*_folded(spans)), present, injected=0.5, until=30.0)
    assert found.rpo_seconds == pytest.approx(whole.rpo_seconds, abs=2 * FOLD_SECONDS)
    assert found.gaps == whole.gaps
    both = weighed(kept(*spans, *_folded(spans)), present, until=30.0)
    assert (both.acknowledged, both.lost, both.ambiguous) == (
        whole.acknowledged,
        whole.lost,
        whole.ambiguous,
    )
    still = {"rpo_seconds": 0.0, "write_gap_seconds": 0.0, "blind_seconds": 0.0,
             "rto_seconds": None, "first_ack_at": None, "server": ""}  # fmt: skip
    assert replace(found, **still) == replace(whole, **still)  # type: ignore[arg-type]


def test_evenly_spread_rows_come_back_as_they_were() -> None:
    spans = [row(n, n / 100) for n in range(1, 200)]
    folded = list(_folded(spans))
    assert len(folded) < 6
    times = [acked for span in folded for _, acked in span.rows()]
    assert max(map(math.dist, ([t] for t in times), ([s.acked_last] for s in spans))) < 1e-4


def test_a_gap_between_two_rows_is_never_folded_away() -> None:
    spans = [row(1, 0.0), row(2, 0.01), row(3, 0.31), row(4, 0.32)]
    folded = list(_folded(spans))
    assert [(span.first, span.last) for span in folded] == [(1, 2), (3, 4)]
