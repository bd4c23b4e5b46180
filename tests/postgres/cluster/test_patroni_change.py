"""Patroni says one thing and the servers another: its REST API here is ours, the server is real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from postgres.cluster.patroni import PatroniCluster
from postgres.cluster.words import HostSettings, NodeSpec, Outcome
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.ports import free_port
from postgres.server import Server
from tests.postgres.cluster import patroni_answers as recorded
from tests.postgres.cluster.patroni_faults import (
    Faulty,
    Reply,
    faulty,
    hangs,
    hangs_up,
    says,
    says_half,
)

LIMIT = timedelta(seconds=0.6)
GENEROUS = timedelta(seconds=30)
CLUSTER = """{"members": [
 {"name": "pg1", "role": "leader", "state": "running", "timeline": 1},
 {"name": "pg2", "role": "replica", "state": "running", "timeline": 1, "lag": 0}]}"""
WELL: Mapping[str, Reply] = {
    "GET /cluster": says(CLUSTER),
    "GET /config": says(recorded.CONFIG),
    "GET /patroni": says(recorded.REPLICA_3),
}


@dataclass(slots=True, kw_only=True)
class Scene:
    """pg1 takes writes and pg2 answers nothing; both have an agent of ours."""

    cluster: PatroniCluster
    first: Faulty
    second: Faulty
    told: list[str] = field(default_factory=list)

    async def tell(self, text: str) -> None:
        self.told.append(text)

    @property
    def posts(self) -> list[str]:
        return self.first.posts() + self.second.posts()


@asynccontextmanager
async def scene(
    server: Server,
    replies: Mapping[str, Reply],
    second: Mapping[str, Reply] | None = None,
    look_limit: timedelta = GENEROUS,
) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(faulty({**WELL, **replies}))
        two = await stack.enter_async_context(
            faulty({**WELL, **(replies if second is None else second)})
        )
        nobody = f"postgresql://u@127.0.0.1:{free_port()}/x"
        nodes = (
            NodeSpec(name="pg1", target=parse_dsn(server.dsn("postgres")), rest=one.base),
            NodeSpec(name="pg2", target=parse_dsn(nobody), rest=two.base),
        )
        cluster = PatroniCluster(
            nodes,
            user="bot",
            password=SecretStr("s"),
            clock=lambda: datetime.now(UTC),
            look_limit=look_limit,
        )
        stack.push_async_callback(cluster.close)
        yield Scene(cluster=cluster, first=one, second=two)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (says('Successfully switched over to "pg2"'), 'Successfully switched over to "pg2"'),
        (says("Switchover status unknown", 503), "Switchover status unknown"),
        (says("<html><p>Message: oops</p></html>", 502), "oops"),
        (says("", 500), "HTTP 500"),
        (hangs, ""),
        (hangs_up, "Patroni on pg1: it hung up before its answer ended"),
        (says_half, "Patroni on pg1: it hung up before its answer ended"),
    ],
)
async def test_while_the_old_primary_takes_writes_no_word_of_patroni_ends_it(
    server: Server, reply: Reply, said: str
) -> None:
    async with scene(server, {"POST /switchover": reply}) as at:
        found = await at.cluster.switch(leader="pg1", candidate="pg2", limit=LIMIT, tell=at.tell)
        assert at.posts == ["POST /switchover"]
    assert (found.outcome, found.primary) == (Outcome.UNKNOWN, "pg1")
    assert said in found.said
    assert "may still carry the switchover out" in found.next_step
    assert found.seconds >= LIMIT.total_seconds()


async def test_what_patroni_gave_up_has_not_happened_and_is_told_at_once(server: Server) -> None:
    async with scene(server, {"POST /switchover": says("Switchover failed", 503)}) as at:
        found = await at.cluster.switch(leader="pg1", candidate="pg2", limit=GENEROUS, tell=at.tell)
    assert (found.outcome, found.primary) == (Outcome.NOTHING, "pg1")
    assert found.timeline == 1
    assert "Switchover failed" in at.told[-1]


@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (says("no auth header received", 401), "does not know this user and password"),
        (says("leader name does not match", 412), "Patroni refused the switchover"),
        (says(recorded.BAD_REQUEST, 400), "Patroni refused the switchover: Bad Request. (400)"),
    ],
)
async def test_a_refusal_is_an_error_and_asked_of_nobody_else(
    server: Server, reply: Reply, problem: str
) -> None:
    async with scene(server, {"POST /switchover": reply}) as at:
        with pytest.raises(PostgresError) as caught:
            await at.cluster.switch(leader="pg1", candidate="pg2", limit=GENEROUS, tell=at.tell)
        assert at.posts == ["POST /switchover"]
    assert problem in caught.value.problem


async def test_an_agent_that_went_away_before_it_was_asked_is_passed_over(server: Server) -> None:
    async with scene(server, {}, {"POST /switchover": says("Switchover failed", 503)}) as at:
        asked = at.tell

        async def tell(text: str) -> None:
            await asked(text)
            await at.first.stop_listening()

        found = await at.cluster.switch(leader="pg1", candidate="pg2", limit=GENEROUS, tell=tell)
        assert (at.first.posts(), at.second.posts()) == ([], ["POST /switchover"])
    assert found.outcome is Outcome.NOTHING


async def test_an_agent_that_cannot_read_its_dcs_is_not_asked(server: Server) -> None:
    replies = {"GET /cluster": hangs_up, "POST /switchover": says("never", 500)}
    able = {"POST /switchover": says("Switchover failed", 503)}
    async with scene(server, replies, able) as at:
        await at.cluster.switch(leader="pg1", candidate="pg2", limit=GENEROUS, tell=at.tell)
        assert (at.first.posts(), at.second.posts()) == ([], ["POST /switchover"])


async def test_without_an_agent_that_reads_its_dcs_nothing_is_asked(server: Server) -> None:
    async with scene(server, {"GET /cluster": hangs_up}) as at:
        with pytest.raises(PostgresError) as caught:
            await at.cluster.switch(leader="pg1", candidate="pg2", limit=GENEROUS, tell=at.tell)
        assert at.posts == []
    assert "No Patroni answers for the cluster (pg1: it hung up" in caught.value.problem
    assert "DCS" in caught.value.next_step


@pytest.mark.parametrize(
    ("leader", "candidate", "problem"),
    [
        ("pg1", "pg1", "pg1 cannot take over from itself."),
        ("pg1", "pg9", "The cluster has no node pg9."),
        ("pg9", "pg1", "The cluster has no node pg9."),
    ],
)
async def test_what_cannot_be_is_refused_before_anybody_is_asked(
    server: Server, leader: str, candidate: str, problem: str
) -> None:
    async with scene(server, {}) as at:
        with pytest.raises(PostgresError) as caught:
            await at.cluster.switch(
                leader=leader, candidate=candidate, limit=GENEROUS, tell=at.tell
            )
        assert at.posts == []
    assert caught.value.problem == problem


async def test_a_candidate_whose_agent_is_no_member_is_refused(server: Server) -> None:
    alone = says('{"members": [{"name": "pg1", "role": "leader", "state": "running"}]}')
    async with scene(server, {"GET /cluster": alone}) as at:
        with pytest.raises(PostgresError) as caught:
            await at.cluster.switch(leader="pg1", candidate="pg2", limit=GENEROUS, tell=at.tell)
        assert at.posts == []
    assert caught.value.problem == "Patroni knows no member pg2."


async def test_a_failover_from_a_primary_that_takes_writes_is_refused(server: Server) -> None:
    async with scene(server, {}) as at:
        with pytest.raises(PostgresError) as caught:
            await at.cluster.fail_over(leader="pg1", candidate="pg2", limit=GENEROUS, tell=at.tell)
        assert at.posts == []
    assert "still takes writes" in caught.value.problem
    assert "switchover" in caught.value.next_step


async def test_a_switchover_that_was_made_already_needs_none(server: Server) -> None:
    async with scene(server, {"GET /cluster": hangs_up}) as at:
        found = await at.cluster.switch(leader="pg2", candidate="pg1", limit=GENEROUS, tell=at.tell)
        assert at.posts == []
    assert (found.outcome, found.primary) == (Outcome.DONE, "pg1")
    assert found.said == "pg1 was the primary already"


async def test_a_failover_that_patroni_has_already_made_needs_none(server: Server) -> None:
    async with scene(server, {}) as at:
        found = await at.cluster.fail_over(
            leader="pg2", candidate="pg1", limit=GENEROUS, tell=at.tell
        )
        assert at.posts == []
    assert (found.outcome, found.primary) == (Outcome.DONE, "pg1")
    assert "keep applications away from it" in found.next_step


async def test_a_look_costs_its_limit_when_all_agents_hang_and_says_so(server: Server) -> None:
    silent = dict.fromkeys(WELL, hangs)
    async with scene(server, silent, look_limit=timedelta(seconds=1)) as at:
        began = time.monotonic()
        seen = await at.cluster.look()
        assert time.monotonic() - began < 15  # 1 s is asked for; the machine may be busy
    assert seen.primary is not None
    assert seen.primary.name == "pg1"
    assert seen.agent is not None
    assert seen.agent.problem == (
        "No Patroni answers for the cluster (pg1: no answer in time; pg2: no answer in time)"
    )
    assert dict(seen.agent.silent) == {"pg1": "no answer in time", "pg2": "no answer in time"}


async def test_a_dcs_that_is_down_is_told_from_agents_that_are(server: Server) -> None:
    replies = {
        "GET /cluster": hangs_up, "GET /config": hangs_up, "GET /patroni": says(recorded.PRIMARY_3)
    }  # fmt: skip
    async with scene(server, replies) as at:
        agent = (await at.cluster.look()).agent
    assert agent is not None
    assert agent.problem.startswith("Patroni runs on pg1, pg2, but its DCS may be down")
    assert "failsafe mode keeps the primary" in agent.problem
    assert agent.is_failsafe_active
    assert agent.dcs_age is not None
    assert [member.role for member in agent.members] == ["leader", "leader"]


@pytest.mark.parametrize("reply", [says("<html>"), says('"{}"'), says("oops", 503), says_half])
async def test_one_agent_that_talks_nonsense_does_not_hide_what_another_says(
    server: Server, reply: Reply
) -> None:
    async with scene(server, dict.fromkeys(WELL, reply), {}) as at:
        agent = (await at.cluster.look()).agent
    assert agent is not None
    assert agent.problem == ""
    assert agent.leader == "pg1"
    assert list(agent.silent) == ["pg1"]
    assert agent.settings["ttl"] == "5"


async def test_settings_and_history_are_errors_when_nobody_can_tell(server: Server) -> None:
    async with scene(server, {"GET /config": hangs_up, "GET /history": says("{}")}) as at:
        with pytest.raises(PostgresError, match="pg1: it hung up"):
            await at.cluster.settings()
        with pytest.raises(PostgresError, match="pg2: its answer is not Patroni's"):
            await at.cluster.history()


async def test_a_cancelled_switchover_leaves_no_task_behind(server: Server) -> None:
    async with scene(server, {"POST /switchover": hangs}) as at:
        asking = asyncio.create_task(
            at.cluster.switch(leader="pg1", candidate="pg2", limit=GENEROUS, tell=at.tell)
        )
        async with asyncio.timeout(30):
            while not at.posts:
                await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(15):  # half as long as the agent would take
            await at.cluster.close()
        assert not [
            task for task in asyncio.all_tasks() if "PatroniCluster" in repr(task.get_coro())
        ]


async def test_a_cluster_without_rest_addresses_says_so(server: Server) -> None:
    node = NodeSpec(name="pg1", target=parse_dsn(server.dsn("postgres")))
    cluster = PatroniCluster([node], clock=lambda: datetime.now(UTC))
    seen = await cluster.look()
    await cluster.close()
    assert seen.agent is not None
    assert "no node has a `rest` address" in seen.agent.problem
    assert [each.name for each in seen.writable] == ["pg1"]


async def test_an_agent_that_cannot_be_started_is_told(server: Server, tmp_path: Path) -> None:
    host = HostSettings(data=tmp_path, programs=tmp_path, agent_start=("/bin/false",))
    node = NodeSpec(
        name="pg1",
        target=parse_dsn(server.dsn("postgres")),
        rest=f"http://127.0.0.1:{free_port()}",
        host=host,
    )
    cluster = PatroniCluster([node], clock=lambda: datetime.now(UTC))
    with pytest.raises(PostgresError, match="Patroni on pg1 could not be started"):
        await cluster.rejoin("pg1", primary="pg1", limit=LIMIT, tell=quiet)
    await cluster.close()


async def test_a_node_that_does_not_come_back_in_time_is_told_with_its_agents_words(
    server: Server,
) -> None:
    async with scene(server, {"GET /patroni": says('{"state": "start failed"}')}) as at:
        with pytest.raises(PostgresError) as caught:
            await at.cluster.rejoin("pg2", primary="pg1", limit=LIMIT, tell=at.tell)
    assert caught.value.problem.startswith("pg2 does not follow pg1: it does not answer (")
    assert "Its Patroni says: start failed." in caught.value.problem
    assert "/db rejoin with rebuild=true" in caught.value.next_step


async def quiet(text: str) -> None:
    """Nobody listens."""
