"""Which server is the database now, and what leads there: by values alone."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from jobs.cluster_settings import ClusterNode, ClusterSettings
from jobs.health_settings import MonitoringSettings, Node, Volume
from jobs.operation import Database, Tier
from jobs.routing import NoRouteError, choose, closed, refusal_of, routed
from postgres.cluster.words import ClusterKind, NodeSeen, Role
from postgres.dsn import parse_dsn

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EAST = "postgresql://monitor:m@10.0.0.1:5433/postgres"
WEST = "postgresql://monitor:m@10.0.0.2/postgres?sslmode=verify-full&sslrootcert=/west.crt"


def node(name: str, dsn: str) -> ClusterNode:
    return ClusterNode(name=name, dsn=SecretStr(dsn), region=f"of {name}")


def database(dsn: str, **more: object) -> Database:
    made = Database(
        name="orders",
        dsn=SecretStr(dsn),
        environment="production",
        tier=Tier.CRITICAL,
        channel="C0ORDERS",
        backup_folder=Path("/backups"),
        region="home",
        cluster=ClusterSettings(
            kind=ClusterKind.PAIR, nodes=(node("east", EAST), node("west", WEST))
        ),
    )
    return replace(made, **more)  # type: ignore[arg-type]


def words(dsn: SecretStr | None) -> dict[str, str]:
    assert dsn is not None
    return dict(parse_dsn(dsn.get_secret_value()).words)


def seen(name: str, role: str, timeline: int | None = 3, system: str = "7") -> NodeSeen:
    if role == "gone":
        return NodeSeen(name=name, region="", problem="connection refused by 10.0.0.1:5432")
    is_primary = role in {"writes", "closed"}
    return NodeSeen(
        name=name,
        region="",
        role=Role.PRIMARY if is_primary else Role.STANDBY,
        is_writable=role == "writes",
        timeline=timeline,
        system_identifier=system,
    )


def chosen(*nodes: NodeSeen, kind: ClusterKind = ClusterKind.PAIR, **newest: int) -> str:
    known = {name.removeprefix("s"): timeline for name, timeline in newest.items()}
    return choose("orders", nodes, kind=kind, newest=known).name


@pytest.mark.parametrize(
    "nodes",
    [
        (seen("a", "writes"), seen("b", "follows")),
        (seen("a", "writes"), seen("b", "gone")),
        (seen("b", "follows", 2), seen("a", "writes")),
        (seen("b", "follows", None), seen("a", "writes")),
        (seen("b", "closed"), seen("a", "writes")),
        (seen("b", "follows", system=""), seen("a", "writes")),
        (seen("b", "follows"), seen("a", "writes", system="")),
        (seen("a", "writes"),),
    ],
)
def test_the_one_that_takes_writes_is_the_database(nodes: tuple[NodeSeen, ...]) -> None:
    assert chosen(*nodes) == "a"
    assert chosen(*nodes, s7=3) == "a"


def test_two_names_of_one_server_are_one() -> None:
    alike = replace(seen("a", "writes"), started_at=NOON)
    assert chosen(alike, replace(alike, name="b")) == "a"


@pytest.mark.parametrize(
    ("nodes", "problem", "next_step"),
    [
        (
            (seen("a", "writes", 3), seen("b", "writes", 4)),
            "orders: a and b both take writes",
            "b was promoted last",
        ),
        (
            (seen("a", "gone"), seen("b", "follows")),
            "No server of orders takes writes: a does not answer .connection refused.*b is a stand",
            "/db replication orders.* /db failover with forced=true",
        ),
        ((seen("a", "follows"), seen("b", "follows")), "a and b are standbys", "/db replication"),
        ((seen("a", "closed"), seen("b", "follows")), "default_transaction_read_only", "closed it"),
        (
            (seen("a", "writes", 3), seen("b", "follows", 4)),
            "a takes writes on timeline 3, but b is on 4: .* old primary",
            "Keep applications away from a",
        ),
        (
            (seen("a", "writes"), seen("b", "follows", system="8")),
            "b is no copy of it: which of them is orders",
            "mend the DSNs",
        ),
        (
            (seen("a", "writes", None), seen("b", "gone")),
            "does not say on which",
            "/db replication",
        ),
        ((), "No server of orders", "/db replication"),
    ],
)
def test_what_is_refused_says_what_to_do(
    nodes: tuple[NodeSeen, ...], problem: str, next_step: str
) -> None:
    with pytest.raises(NoRouteError, match=problem) as caught:
        chosen(*nodes)
    assert re.search(next_step, caught.value.next_step)


def test_an_old_primary_that_comes_back_alone_is_known_by_what_was_seen_before() -> None:
    with pytest.raises(NoRouteError, match="this cluster has been seen on 4"):
        chosen(seen("a", "writes", 3), seen("b", "gone"), s7=4)
    assert chosen(seen("a", "writes", 3), seen("b", "gone"), s8=4) == "a"  # another cluster's


def test_patroni_is_left_its_time() -> None:
    with pytest.raises(NoRouteError) as caught:
        chosen(seen("a", "gone"), seen("b", "follows"), kind=ClusterKind.PATRONI)
    assert "Patroni promotes a standby by itself" in caught.value.next_step


roles = st.sampled_from(["writes", "writes", "follows", "follows", "closed", "gone"])
lines = st.one_of(st.none(), st.integers(1, 4))
systems = st.sampled_from(["7", "7", "7", "", "8"])
servers = st.lists(st.tuples(roles, lines, systems), max_size=4)


@given(servers)
@example([("writes", 3, "7"), ("follows", 3, "7")])
@example([("follows", 2, "7"), ("gone", 1, "7"), ("writes", 2, "7")])
def test_nothing_is_chosen_beside_another_that_writes_or_is_newer(
    drawn: list[tuple[str, int | None, str]],
) -> None:
    nodes = tuple(seen(f"n{at}", *each) for at, each in enumerate(drawn))
    writers = [each for each in nodes if each.is_writable]
    try:
        found = chosen(*nodes)
    except NoRouteError:
        is_alone = len(writers) == 1 and writers[0].timeline is not None
        is_newest = is_alone and all(
            (each.timeline or 0) <= (writers[0].timeline or 0) for each in nodes
        )
        assert not (is_newest and len({each.system_identifier for each in nodes} - {""}) < 2)
    else:
        assert [each.name for each in writers] == [found]
        assert max(each.timeline or 0 for each in nodes) == writers[0].timeline


def test_place_and_trust_are_the_nodes_and_the_rest_is_the_databases_own() -> None:
    given_dsn = (
        "postgresql://app:p%40ss@proxy:6432/shop?sslmode=require&sslcert=/me.crt&sslkey=/me.key"
        "&options=-c%20work_mem%3D8MB&application_name=x"
    )
    own = {
        "user": "app", "password": "p@ss", "dbname": "shop", "sslcert": "/me.crt",
        "sslkey": "/me.key", "options": "-c work_mem=8MB", "application_name": "x",
    }  # fmt: skip
    west = routed(database(given_dsn), "west")
    assert words(west.dsn) == own | {
        "host": "10.0.0.2", "sslmode": "verify-full", "sslrootcert": "/west.crt",
    }  # fmt: skip
    assert west.region == "of west"
    # What the node leaves open is as safe as the endpoint was.
    east = routed(database(given_dsn), "east")
    assert words(east.dsn) == own | {"host": "10.0.0.1", "port": "5433", "sslmode": "require"}


def test_a_database_named_after_its_user_stays_that() -> None:
    assert words(routed(database("postgresql://app@proxy"), "east").dsn)["dbname"] == "app"


def test_who_only_looks_goes_there_too_with_a_login_of_its_own() -> None:
    looks = MonitoringSettings(dsn=SecretStr("postgresql://looker@proxy/shop"))
    found = routed(database("postgresql://app@proxy/shop", monitoring=looks), "west")
    assert words(found.monitoring.dsn)["user"] == "looker"
    assert words(found.monitoring.dsn)["host"] == "10.0.0.2"


def test_the_old_primary_is_a_replica_then() -> None:
    west = Node(name="west", dsn=SecretStr("postgresql://looker@10.0.0.2/shop"), region="r")
    far = Node(name="far", dsn=SecretStr("postgresql://looker@10.9.9.9/shop"))
    made = database("postgresql://app@10.0.0.1:5433/shop", replicas=(west, far))
    assert routed(made, "east").replicas == (west, far)
    first, second = routed(made, "west").replicas
    assert (first.name, first.region) == ("east", "of east")
    assert words(first.dsn) == {
        "user": "looker", "dbname": "shop", "host": "10.0.0.1", "port": "5433",
    }  # fmt: skip
    assert second == far


def test_a_replica_is_known_by_where_it_leads_whatever_it_is_called() -> None:
    standby = Node(name="the standby", dsn=SecretStr("postgresql://looker@10.0.0.2:5432/shop"))
    made = database("postgresql://app@proxy/shop", replicas=(standby,))
    assert [each.name for each in routed(made, "west").replicas] == ["east"]
    assert routed(made, "east").replicas == (standby,)


def test_where_all_nodes_are_named_as_replicas_the_primary_is_none() -> None:
    both = tuple(
        Node(name=name, dsn=SecretStr(dsn)) for name, dsn in (("east", EAST), ("west", WEST))
    )
    made = database("postgresql://app@proxy/shop", replicas=both)
    assert [each.name for each in routed(made, "east").replicas] == ["west"]
    assert [each.name for each in routed(made, "west").replicas] == ["east"]


def test_nobody_is_made_a_replica_where_none_was_named() -> None:
    assert routed(database("postgresql://app@10.0.0.1:5433/shop"), "west").replicas == ()


def test_the_disk_of_one_server_is_not_anothers() -> None:
    volume = Volume(path=Path("/data"), wal_path=Path("/wal"), total_bytes=5)
    looks = MonitoringSettings(volume=volume)
    direct = database("postgresql://app@10.0.0.1:5433/shop", monitoring=looks)
    assert routed(direct, "east").monitoring.volume == volume
    assert routed(direct, "west").monitoring.volume == Volume(total_bytes=5)
    behind = database("postgresql://app@proxy/shop", monitoring=looks)
    assert routed(behind, "west").monitoring.volume == volume


def test_without_a_cluster_nothing_changes() -> None:
    plain = database("postgresql://app@proxy/shop", cluster=None)
    assert routed(plain, "east") is plain


def test_what_leads_nowhere_says_so_to_whoever_connects() -> None:
    looks = MonitoringSettings(dsn=SecretStr("postgresql://looker@proxy/shop"))
    refusal = NoRouteError("Nobody writes.", next_step="Wait.")
    nowhere = closed(database(EAST, monitoring=looks), refusal)
    assert refusal_of(nowhere) is refusal
    assert refusal_of(database(EAST)) is None
    for dsn in (nowhere.dsn, nowhere.monitoring.dsn):
        assert dsn is not None
        with pytest.raises(NoRouteError, match=r"Nobody writes\.") as caught:
            dsn.get_secret_value()
        assert caught.value.next_step == "Wait."
        assert dsn != SecretStr(EAST)
        assert SecretStr("") != dsn
        assert EAST not in repr(nowhere)


@pytest.mark.parametrize("name", ["east", "west"])
@given(
    user=st.text(min_size=1, max_size=8), password=st.text(min_size=1, max_size=8),
    dbname=st.text(min_size=1, max_size=8),
)  # fmt: skip
def test_no_name_or_password_is_changed_on_the_way(
    name: str, user: str, password: str, dbname: str
) -> None:
    login = ":".join(quote(each, safe="") for each in (user, password))
    made = database(f"postgresql://{login}@proxy:1/{quote(dbname, safe='')}")
    once = routed(made, name)
    found = words(once.dsn)
    assert (found["user"], found["password"], found["dbname"]) == (user, password, dbname)
    # What is routed may be routed again: to where it leads already, or on.
    assert words(routed(once, name).dsn) == found
