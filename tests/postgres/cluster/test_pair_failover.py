"""A pair's primary is gone: a standby takes over after a proof, and the old one comes back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postgres.account import identity_of, server_account
from postgres.cluster.host import Host
from postgres.cluster.pair import PairCluster
from postgres.cluster.pair_steps import Session
from postgres.cluster.words import HostSettings, NodeSpec, Outcome
from postgres.dsn import parse_dsn
from postgres.postmaster import live_postmaster
from postgres.server import Binaries, Server, create, standby
from sandbox.ha import PairSandbox
from tests.postgres.cluster.pair_support import (
    LIMIT,
    Died,
    Said,
    ask,
    cluster_of,
    die_after,
    refusal,
    roles,
    slots,
    until,
)
from tests.postgres.conftest import FAST


async def test_a_dead_primary_is_replaced_and_comes_back(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    cluster = cluster_of(pair)
    pair.kill_server(old)
    verdict = await cluster.fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert (verdict.outcome, verdict.primary) == (Outcome.DONE, new)
    assert f"Bring {old} back" in verdict.next_step
    await cluster.rejoin(old, primary=new, limit=LIMIT, tell=Said())
    assert await pair.writable() == (new,)
    assert await pair.follows(old, new)
    assert await slots(pair, old) is None


async def test_whoever_starts_the_old_primary_by_hand_gets_a_standby(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    cluster = cluster_of(pair)
    pair.kill_server(old)
    await cluster.fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
    await pair.start_server(old)
    assert await pair.writable() == (new,)
    await cluster.rejoin(old, primary=new, limit=LIMIT, tell=Said())
    assert await pair.follows(old, new)


async def test_a_frozen_primary_is_not_fenced(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    pair.freeze(old)
    try:
        error = await refusal(
            cluster_of(pair).fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
        )
    finally:
        pair.thaw(old)
    assert "frozen, not gone" in error.problem
    assert "kill -9" in error.next_step
    await until(lambda: _is(pair, (old,)))
    assert not (pair.data(old) / "standby.signal").exists()


async def test_a_backend_that_outlived_its_postmaster_is_no_proof(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    backend = asyncio.create_task(ask(pair, old, "SELECT sum(n) FROM generate_series(1, 1e9) n"))
    await until(
        lambda: ask(pair, old, "SELECT count(*) FROM pg_stat_activity WHERE query ~ '1[e]9'")
    )
    postmaster = live_postmaster(pair.data(old))
    assert postmaster
    os.kill(postmaster.pid, signal.SIGKILL)
    error = await refusal(
        cluster_of(pair).fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
    )
    pair.kill_server(old)
    await asyncio.wait([backend])
    backend.exception()
    assert f"{old}'s server lives" in error.problem


async def test_what_was_never_sent_is_rewound_and_the_configuration_stays(
    pair: PairSandbox,
) -> None:
    old, new = await roles(pair)
    cluster = cluster_of(pair)
    async with _diverged(pair, old, new):
        verdict = await cluster.fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
        assert verdict.outcome is Outcome.DONE
        conf = (pair.data(old) / "postgresql.conf").read_text()
        other = _stranger(pair.data(old))  # as if the number of the dead one was given anew
        said = Said()
        try:
            await cluster.rejoin(old, primary=new, limit=LIMIT, tell=said)
        finally:
            other.kill()
            other.wait()
    assert any("Rewinding" in line for line in said.lines)
    assert await pair.follows(old, new)
    assert await ask(pair, old, "SELECT to_regclass('only_here') IS NULL")
    assert (pair.data(old) / "postgresql.conf").read_text() == conf
    assert not list(pair.data(old).parent.glob("*.twokey-*"))


async def test_a_rewind_that_our_death_interrupts_is_gone_on_with(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    cluster = cluster_of(pair)
    async with _diverged(pair, old, new):
        await cluster.fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
        with monkeypatch.context() as patched:
            die_after(patched, Host, "attempt", times=2)  # tried, done, and not yet configured
            with pytest.raises(Died):
                await cluster.rejoin(old, primary=new, limit=LIMIT, tell=Said())
        await cluster.rejoin(old, primary=new, limit=LIMIT, tell=Said())
    assert await pair.follows(old, new)


async def test_a_half_rewound_folder_is_no_server_until_it_is_rebuilt(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    programs = _programs_that_fail_half_way(pair)
    specs = [
        replace(spec, host=replace(spec.host, programs=programs)) if spec.host else spec
        for spec in pair.specs
    ]
    broken = PairCluster(specs, clock=lambda: datetime.now(UTC))
    cluster = cluster_of(pair)
    async with _diverged(pair, old, new):
        await cluster.fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
        error = await refusal(broken.rejoin(old, primary=new, limit=LIMIT, tell=Said()))
        assert "half-way" in error.problem
        assert "Rebuild" in error.next_step
        again = await refusal(cluster.rejoin(old, primary=new, limit=LIMIT, tell=Said()))
        assert "never started" in again.problem
        assert not (pair.data(old) / "PG_VERSION").exists()
        await cluster.rebuild(old, primary=new, limit=LIMIT, tell=Said())
    assert await pair.follows(old, new)
    assert await ask(pair, old, "SHOW port") == str(pair.port(old))
    assert not list(pair.data(old).parent.glob("*.twokey-*"))


async def test_a_lost_folder_is_copied_anew_and_a_swap_that_stopped_is_taken_back_first(
    pair: PairSandbox,
) -> None:
    primary, lost = await roles(pair)
    cluster = cluster_of(pair)
    pair.kill_server(lost)
    folder = pair.data(lost)
    folder.rename(folder.with_name(f"{folder.name}.twokey-old"))
    error = await refusal(cluster.rejoin(lost, primary=primary, limit=LIMIT, tell=Said()))
    assert "no data folder" in error.problem
    await cluster.rebuild(lost, primary=primary, limit=LIMIT, tell=Said())
    assert await pair.follows(lost, primary)
    assert await ask(pair, lost, "SHOW port") == str(pair.port(lost))


async def test_a_second_life_finds_the_failover_done(
    pair: PairSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = await roles(pair)
    pair.kill_server(old)
    with monkeypatch.context() as patched:
        die_after(patched, Session, "promote")
        with pytest.raises(Died):
            await cluster_of(pair).fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
    verdict = await cluster_of(pair).fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert (verdict.outcome, verdict.primary) == (Outcome.DONE, new)


async def test_a_crash_is_no_switchover(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    pair.kill_server(old)
    error = await refusal(
        cluster_of(pair).switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    )
    assert "did not end in order" in error.problem
    assert await pair.writable() == ()


async def test_commits_do_not_wait_for_the_one_that_is_gone_and_do_again_when_it_is_back(
    pair: PairSandbox,
) -> None:
    old, new = await roles(pair)
    for name, setting in ((old, new), (new, old)):
        await ask(pair, name, f"ALTER SYSTEM SET synchronous_standby_names = '{setting}'")
        await ask(pair, name, "SELECT pg_reload_conf()")
    cluster = cluster_of(pair)
    pair.kill_server(old)
    verdict = await cluster.fail_over(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert "wait for no standby" in verdict.next_step
    await ask(pair, new, "CREATE TABLE IF NOT EXISTS committed (n int)")
    await cluster.rejoin(old, primary=new, limit=LIMIT, tell=Said())
    assert await ask(pair, new, "SHOW synchronous_standby_names") == f'"{old}"'
    await ask(pair, new, "DROP TABLE committed")


async def test_a_primary_is_never_brought_back_as_a_standby(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    cluster = cluster_of(pair)
    pair.kill_server(new)
    (pair.data(new) / "standby.signal").unlink()
    await pair.start_server(new)
    assert await pair.writable() == pair.names
    for work in (cluster.rejoin, cluster.rebuild):
        error = await refusal(work(old, primary=new, limit=LIMIT, tell=Said()))
        assert "is a primary itself" in error.problem
    error = await refusal(cluster.switch(leader=old, candidate=new, limit=LIMIT, tell=Said()))
    assert "both primaries" in error.problem
    assert await pair.writable() == pair.names


@asynccontextmanager
async def _own_pair(binaries: Binaries, home: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers whose settings stand in a file of their own, elsewhere."""
    settings = {**FAST, "wal_level": "replica", "wal_retrieve_retry_interval": "100ms"}
    one = await create(binaries, home / "one", settings=settings, sync=False)
    other: Server | None = None
    try:
        await one.start()
        other = await standby(one, home / "other", settings=settings)
        await other.start()
        yield one, other
    finally:
        for server in filter(None, (one, other)):
            await server.remove()


async def test_servers_with_their_settings_elsewhere_change_roles_too(
    binaries: Binaries, home: Path
) -> None:
    async with _own_pair(binaries, home) as (one, other):
        cluster = PairCluster(
            [_spec(one), _spec(other)],
            clock=lambda: datetime.now(UTC),
        )
        await until(lambda: _streams(cluster))
        verdict = await cluster.switch(leader="one", candidate="other", limit=LIMIT, tell=Said())
        assert (verdict.outcome, verdict.next_step) == (Outcome.DONE, "")
        seen = await cluster.look()
        assert [each.name for each in seen.writable] == ["other"]
        # Its parent, our process, does not collect it: a zombie.
        postmaster = live_postmaster(other.data)
        assert postmaster
        subprocess.run(["/bin/kill", "-9", *_pids(other)], check=True)
        assert other._child
        assert Path(f"/proc/{postmaster.pid}").exists()
        verdict = await cluster.fail_over(leader="other", candidate="one", limit=LIMIT, tell=Said())
        assert verdict.outcome is Outcome.DONE
        await cluster.rejoin("other", primary="one", limit=LIMIT, tell=Said())
        assert [each.name for each in (await cluster.look()).writable] == ["one"]
        found = await Host(_spec(other)).read("postmaster.opts")
        assert f"config_file={other.data}.run/server.conf" in found


def _spec(server: Server) -> NodeSpec:
    return NodeSpec(
        name=server.data.name,
        target=parse_dsn(server.dsn()),
        host=HostSettings(data=server.data, programs=server.binaries.folder),
    )


def _pids(server: Server) -> list[str]:
    return [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and _works_in(entry, server.data)
    ]


def _works_in(entry: Path, folder: Path) -> bool:
    try:
        return (entry / "cwd").samefile(folder)
    except OSError:
        return False


async def _streams(cluster: PairCluster) -> bool:
    seen = await cluster.look()
    return bool(seen.primary and any(s.state == "streaming" for s in seen.primary.senders))


async def _is(pair: PairSandbox, names: tuple[str, ...]) -> bool:
    return await pair.writable() == names


@asynccontextmanager
async def _diverged(pair: PairSandbox, old: str, new: str) -> AsyncIterator[None]:
    """The primary has died, and had written what it never sent."""
    sender = await ask(pair, old, "SELECT pid FROM pg_stat_replication LIMIT 1")
    os.kill(int(str(sender)), signal.SIGSTOP)
    await ask(pair, old, "CREATE TABLE only_here AS SELECT generate_series(1, 1000)")
    pair.kill_server(old)
    yield


def _stranger(data: Path) -> subprocess.Popen[bytes]:
    """A program of the server's account that has the number in its note by now."""
    other = subprocess.Popen(["/bin/sleep", "600"], cwd="/", **identity_of(server_account()))
    lines = (data / "postmaster.pid").read_text().splitlines()
    (data / "postmaster.pid").write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
    return other


def _programs_that_fail_half_way(pair: PairSandbox) -> Path:
    """PostgreSQL's programs, but for a pg_rewind that dies with its work half done."""
    real = pair.binaries.folder
    folder = pair.home.folder / "programs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    for program in real.iterdir():
        (folder / program.name).symlink_to(program)
    (folder / "pg_rewind").unlink()
    (folder / "pg_rewind").write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" --dry-run "*) exec {real}/pg_rewind "$@" ;; esac\n'
        'while [ $# -gt 1 ]; do [ "$1" = -D ] && rm -f "$2/global/pg_control"; shift; done\n'
        'echo "pg_rewind: error: could not write: No space left on device" >&2\nexit 1\n'
    )
    (folder / "pg_rewind").chmod(0o755)
    return folder


async def test_a_pair_that_is_reached_over_ssh_changes_roles_too(pair: PairSandbox) -> None:
    old, new = await roles(pair)
    ssh = _ssh(pair)
    specs = [
        replace(spec, host=replace(spec.host, via=(str(ssh), "db1"))) if spec.host else spec
        for spec in pair.specs
    ]
    cluster = PairCluster(specs, clock=lambda: datetime.now(UTC))
    verdict = await cluster.switch(leader=old, candidate=new, limit=LIMIT, tell=Said())
    assert (verdict.outcome, verdict.next_step) == (Outcome.DONE, "")
    async with _diverged(pair, new, old):
        await cluster.fail_over(leader=new, candidate=old, limit=LIMIT, tell=Said())
        await cluster.rejoin(new, primary=old, limit=LIMIT, tell=Said())
    assert await pair.follows(new, old)
    await cluster.rebuild(new, primary=old, limit=LIMIT, tell=Said())
    assert await pair.follows(new, old)


def _ssh(pair: PairSandbox) -> Path:
    """Logs in as the servers' account and gives its words to a shell, as sshd does."""
    account = server_account()
    become = (
        f"setpriv --reuid={account.uid} --regid={account.gid} --clear-groups " if account else ""
    )
    script = pair.home.folder / "ssh"
    script.write_text(f'#!/bin/sh\nshift\ncd /\nexec {become}sh -c "$*"\n')
    script.chmod(0o755)
    return script
