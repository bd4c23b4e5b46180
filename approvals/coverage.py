"""Proofs over all attributes: no rule is dead, and nothing falls through unsaid. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from itertools import product
from typing import Final

from approvals.counting import count_text
from approvals.proof import Holds, Proof, unproven
from approvals.rules import Policy
from approvals.spaces import Space

DEAD: Final = "no dead rule"
FALLS: Final = "nothing falls through"
_DEAD_CLAIM: Final = "every rule decides about something"
_FALLS_CLAIM: Final = "every request meets a rule, if only one that refuses on purpose"
_SHOWN_MAX: Final = 12
_KINDS_SHOWN_MAX: Final = 6
Place = tuple[int, ...]
Block = tuple[frozenset[int], ...]


def no_dead_rule(policy: Policy, space: Space) -> Proof:
    """Every rule is the first that matches something."""
    alive = {id(policy.matching(attributes)) for attributes in space.all()}
    dead = [rule for rule in policy.rules if id(rule) not in alive]
    count = sum(1 for _ in space.places())
    if not dead:
        return Proof(name=DEAD, claim=_DEAD_CLAIM, holds=Holds.PROVEN, cases=count)
    if not space.is_whole:
        return unproven(DEAD, _DEAD_CLAIM, cases=count)
    story = tuple(f"{rule.name}: {_why_dead(policy, space, rule.name)}" for rule in dead)
    says = ("Put the narrower rule first, correct its `when`, or remove it.",)
    return Proof(
        name=DEAD, claim=_DEAD_CLAIM, holds=Holds.BROKEN, story=story, says=says, cases=count
    )


def nothing_falls_through(policy: Policy, space: Space) -> Proof:
    """No rule says nothing at all about a request; what is refused on purpose is told."""
    unsaid: set[Place] = set()
    refused: set[Place] = set()
    count = 0
    for place in space.places():
        count += 1
        rule = policy.matching(space.at(place))
        if rule is None:
            unsaid.add(place)
        elif rule.refuse:
            refused.add(place)
    says = tuple(f"Refused on purpose: {text}" for text in _told(space, refused))
    if unsaid:
        story = tuple(f"Nothing is said of {text}: it is refused." for text in _told(space, unsaid))
        advice = "Add a rule for it; `refuse: true` says that it is refused on purpose."
        return Proof(
            name=FALLS, claim=_FALLS_CLAIM, holds=Holds.BROKEN, story=story,
            says=(*says, advice), cases=count,
        )  # fmt: skip
    if not space.is_whole:
        return unproven(FALLS, _FALLS_CLAIM, cases=count)
    return Proof(name=FALLS, claim=_FALLS_CLAIM, holds=Holds.PROVEN, says=says, cases=count)


def _why_dead(policy: Policy, space: Space, name: str) -> str:
    """Who takes what the rule would match, or that nothing can match it."""
    [rule] = [each for each in policy.rules if each.name == name][:1]
    first = dict.fromkeys(
        taken.name
        for attributes in space.all()
        if rule.matches(attributes) and (taken := policy.matching(attributes)) is not None
    )
    if not first:
        return "nothing can match it"
    return f"never reached, as {' and '.join(first)} take all that it matches"


def _told(space: Space, places: AbstractSet[Place]) -> list[str]:
    """The places in few blocks, each as a text."""
    blocks = _blocks(space, places)
    texts = [_text(space, block) for block in blocks[:_SHOWN_MAX]]
    if len(blocks) > _SHOWN_MAX:
        texts.append(f"and {len(blocks) - _SHOWN_MAX} more")
    return texts


def _blocks(space: Space, places: AbstractSet[Place]) -> list[Block]:
    """Blocks that together are exactly `places`, each as large as it can be made greedily."""
    left = set(places)
    found: list[Block] = []
    for place in sorted(places):
        if place in left:
            block = _grown(space, place, places)
            found.append(block)
            left.difference_update(product(*block))
    return found


def _grown(space: Space, place: Place, places: AbstractSet[Place]) -> Block:
    block: list[frozenset[int]] = [frozenset({number}) for number in place]
    for axis, part in enumerate(space.parts):
        kept = {
            number
            for number in range(len(part))
            if _within([*block[:axis], frozenset({number}), *block[axis + 1 :]], places)
        }
        block[axis] = frozenset(kept)
    return tuple(block)


def _within(block: Sequence[AbstractSet[int]], places: AbstractSet[Place]) -> bool:
    return all(place in places for place in product(*block))


def _any_of(kinds: Sequence[str]) -> str:
    more = len(kinds) - _KINDS_SHOWN_MAX
    said = " or ".join(kinds[:_KINDS_SHOWN_MAX])
    return f"{said} (and {count_text(more, 'more kind')})" if more > 0 else said


def _text(space: Space, block: Block) -> str:
    parts = [
        _any_of([str(part[number]) for number in sorted(numbers)])
        for part, numbers in zip(space.parts, block, strict=True)
        if len(numbers) < len(part)
    ]
    return ", ".join(parts) or "everything"
