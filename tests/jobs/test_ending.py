"""Which sessions are never ended, whoever asks."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.ending import Signal, Target, objection_to, outcome_of, pins_of
from postgres.health.blocking import Backend

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
BACKEND = Backend(
    key=7, user="app", seen_at=NOW, state="active", query="select 1",
    backend_start=NOW - timedelta(hours=1), query_start=NOW,
)  # fmt: skip
TARGET = Target(
    pid=7, backend=BACKEND, us="twokey", is_ours=False, is_above_us=False, may_signal=True,
    leader_pid=None,
)  # fmt: skip


def told(target: Target, signal: Signal = Signal.TERMINATE) -> str:
    objection = objection_to(target, signal, "shop")
    return "" if objection is None else f"{objection.problem} {objection.next_step}"


def of_type(kind: str, **more: object) -> Target:
    backend = replace(BACKEND, backend_type=kind, **more)
    return replace(TARGET, backend=backend)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize(
    ("target", "because"),
    [
        (replace(TARGET, is_ours=True), "Twokey itself"),
        (of_type("walsender", application="standby_1"), "a walsender (standby_1)"),
        (
            of_type("autovacuum worker", query="autovacuum: VACUUM t (to prevent wraparound)"),
            "prevents transaction id wraparound",
        ),
        (of_type("autovacuum worker"), "gives way"),
        (of_type("checkpointer"), "a process of the server itself (checkpointer)"),
        (of_type("logical replication worker"), "a process of the server itself"),
        (replace(of_type("parallel worker"), leader_pid=5), "/db cancel-backend shop 5"),
        (of_type(""), "GRANT pg_monitor TO twokey"),
        (replace(TARGET, is_above_us=True), "only a superuser may end"),
        (replace(TARGET, may_signal=False), "GRANT pg_signal_backend TO twokey"),
    ],
)
def test_what_is_never_ended(target: Target, because: str, signal: Signal) -> None:
    assert because in told(target, signal)


def test_a_clients_session_may_be_ended() -> None:
    assert told(TARGET) == ""
    assert told(TARGET, Signal.CANCEL) == ""


@pytest.mark.parametrize("state", ["idle", "idle in transaction", "idle in transaction (aborted)"])
def test_there_is_nothing_to_cancel_in_a_session_that_runs_nothing(state: str) -> None:
    idle = replace(TARGET, backend=replace(BACKEND, state=state))
    assert "/db terminate-backend shop 7" in told(idle, Signal.CANCEL)
    assert told(idle) == ""


def test_the_pins_tell_a_session_from_its_successor_to_the_microsecond() -> None:
    later = replace(BACKEND, backend_start=NOW - timedelta(hours=1) + timedelta(microseconds=1))
    assert pins_of(later, Signal.TERMINATE) != pins_of(BACKEND, Signal.TERMINATE)
    next_one = replace(BACKEND, query_start=NOW + timedelta(microseconds=1))
    assert pins_of(next_one, Signal.CANCEL) != pins_of(BACKEND, Signal.CANCEL)
    assert pins_of(next_one, Signal.TERMINATE) == pins_of(BACKEND, Signal.TERMINATE)


def test_a_result_that_says_nothing_is_nothing_done() -> None:
    assert outcome_of(None).sent is False
