"""What is proven about a policy, and the shortest story where it does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from approvals.policy_file import load_policy, parse_policy
from approvals.proof import Holds, Proof
from approvals.proofs import Known, prove, remarks
from approvals.words import Flag, Person, PersonId

EXAMPLE = Path(__file__).parents[2] / "policy.example.yml"
KNOWN = Known(
    operations={
        "backup": ("recoverable",),
        "restore": ("destructive",),
        "policy-change": ("disruptive",),
    },
    databases={"orders": ("production", "critical"), "reports": ("staging", "standard")},
)
DBA = {"id": "dba", "groups": ["dba"]}
SECURITY = {"id": "security", "groups": ["security"]}
RESTORE = {"operation": "restore", "into": "place", "environment": "production"}
GLASS = {"groups": ["oncall"], "reviewers": ["security"]}
GOOD: dict[str, Any] = {
    "groups": {"dba": "S1", "security": "S2", "oncall": "S3"},
    "rules": [
        {"name": "restore", "when": RESTORE, "gates": [{**DBA, "approve": 2}, SECURITY]},
        {"name": "the rest", "fallback": True, "gates": [DBA], "break_glass": GLASS},
    ],
    "policy_four_eyes": True,
}
ALONE = "nobody alone"


def proofs_of(policy: dict[str, Any], people: list[Person] | None = None) -> dict[str, Proof]:
    """The broken one of each name first, as two proofs can have one name."""
    found = prove(parse_policy(policy).values, KNOWN, people=people)
    return {proof.name: proof for proof in sorted(found, key=lambda each: each.is_broken)}


def member(name: str, *groups: str, **more: Any) -> Person:
    return Person(id=PersonId(f"{name}@a"), name=name, groups=frozenset(groups), **more)


def test_a_good_policy_keeps_every_promise() -> None:
    people = [
        member("Ben", "dba"),
        member("Cleo", "dba"),
        member("Don", "dba"),
        member("Dora", "security"),
        member("Eli", "security"),
    ]
    found = prove(parse_policy(GOOD).values, KNOWN, people=people)
    assert {proof.name: proof.holds for proof in found} == dict.fromkeys(
        [
            "no self-approval",
            ALONE,
            "every rule can be met",
            "no dead rule",
            "nothing falls through",
        ],
        Holds.PROVEN,
    )


def with_rules(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**GOOD, "rules": list(rules), **more}


REST = {"name": "the rest", "fallback": True, "gates": [DBA]}
BAD: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "an author may approve",
        with_rules({**REST, "self_approve": True}),
        "no self-approval",
        "Ana approves through slack",
    ),
    (
        "a restore in place needs nobody",
        with_rules({"when": RESTORE, "gates": []}, REST),
        ALONE,
        "It runs",
    ),
    (
        "whoever is on call restores in place alone",
        with_rules({"when": RESTORE, "gates": [DBA], "break_glass": GLASS}, REST),
        ALONE,
        "Alone, the same person breaks the glass",
    ),
    (
        "a broken glass is inherited from the whole policy",
        with_rules({"when": RESTORE, "gates": [DBA]}, REST, break_glass=GLASS),
        ALONE,
        "Alone, the same person breaks the glass",
    ),
    (
        "a requester may approve a restore",
        with_rules({"when": RESTORE, "gates": [DBA], "self_approve": True}, REST),
        ALONE,
        "The same person approves through slack",
    ),
    (
        "a rule for all of production is open",
        with_rules({"when": {"environment": "production"}, "gates": []}, REST),
        ALONE,
        "It runs",
    ),
    (
        "only a tier that some databases have is open",
        with_rules({"when": {"tier": "archive"}, "gates": []}, {"when": RESTORE, "gates": [DBA]}),
        ALONE,
        "They ask (operation=restore",
    ),
    (
        "the policy's own change needs nobody",
        with_rules({"when": {"operation": "policy-change"}, "gates": []}, REST),
        ALONE,
        "They ask (operation=policy-change risk=disruptive)",
    ),
    (
        "what the policy itself names as critical needs nobody",
        with_rules(
            {"when": {"operation": "prune"}, "gates": []},
            REST,
            never_alone=[{"operation": "prune"}],
        ),
        ALONE,
        "It runs",
    ),
    (
        "a wide rule stands before a narrow one",
        with_rules(
            {"name": "wide", "when": {"environment": "production"}, "gates": [DBA]},
            {
                "name": "narrow",
                "when": {"environment": "production", "risk": "none"},
                "gates": [DBA],
            },
            REST,
        ),
        "no dead rule",
        "narrow: never reached, as wide take all that it matches",
    ),
    (
        "several rules together leave nothing to a third",
        with_rules(
            {"name": "large", "when": {"rows": {"gt": 10}}, "gates": [DBA]},
            {"name": "small", "when": {"rows": {"lte": 20}}, "gates": [DBA]},
            {"name": "middle", "when": {"rows": {"gte": 12, "lt": 18}}, "gates": [DBA]},
            REST,
        ),
        "no dead rule",
        "middle: never reached, as large take all that it matches",
    ),
    (
        "no number is in the bounds",
        with_rules({"name": "never", "when": {"rows": {"gt": 20, "lt": 10}}, "gates": [DBA]}, REST),
        "no dead rule",
        "never: nothing can match it",
    ),
    (
        "a fallback rule is behind another one",
        with_rules(REST, {"name": "last", "fallback": True, "gates": [DBA]}),
        "no dead rule",
        "last: never reached, as the rest and a change of this policy (built in) take",
    ),
    (
        "an environment is forgotten",
        with_rules({"when": {"environment": "production"}, "gates": [DBA]}),
        "nothing falls through",
        "environment=staging",
    ),
    (
        "a number between two rules is forgotten",
        with_rules(
            {"when": {"rows": {"lt": 10}}, "gates": [DBA]},
            {"when": {"rows": {"gt": 10}}, "gates": [DBA]},
        ),
        "nothing falls through",
        "rows=10",
    ),
]


@pytest.mark.parametrize(
    ("policy", "name", "step"), [row[1:] for row in BAD], ids=[b[0] for b in BAD]
)
def test_a_bad_policy_is_told_by_its_shortest_story(
    policy: dict[str, Any], name: str, step: str
) -> None:
    broken = proofs_of(policy)[name]
    assert broken.is_broken, broken.lines
    assert any(step in line for line in broken.story), broken.story


PEOPLE = [member("Ben", "dba"), member("Cleo", "dba"), member("Dora", "security")]
UNMET: list[tuple[str, dict[str, Any], list[Person], list[str]]] = [
    (
        "too few people",
        with_rules({**REST, "gates": [{**DBA, "approve": 3}]}),
        PEOPLE,
        ["Somebody in no group asks", "Ben approves.", "1 more of dba is missing"],
    ),
    (
        "one of the members asks",
        with_rules({**REST, "gates": [{**DBA, "approve": 2}]}),
        PEOPLE,
        ["Ben asks", "Cleo approves.", "1 more of dba is missing"],
    ),
    (
        "one person would have to sit twice",
        with_rules({**REST, "gates": [DBA, SECURITY]}),
        [member("Cleo", "dba", "security")],
        ["Cleo approves.", "1 more of security is missing"],
    ),
    (
        "somebody has left",
        with_rules(REST),
        [member("Ben", "dba", flags=frozenset({Flag.DEACTIVATED}))],
        ["1 more of dba is missing"],
    ),
    (
        "nobody may change the policy",
        with_rules({**REST, "gates": [DBA]}),
        [member("Ben", "dba"), member("Cleo", "dba")],
        ["a change of this policy (built in)", "1 more of dba is missing"],
    ),
]


@pytest.mark.parametrize(
    ("policy", "people", "said"), [row[1:] for row in UNMET], ids=[row[0] for row in UNMET]
)
def test_a_rule_that_todays_people_cannot_meet_is_told(
    policy: dict[str, Any], people: list[Person], said: list[str]
) -> None:
    met = proofs_of(policy, people)["every rule can be met"]
    assert met.is_broken
    for text in said:
        assert any(text in line for line in met.story), met.story


def test_gates_in_order_are_met_if_some_order_of_votes_meets_them() -> None:
    # Whoever sits at both must wait for the second gate.
    gates = [{"id": "first", "groups": ["dba", "security"]}, SECURITY]
    policy = with_rules({**REST, "gates": gates, "ordered": True}, policy_four_eyes=False)
    people = [member("Dora", "security"), member("Ben", "dba"), member("Eli", "dba", "security")]
    assert proofs_of(policy, people)["every rule can be met"].holds is Holds.PROVEN


def test_what_only_escalation_meets_is_met_and_said() -> None:
    gate = {**DBA, "approve": 2, "escalate_after": "2h", "escalate_groups": ["oncall"]}
    policy = with_rules({**REST, "gates": [gate]}, policy_four_eyes=False)
    people = [member("Ben", "dba"), member("Ole", "oncall")]
    # Ben's own request has Ole alone.
    assert proofs_of(policy, people)["every rule can be met"].is_broken
    met = proofs_of(policy, [*people, member("Cleo", "dba")])["every rule can be met"]
    assert met.holds is Holds.PROVEN
    assert met.says == ("the rest: for some who ask, only once it has escalated.",)


def test_without_a_directory_it_is_said_that_nobody_was_asked() -> None:
    met = proofs_of(GOOD)["every rule can be met"]
    assert met.holds is Holds.NOT_PROVEN
    assert "SLACK_BOT_TOKEN is not set" in met.says[0]


def test_glass_that_one_person_may_break_on_purpose_is_said_and_not_broken() -> None:
    glass = {**GLASS, "alone": True}
    policy = with_rules({"name": "r", "when": RESTORE, "gates": [DBA], "break_glass": glass}, REST)
    alone = proofs_of(policy)[ALONE]
    assert alone.holds is Holds.PROVEN
    found = prove(parse_policy(policy).values, KNOWN)
    assert any("`alone: true`" in line for proof in found for line in proof.says)


def test_a_rule_can_be_without_the_glass_of_the_whole_policy() -> None:
    rule = {"when": RESTORE, "gates": [DBA], "break_glass": False}
    own = {"when": {"operation": "policy-change"}, "gates": [DBA], "break_glass": False}
    policy = with_rules(rule, own, REST, break_glass=GLASS)
    assert proofs_of(policy)[ALONE].holds is Holds.PROVEN


def test_what_a_rule_refuses_is_refused_on_purpose_and_told() -> None:
    refused = {"name": "no staging", "when": {"environment": "staging"}, "refuse": True}
    falls = proofs_of(with_rules(refused, REST))["nothing falls through"]
    assert falls.holds is Holds.PROVEN
    assert falls.says == ("Refused on purpose: environment=staging",)


def test_the_search_has_a_bound_and_says_so_when_it_is_reached() -> None:
    found = prove(parse_policy(GOOD).values, KNOWN, decisions_max=20)
    assert {proof.name for proof in found if proof.holds is Holds.NOT_PROVEN} >= {
        "no self-approval",
        ALONE,
    }
    assert any("more worlds than are looked at" in line for line in found[0].says)


def test_more_combinations_than_are_looked_at_are_not_proven() -> None:
    rules = [
        {
            "name": f"r{number}",
            "when": {f"a{number}": list("abcdef")[: number % 5 + 1]},
            "gates": [],
        }
        for number in range(18)
    ]
    found = proofs_of(with_rules(*rules, REST))
    assert found["nothing falls through"].holds is Holds.NOT_PROVEN


def test_a_user_named_by_a_gate_is_no_way_around() -> None:
    gate = {"id": "boss", "users": ["boss@acme.example"], "approve": 1}
    policy = with_rules({"when": RESTORE, "gates": [gate]}, REST)
    assert proofs_of(policy)[ALONE].holds is Holds.PROVEN
    open_ = with_rules({"when": RESTORE, "gates": [gate], "self_approve": True}, REST)
    broken = proofs_of(open_)[ALONE]
    assert broken.story[0] == "One person, who is in boss@acme.example."


def test_what_is_odd_besides_is_remarked() -> None:
    policy = parse_policy({**GOOD, "break_glass": {"groups": ["dba"], "reviewers": ["dba"]}})
    said = remarks(policy.values, ["dba", "security"])
    assert any("names the group oncall, which nobody is in" in line for line in said)
    assert any("lets only those review broken glass" in line for line in said)


def test_the_example_keeps_every_promise() -> None:
    found = prove(load_policy(EXAMPLE).values, KNOWN)
    assert not [proof.lines for proof in found if proof.is_broken]
