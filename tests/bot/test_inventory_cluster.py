"""How the inventory names a cluster's servers and what may be done to them, right and wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from approvals.words import BadInputError
from bot.inventory import parse_inventory
from jobs.cluster_settings import ClusterSettings, DrillKind, DrillSettings, FailoverLimits
from postgres.cluster.words import ClusterKind, HostSettings

START = """
policy: policy.yml
databases:
  orders:
    dsn: postgresql://db1/orders
    environment: production
    tier: critical
    channel: C0DBOPS
    backup_folder: backups/orders
    cluster:
"""
PATRONI = """
      kind: patroni
      user: twokey
      password: env:REST_PASSWORD
      ca: rest.pem
      endpoint: postgresql://app:word@haproxy:5000/orders
      nodes:
        - {name: east, region: us-east-1, dsn: 'postgresql://db1/orders', rest: 'http://10.0.0.1:8008'}
        - name: west
          dsn: env:WEST_DSN
          rest: https://10.0.0.2:8008
          host:
            {via: [ssh, db2], data: /srv/pg, programs: /usr/lib/postgresql/15/bin,
             agent_pid: /run/patroni.pid, agent_start: [systemctl, start, patroni]}
"""
REST = """
      bouncers: [{admin: 'postgresql://admin:secret@pgb:6432/pgbouncer', database: orders}]
      limits: {lag_bytes: 1MB, lag: 2s, reply_age: 3s, transaction_age: 4m, backup_age: 5h,
               timeout: 30s, pause: 6s}
      drills: {kinds: [primary-crash, switchover], kind: switchover, every: 30d, rto: 2m, rpo: 5s,
               hard_limit: 10m, schedule: '0 4 1 * *', zone: Europe/Zurich}
"""
ENVIRON = {"REST_PASSWORD": "rest", "WEST_DSN": "postgresql://db2/orders"}


def cluster(text: str) -> ClusterSettings:
    inventory = parse_inventory(START + text, path=Path("/etc/twokey/twokey.yml"), environ=ENVIRON)
    found = inventory.databases["orders"].cluster
    assert found is not None
    return found


def test_everything_that_can_be_said_is_understood() -> None:
    found = cluster(PATRONI + REST)
    assert (found.kind, found.user, found.ca) == (
        ClusterKind.PATRONI, "twokey", Path("/etc/twokey/rest.pem"),
    )  # fmt: skip
    assert found.password is not None
    assert found.password.get_secret_value() == "rest"
    east, west = found.nodes
    assert (east.name, east.region, east.rest) == ("east", "us-east-1", "http://10.0.0.1:8008")
    assert west.dsn.get_secret_value() == "postgresql://db2/orders"
    assert east.host is None
    assert west.host == HostSettings(
        via=("ssh", "db2"),
        data=Path("/srv/pg"),
        programs=Path("/usr/lib/postgresql/15/bin"),
        agent_pid=Path("/run/patroni.pid"),
        agent_start=("systemctl", "start", "patroni"),
    )
    assert [each.database for each in found.bouncers] == ["orders"]
    assert found.limits == FailoverLimits(
        lag_bytes=2**20,
        lag=timedelta(seconds=2),
        reply_age=timedelta(seconds=3),
        transaction_age=timedelta(minutes=4),
        backup_age=timedelta(hours=5),
        timeout=timedelta(seconds=30),
        pause=timedelta(seconds=6),
    )
    assert found.drills == DrillSettings(
        kinds=(DrillKind.PRIMARY_CRASH, DrillKind.SWITCHOVER),
        kind=DrillKind.SWITCHOVER,
        schedule="0 4 1 * *",
        zone="Europe/Zurich",
        every=timedelta(days=30),
        rto=timedelta(minutes=2),
        rpo=timedelta(seconds=5),
        hard_limit=timedelta(minutes=10),
    )


def test_without_more_the_guides_figures_hold_and_nothing_may_be_lost_on_purpose() -> None:
    found = cluster(PATRONI)
    assert found.limits.timeout == timedelta(seconds=60)
    assert found.drills == DrillSettings(schedule="")
    assert found.drills.rpo == timedelta(seconds=60)
    assert not found.is_sandbox


def test_synchronous_replication_may_lose_nothing() -> None:
    found = cluster(PATRONI + "      synchronous: true\n      drills: {kinds: [host-loss]}\n")
    assert found.drills == replace(
        DrillSettings(), kinds=(DrillKind.HOST_LOSS,), kind=DrillKind.HOST_LOSS, rpo=timedelta(0)
    )
    assert found.drills.schedule == "0 0 1 */3 *"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (PATRONI.replace("name: west", "name: east"), "each node needs a name of its own"),
        (PATRONI.replace(", rest: 'http://10.0.0.1:8008'", ""), "node east needs `rest`"),
        (PATRONI.replace("http://10.0.0.1:8008", "10.0.0.1:8008"), "rest"),
        (PATRONI + "      drills: {kinds: [network-split]}\n", "sandbox: true"),
        (PATRONI + "      drills: {kinds: [earthquake]}\n", "kinds"),
        (PATRONI + "      drills: {kinds: [switchover], kind: host-loss}\n", "not among"),
        (PATRONI + "      drills: {kinds: [switchover], schedule: often}\n", "cluster"),
        (PATRONI.replace("env:WEST_DSN", "env:NOBODY"), "NOBODY is not set"),
        ("      kind: pair\n      nodes: [{name: a, dsn: 'postgresql://a/b'}]\n", "two nodes"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(BadInputError) as caught:
        cluster(text)
    assert "databases.orders.cluster" in caught.value.problem
    assert problem in caught.value.problem
    assert caught.value.next_step


def test_the_example_of_the_tree_is_understood() -> None:
    example = (Path(__file__).parents[2] / "twokey.example.yml").read_text()
    begin = example.index("    # cluster:")
    lines = [each[6:] for each in example[begin : example.index("\n\n", begin)].splitlines()[1:]]
    text = "\n".join(f"    {each}" for each in lines if not each.lstrip().startswith("#"))
    environ = dict.fromkeys(re.findall(r"env:(\w+)", text), "postgresql://a/b")
    path = Path("/etc/twokey/twokey.yml")
    found = parse_inventory(START + text, path=path, environ=environ).databases["orders"].cluster
    assert found is not None
    assert found.limits == FailoverLimits()
    assert [each.name for each in found.nodes] == ["east", "west"]
