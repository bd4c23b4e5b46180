"""Proof: nobody approves what is their own, by any door. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from approvals import exploring
from approvals.events import Begun, Finished
from approvals.exploring import Act, Happened, World, always, search
from approvals.proof import Budget, BudgetSpentError, Holds, Proof, unproven
from approvals.rules import Attributes, Policy, Rule
from approvals.spaces import Space, example_of
from approvals.tally import standing_votes
from approvals.voting import tally
from approvals.words import Flag, Person, PersonId, State, Verdict

NAME: Final = "no self-approval"
CLAIM: Final = "nobody approves or reviews what is their own, by any door or second account"
ACTS_MAX: Final = 4


def no_self_approval(policy: Policy, space: Space, budget: Budget) -> Proof:
    """Every rule, with whoever is an author in each way there is."""
    before = budget.spent
    plain = exploring.timeless(policy)
    rules = [*plain.rules, *([plain.built_in] if plain.built_in else [])]
    try:
        for rule in rules:
            attributes = None if rule.refuse else example_of(space, plain, rule)
            if attributes is None:
                continue
            for world in _worlds(exploring.narrowed(plain, [attributes]), rule, attributes):
                if story := search(world, _is_own, budget):
                    return Proof(
                        name=NAME, claim=CLAIM, holds=Holds.BROKEN, story=story,
                        says=_advice(rule), cases=budget.spent - before,
                    )  # fmt: skip
    except BudgetSpentError:
        return unproven(NAME, CLAIM, cases=budget.spent - before)
    if not space.is_whole:
        return unproven(NAME, CLAIM, cases=budget.spent - before)
    return Proof(name=NAME, claim=CLAIM, holds=Holds.PROVEN, cases=budget.spent - before)


def _advice(rule: Rule) -> tuple[str, ...]:
    if rule.self_approve:
        return (f"{rule.name} says `self_approve: true`: remove it.",)
    return (f"This is under {rule.name}.",)


class _Cast:
    """The people of these worlds: everybody may do everything that the rule allows anybody."""

    def __init__(self, rule: Rule) -> None:
        glass = rule.break_glass
        gates = {group for gate in rule.gates for group in gate.groups | gate.escalate_groups}
        self._groups = frozenset(gates | (glass.groups | glass.reviewers if glass else set()))
        self._users = frozenset(user for gate in rule.gates for user in gate.users)

    def person(self, name: str, *, account: str = "", may: bool = True) -> Person:
        """Somebody, by one of their accounts; without `may` only in another's seat."""
        return Person(
            id=PersonId(f"{name.lower()}@a"),
            name=name,
            slack_team="T0",
            slack_user=f"U0{name.upper()}{account}",
            groups=self._groups if may else frozenset(),
            aliases=self._users if may else frozenset(),
        )


def _worlds(policy: Policy, rule: Rule, attributes: Attributes) -> Iterator[World]:
    cast = _Cast(rule)
    yield _author(policy, rule, attributes, cast)
    yield _beneficiary(policy, rule, attributes, cast)
    yield _author_stands_in(policy, attributes, cast)
    yield _author_is_away(policy, attributes, cast)
    yield _plan_changer(policy, attributes, cast)
    if rule.break_glass is not None:
        yield _glass(policy, attributes, cast)


def _author(policy: Policy, rule: Rule, attributes: Attributes, cast: _Cast) -> World:
    """Whoever asked, by both accounts, after a no as well, early and late."""
    ana, other, ben = cast.person("Ana"), cast.person("Ana", account="2"), cast.person("Ben")
    acts = [
        *exploring.votes("Ana", ana),
        *exploring.votes("Ana's second account", other),
        *exploring.votes("Ana", ana, verdict=Verdict.DENY),
        exploring.takes_back("Ana", ana),
        *exploring.votes("Ben", ben)[:1],
        *exploring.waits(rule),
    ]
    return _world(policy, [exploring.asks("Ana asks", ana, attributes)], acts, [ana, ben])


def _beneficiary(policy: Policy, rule: Rule, attributes: Attributes, cast: _Cast) -> World:
    """For whom it was asked, by a person or a bot; and whoever asked for them."""
    ana, bea = cast.person("Ana"), cast.person("Bea")
    bot = Person(id=PersonId("T0/BOT"), name="a bot", flags=frozenset({Flag.BOT}))
    asking = [
        exploring.asks("Ana asks for Bea", ana, attributes, beneficiary=bea),
        exploring.asks("A bot asks for Bea", bot, attributes, beneficiary=bea),
    ]
    acts = [
        *exploring.votes("Bea", bea),
        *exploring.votes("Bea", bea, verdict=Verdict.DENY)[:1],
        *exploring.votes("Ana", ana)[:1],
        *exploring.votes("The bot", bot)[:1],
        *exploring.waits(rule),
    ]
    return _world(policy, asking, acts, [ana, bea])


def _author_stands_in(policy: Policy, attributes: Attributes, cast: _Cast) -> World:
    """Whoever asked sits in the seat of somebody away."""
    ana, abe = cast.person("Ana", may=False), cast.person("Abe")
    acts = [*exploring.votes("Ana, who stands in for Abe,", ana)]
    asking = [exploring.asks("Ana asks", ana, attributes)]
    return _world(policy, asking, acts, [ana, abe], stands_in=(abe, ana))


def _author_is_away(policy: Policy, attributes: Attributes, cast: _Cast) -> World:
    """Somebody sits in the seat of whoever asked."""
    ana, sam = cast.person("Ana"), cast.person("Sam", may=False)
    acts = [*exploring.votes("Sam, who stands in for Ana,", sam)]
    asking = [exploring.asks("Ana asks", ana, attributes)]
    return _world(policy, asking, acts, [ana, sam], stands_in=(ana, sam))


def _plan_changer(policy: Policy, attributes: Attributes, cast: _Cast) -> World:
    """Somebody approves, shapes the plan, and approves."""
    ana, sam, ben = cast.person("Ana"), cast.person("Sam"), cast.person("Ben")
    acts = [
        exploring.changes_plan("Sam", sam, attributes),
        *exploring.votes("Sam", sam)[:1],
        *exploring.votes("Sam", sam, verdict=Verdict.DENY)[:1],
        exploring.takes_back("Sam", sam),
        *exploring.votes("Ben", ben)[:1],
        Act(text="It runs", event=Begun()),
    ]
    asking = [exploring.asks("Ana asks", ana, attributes)]
    return _world(policy, asking, acts, [ana, sam, ben])


def _glass(policy: Policy, attributes: Attributes, cast: _Cast) -> World:
    """Behind broken glass: whoever asked and whoever broke it review it."""
    ana, olga = cast.person("Ana"), cast.person("Olga")
    second = cast.person("Olga", account="2")
    acts = [
        exploring.breaks_glass("Olga", olga),
        exploring.breaks_glass("Ana", ana),
        Act(text="It runs", event=Begun()),
        Act(text="Its run ends", event=Finished(ok=True)),
        exploring.reviews("Ana", ana),
        exploring.reviews("Olga", olga),
        exploring.reviews("Olga's second account", second),
    ]
    asking = [exploring.asks("Ana asks", ana, attributes)]
    return _world(policy, asking, acts, [ana, olga])


def _world(
    policy: Policy,
    asking: list[Act],
    acts: list[Act],
    people: list[Person],
    *,
    stands_in: tuple[Person, Person] | None = None,
) -> World:
    return World(
        policy=policy,
        people={person.id: person for person in people},
        asks=tuple(asking),
        acts=tuple(acts),
        acts_max=ACTS_MAX,
        delegations=(always(*stands_in),) if stands_in else (),
    )


def _is_own(happened: Happened) -> bool:
    """Whether an author's yes was taken, or counts, or a review was by who owed it."""
    before, after, authors = happened.before, happened.outcome.request, happened.authors
    if before is None or after is None:
        return False
    cast = happened.outcome.vote
    if cast and cast.verdict is Verdict.APPROVE and {cast.person, cast.seat} & authors:
        return True
    if after.state is State.CLOSED and before.state is State.NEEDS_REVIEW:
        by = getattr(happened.act.event, "by", None)
        broke = {after.glass.by} if after.glass else set()
        return by is None or by.id in authors | broke
    if after.glass is not None or after.state not in (State.APPROVED, State.EXECUTING):
        return False
    return _counts_an_author(happened)


def _counts_an_author(happened: Happened) -> bool:
    request, policy = happened.outcome.request, happened.facts.policy
    rule = policy.rule_for(request.attributes) if policy and request else None
    if request is None or rule is None:
        return False
    seated = {person for row in tally(request, rule, happened.facts).have for person in row}
    return any(
        vote.seat in seated and {vote.person, vote.seat} & happened.authors
        for vote in standing_votes(request.votes)
        if vote.verdict is Verdict.APPROVE
    )
