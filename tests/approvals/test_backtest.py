"""The past under another policy: what is granted earlier, later, never, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from approvals.backtest import Effect, Past, Replayed, Summary, backtest, replay
from approvals.history import glance, pasts, would_move
from approvals.policy_file import parse_policy
from approvals.tally import Vote
from approvals.words import (
    Care,
    Door,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    State,
    Verdict,
)
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    KEYS,
    NOON,
    Clock,
    a_ballot,
    an_ask,
    approvals_on,
    policy_of,
)

DBA = {"id": "dba", "groups": ["dba"]}
PAINT = {"operation": "paint", "risk": "none"}


def vote(who: str, minutes: int, *groups: str, **more: Any) -> Vote:
    values: dict[str, Any] = {
        "person": PersonId(who),
        "seat": PersonId(who),
        "verdict": Verdict.APPROVE,
        "at": NOON + timedelta(minutes=minutes),
        "plan_hash": PlanHash("h"),
        "policy_hash": PolicyHash("p"),
        "step": 0,
        "groups": frozenset(groups),
        "identities": frozenset({who}),
        "reason": "fine",
        "door": Door.SLACK,
        **more,
    }
    return Vote(**values)


def a_past(*votes: Vote, **more: Any) -> Past:
    values: dict[str, Any] = {
        "id": RequestId(7),
        "state": State.DONE,
        "operation": "paint",
        "database": "orders",
        "requesters": frozenset({PersonId("ana")}),
        "authors": frozenset({PersonId("ana")}),
        "plan_hash": PlanHash("h"),
        "attributes": PAINT,
        "rule": "rule",
        "asked_at": NOON,
        "expires_at": NOON + timedelta(days=7),
        "approved_at": votes[-1].at if votes else None,
        "votes": votes,
        **more,
    }
    return Past(**values)


def under(past: Past, **policy: Any) -> Replayed:
    rule = {"name": "rule", "gates": [DBA], **policy}
    return replay(past, parse_policy({"rules": [rule]}))


BEN_1, CLEO_5 = vote("ben", 1, "dba"), vote("cleo", 5, "dba")
TWO = a_past(BEN_1, CLEO_5)


def test_the_same_rule_changes_nothing() -> None:
    same = under(TWO, gates=[{**DBA, "approve": 2}])
    assert (same.effect, same.is_change) == (Effect.SAME, False)


def test_fewer_seats_grant_earlier() -> None:
    earlier = under(TWO)
    assert earlier.effect is Effect.EARLIER
    assert earlier.granted_after == BEN_1.at


def test_more_seats_are_not_filled_and_it_is_said_how_many_lack() -> None:
    never = under(TWO, gates=[{**DBA, "approve": 4}])
    assert (never.effect, never.needs) == (Effect.NEVER, "2 more of dba")
    assert never.who == "4 of dba"


def test_another_groups_gate_finds_nobody_in_it() -> None:
    never = under(TWO, gates=[DBA, {"id": "security", "groups": ["security"]}])
    assert (never.effect, never.needs) == (Effect.NEVER, "1 more of security")


def test_a_vote_that_comes_after_the_new_rules_time_does_not_count() -> None:
    never = under(TWO, gates=[{**DBA, "approve": 2}], expires_after="3m")
    assert never.effect is Effect.NEVER


def test_what_no_rule_allows_would_have_been_refused() -> None:
    refused = under(TWO, when={"operation": "backup"})
    assert (refused.effect, refused.rule_after) == (Effect.REFUSED, "")
    on_purpose = {"name": "no", "when": {"operation": "paint"}, "refuse": True}
    assert replay(TWO, parse_policy({"rules": [on_purpose]})).effect is Effect.REFUSED


def test_what_was_refused_would_have_waited_or_been_granted() -> None:
    past = a_past(state=State.REFUSED, rule="")
    assert under(past).effect is Effect.WAITING
    assert under(past, gates=[]).effect is Effect.ALLOWED
    assert under(past, when={"operation": "backup"}).effect is Effect.SAME


def test_a_denial_that_no_longer_denies_leaves_it_waiting() -> None:
    denied = a_past(vote("ben", 1, "dba", verdict=Verdict.DENY), state=State.DENIED)
    denied = Past(**{f: getattr(denied, f) for f in denied.__slots__} | {"approved_at": None})
    assert under(denied).effect is Effect.SAME
    assert under(denied, gates=[{**DBA, "deny": 2}]).effect is Effect.WAITING


def test_an_author_is_never_counted_by_a_replay() -> None:
    own = a_past(vote("ana", 1, "dba"), CLEO_5)
    assert under(own).granted_after == CLEO_5.at


def test_who_stood_in_counts_in_the_seat_of_who_was_away() -> None:
    stood_in = a_past(vote("sam", 1, "dba", seat=PersonId("abe"), identities=frozenset({"abe"})))
    assert under(stood_in).effect is Effect.SAME


def test_care_that_was_not_taken_would_have_been_missing() -> None:
    assert under(a_past(BEN_1), step_up=True).effect is Effect.NEVER
    careful = a_past(vote("ben", 1, "dba", care=frozenset({Care.STEP_UP})))
    assert under(careful, step_up=True).effect is Effect.SAME


def test_glass_that_could_not_have_been_broken_is_noted() -> None:
    past = a_past(state=State.CLOSED, broke_glass=True)
    assert under(past).notes == ("nobody could have broken the glass",)
    glass = {"groups": ["oncall"], "reviewers": ["security"]}
    assert under(past, break_glass=glass).notes == ()


def test_the_summary_tells_lead_times_of_what_both_grant() -> None:
    one = parse_policy({"rules": [{"name": "rule", "gates": [DBA]}]})
    found, summary = backtest([TWO, a_past(BEN_1)], one)
    assert [each.effect for each in found] == [Effect.EARLIER, Effect.SAME]
    assert summary.lead_seconds == (180.0, 60.0)
    assert summary.lines[0] == ("1 of 2 requests would be different: 1 same, 1 granted earlier.")


def test_nothing_sums_up_to_nothing() -> None:
    assert Summary.empty().lines == ("0 of 0 requests would be different.",)


async def test_the_store_gives_back_what_was_decided(store: Store) -> None:
    clock = Clock()
    approvals = approvals_on(store, policy_of(2), clock=clock)
    asked = await approvals.ask(an_ask())
    for voter in (BEN, CLEO):
        clock.forward(minutes=1)
        asked = await approvals.vote(a_ballot(asked, voter))
    async with store.begin() as conn:
        [past] = [each async for each in pasts(conn, KEYS)]
    assert (past.state, [each.person for each in past.votes]) == (
        State.APPROVED,
        [BEN.id, CLEO.id],
    )
    assert replay(past, policy_of(2)).effect is Effect.SAME
    assert replay(past, policy_of(1)).granted_after == NOON + timedelta(minutes=1)


async def test_votes_for_an_earlier_plan_are_not_replayed(store: Store) -> None:
    approvals = approvals_on(store, policy_of(2))
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert asked.request is not None
    await approvals.change_plan(asked.request.id, by=ANA, plan={"title": "other"}, delivery="")
    async with store.begin() as conn:
        [past] = [each async for each in pasts(conn, KEYS)]
    assert past.votes == ()


async def test_a_glance_keeps_few_and_counts_all(store: Store) -> None:
    approvals = approvals_on(store, policy_of(1))
    for _ in range(30):
        await approvals.vote(a_ballot(await approvals.ask(an_ask()), BEN))
    seen = await glance(store, KEYS, policy_of(2), since=NOON - timedelta(days=1), limit=1000)
    assert (seen.summary.looked_at, seen.summary.changed, len(seen.changes)) == (30, 30, 20)
    newest = await glance(store, KEYS, policy_of(2), since=NOON - timedelta(days=1), limit=7)
    assert newest.summary.looked_at == 7


async def test_open_requests_that_meet_another_rule_are_counted(store: Store) -> None:
    approvals = approvals_on(store, policy_of(1))
    await approvals.ask(an_ask())
    other = await approvals.ask(an_ask())
    assert other.request is not None
    await approvals.cancel(other.request.id, by=ANA, door=Door.SLACK, delivery="")
    old, new = policy_of(1).values, policy_of(2).values
    assert await would_move(store, KEYS, old, new, limit=100) == (1, 1)
    assert await would_move(store, KEYS, old, old, limit=100) == (0, 1)
