"""What became of a change of roles: decided by who takes writes, whatever Patroni says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from postgres.cluster.patroni import follows
from postgres.cluster.patroni_verdict import (
    Asked,
    Move,
    may_begin,
    refusal,
    unknown,
    verdict,
)
from postgres.cluster.patroni_words import Answer, Overview
from postgres.cluster.words import Member, NodeSeen, Outcome, Role, Sender, Verdict

SWITCH = Move(leader="a", candidate="b")
FORCED = Move(leader="a", candidate="b", is_forced=True)
SUCCESS = Asked(answer=Answer(status=200, text='Successfully switched over to "b"'))
FAILED = Asked(answer=Answer(status=503, text="Switchover failed"))
STATUS_UNKNOWN = Asked(answer=Answer(status=503, text="Switchover status unknown"))
LOST = Asked(lost="Patroni on a: no answer in time")
NOT_YET = Asked()
ALL = (SUCCESS, FAILED, STATUS_UNKNOWN, LOST, NOT_YET)


def primary(name: str, timeline: int = 1) -> NodeSeen:
    return NodeSeen(name=name, region="", role=Role.PRIMARY, is_writable=True, timeline=timeline)


def standby(name: str) -> NodeSeen:
    return NodeSeen(name=name, region="", role=Role.STANDBY, timeline=1)


def gone(name: str) -> NodeSeen:
    return NodeSeen(name=name, region="", problem="connection refused")


def told(seen: tuple[NodeSeen, ...], move: Move, asked: Asked) -> Verdict | None:
    return verdict(seen, move, asked, seconds=2.5)


@pytest.mark.parametrize("asked", ALL)
@pytest.mark.parametrize("old", [gone("a"), standby("a")])
def test_the_candidate_alone_taking_writes_ends_it_whatever_was_said(
    asked: Asked, old: NodeSeen
) -> None:
    found = told((old, primary("b", 7)), SWITCH, asked)
    assert found is not None
    assert (found.outcome, found.primary, found.timeline) == (Outcome.DONE, "b", 7)
    assert (found.seconds, found.said, found.next_step) == (2.5, asked.said, "")


@pytest.mark.parametrize("asked", ALL)
@pytest.mark.parametrize("move", [SWITCH, FORCED])
@pytest.mark.parametrize(
    "seen",
    [
        (gone("a"), standby("b")),
        (standby("a"), standby("b")),
        (gone("a"), gone("b")),
        (primary("a"), primary("b")),
        (),
    ],
)
def test_none_or_two_taking_writes_is_never_an_end(
    asked: Asked, move: Move, seen: tuple[NodeSeen, ...]
) -> None:
    assert told(seen, move, asked) is None


@pytest.mark.parametrize("asked", [SUCCESS, STATUS_UNKNOWN, LOST, NOT_YET])
@pytest.mark.parametrize("move", [SWITCH, FORCED])
def test_the_old_primary_taking_writes_is_no_end_while_patroni_may_still_act(
    asked: Asked, move: Move
) -> None:
    assert told((primary("a"), standby("b")), move, asked) is None


def test_the_old_primary_taking_writes_after_patroni_gave_up_means_that_nothing_happened() -> None:
    found = told((primary("a", 3), standby("b")), SWITCH, FAILED)
    assert found is not None
    assert (found.outcome, found.primary, found.timeline) == (Outcome.NOTHING, "a", 3)
    assert "how far b is behind" in found.next_step


@pytest.mark.parametrize("text", ["Switchover failed", "Failover failed"])
def test_patronis_own_words_for_it_are_a_failure(text: str) -> None:
    assert Asked(answer=Answer(status=503, text=text)).has_failed
    assert not Asked(answer=Answer(status=200, text=text)).has_failed


@pytest.mark.parametrize(
    "text", ["Switchover status unknown", "failed to write switchover key into DCS", ""]
)
def test_other_words_are_no_failure_that_can_be_relied_on(text: str) -> None:
    assert not Asked(answer=Answer(status=503, text=text)).has_failed


@pytest.mark.parametrize("status", [307, 400, 401, 403, 404, 412, 422])
def test_what_a_client_did_wrong_is_refused_before_anything_happened(status: int) -> None:
    assert Asked(answer=Answer(status=status, text="x")).is_refused


@pytest.mark.parametrize("status", [200, 202, 500, 502, 503])
def test_a_server_error_is_no_refusal(status: int) -> None:
    assert not Asked(answer=Answer(status=status, text="x")).is_refused


def test_a_third_node_that_took_over_is_told_of() -> None:
    found = told((gone("a"), standby("b"), primary("c")), SWITCH, STATUS_UNKNOWN)
    assert found is not None
    assert (found.outcome, found.primary) == (Outcome.DONE, "c")
    assert "c took over instead of b" in found.next_step


def test_a_lost_primary_that_does_not_answer_is_to_be_kept_away_after_a_failover() -> None:
    found = told((gone("a"), primary("b")), FORCED, SUCCESS)
    assert found is not None
    assert found.next_step == (
        "a does not answer: keep applications away from it until it follows b."
    )
    back = told((standby("a"), primary("b")), FORCED, SUCCESS)
    assert back is not None
    assert back.next_step == ""


@pytest.mark.parametrize(
    ("seen", "who", "step"),
    [
        ((gone("a"), standby("b")), "", "No server takes writes."),
        ((primary("a"), standby("b")), "a", "Patroni may still carry the switchover out"),
        ((primary("a"), primary("b")), "", "a and b both take writes"),
    ],
)
def test_at_the_end_of_its_time_an_open_outcome_is_unknown(
    seen: tuple[NodeSeen, ...], who: str, step: str
) -> None:
    found = unknown(seen, SWITCH, LOST, seconds=60.0)
    assert (found.outcome, found.primary) == (Outcome.UNKNOWN, who)
    assert found.said == LOST.said
    assert step in found.next_step


@pytest.mark.parametrize("move", [SWITCH, FORCED])
def test_nothing_begins_while_two_servers_take_writes(move: Move) -> None:
    objection = may_begin((primary("a"), primary("b")), move)
    assert objection is not None
    assert objection.problem == "More than one server takes writes: a, b."


@pytest.mark.parametrize(
    ("seen", "problem"),
    [
        ((gone("a"), standby("b")), "a takes no writes, and no other server does."),
        ((standby("a"), standby("b"), primary("c")), "a takes no writes, c does."),
    ],
)
def test_a_switchover_begins_at_the_one_that_takes_writes(
    seen: tuple[NodeSeen, ...], problem: str
) -> None:
    objection = may_begin(seen, SWITCH)
    assert objection is not None
    assert objection.problem == problem
    assert may_begin((primary("a"), standby("b")), SWITCH) is None


def test_a_switchover_that_has_been_made_may_be_asked_for_again() -> None:
    assert may_begin((standby("a"), primary("b")), SWITCH) is None


def test_a_failover_is_not_forced_on_a_primary_that_takes_writes() -> None:
    objection = may_begin((primary("a"), standby("b")), FORCED)
    assert objection is not None
    assert "a still takes writes" in objection.problem
    assert may_begin((gone("a"), standby("b")), FORCED) is None


def test_a_failover_does_not_name_the_leader_as_newer_versions_make_it_a_switchover() -> None:
    assert (FORCED.path, dict(FORCED.body)) == ("/failover", {"candidate": "b"})
    assert (SWITCH.path, dict(SWITCH.body)) == ("/switchover", {"leader": "a", "candidate": "b"})


def member(
    name: str, *, role: str = "replica", state: str = "running", lag: int | None = 0, **tags: str
) -> Member:
    return Member(name=name, role=role, state=state, timeline=1, lag=lag, tags=tags)


LEADER = member("a", role="leader", lag=None)
NO_GOOD = "switchover is not possible: no good candidates have been found"


@pytest.mark.parametrize(
    ("said", "members", "why", "step"),
    [
        ("leader name does not match", (member("b", role="leader"),), "the leader is b, not a",
         "Look again"),
        ("candidate does not exists", (LEADER,), "b is no member", "Start Patroni on b"),
        ("candidate name does not match with sync_standby",
         (LEADER, member("b"), member("c", role="sync_standby")),
         "only a synchronous standby may take over: c", "Choose c."),
        ("switchover is not possible: can not find sync_standby", (LEADER, member("b")),
         "none is there", "Wait until a standby is synchronous."),
        (NO_GOOD, (LEADER,), "b is no member", "Start Patroni on b."),
        (NO_GOOD, (LEADER, member("b", nofailover="true")), "b is tagged nofailover", "tag"),
        (NO_GOOD, (LEADER, member("b", state="starting")), "b is starting", "until b streams"),
        (NO_GOOD, (LEADER, member("b", state="")), "b is in no known state", "until b streams"),
        (NO_GOOD, (LEADER, member("b", lag=2_000_000)),
         "b is 2000000 bytes behind, and maximum_lag_on_failover is 1048576", "caught up"),
        (NO_GOOD, (LEADER, member("b", lag=None)), "an unknown number of bytes", "caught up"),
        (NO_GOOD, (LEADER, member("b")), "agents may not reach b's REST API", "log on a and on b"),
    ],
)  # fmt: skip
def test_a_412_is_explained_by_what_the_members_said(
    said: str, members: tuple[Member, ...], why: str, step: str
) -> None:
    asked = Asked(answer=Answer(status=412, text=said))
    settings = {"maximum_lag_on_failover": "1048576"}
    error = refusal(asked, SWITCH, Overview(members=members), settings)
    assert error.problem.startswith(f"Patroni refused the switchover ({said}): ")
    assert why in error.problem
    assert step in error.next_step


@pytest.mark.parametrize(
    ("status", "problem", "step"),
    [
        (401, "does not know this user and password (401)", "restapi.authentication"),
        (403, "lets this machine change nothing: some words (403)", "restapi.allowlist"),
        (400, "Patroni refused the switchover: some words (400).", "`rest` address"),
        (307, "Patroni refused the switchover: some words (307).", "`rest` address"),
    ],
)
def test_other_refusals_say_what_to_do(status: int, problem: str, step: str) -> None:
    asked = Asked(answer=Answer(status=status, text="some words"))
    error = refusal(asked, SWITCH, Overview(members=()), {})
    assert problem in error.problem
    assert step in error.next_step


def sender(name: str, state: str = "streaming") -> Sender:
    return Sender(name=name, address="10.0.0.1", state=state, sync_state="async")


LEADS = replace(primary("b"), senders=(sender("a"),))
STREAMS = replace(standby("a"), receiver="streaming")


@pytest.mark.parametrize(
    ("own", "above", "why"),
    [
        (STREAMS, LEADS, ""),
        (STREAMS, gone("b"), "b is no primary that answers"),
        (STREAMS, standby("b"), "b is no primary that answers"),
        (gone("a"), LEADS, "it does not answer (connection refused)"),
        (primary("a"), LEADS, "it is a primary itself"),
        (replace(STREAMS, timeline=7), LEADS, "it is on timeline 7, not 1"),
        (replace(STREAMS, receiver=""), LEADS, "it does not stream"),
        (STREAMS, replace(LEADS, senders=()), "it does not stream"),
        (STREAMS, replace(LEADS, senders=(sender("c"),)), "it does not stream"),
        (STREAMS, replace(LEADS, senders=(sender("a", "catchup"),)), "it does not stream"),
    ],
)
def test_a_node_follows_when_both_sides_say_so(own: NodeSeen, above: NodeSeen, why: str) -> None:
    assert follows((own, above), "a", "b") == why
