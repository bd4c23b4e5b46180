"""What Patroni's answers are read as: those that were recorded, and those that are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postgres.cluster.patroni_words import (
    Answer,
    agent,
    clamped,
    configuration,
    history,
    in_force,
    overview,
    version,
)
from tests.postgres.cluster import patroni_answers as recorded

NOW = datetime(2026, 11, 23, 5, 6, 22, tzinfo=UTC)


def answer(text: str, *, status: int = 200, at: datetime | None = NOW) -> Answer:
    return Answer(status=status, text=text, at=at)


def test_a_leader_its_replica_and_a_schedule_are_read() -> None:
    found = overview(recorded.CLUSTER_3)
    assert found.leader == "pg1"
    assert [(m.name, m.role, m.state, m.timeline, m.lag) for m in found.members] == [
        ("pg1", "leader", "running", 2, None),
        ("pg2", "replica", "running", 2, 0),
    ]
    assert found.scheduled == "switchover at 2026-11-24T09:00:00+00:00 from pg1 to pg2"
    assert not found.is_paused


def test_an_unknown_lag_is_none_and_never_zero() -> None:
    stopping = overview(recorded.CLUSTER_3_STOPPING).member("pg2")
    assert stopping is not None
    assert (stopping.state, stopping.lag, stopping.timeline) == ("stopping", None, None)


def test_pause_sync_standby_and_pending_restarts_of_a_newer_version_are_read() -> None:
    found = overview(recorded.CLUSTER_4)
    assert found.is_paused
    assert found.pending_restart == ("pg1", "pg2")
    assert [m.role for m in found.members] == ["sync_standby", "leader"]
    assert found.scheduled == ""


def test_tags_are_texts_as_json_has_them() -> None:
    text = json.dumps({"members": [{"name": "a", "tags": {"nofailover": True, "zone": "x"}}]})
    member = overview(text).member("a")
    assert member is not None
    assert dict(member.tags) == {"nofailover": "true", "zone": "x"}


def test_an_agent_in_failsafe_mode_tells_its_age_by_its_own_clock() -> None:
    found = agent("pg1", answer(recorded.PRIMARY_3))
    assert (found.member.role, found.member.timeline) == ("leader", 2)
    assert found.version == (3, 0, 2)
    assert found.is_failsafe_active
    assert found.dcs_age == 20.0
    assert not found.is_paused


def test_the_age_is_unknown_without_the_clock_and_never_negative() -> None:
    assert agent("pg1", answer(recorded.PRIMARY_3, at=None)).dcs_age is None
    early = answer(recorded.PRIMARY_3, at=NOW - timedelta(hours=1))
    assert agent("pg1", early).dcs_age == 0.0


@pytest.mark.parametrize(
    ("text", "role"),
    [
        (recorded.REPLICA_3, "replica"),
        (recorded.SYNC_4, "sync_standby"),
        (recorded.CREATING_4, "uninitialized"),
        ('{"state": "running", "role": "primary"}', "leader"),
        ('{"state": "running", "quorum_standby": true}', "quorum_standby"),
        ('{"state": "running"}', ""),
    ],
)
def test_roles_of_all_versions_are_worded_alike(text: str, role: str) -> None:
    assert agent("x", answer(text)).member.role == role


def test_an_agent_tells_of_maintenance() -> None:
    assert agent("pg2", answer(recorded.REPLICA_3)).is_paused
    assert not agent("pg2", answer(recorded.SYNC_4)).is_paused


def test_a_pending_restart_is_read() -> None:
    assert agent("pg1", answer(recorded.SYNC_4)).is_pending_restart
    assert not agent("pg1", answer(recorded.REPLICA_3)).is_pending_restart


def test_a_configuration_is_flat() -> None:
    found = configuration(recorded.CONFIG)
    assert found["postgresql.parameters.max_connections"] == "50"
    assert found["postgresql.parameters.fsync"] == "off"
    assert found["failsafe_mode"] == "true"
    assert found["ttl"] == "5"


def test_a_ttl_that_is_too_small_is_clamped_by_a_newer_version_and_said() -> None:
    found = in_force(configuration(recorded.CONFIG), (4, 1, 5))
    assert (found["ttl"], found["asked.ttl"]) == ("20", "5")
    assert "asked.loop_wait" not in found


@pytest.mark.parametrize("running", [(3, 0, 2), (3, 1), ()])
def test_an_older_version_goes_by_what_is_stored(running: tuple[int, ...]) -> None:
    found = in_force(configuration(recorded.CONFIG), running)
    assert found["ttl"] == "5"
    assert "asked.ttl" not in found


def test_what_is_not_stored_is_patronis_default() -> None:
    found = in_force({}, (4, 1, 5))
    assert dict(found) == {"ttl": "30", "loop_wait": "10", "retry_timeout": "10"}


def test_parameters_of_postgresql_are_no_settings_of_patroni() -> None:
    assert not [name for name in in_force(configuration(recorded.CONFIG), ()) if "post" in name]


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ((30, 10, 10), (30, 10, 10)),
        ((5, 1, 3), (20, 1, 3)),
        ((30, 10, 30), (30, 1, 14)),
        ((20, 10, 6), (20, 8, 6)),
        ((0, 0, 0), (20, 1, 3)),
    ],
)
def test_times_are_clamped_as_patroni_does(
    asked: tuple[int, int, int], used: tuple[int, int, int]
) -> None:
    names = ("ttl", "loop_wait", "retry_timeout")
    found = clamped(dict(zip(names, asked, strict=True)))
    assert tuple(found[name] for name in names) == used


@settings(max_examples=40)
@given(st.tuples(*[st.integers(-5, 500)] * 3))
def test_clamped_times_always_keep_patronis_rule(asked: tuple[int, int, int]) -> None:
    found = clamped(dict(zip(("ttl", "loop_wait", "retry_timeout"), asked, strict=True)))
    assert found["loop_wait"] + 2 * found["retry_timeout"] <= found["ttl"]
    assert found["ttl"] >= 20
    assert found["loop_wait"] >= 1
    assert found["retry_timeout"] >= 3


def test_a_history_with_and_without_its_time_is_read_oldest_first() -> None:
    first, second = history(recorded.HISTORY)
    assert (first.timeline, first.lsn, first.leader) == (1, 50332040, "pg1")
    assert first.at == datetime(2026, 11, 23, 5, 5, 36, 984169, tzinfo=UTC)
    assert (second.timeline, second.at, second.leader) == (2, None, "")


def test_a_long_history_is_cut_at_its_old_end() -> None:
    found = history(json.dumps([[n, n, "x"] for n in range(1, 3000)]))
    assert len(found) == 1000
    assert found[-1].timeline == 2999


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{", "<html>", '{"members": 3}', '{"members": [3]}', '{"members": [{}]}',
     recorded.CLUSTER_3[:100], "[" * 100_000],
)  # fmt: skip
def test_half_an_overview_is_no_overview(text: str) -> None:
    with pytest.raises(ValueError):
        overview(text)


@pytest.mark.parametrize("text", ["", "{}", "[]", "<html>", recorded.PRIMARY_3[:200]])
def test_half_an_agent_is_no_agent(text: str) -> None:
    with pytest.raises(ValueError):
        agent("pg1", answer(text))


@pytest.mark.parametrize("text", ["", "{}", "[3]", "[[1, 2]]", '[["a", 2, "x"]]', "[[1, 2, 3, 4]"])
def test_half_a_history_is_no_history(text: str) -> None:
    with pytest.raises(ValueError):
        history(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["members", "name", "lag", "tags", "state", "role", "patroni", "version", "at",
             "scheduled_switchover", "dcs_last_seen", "timeline", "pause", "x"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("read", [overview, configuration, history])
@settings(max_examples=40)
@given(told=JSON)
def test_no_json_whatever_is_worse_than_a_value_error(
    read: Callable[[str], object], told: object
) -> None:
    try:
        read(json.dumps(told))
    except ValueError:
        return


@settings(max_examples=40)
@given(told=st.dictionaries(st.sampled_from(["role", "tags", "patroni", "dcs_last_seen"]), JSON))
def test_no_agent_whatever_is_worse_than_a_value_error(told: dict[str, object]) -> None:
    try:
        agent("pg1", answer(json.dumps({"state": "running"} | told)))
    except ValueError:
        return


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("4.1.5", (4, 1, 5)), ("3.0.2", (3, 0, 2)), ("4.0.0rc1", (4, 0, 0)), ("", ()), ("dev", ())],
)
def test_versions_are_numbers(text: str, numbers: tuple[int, ...]) -> None:
    assert version(text) == numbers


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (recorded.BAD_REQUEST, "Bad Request."),
        ('Successfully switched over to "pg1"', 'Successfully switched over to "pg1"'),
        ("<h1>Not here</h1>", "Not here"),
        ("two\nlines\x1b[0m", "two lines [0m"),
        ("x" * 5000, "x" * 300),
        ("", ""),
    ],
)
def test_words_are_one_line_without_the_page_around_them(text: str, said: str) -> None:
    assert answer(text).said == said
