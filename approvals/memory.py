"""A world in memory in which scenarios are played, with nothing but the deciding code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from approvals.asking import policy_change_refused
from approvals.compiling import PolicyError
from approvals.events import (
    Asked,
    AttributesChanged,
    Begun,
    Cancelled,
    Facts,
    Finished,
    GlassBroken,
    Happening,
    Outcome,
    PlanChanged,
    PolicyChanged,
    Reopened,
    Request,
    Reviewed,
    Swept,
    Voted,
    VoteWithdrawn,
)
from approvals.machine import FINAL, decide, inadmissible
from approvals.policy_file import LoadedPolicy, parse_policy
from approvals.refusals import refuse
from approvals.rules import Attributes
from approvals.scenario_file import EPOCH, EventModel, Scenario, merged
from approvals.tally import fit, standing_votes
from approvals.town import Town
from approvals.words import Door, Person, PlanHash, PolicyHash, RequestId, State, Verdict, Why

DEFAULT_PLAN = "h1"
DEFAULT_TARGET = "db1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a world looks after the events."""

    states: Mapping[str, State]
    voters: Mapping[str, tuple[tuple[str, str], ...]]
    executions_count: int
    notes: tuple[str, ...]


def loaded(policy: Mapping[str, Any]) -> LoadedPolicy | None:
    """The policy of a scenario, or None for one under which nothing may be decided."""
    try:
        return parse_policy(policy, epoch=EPOCH)
    except PolicyError:
        return None


@dataclass(slots=True, kw_only=True)
class MemoryWorld:
    """Requests in a dict. One scenario is played in one world, once."""

    town: Town
    text: Mapping[str, Any]
    policy: LoadedPolicy | None
    requests: dict[str, Request] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    deliveries: set[tuple[object, ...]] = field(default_factory=set)
    executions_count: int = 0
    notes: list[str] = field(default_factory=list)

    @staticmethod
    async def of(scenario: Scenario) -> MemoryWorld:
        """The world at a scenario's start."""
        return MemoryWorld(
            town=Town.of(scenario.people),
            text=scenario.policy,
            policy=loaded(scenario.policy),
        )

    async def play(self, event: EventModel, at: datetime) -> str:
        """What comes of an event, as scenarios write it."""
        match event.do:
            case "restart":
                return "ok"  # nothing is remembered outside the values
            case "directory":
                self.town.up = event.up
                return "ok"
            case "people_change":
                self.town.change(event)
                return "ok"
            case "tick":
                for label in self.requests:
                    self._decide(label, Swept(), self._facts(event, at, label))
                return "ok"
            case "policy_change":
                return self._change_policy(event, at)
            case _:
                return self._delivered(event, at)

    async def report(self) -> Report:
        """How things stand."""
        states = dict.fromkeys(self.refused - self.requests.keys(), State.REFUSED)
        states.update({label: request.state for label, request in self.requests.items()})
        voters = {
            label: tuple(
                (self.town.name(vote.person), str(vote.verdict))
                for vote in standing_votes(request.votes)
            )
            for label, request in self.requests.items()
        }
        return Report(
            states=states,
            voters=voters,
            executions_count=self.executions_count,
            notes=tuple(self.notes),
        )

    def _delivered(self, event: EventModel, at: datetime) -> str:
        """The same delivery by the same person for the same request is answered once."""
        person = self.town.find(event.by)
        key = (event.delivery, person and person.id, event.req, event.do, event.verdict)
        if event.delivery is None or event.signature != "valid" or event.method != "POST":
            return str(self._happen(event, at))
        if key in self.deliveries:
            return "noop"
        outcome = self._happen(event, at)
        if outcome.why is not Why.DIRECTORY:
            self.deliveries.add(key)
        return str(outcome)

    def _happen(self, event: EventModel, at: datetime) -> Outcome:
        facts = self._facts(event, at, event.req)
        if event.do == "request":
            return self._ask(event, facts)
        outcome = self._decide(event.req, self._meant(event), facts)
        ran = event.do in ("execute", "break_glass") and str(outcome) == "ok"
        self.executions_count += ran
        return outcome

    def _ask(self, event: EventModel, facts: Facts) -> Outcome:
        before = self.requests.get(event.req)
        plan, target = event.plan or DEFAULT_PLAN, event.target or DEFAULT_TARGET
        if before and before.state is not State.REFUSED:
            person = self.town.find(event.by)
            same = person and person.id in before.requesters and before.plan_hash == plan
            refusal = None if same else refuse(Why.DUPLICATE, before.id)
            return Outcome(request=before, noop=bool(same), refusal=refusal)
        asked = Asked(
            by=self.town.find(event.by),
            request_id=RequestId(len(self.requests) + 1),
            target=target,
            plan_hash=PlanHash(plan),
            attributes=event.attrs or {},
            reason=event.reason,
            ttl=None if event.ttl is None else timedelta(seconds=event.ttl),
            beneficiary=self.town.beneficiary(event),
            electorate=tuple(self.town.people.values()),
        )
        outcome = decide(None, asked, facts)
        if outcome.request:
            self.requests[event.req] = outcome.request
        elif not outcome.noop:
            self.refused.add(event.req)
        return outcome

    def _decide(self, label: str, event: Happening, facts: Facts) -> Outcome:
        outcome = decide(self.requests.get(label), event, facts)
        if outcome.request:
            self.requests[label] = outcome.request
        self.notes += [note.kind for note in outcome.notes]
        return outcome

    def _change_policy(self, event: EventModel, at: datetime) -> str:
        facts = self._facts(event, at, event.req)
        by, manner = self.town.find(event.by), facts.manner
        if event.by is not None and (refusal := inadmissible(by, manner, may_act=fit(by))):
            return f"no:{refusal.why}"
        text = merged(self.text, event.set or {})
        new = loaded(text)
        others = tuple(self.town.find(name) for name in event.approved_by)
        if self.policy and (refusal := policy_change_refused(self.policy.values, by, others)):
            return f"no:{refusal.why}"
        if new is None:
            return f"no:{Why.POLICY}"
        if self.policy and new.hash == self.policy.hash:
            return "noop"
        self.text, self.policy = text, new
        for label, request in self.requests.items():
            if request.state not in FINAL:
                facts = replace(self._facts(event, at, label), manner=manner)
                self._decide(label, PolicyChanged(), facts)
        return "ok"

    def _facts(self, event: EventModel, at: datetime, label: str) -> Facts:
        mine = self.requests.get(label)
        return Facts(
            at=at,
            policy=self.policy.values if self.policy else None,
            policy_hash=self.policy.hash if self.policy else PolicyHash(""),
            people=self.town.all(),
            manner=self.town.manner(event),
            target_busy=any(
                mine is not None
                and other.id != mine.id
                and other.target == mine.target
                and other.state is State.EXECUTING
                for other in self.requests.values()
            ),
            unreviewed=sum(
                other.glass is not None and other.state in (State.EXECUTING, State.NEEDS_REVIEW)
                for other in self.requests.values()
            ),
            debtors=frozenset(
                other.glass.by
                for other in self.requests.values()
                if other.state is State.NEEDS_REVIEW and other.glass and other.glass.overdue(at)
            ),
        )

    def _meant(self, event: EventModel) -> Happening:
        makers: Mapping[str, Callable[[EventModel], Happening]] = {
            "approve": self._voted,
            "deny": self._voted,
            "vote": self._voted,
            "withdraw_vote": lambda e: VoteWithdrawn(by=self._by(e), door=Door(e.channel)),
            "cancel": lambda e: Cancelled(by=self._by(e)),
            "reopen": lambda e: Reopened(by=self._by(e)),
            "plan_change": self._plan_changed,
            "attrs_change": lambda e: AttributesChanged(attributes=self._attributes(e)),
            "execute": lambda e: Begun(plan_hash=e.plan, artifact=e.artifact, target=e.target),
            "finish": lambda e: Finished(ok=e.succeeded),
            "break_glass": self._glass_broken,
            "review": lambda e: Reviewed(by=self._by(e), reason=e.reason),
        }
        return makers[event.do](event)

    def _by(self, event: EventModel) -> Person | None:
        return self.town.find(event.by)

    def _voted(self, event: EventModel) -> Voted:
        return Voted(
            by=self._by(event),
            verdict=verdict_of(event),
            reason=event.reason,
            door=Door(event.channel),
            seen_plan=event.seen,
            seen_step=event.seen_step,
        )

    def _plan_changed(self, event: EventModel) -> PlanChanged:
        return PlanChanged(
            by=self._by(event),
            plan_hash=PlanHash(event.plan or DEFAULT_PLAN),
            attributes=self._attributes(event) if event.attrs else None,
        )

    def _glass_broken(self, event: EventModel) -> GlassBroken:
        return GlassBroken(by=self._by(event), reason=event.reason, seen_plan=event.seen)

    def _attributes(self, event: EventModel) -> Attributes:
        before = self.requests.get(event.req)
        return {**(before.attributes if before else {}), **(event.attrs or event.set or {})}


def verdict_of(event: EventModel) -> str:
    """What a voting event says, whatever it is."""
    if event.do != "vote":
        return str(Verdict(event.do))
    return event.verdict if isinstance(event.verdict, str) else ""
