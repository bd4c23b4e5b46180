"""A policy in words: everything that its language can say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from approvals.policy_file import load_policy, parse_policy
from approvals.policy_models import GateModel, PolicyModel, RuleModel
from bot.explain import explain_policy

EXAMPLE = Path(__file__).parents[2] / "policy.example.yml"
DBA = {"id": "dba", "groups": ["dba"]}
GLASS = {"groups": ["oncall"], "reviewers": ["security"], "review_within": "2d"}


def said(**rule: Any) -> str:
    return "\n".join(explain_policy(parse_policy({"rules": [{"gates": [DBA], **rule}]}).values))


SAYS: list[tuple[dict[str, Any], str]] = [
    ({"when": {"rows": {"gt": 5}}}, "applies when rows > 5"),
    ({"fallback": True}, "when no other rule does"),
    ({"refuse": True, "gates": []}, "It refuses, on purpose."),
    ({"gates": []}, "Nobody has to agree."),
    ({"gates": [{**DBA, "users": ["ana@a"], "approve": 2}]}, "2 of dba or ana@a"),
    ({"gates": [{**DBA, "deny": 0}]}, "1 of dba; cannot deny"),
    ({"gates": [{**DBA, "deny": 2}]}, "1 of dba; 2 denials close it"),
    (
        {"gates": [{**DBA, "escalate_after": "2h", "escalate_groups": ["oncall"]}]},
        "1 of dba; after 2 h also oncall",
    ),
    (
        {"gates": [DBA, {"id": "sec", "groups": ["sec"]}], "require": {"any": ["dba", "sec"]}},
        "One of these is enough: dba; sec.",
    ),
    ({"ordered": True}, "The gates open one after the other."),
    ({"distinct": False}, "One vote counts in every gate"),
    ({"self_approve": True}, "Whoever asks may approve too."),
    ({"self_deny": False}, "Whoever asks may not deny it."),
    ({"may_always_deny": ["security"]}, "security may always deny it, until it runs."),
    ({"change_vote": True}, "A vote can be changed."),
    ({"reason_to_deny": True}, "A denial needs a reason."),
    ({"recheck_voters": False}, "Who has voted is not looked up again when it starts."),
    ({"check_satisfiable": True}, "It is refused at once when too few people could agree."),
    ({"expires_after": "90m"}, "It expires after 90 min."),
    ({"max_ttl": "2d"}, "may choose another time, up to 2 d."),
    ({"warn_before": "30m"}, "It warns 30 min before it expires."),
    ({"remind_every": "1h"}, "Whoever could decide is reminded every 1 h."),
    ({"approval_valid_for": "1h"}, "An approval is valid for 1 h."),
    ({"not_before": "2026-12-24T18:00:00Z"}, "It starts at 2026-12-24 18:00 UTC or later."),
    (
        {"windows": ["Mon-Fri 09:00-17:00 Europe/Berlin", "Sat,Sun 10:00-12:00"]},
        "It runs only Mon-Fri 09:00-17:00 Europe/Berlin or Sat,Sun 10:00-12:00 UTC.",
    ),
    (
        {
            "freeze": [
                {
                    "name": "Christmas",
                    "from": "2026-12-24T00:00:00Z",
                    "to": "2026-12-27T00:00:00Z",
                }
            ]
        },
        "It never runs from 2026-12-24 00:00 to 2026-12-27 00:00 UTC (Christmas).",
    ),
    ({"read_all": True}, "An approval counts only when every page of the plan was opened."),
    ({"type_name": True}, "An approval counts only when the database's name was typed."),
    ({"step_up": True}, "An approval counts only when a code of the second factor was given."),
    ({}, "Where data can be lost, also only when every page of the plan was opened and"),
    ({"break_glass": GLASS}, "oncall may run it without votes, and owes a review."),
    ({"break_glass": GLASS}, "security must review that within 2 d, and be somebody else."),
    ({"break_glass": {**GLASS, "open_max": 1}}, "No more of that while 1 wait for their review."),
    ({"break_glass": {**GLASS, "alone": True}}, "One person may do that alone, on purpose."),
]


@pytest.mark.parametrize(("rule", "text"), SAYS, ids=[text[:40] for _, text in SAYS])
def test_what_a_rule_says_is_told(rule: dict[str, Any], text: str) -> None:
    assert text in said(**rule)


def test_what_the_whole_policy_says_is_told() -> None:
    policy = {
        "gates": [DBA],
        "policy_four_eyes": True,
        "never_alone": [{"operation": "failover"}],
        "delegations": [
            {
                "from": "ana@a",
                "to": "ben@a",
                "from_t": "2026-12-24T00:00:00Z",
                "to_t": "2026-12-27T00:00:00Z",
            }
        ],
    }
    text = "\n".join(explain_policy(parse_policy(policy).values))
    assert "ben@a may vote for ana@a from 2026-12-24 00:00 to 2026-12-27 00:00 UTC." in text
    assert "Nobody alone may bring this to run: operation=failover." in text
    assert "Rule a change of this policy (built in)" in text
    assert "Another policy is a request under this one" in text
    assert "in force at the next start" in said()


def test_every_word_of_the_language_is_explained() -> None:
    # What is not told by a line of its own, and why.
    silent = {"name", "when", "gates", "groups", "id", "rules", "max_reason", "users", "approve"}
    whole = {"policy_four_eyes", "never_alone", "delegations", "escalate_groups", "escalate_after"}
    told = {word for rule, _ in SAYS for word in rule} | {"deny"}
    language = {
        *PolicyModel.model_fields,
        *RuleModel.model_fields,
        *GateModel.model_fields,
    }
    assert language - told - silent - whole == set()


def test_the_example_is_told_in_words() -> None:
    text = "\n".join(explain_policy(load_policy(EXAMPLE).values))
    assert "(year-end closing)" in text
    assert "a code of the second factor was given" in text
