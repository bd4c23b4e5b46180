"""A pair's roles change in order: nothing is lost, and what fails is taken back or gone on with."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from postgres.cluster.adapter import Cluster
from postgres.cluster.host import Host
from postgres.cluster.host_hand import Hand
from postgres.cluster.pair import PairCluster
from postgres.cluster.pair_steps import Session
from postgres.cluster.words import Outcome
from sandbox.ha import PairSandbox
from tests.postgres.cluster.pair_support import (
    LIMIT,
    Died,
    Said,
    ask,
    cluster_of,
    die_after,
    lost,
    refusal,
    roles,
    run_after,
    send,
    slots,
    until,
    writing,
)


async def test_a_switchover_loses_nothing_and_the_old_primary_follows(pair: PairSandbox) -> None:
    cluster: Cluster = cluster_of(pair)
    old, new = await roles(pair)
    before = await cluster.history()
    async with writing(pair) as writer:
        verdict = await cluster.switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
        count = len(writer.acks)
        await until(lambda: _more(writer.acks, count))
    assert (verdict.outcome, verdict.primary, verdict.next_step) == (Outcome.DONE, new, "")
    assert await pair.writable() == (new,)
    assert await pair.follows(old, new)
    assert await lost(pair, writer) == 0
    assert writer.gap < 10  # a busy machine's; the bench has the figure
    assert await slots(pair, new) == [old]
    assert await slots(pair, old) is None
    after = await cluster.history()
    assert len(after) == len(before) + 1
    assert verdict.timeline == after[-1].timeline + 1


async def test_a_switchover_that_is_done_already_changes_nothing(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    cluster = cluster_of(pair)
    timeline = await ask(pair, old, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    verdict = await cluster.switch(leader=new, candidate=old, limit=LIMIT, tell=Said())
    assert (verdict.outcome, verdict.primary) == (Outcome.DONE, old)
    assert await ask(pair, old, "SELECT pg_walfile_name(pg_current_wal_lsn())") == timeline


async def test_a_standby_that_does_not_stream_takes_over_from_nobody(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    pid = pair.server_pid(old)
    await ask(pair, new, "SELECT pg_wal_replay_pause()")
    error = await refusal(
        cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    )
    assert "Replay is paused" in error.problem
    assert pair.server_pid(old) == pid


async def test_the_wrong_machine_is_noticed_before_its_server_is_stopped(
    pair: PairSandbox,
) -> None:
    old, new = await roles(pair)
    pids = [pair.server_pid(name) for name in (old, new)]
    mistaken = [replace(spec, host=pair.spec(new).host) for spec in pair.specs]
    cluster = PairCluster(mistaken, clock=lambda: datetime.now(UTC))
    error = await refusal(cluster.switch(leader=old, candidate=new, limit=LIMIT, tell=Said()))
    assert "does not run where its `host`" in error.problem
    assert [pair.server_pid(name) for name in (old, new)] == pids


async def test_a_standby_that_dies_in_the_middle_leaves_all_as_it_was(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    run_after(monkeypatch, Hand, "stop", lambda: pair.kill_server(new))
    verdict = await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert (verdict.outcome, verdict.primary) == (Outcome.NOTHING, old)
    assert "was started again" in verdict.said
    assert await pair.writable() == (old,)


async def test_a_last_checkpoint_that_does_not_arrive_takes_it_back(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    startup = await ask(
        pair, new, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"
    )
    run_after(monkeypatch, Session, "checkpoint", lambda: send(startup, signal.SIGSTOP))
    try:
        verdict = await cluster_of(pair).switch(
            leader=old, candidate=new, limit=timedelta(seconds=6), tell=Said()
        )
    finally:
        send(startup, signal.SIGCONT)
    assert verdict.outcome is Outcome.NOTHING
    assert await pair.writable() == (old,)


async def test_a_promotion_that_takes_too_long_is_unknown_and_can_be_gone_on_with(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    startup = await ask(
        pair, new, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'"
    )
    run_after(monkeypatch, Hand, "mark_standby", lambda: send(startup, signal.SIGSTOP))
    cluster = cluster_of(pair)
    try:
        verdict = await cluster.switch(
            leader=old, candidate=new, limit=timedelta(seconds=4), tell=Said()
        )
        assert (verdict.outcome, verdict.primary) == (Outcome.UNKNOWN, "")
        assert "was told to promote" in verdict.said
        assert pair.server_pid(old) is None  # never started while it may still happen
    finally:
        send(startup, signal.SIGCONT)
    again = await cluster.switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert (again.outcome, again.primary) == (Outcome.DONE, new)
    assert await pair.follows(old, new)


async def test_a_cancelled_switchover_ends_with_a_primary(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    task: asyncio.Task[object] = asyncio.create_task(
        cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    )
    run_after(monkeypatch, Hand, "stop", task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pair.writable() == (new,)


STEPS: list[tuple[type, str]] = [
    (Session, "checkpoint"),  # prepared, nothing has happened
    (Hand, "stop"),  # nobody takes writes
    (Hand, "mark_standby"),  # the old one may come back as a standby alone
    (Session, "promote"),  # told, and not seen
    (Host, "start"),  # the old one is coming back
]


@pytest.mark.parametrize(("where", "step"), STEPS, ids=[step for _, step in STEPS])
async def test_a_second_life_goes_on_after_each_step(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch, where: type, step: str
) -> None:
    old, new = await roles(pair)
    with monkeypatch.context() as patched:
        die_after(patched, where, step)
        with pytest.raises(Died):
            await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    verdict = await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert (verdict.outcome, verdict.next_step) == (Outcome.DONE, "")
    assert await pair.writable() == (new,)
    assert await pair.follows(old, new)


async def test_a_second_life_goes_back_when_the_candidate_is_gone(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    with monkeypatch.context() as patched:
        die_after(patched, Hand, "stop")
        with pytest.raises(Died):
            await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    pair.kill_server(new)
    verdict = await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert (verdict.outcome, verdict.primary) == (Outcome.NOTHING, old)
    assert await pair.writable() == (old,)


async def test_a_candidate_that_may_have_been_promoted_by_hand_is_not_gone_back_from(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    with monkeypatch.context() as patched:
        die_after(patched, Hand, "stop")
        with pytest.raises(Died):
            await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    pair.kill_server(new)
    (pair.data(new) / "standby.signal").unlink()
    verdict = await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert verdict.outcome is Outcome.UNKNOWN
    assert await pair.writable() == ()


async def test_what_may_have_been_told_to_promote_is_not_taken_back(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    with monkeypatch.context() as patched:
        die_after(patched, Hand, "mark_standby")
        with pytest.raises(Died):
            await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    pair.kill_server(new)
    verdict = await cluster_of(pair).switch(
        leader=old, candidate=new, limit=timedelta(seconds=5), tell=Said()
    )
    assert verdict.outcome is Outcome.UNKNOWN
    assert await pair.writable() == ()


async def test_the_configuration_is_the_same_after_there_and_back(pair: PairSandbox) -> None:
    cluster = cluster_of(pair)
    old, new = await roles(pair)
    before = await cluster.settings()
    await cluster.switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    await cluster.switch(leader=new, candidate=old, limit=LIMIT, tell=Said())
    after = await cluster.settings()
    assert after == before
    assert before[f"{old}.port"] == str(pair.port(old))
    assert not [name for name in before if "conninfo" in name]


async def test_synchronous_commits_wait_for_the_other_side_after_a_switchover(
    pair: PairSandbox,
) -> None:
    old, new = await roles(pair)
    await _set_sync(pair, old, new)
    await cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert await ask(pair, new, "SHOW synchronous_standby_names") == f'"{old}"'
    await until(
        lambda: ask(pair, new, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'")
    )


async def _more(acks: list[tuple[float, int]], count: int) -> bool:
    return len(acks) > count


async def _set_sync(pair: PairSandbox, primary: str, standby: str) -> None:
    await ask(pair, primary, f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
    await ask(pair, primary, "SELECT pg_reload_conf()")
    await until(
        lambda: ask(
            pair, primary, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        )
    )
