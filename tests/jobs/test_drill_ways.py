"""Which disaster may be rehearsed on which servers: everything that is not allowed is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from jobs.cluster_settings import ClusterNode, ClusterSettings, DrillKind, DrillSettings
from jobs.drill_ways import WAYS, Hits, allowed, drill_checks, leaves, risk_of, victim_of
from jobs.operation import Risk
from postgres.cluster.checks import Check
from postgres.cluster.words import (
    ClusterKind,
    ClusterSeen,
    HostSettings,
    NodeSeen,
    NodeSpec,
    Sender,
)
from postgres.dsn import parse_dsn
from tests.jobs.cluster_pictures import away, primary, standby

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
EAST, WEST, NORTH = "east", "west", "north"
KINDS = st.sampled_from(DrillKind)
HOST = HostSettings(
    data=Path("/data"), programs=Path("/usr/bin"), agent_pid=Path("/run/agent"),
    agent_start=("start",), network_cut=("cut",), network_mend=("mend",),
)  # fmt: skip
EAST_SPEC = NodeSpec(
    name=EAST, target=parse_dsn("postgresql://u@east.example/x"), rest="http://east:8008", host=HOST
)


def settings(*kinds: DrillKind, **words: object) -> ClusterSettings:
    nodes = tuple(
        ClusterNode(name=name, dsn=SecretStr(f"postgresql://u@{name}.example/x"))
        for name in (EAST, WEST)
    )
    usual = ClusterSettings(
        kind=ClusterKind.PATRONI, nodes=nodes, drills=DrillSettings(kinds=kinds), is_sandbox=True
    )
    return replace(usual, **words)  # type: ignore[arg-type]


def sender(name: str, state: str = "streaming", sync_state: str = "async") -> Sender:
    return Sender(name=name, address="10.0.0.2", state=state, sync_state=sync_state)


def seen(*others: NodeSeen, senders: tuple[Sender, ...] | None = None) -> ClusterSeen:
    """East writes; all others stream unless it is said."""
    usual = tuple(sender(each.name) for each in others if each.is_reached)
    east = primary(EAST, senders=usual if senders is None else senders)
    return ClusterSeen(at=NOON, kind=ClusterKind.PATRONI, nodes=(east, *others))


def checks(
    cluster: ClusterSettings,
    kind: DrillKind,
    *,
    picture: ClusterSeen | None = None,
    victim: NodeSpec = EAST_SPEC,
    environment: str = "staging",
) -> dict[str, Check]:
    """By their names; each is there once."""
    found = drill_checks(
        cluster,
        picture or seen(standby(WEST)),
        kind=kind,
        victim=victim,
        candidate=WEST,
        environment=environment,
    )
    named = {each.name: each for each in found}
    assert len(named) == len(found)
    return named


@given(KINDS, st.sets(KINDS))
def test_a_kind_is_allowed_exactly_where_the_inventory_names_it(
    kind: DrillKind, kinds: set[DrillKind]
) -> None:
    check = allowed(settings(*sorted(kinds)), kind)
    assert check.is_met is (kind in kinds)
    assert not check.warns
    if kind not in kinds:
        assert f"[{kind}]" in check.next_step
        assert (", ".join(sorted(kinds)) or "none") in check.found


@given(KINDS)
def test_without_a_word_in_the_inventory_nothing_may_be_rehearsed(kind: DrillKind) -> None:
    assert not allowed(replace(settings(), drills=DrillSettings()), kind).is_met
    assert not checks(settings(), kind)["Kind of drill"].is_met


@pytest.mark.parametrize("is_sandbox", [True, False])
@pytest.mark.parametrize("kind", list(ClusterKind))
def test_a_split_is_for_sandboxes_of_patroni_alone(kind: ClusterKind, *, is_sandbox: bool) -> None:
    cluster = settings(DrillKind.NETWORK_SPLIT, is_sandbox=is_sandbox, kind=kind)
    check = checks(cluster, DrillKind.NETWORK_SPLIT)["A cluster to be broken"]
    assert check.is_met is (is_sandbox and kind is ClusterKind.PATRONI)


@given(KINDS)
def test_what_breaks_nothing_asks_no_machine(kind: DrillKind) -> None:
    bare = replace(EAST_SPEC, host=None)
    found = checks(settings(kind), kind, victim=bare)
    assert ("It can be injected" in found) is (WAYS[kind].fault is not None)
    if WAYS[kind].fault is not None:
        assert not found["It can be injected"].is_met
        assert checks(settings(kind), kind)["It can be injected"].is_met


@pytest.mark.parametrize(
    ("asked", "environment", "least"),
    [(None, "production", 2), (None, "staging", 1), (0, "production", 0), (3, "staging", 3)],
)
def test_so_many_must_be_well_beside_the_one_that_is_lost(
    asked: int | None, environment: str, least: int
) -> None:
    cluster = settings(drills=DrillSettings(leaves=asked))
    assert leaves(cluster, environment) == least


STATES = st.sampled_from(("streaming", "catchup", "away", "unknown to the primary"))


@given(KINDS, st.lists(STATES, min_size=1, max_size=4), st.integers(0, 4))
def test_who_is_lost_and_who_does_not_stream_does_not_count(
    kind: DrillKind, states: list[str], least: int
) -> None:
    names = [f"s{number}" for number, _ in enumerate(states)]
    picture = seen(
        *(
            away(name) if state == "away" else standby(name)
            for name, state in zip(names, states, strict=True)
        ),
        senders=tuple(
            sender(name, state)
            for name, state in zip(names, states, strict=True)
            if state in {"streaming", "catchup"}
        ),
    )
    hit = EAST if WAYS[kind].hits is not Hits.STANDBY else names[0]
    lost = hit if WAYS[kind].fault else ""
    streams = [name for name, state in zip(names, states, strict=True) if state == "streaming"]
    well = len({EAST, *streams} - {lost})
    cluster = settings(kind, drills=DrillSettings(kinds=(kind,), leaves=least))
    check = checks(cluster, kind, picture=picture, victim=replace(EAST_SPEC, name=hit))
    assert check["Blast radius"].is_met is (well >= least)
    assert check["Blast radius"].found.startswith(f"{well} of {len(names) + 1} servers are well")


def test_while_nobody_is_the_primary_nobody_is_well() -> None:
    nobody = ClusterSeen(
        at=NOON, kind=ClusterKind.PATRONI, nodes=(standby(EAST), standby(WEST), standby(NORTH))
    )
    both = replace(nobody, nodes=(primary(EAST), primary(WEST), standby(NORTH)))
    kind = DrillKind.HOST_LOSS
    for picture in (nobody, both):
        assert not checks(settings(kind), kind, picture=picture)["Blast radius"].is_met


@pytest.mark.parametrize(
    ("sync_state", "is_met"),
    [("sync", True), ("quorum", True), ("async", False), ("potential", False), (None, False)],
)
@pytest.mark.parametrize("kind", [kind for kind in DrillKind if WAYS[kind].moves_primary])
def test_where_no_row_may_be_lost_the_candidate_must_be_synchronous(
    kind: DrillKind, sync_state: str | None, *, is_met: bool
) -> None:
    senders = (sender(WEST, sync_state=sync_state),) if sync_state else ()
    picture = seen(standby(WEST), senders=senders)
    cluster = settings(kind, is_synchronous=True)
    check = checks(cluster, kind, picture=picture)["Nothing can be lost"]
    assert check.is_met is is_met
    assert (sync_state or "not connected") in check.found
    assert "Nothing can be lost" not in checks(settings(kind), kind, picture=picture)


@given(
    kind=KINDS,
    environment=st.sampled_from(["production", "staging", "test"]),
    is_synchronous=st.booleans(),
)
def test_in_production_each_kind_is_the_worst_and_elsewhere_losing_rows_is(
    kind: DrillKind, environment: str, *, is_synchronous: bool
) -> None:
    risk = risk_of(kind, environment, is_synchronous=is_synchronous)
    way = WAYS[kind]
    loses = bool(way.fault and way.moves_primary and not is_synchronous)
    assert (risk is Risk.DESTRUCTIVE) is (environment == "production" or loses)
    assert risk is not Risk.NONE


@given(KINDS)
def test_the_primary_is_hit_the_standby_or_nobody(kind: DrillKind) -> None:
    hit = victim_of(kind, leader=EAST, candidate=WEST)
    assert hit == {Hits.PRIMARY: EAST, Hits.STANDBY: WEST, Hits.NOBODY: ""}[WAYS[kind].hits]
    assert WAYS[kind].moves_primary is (hit == EAST)
