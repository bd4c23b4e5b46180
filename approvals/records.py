"""A request as it is stored and shown: the row, its votes, and what they amount to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from approvals.detail import Detail, GlassDetail
from approvals.events import Glass, Request
from approvals.missing import Need, needs_in_words
from approvals.plans import canonical, sha256
from approvals.rules import Gate, Policy, Rule
from approvals.signing import Signature, VoteKeys
from approvals.tally import Ballots, Vote, count, standing_votes
from approvals.words import (
    Care,
    Door,
    GateId,
    PersonId,
    PlanHash,
    PolicyHash,
    RequestId,
    RunId,
    State,
    Verdict,
)

# In `votes.groups`, besides the groups: whose seat it was, and that person's identities.
_SEAT: Final = "="
_IDENTITY: Final = "@"
# And what the voter did besides deciding: `approvals.words.Care`.
_CARE: Final = "!"


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRecord:
    """A stored vote. `is_signed`: one of our keys made its signature.

    `is_lapsed`: it says that a key signed it which we do not have.
    """

    id: int
    person: PersonId
    seat: PersonId
    slack: str
    verdict: Verdict
    reason: str
    door: Door
    at: datetime
    plan_hash: PlanHash
    policy_hash: PolicyHash
    step: int
    groups: tuple[str, ...]
    identities: tuple[str, ...]
    care: tuple[Care, ...]
    is_signed: bool
    is_lapsed: bool
    signature: str

    @property
    def seat_slack(self) -> str:
        """`TEAM/USER` of whose seat it was; '' when that is not known."""
        if self.seat == self.person:
            return self.slack
        # Identities are in lower case, and Slack's ids in capitals.
        accounts = (name.upper() for name in self.identities if "/" in name and "@" not in name)
        return next(accounts, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStatus:
    """A gate and who has agreed. `open`: somebody may agree here now."""

    id: GateId
    groups: tuple[str, ...]
    users: tuple[str, ...]
    approve: int
    deny: int
    have: tuple[PersonId, ...]
    denials: int
    open: bool

    @property
    def who(self) -> str:
        """Who may agree, such as `dba or security`."""
        return " or ".join((*self.groups, *self.users)) or self.id

    @property
    def is_met(self) -> bool:
        """Whether all its seats are taken."""
        return len(self.have) >= self.approve


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """Everything that is stored of a request.

    `plan` is the canonical text that people agree to (`approvals.plans.plan_of` and
    `call_of` read it). `votes` are those that stand for the current plan. `care`: what an
    approval demands besides the decision.
    """

    id: RequestId
    state: State
    version: int
    operation: str
    database: str
    asked_by: PersonId
    asked_by_slack: str
    authors: tuple[PersonId, ...]
    door: Door
    reason: str
    params: Mapping[str, Any]
    plan: str
    plan_hash: PlanHash
    policy_hash: PolicyHash
    attributes: Mapping[str, str | int]
    rule: str
    step: int
    asked_at: datetime
    expires_at: datetime
    approved_at: datetime | None
    approval_expires_at: datetime | None
    not_before: datetime | None
    ended_at: datetime | None
    channel: str
    detail: Detail
    votes: tuple[VoteRecord, ...]
    gates: tuple[GateStatus, ...]
    any_gate: bool
    care: frozenset[Care]
    run_id: RunId | None
    run_state: str | None
    ways: tuple[tuple[int, ...], ...] = ()  # the sets of gates of which one must be met
    ordered: bool = False
    paused_by: str = ""  # who asked its run to wait; '' for nobody
    paused_at: datetime | None = None
    stopped_by: str = ""  # who asked its run to stop; '' for nobody

    @property
    def who_must_agree(self) -> str:
        """Such as `2 of dba and 1 of security`; empty when nobody must."""
        needs = [Need(text=f"{gate.approve} of {gate.who}") for gate in self.gates]
        return needs_in_words(needs, self.ways, ordered=self.ordered)

    @property
    def what_is_missing(self) -> str:
        """Such as `1 more of dba`; empty when the votes suffice."""
        if self.state is not State.PENDING:
            return ""
        needs = [
            Need(text=f"{gate.approve - len(gate.have)} more of {gate.who}", is_met=gate.is_met)
            for gate in self.gates
        ]
        return needs_in_words(needs, self.ways, ordered=self.ordered)

    @property
    def slack_of(self) -> Mapping[PersonId, str]:
        """`TEAM/USER` of everybody involved whose account is known."""
        known = {vote.seat: vote.seat_slack for vote in self.votes if vote.seat_slack}
        known |= {vote.person: vote.slack for vote in self.votes if vote.slack}
        return {**known, self.asked_by: self.asked_by_slack} if self.asked_by_slack else known


def to_vote(row: Mapping[str, Any], request_id: int, keys: VoteKeys) -> VoteRecord:
    """A row of `votes`, with its signature checked."""
    marks: Sequence[str] = row["groups"]
    at = row["at"] if isinstance(row["at"], datetime) else datetime.fromisoformat(row["at"])
    seats = [mark[1:] for mark in marks if mark.startswith(_SEAT)]
    signature = Signature(key_id=row["key_id"], value=row["signature"])
    fields = vote_fields({**row, "at": at, "request_id": request_id})
    return VoteRecord(
        id=row["id"],
        person=PersonId(row["person"]),
        seat=PersonId(seats[0] if seats else row["person"]),
        slack=row["slack"],
        verdict=Verdict(row["verdict"]),
        reason=row["reason"],
        door=Door(row["door"]),
        at=at.astimezone(UTC),
        plan_hash=PlanHash(row["plan_hash"]),
        policy_hash=PolicyHash(row["policy_hash"]),
        step=row["step"],
        groups=tuple(mark for mark in marks if mark[:1] not in (_SEAT, _IDENTITY, _CARE)),
        identities=tuple(mark[1:] for mark in marks if mark.startswith(_IDENTITY)),
        care=tuple(each for each in Care if f"{_CARE}{each}" in marks),
        is_signed=keys.holds(fields, signature),
        is_lapsed=not keys.knows(row["key_id"]),
        signature=row["signature"],
    )


def vote_fields(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the signature of a vote covers: all of it."""
    names = ("request_id", "plan_hash", "policy_hash", "step", "person", "slack", "verdict")
    signed = {name: row[name] for name in (*names, "reason", "door")}
    at: datetime = row["at"]
    groups: Sequence[str] = row["groups"]
    return {"kind": "vote", **signed, "groups": list(groups), "at": stamp(at)}


def marks_of(vote: Vote) -> list[str]:
    """What `votes.groups` holds for a vote."""
    return [
        *sorted(vote.groups),
        *sorted(f"{_IDENTITY}{name}" for name in vote.identities),
        *sorted(f"{_CARE}{care}" for care in vote.care),
        f"{_SEAT}{vote.seat}",
    ]


def to_request(row: Mapping[str, Any], detail: Detail, votes: Sequence[VoteRecord]) -> Request:
    """What decisions look at. A vote that we did not sign is none."""
    return Request(
        id=RequestId(row["id"]),
        state=State(row["state"]),
        target=row["database"],
        requesters=frozenset(PersonId(name) for name in (*detail.requesters, row["asked_by"])),
        authors=frozenset(PersonId(name) for name in row["authors"]),
        plan_hash=PlanHash(row["plan_hash"]),
        policy_hash=PolicyHash(row["policy_hash"]),
        attributes=row["attributes"],
        asked_at=row["asked_at"],
        expires_at=row["expires_at"],
        votes=tuple(_counted(vote) for vote in votes if vote.is_signed),
        step=row["step"],
        begun=detail.begun,
        approved_at=row["approved_at"],
        approval_expires_at=row["approval_expires_at"],
        told=frozenset(detail.told),
        glass=_to_glass(detail.glass),
    )


def _counted(vote: VoteRecord) -> Vote:
    return Vote(
        person=vote.person,
        seat=vote.seat,
        verdict=vote.verdict,
        at=vote.at,
        plan_hash=vote.plan_hash,
        policy_hash=vote.policy_hash,
        step=vote.step,
        groups=frozenset(vote.groups),
        identities=frozenset(vote.identities),
        reason=vote.reason,
        door=vote.door,
        care=frozenset(vote.care),
    )


def _to_glass(detail: GlassDetail | None) -> Glass | None:
    if detail is None:
        return None
    return Glass(
        by=PersonId(detail.by),
        at=detail.at,
        reason=detail.reason,
        review_within=timedelta(seconds=detail.review_within_seconds),
        review_by=detail.review_by,
        reminded_at=detail.reminded_at,
    )


def from_glass(glass: Glass | None) -> GlassDetail | None:
    """A broken glass as JSON."""
    if glass is None:
        return None
    return GlassDetail(
        by=glass.by,
        at=glass.at,
        reason=glass.reason,
        review_within_seconds=int(glass.review_within.total_seconds()),
        review_by=glass.review_by,
        reminded_at=glass.reminded_at,
    )


def seal_fields(row: Mapping[str, Any], detail: Detail, votes: Sequence[str]) -> Mapping[str, Any]:
    """What the seal of a request covers: all that a decision believes of its row.

    `votes` are the signatures of the votes that count, so that one cannot be removed. A new
    request has no number when it is sealed, and a seal without it is good for nothing but a
    request that waits for its first vote: no grant can be copied to another number.
    """
    is_new = row["state"] == State.PENDING and not votes and detail.glass is None
    # When people were reminded decides nothing, and rows from before do not say it.
    glass = detail.glass.model_dump(mode="json", exclude={"reminded_at"}) if detail.glass else None
    names = ("state", "operation", "database", "asked_by", "asked_by_slack", "plan_hash",
             "policy_hash", "door", "reason", "channel")  # fmt: skip
    times = ("asked_at", "expires_at", "approved_at", "approval_expires_at")
    return {
        "kind": "request",
        "id": 0 if is_new else row["id"],
        **{name: row[name] for name in names},
        **{name: None if row[name] is None else stamp(row[name]) for name in times},
        "authors": sorted(row["authors"]),
        "requesters": sorted(detail.requesters),
        "attributes": dict(row["attributes"]),
        "begun": detail.begun,
        "void_before": detail.void_before,
        "glass": glass,
        "votes": sha256(canonical(list(votes))),
    }


def stamp(at: datetime) -> str:
    """A moment in the one form that is signed."""
    # As %Y-%m-%dT%H:%M:%S.%fZ, for a tenth of its cost.
    return f"{at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def to_record(
    row: Mapping[str, Any],
    detail: Detail,
    votes: Sequence[VoteRecord],
    policy: Policy | None,
    run: tuple[RunId | None, str | None] = (None, None),
) -> RequestRecord:
    """What is shown. `policy` is the one that the request is under."""
    request = to_request(row, detail, votes)
    rule = policy.rule_for(request.attributes) if policy else None
    standing = {(vote.person, vote.at) for vote in standing_votes(request.votes)}
    return RequestRecord(
        id=request.id,
        state=request.state,
        version=row["version"],
        operation=row["operation"],
        database=row["database"],
        asked_by=PersonId(row["asked_by"]),
        asked_by_slack=row["asked_by_slack"],
        authors=tuple(PersonId(name) for name in row["authors"]),
        door=Door(row["door"]),
        reason=row["reason"],
        params=row["params"],
        plan=row["plan"],
        plan_hash=request.plan_hash,
        policy_hash=request.policy_hash,
        attributes=row["attributes"],
        rule=row["rule"],
        step=request.step,
        asked_at=request.asked_at,
        expires_at=request.expires_at,
        approved_at=request.approved_at,
        approval_expires_at=request.approval_expires_at,
        not_before=row["not_before"],
        ended_at=row["ended_at"],
        channel=row["channel"],
        detail=detail,
        votes=tuple(vote for vote in votes if (vote.person, vote.at) in standing),
        gates=_statuses(request, rule) if rule else (),
        any_gate=bool(rule) and len(rule.ways) > 1 if rule else False,
        care=rule.care(request.attributes) if rule else frozenset(),
        run_id=run[0],
        run_state=run[1],
        ways=tuple(tuple(sorted(way)) for way in rule.ways) if rule else (),
        ordered=rule.ordered if rule else False,
    )


def _statuses(request: Request, rule: Rule) -> tuple[GateStatus, ...]:
    counted = count(
        rule,
        Ballots(
            votes=request.votes,
            authors=request.authors,
            asked_at=request.asked_at,
            people={},
            strict=False,
            care=rule.care(request.attributes),
        ),
    )
    return tuple(
        GateStatus(
            id=gate.id,
            groups=tuple(sorted(gate.groups)),
            users=tuple(sorted(gate.users)),
            approve=gate.approve,
            deny=gate.deny,
            have=counted.have[number],
            denials=counted.denials[number],
            open=_is_open(request, rule, gate, number, counted.step),
        )
        for number, gate in enumerate(rule.gates)
    )


def _is_open(request: Request, rule: Rule, gate: Gate, number: int, step: int) -> bool:
    is_turn = not rule.ordered or number == step
    return request.state is State.PENDING and is_turn and gate.approve > 0
