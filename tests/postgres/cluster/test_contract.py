"""What every adapter of a cluster keeps, on real servers: Patroni's and the pair's alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from postgres.cluster.adapter import Cluster
from postgres.cluster.pair import PairCluster
from postgres.cluster.patroni import PatroniCluster
from postgres.cluster.words import NodeSpec, Outcome, Role, Verdict
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.ports import free_port
from sandbox.ha import PairSandbox, PatroniSandbox

LIMIT = timedelta(seconds=90)
ROWS = "CREATE TABLE IF NOT EXISTS kept (said text)"

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A healthy cluster of two, its adapter, and who is who in it."""

    cluster: Cluster
    sandbox: PatroniSandbox | PairSandbox
    primary: str
    standby: str

    async def switch(self, *, leader: str, candidate: str) -> Verdict:
        return await self.cluster.switch(
            leader=leader, candidate=candidate, limit=LIMIT, tell=quiet
        )

    async def fail_over(self, *, leader: str, candidate: str) -> Verdict:
        return await self.cluster.fail_over(
            leader=leader, candidate=candidate, limit=LIMIT, tell=quiet
        )

    async def rejoin(self, node: str, *, primary: str) -> None:
        await self.cluster.rejoin(node, primary=primary, limit=LIMIT, tell=quiet)

    async def write(self, name: str, text: str) -> None:
        await self.sandbox.query(name, ROWS)
        await self.sandbox.query(name, "INSERT INTO kept VALUES ($1)", text)

    async def has(self, name: str, text: str) -> bool:
        found = await self.sandbox.query(name, "SELECT 1 FROM kept WHERE said = $1", text)
        return found == 1


async def quiet(text: str) -> None:
    """Nobody listens."""


@pytest.fixture(
    params=[pytest.param("patroni", marks=pytest.mark.needs("patroni", "etcd")), "pair"]
)
def sandbox(request: pytest.FixtureRequest) -> PatroniSandbox | PairSandbox:
    """As the last test left it; not async, as nothing may run while one is started."""
    found: PatroniSandbox | PairSandbox = request.getfixturevalue(f"session_{request.param}")
    return found


@pytest.fixture
async def tried(sandbox: PatroniSandbox | PairSandbox) -> AsyncIterator[Tried]:
    await sandbox.healthy()
    primary = await sandbox.primary()
    made = Tried(
        cluster=adapter(sandbox, sandbox.specs),
        sandbox=sandbox,
        primary=primary,
        standby=sandbox.others(primary)[0],
    )
    try:
        yield made
    finally:
        await made.cluster.close()


def adapter(sandbox: PatroniSandbox | PairSandbox, nodes: Sequence[NodeSpec]) -> Cluster:
    if isinstance(sandbox, PairSandbox):
        return PairCluster(nodes, clock=now)
    return PatroniCluster(
        nodes, user=sandbox.rest_user, password=SecretStr(sandbox.rest_password), clock=now
    )


def now() -> datetime:
    return datetime.now(UTC)


async def test_a_look_shows_one_that_takes_writes_and_one_that_streams(tried: Tried) -> None:
    seen = await tried.cluster.look()
    assert seen.kind is tried.cluster.kind
    assert [node.name for node in seen.nodes] == [spec.name for spec in tried.cluster.nodes]
    assert [node.problem for node in seen.nodes] == ["", ""]
    assert seen.primary is not None
    assert seen.primary.name == tried.primary
    standby = seen.node(tried.standby)
    assert standby is not None
    assert (standby.role, standby.receiver) == (Role.STANDBY, "streaming")
    assert [sender.name for sender in seen.primary.senders] == [tried.standby]


async def test_a_switchover_moves_the_writes_keeps_every_row_and_can_be_asked_for_again(
    tried: Tried,
) -> None:
    before = await tried.cluster.settings()
    promotions = await tried.cluster.history()
    text = f"before {now()}"
    await tried.write(tried.primary, text)
    found = await tried.switch(leader=tried.primary, candidate=tried.standby)
    assert (found.outcome, found.primary, found.next_step) == (Outcome.DONE, tried.standby, "")
    assert found.seconds > 0
    await tried.rejoin(tried.primary, primary=tried.standby)
    seen = await tried.cluster.look()
    assert seen.primary is not None
    assert (seen.primary.name, seen.primary.timeline) == (tried.standby, found.timeline)
    assert [sender.state for sender in seen.primary.senders] == ["streaming"]
    assert await tried.has(tried.standby, text)
    again = await tried.switch(leader=tried.primary, candidate=tried.standby)
    assert (again.outcome, again.primary) == (Outcome.DONE, tried.standby)
    assert again.timeline == found.timeline
    assert dict(await tried.cluster.settings()) == dict(before)
    after = await tried.cluster.history()
    assert len(after) == len(promotions) + 1
    assert after[-1].timeline + 1 == found.timeline


async def test_a_crashed_primary_is_replaced_and_comes_back_as_a_standby(tried: Tried) -> None:
    text = f"before {now()}"
    await tried.write(tried.primary, text)
    await tried.rejoin(tried.standby, primary=tried.primary)
    tried.sandbox.kill_server(tried.primary)
    found = await tried.fail_over(leader=tried.primary, candidate=tried.standby)
    assert (found.outcome, found.primary) == (Outcome.DONE, tried.standby)
    await tried.rejoin(tried.primary, primary=tried.standby)
    seen = await tried.cluster.look()
    assert [node.name for node in seen.writable] == [tried.standby]
    assert {node.timeline for node in seen.nodes} == {found.timeline}
    assert await tried.has(tried.standby, text)


async def test_a_primary_that_takes_writes_is_never_failed_over(tried: Tried) -> None:
    with pytest.raises(PostgresError) as caught:
        await tried.fail_over(leader=tried.primary, candidate=tried.standby)
    assert tried.primary in caught.value.problem
    assert await tried.sandbox.primary() == tried.primary


async def test_what_cannot_be_is_refused_and_what_is_need_not_be_done(tried: Tried) -> None:
    for word in (tried.primary, tried.standby, "pg9"):
        for change in (tried.switch, tried.fail_over):
            with pytest.raises(PostgresError):
                await change(leader=word, candidate=word)
    with pytest.raises(PostgresError, match="no node pg9"):
        await tried.rejoin("pg9", primary=tried.primary)
    await tried.rejoin(tried.standby, primary=tried.primary)
    assert await tried.sandbox.primary() == tried.primary


async def test_servers_that_are_all_gone_are_told_and_never_raised_by_a_look(
    tried: Tried,
) -> None:
    nobody = adapter(tried.sandbox, [elsewhere(spec) for spec in tried.sandbox.specs])
    seen = await nobody.look()
    assert all(node.problem for node in seen.nodes)
    assert seen.primary is None
    for question in (nobody.settings, nobody.history):
        with pytest.raises(PostgresError):
            await question()
    with pytest.raises(PostgresError):
        await nobody.switch(leader=tried.primary, candidate=tried.standby, limit=LIMIT, tell=quiet)
    await nobody.close()


def elsewhere(spec: NodeSpec) -> NodeSpec:
    """The node at an address where nobody listens."""
    nobody = f"postgresql://u@127.0.0.1:{free_port()}/x"
    return replace(
        spec, target=parse_dsn(nobody), rest=f"http://127.0.0.1:{free_port()}", host=None
    )


async def test_a_standby_is_copied_anew_and_a_primary_never_is(tried: Tried) -> None:
    with pytest.raises(PostgresError, match="primary"):
        await tried.cluster.rebuild(tried.primary, primary=tried.primary, limit=LIMIT, tell=quiet)
    text = f"before {now()}"
    await tried.write(tried.primary, text)
    started = "SELECT pg_postmaster_start_time()"
    before = await tried.sandbox.query(tried.standby, started)
    mark = tried.sandbox.data(tried.standby) / "of-the-old-one"
    mark.touch()
    await tried.cluster.rebuild(tried.standby, primary=tried.primary, limit=LIMIT, tell=quiet)
    assert not mark.exists()
    assert await tried.sandbox.query(tried.standby, started) > before
    assert await tried.has(tried.standby, text)
    assert await tried.sandbox.follows(tried.standby, tried.primary)
