"""The Patroni cluster that tests break: which programs it takes, and that it comes back."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from postgres.programs import run_program
from sandbox import ha_patroni
from sandbox.ha import PatroniSandbox, find_patroni
from sandbox.ha_patroni import EXAMPLES
from sandbox.ha_patroni_rest import PatroniRest, is_healthy
from sandbox.ha_processes import working_in
from tests.conftest import open_to_all

real = pytest.mark.needs("patroni", "etcd")
LIMIT = timedelta(seconds=30)


def member(name: str, role: str, **more: object) -> dict[str, object]:
    return {"name": name, "role": role, "state": "running", "timeline": 3, **more}


WELL = [member("pg1", "leader"), member("pg2", "replica", state="streaming")]


@pytest.mark.parametrize(
    "seen",
    [
        {"members": WELL[:1]},
        {"members": [WELL[0], member("pg2", "replica", state="starting")]},
        {"members": [WELL[0], member("pg2", "replica", timeline=2)]},
        {"members": [WELL[0], member("pg2", "leader")]},
        {"members": [member("pg1", "replica"), WELL[1]]},
        {"members": WELL, "pause": True},
        {"members": WELL, "scheduled_switchover": {"at": "2030-01-01T00:00:00+00:00"}},
    ],
)
def test_a_cluster_with_something_amiss_is_not_well(seen: dict[str, object]) -> None:
    assert not is_healthy(seen, ["pg1", "pg2"])
    assert is_healthy({"members": WELL}, ["pg1", "pg2"])


def test_patroni_without_the_library_for_etcd_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all(tmp_path)
    for name, first in {"etcd": "#!/bin/sh", "patroni": "#!/bin/false"}.items():
        (tmp_path / name).write_text(f"{first}\necho {name} 4.0.0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(ha_patroni, "_places", lambda name: [tmp_path / name])
    assert find_patroni() is None
    (tmp_path / "python").write_text("#!/bin/sh\necho 4.0.1\n")
    (tmp_path / "python").chmod(0o755)
    (tmp_path / "patroni").write_text(f"#!{tmp_path}/python\n")
    found = find_patroni()
    assert found is not None
    assert (found.version, found.etcd) == ((4, 0, 1), tmp_path / "etcd")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account to run servers")
def test_what_the_server_account_cannot_run_counts_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("etcd", "patroni"):
        (tmp_path / name).write_text("#!/bin/sh\necho 4.0.0\n")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setattr(ha_patroni, "_places", lambda name: [tmp_path / name])
    assert find_patroni() is None


@real
async def test_a_lost_host_is_started_by_what_its_settings_say(patroni: PatroniSandbox) -> None:
    (standby,) = patroni.others(await patroni.primary())
    patroni.kill_host(standby)
    assert patroni.host_pids(standby) == ()
    host = patroni.spec(standby).host
    assert host
    assert host.agent_pid
    for _ in range(2):  # the second time it runs already
        done = await run_program(host.agent_start, time_limit=LIMIT)
        assert (done.code, done.stderr) == (0, "")
        pid = patroni.agent_pid(standby)
        assert host.agent_pid.read_text() == f"{pid}\n"
    await patroni.healthy()
    assert patroni.agent_pid(standby) == pid


@real
@pytest.mark.parametrize("change", [{"pause": True}, {"loop_wait": 2}])
async def test_a_pause_and_a_changed_configuration_are_taken_back(
    patroni: PatroniSandbox, change: dict[str, object]
) -> None:
    agent = patroni.rest("pg1")
    status, _ = await agent.send("PATCH", "/config", change)
    assert status == 200
    await patroni.healthy()
    assert await agent.get("/config") == patroni.dcs
    assert patroni.dcs["ttl"] == 20
    assert "pause" not in await agent.get("/cluster")


@real
async def test_a_frozen_host_and_an_etcd_that_is_gone_come_back(patroni: PatroniSandbox) -> None:
    primary = await patroni.primary()
    patroni.freeze(patroni.others(primary)[0])
    before = patroni.etcd.pid
    await patroni.etcd.stop()
    assert working_in([patroni.etcd.folder]) == []
    await patroni.healthy()
    assert patroni.etcd.pid not in {None, before}
    assert await patroni.primary() == primary


@real
async def test_nobody_changes_anything_without_the_password(patroni: PatroniSandbox) -> None:
    stranger = PatroniRest(patroni.specs[0].rest, patroni.rest_user, "guessed")
    assert (await stranger.send("PATCH", "/config", {"pause": True}))[0] == 401
    assert await stranger.get("/cluster") is not None


def test_the_example_for_operators_is_yaml_before_it_is_filled_in() -> None:
    example = yaml.safe_load((EXAMPLES / "patroni.yml").read_text())
    dcs = example["bootstrap"]["dcs"]
    assert dcs["loop_wait"] + 2 * dcs["retry_timeout"] <= dcs["ttl"]
    assert dcs["maximum_lag_on_failover"] == 16 * 2**20
