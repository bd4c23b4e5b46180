"""The life of a request: no history, however odd, runs what was not agreed to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from approvals.events import (
    Asked,
    Begun,
    Cancelled,
    Event,
    Facts,
    Finished,
    GlassBroken,
    Happening,
    Manner,
    PlanChanged,
    Reopened,
    Request,
    Reviewed,
    SentBack,
    Swept,
    Voted,
    VoteWithdrawn,
)
from approvals.machine import FINAL, TRANSITIONS, decide, diagram
from approvals.policy_file import parse_policy
from approvals.tally import standing_votes
from approvals.words import Flag, Person, PersonId, PlanHash, RequestId, State, Verdict

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
POLICY = parse_policy(
    {
        "gates": [{"id": "dba", "groups": ["dba"], "approve": 2}, {"id": "sec", "groups": ["sec"]}],
        "expires_after": "4h",
        "approval_valid_for": "1h",
        "break_glass": {"groups": ["oncall"], "reviewers": ["sec"], "review_within": "1d"},
    }
)


def person(name: str, *groups: str, flags: tuple[Flag, ...] = ()) -> Person:
    return Person(id=PersonId(name), name=name, groups=frozenset(groups), flags=frozenset(flags))


ANA = person("ana", "dba", "sec", "oncall")
BEN, CLEO, DI = person("ben", "dba"), person("cleo", "dba", "sec"), person("di", "sec")
OLE = person("ole", "oncall")
BOT = person("bot", "dba", "sec", flags=(Flag.BOT,))
PEOPLE = {each.id: each for each in (ANA, BEN, CLEO, DI, OLE, BOT)}


def facts(at: datetime = NOON, *, gone: frozenset[PersonId] = frozenset()) -> Facts:
    people = {
        name: replace(each, groups=frozenset()) if name in gone else each
        for name, each in PEOPLE.items()
    }
    return Facts(at=at, policy=POLICY.values, policy_hash=POLICY.hash, people=people)


def asked() -> Request:
    event = Asked(
        by=ANA, request_id=RequestId(7), target="orders", plan_hash=PlanHash("h1"), attributes={}
    )
    outcome = decide(None, event, facts())
    assert outcome.request
    return outcome.request


def test_every_state_and_only_states_stand_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {after for moves in TRANSITIONS.values() for after in moves.values()} <= set(State)
    assert {
        State.DONE,
        State.FAILED,
        State.DENIED,
        State.CANCELLED,
        State.EXPIRED,
        State.REFUSED,
        State.CLOSED,
    } == FINAL


def test_the_diagram_draws_every_move() -> None:
    drawn = diagram()
    assert drawn.startswith("stateDiagram-v2\n    [*] --> pending\n")
    for state, moves in TRANSITIONS.items():
        for move, after in moves.items():
            assert f"    {state} --> {after}: {move}\n" in drawn


voters = st.sampled_from([ANA, BEN, CLEO, DI, BOT])
plans = st.sampled_from(["h1", "h1", "h1", "h2"])
approvals = st.builds(
    Voted, by=voters, verdict=st.just("approve"), seen_plan=st.one_of(st.none(), plans)
)
begins = st.builds(Begun, plan_hash=st.one_of(st.none(), plans))
ends = st.builds(Finished, ok=st.booleans())
rare: st.SearchStrategy[Happening] = st.one_of(
    st.builds(Voted, by=voters, verdict=st.sampled_from(["deny", "maybe"])),
    st.builds(VoteWithdrawn, by=voters),
    st.builds(Cancelled, by=st.sampled_from([ANA, BEN])),
    st.builds(Reopened, by=voters),
    st.builds(PlanChanged, by=voters, plan_hash=plans.map(PlanHash)),
    st.builds(GlassBroken, by=st.sampled_from([ANA, OLE, BEN]), reason=st.just("outage")),
    st.builds(Reviewed, by=st.sampled_from([ANA, OLE, DI, CLEO])),
    st.just(SentBack()),
    st.just(Swept()),
)
# Weighted: evenly drawn events end most histories before anything can start.
happenings: st.SearchStrategy[Happening] = st.one_of(
    approvals, approvals, approvals, approvals, begins, begins, ends, rare
)
steps = st.tuples(
    happenings, st.sampled_from([0, 0, 0, 0, 1, 30, 70]), st.booleans()
)  # what, minutes later, whether Ben has left

VOTES: list[tuple[Happening, int, bool]] = [
    (Voted(by=who, verdict="approve"), 0, False) for who in (BEN, CLEO, DI)
]
GLASS: tuple[Happening, int, bool] = (GlassBroken(by=OLE, reason="outage"), 0, False)
BEGUN: tuple[Happening, int, bool] = (Begun(), 0, False)
# Half of the histories begin where the interesting things happen.
openings = st.sampled_from([[], [], VOTES, [*VOTES, BEGUN], [GLASS, BEGUN]])
histories = st.tuples(openings, st.lists(steps, max_size=12)).map(lambda two: [*two[0], *two[1]])


def test_no_history_runs_twice_or_unagreed_or_comes_back() -> None:
    reached: Counter[State] = Counter()

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(history=histories)
    @example(history=[*VOTES, BEGUN, BEGUN])
    @example(history=[*VOTES, (Begun(), 0, True), BEGUN])
    @example(history=[*VOTES, (Begun(), 70, False)])
    @example(history=[*VOTES, (PlanChanged(by=ANA, plan_hash=PlanHash("h2")), 0, False), BEGUN])
    @example(history=[GLASS, BEGUN, BEGUN])
    @example(history=[GLASS, BEGUN, (Finished(ok=True), 0, False), (Reviewed(by=ANA), 0, False)])
    @example(history=[GLASS, BEGUN, (Finished(ok=True), 0, False), (Reviewed(by=DI), 0, False)])
    def holds(history: list[tuple[Happening, int, bool]]) -> None:
        _play(history, reached)

    holds()
    # What the histories never reach, they say nothing about.
    assert {state for state, times in reached.items() if times >= 3} >= set(State) - {
        State.REFUSED,
        State.CLOSED,
    }


def _play(history: list[tuple[Happening, int, bool]], reached: Counter[State]) -> None:
    request, now, runs = asked(), NOON, 0
    for event, minutes, ben_is_gone in history:
        now += timedelta(minutes=minutes)
        gone = frozenset({BEN.id}) if ben_is_gone else frozenset()
        before, outcome = request, decide(request, event, facts(now, gone=gone))
        assert outcome.request
        request = outcome.request
        reached[request.state] += 1
        _check_step(before, event, request, ok=outcome.refusal is None)
        if isinstance(event, Begun) and outcome.refusal is None:
            runs += 1
            if request.glass is None:
                _check_agreed(request, gone, now)
    assert runs <= 1


def _check_step(before: Request, event: Event, after: Request, *, ok: bool) -> None:
    if before.state in FINAL:
        assert after == before
    if before.state is not after.state:
        reachable = set(TRANSITIONS[before.state].values())
        further = {state for each in reachable for state in TRANSITIONS[each].values()}
        assert after.state in reachable | further
    if isinstance(event, Reviewed) and ok:
        assert event.by not in (ANA, OLE)


def _check_agreed(request: Request, gone: frozenset[PersonId], now: datetime) -> None:
    yes = {
        vote.person
        for vote in standing_votes(request.votes)
        if vote.verdict is Verdict.APPROVE
        and vote.plan_hash == request.plan_hash
        and vote.person not in request.authors
        and vote.person not in gone
    }
    assert ANA.id not in yes
    assert BOT.id not in {vote.person for vote in request.votes}
    assert len(yes & {BEN.id, CLEO.id}) >= 2 or request.authors & {BEN.id, CLEO.id}
    assert len(yes) >= 3
    assert now < (request.approval_expires_at or now)


@given(
    by=st.sampled_from([ANA, BEN, CLEO, DI, BOT, OLE]),
    manner=st.builds(
        Manner,
        signed=st.booleans(),
        reading=st.booleans(),
        as_person=st.sampled_from([None, "ben", "BEN", "cleo"]),
        sets_policy=st.booleans(),
        directory_up=st.booleans(),
    ),
    verdict=st.sampled_from(["approve", "deny", "withdrawn", "", "APPROVE"]),
)
def test_nothing_counts_that_did_not_come_properly(
    by: Person, manner: Manner, verdict: str
) -> None:
    request = asked()
    outcome = decide(request, Voted(by=by, verdict=verdict), replace(facts(), manner=manner))
    proper = (
        manner.signed
        and not manner.reading
        and manner.as_person in (None, by.id, by.id.upper())
        and not manner.sets_policy
        and manner.directory_up
    )
    if outcome.vote:
        assert proper
        assert by not in (BOT, OLE)
        assert by is not ANA or verdict == "deny"
    else:
        assert outcome.request == request


def test_a_request_can_be_granted_at_all() -> None:
    request = asked()
    for event, _, _ in VOTES:
        request = decide(request, event, facts()).request or request
    assert request.state is State.APPROVED
