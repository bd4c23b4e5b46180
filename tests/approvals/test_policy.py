"""The policy language: what is understood, what is refused in which sentence, what is odd."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from approvals.policy import (
    MalformedPolicyError,
    PolicyError,
    explain,
    load_policy,
    parse_policy,
    pick,
    policy_hash,
    problems,
)
from approvals.policy_file import read_document
from approvals.times import Weekly, duration, moment, window

EXAMPLE = Path(__file__).parents[2] / "policy.example.yml"
GATE = {"id": "dba", "groups": ["dba"]}
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30m", 1800), ("4h", 14400), ("2d", 172800), ("1h30m", 5400), (90, 90), ("15s", 15)],
)
def test_durations_that_are_understood(text: object, seconds: int) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "4", "4 h", "h", -1, True, 1.5, None, "9999999d", 10**12])
def test_durations_that_are_not(text: object) -> None:
    with pytest.raises(ValueError, match="write 30m"):
        duration(text)


@pytest.mark.parametrize("text", [5, "tomorrow", "2026-12-24T18:00:00", None, True])
def test_a_moment_in_a_file_has_an_offset(text: object) -> None:
    with pytest.raises(ValueError, match="2026-12-24T18:00:00Z"):
        moment(text, epoch=None)


@pytest.mark.parametrize(
    ("text", "at", "inside"),
    [
        ("Mon-Fri 09:00-17:00 Europe/Berlin", "2026-11-23T08:00:00+00:00", True),
        ("Mon-Fri 09:00-17:00 Europe/Berlin", "2026-11-23T07:59:59+00:00", False),
        ("Mon-Fri 09:00-17:00 Europe/Berlin", "2026-11-23T16:00:00+00:00", False),
        ("Mon-Fri 09:00-17:00 Europe/Berlin", "2026-07-06T07:00:00+00:00", True),
        ("Mon-Fri 09:00-17:00", "2026-11-22T10:00:00+00:00", False),
        ("Fri 22:00-06:00", "2026-11-28T05:59:00+00:00", True),
        ("Fri 22:00-06:00", "2026-11-27T05:59:00+00:00", False),
        ("Sat-Mon,Wed 00:00-24:00", "2026-11-25T23:59:59+00:00", True),
        ("Sat-Mon,Wed 00:00-24:00", "2026-11-24T12:00:00+00:00", False),
        ("sun 00:00-24:00", "2026-11-29T00:00:00+00:00", True),
    ],
)
def test_weekly_windows(text: str, at: str, *, inside: bool) -> None:
    weekly = window(text, epoch=None)
    assert isinstance(weekly, Weekly)
    assert weekly.holds(datetime.fromisoformat(at)) is inside


@pytest.mark.parametrize(
    "value",
    [
        "always",
        "Mon 9-17",
        "Mon 25:00-26:00",
        "Foo 09:00-10:00",
        "Mon 09:00-10:00 Mars/Base",
        [1],
        7,
    ],
)
def test_windows_that_are_not_understood(value: object) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy({"gates": [GATE], "windows": [value]})
    assert error.value.problems[0].where == "windows[0]"


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        ({"gates": [{**GATE, "approve": 0}]}, "gates[0].approve"),
        ({"rules": [{"gates": [GATE, {**GATE, "approve": -1}]}]}, "rules[0].gates[1].approve"),
        ({"gates": [{**GATE, "deny": -1}]}, "gates[0].deny"),
        ({"gates": [{**GATE, "escalate_after": "1h"}]}, "gates[0]"),
        ({"rules": [{"when": {"a": 1}}]}, "rules[0].gates"),
        ({"gates": [GATE], "require": "dbaa"}, "require"),
        ({"gates": [GATE], "require": {"all": []}}, "require"),
        ({"gates": [GATE], "require": {"none": ["dba"]}}, "require"),
        ({"gates": [GATE, GATE], "require": "dba"}, "require"),
        ({"gates": [GATE], "expires_after": 0}, "expires_after"),
        ({"gates": [GATE], "max_reason": 0}, "max_reason"),
        ({"gates": [GATE], "not_before": 5}, "not_before"),
        ({"rules": [{"when": {"a": []}, "gates": []}]}, "rules[0].when.a"),
        (
            {"gates": [GATE], "delegations": [{"from": "a", "to": "b", "from_t": 1, "to_t": 2}]},
            "delegations[0]",
        ),
    ],
)
def test_what_must_not_be_said(policy: dict[str, Any], where: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(policy)
    assert not isinstance(error.value, MalformedPolicyError)
    assert error.value.problems[0].where == where
    assert error.value.next_step


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        ([], "the policy"),
        ({"gatse": []}, "gatse"),
        ({"gates": [{**GATE, "aprove": 2}]}, "gates[0].aprove"),
        ({"gates": [{**GATE, "approve": "2"}]}, "gates[0].approve"),
        ({"gates": [{**GATE, "approve": True}]}, "gates[0].approve"),
        ({"gates": [{"groups": ["dba"]}]}, "gates[0].id"),
        ({"gates": [GATE], "distinct": "no"}, "distinct"),
        ({"gates": [GATE], "expires_after": "soon"}, "expires_after"),
    ],
)
def test_what_is_not_in_the_language(policy: object, where: str) -> None:
    with pytest.raises(MalformedPolicyError) as error:
        parse_policy(policy)
    assert error.value.problems[0].where == where
    assert error.value.next_step


def test_a_misspelt_word_is_answered_with_the_known_ones() -> None:
    with pytest.raises(MalformedPolicyError) as error:
        parse_policy({"gates": [{**GATE, "aprove": 2}]})
    assert "approve" in error.value.next_step


def test_all_problems_are_found_at_once() -> None:
    with pytest.raises(PolicyError, match="2 problems") as error:
        parse_policy({"gates": [{**GATE, "approve": 0}], "max_reason": 0})
    assert len(error.value.problems) == 2


def test_a_key_said_twice_is_no_silent_replacement() -> None:
    with pytest.raises(MalformedPolicyError, match="twice"):
        read_document("gates: []\ngates: [1]\n", name="policy.yml")


@pytest.mark.parametrize(
    "text", ["[", "a: b: c", "\x00", "!!python/object:os.system {}", "[" * 5000]
)
def test_what_is_no_document_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(MalformedPolicyError):
        read_document(text, name="policy.yml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MalformedPolicyError, match="cannot be read"):
        load_policy(tmp_path / "none.yml")


def test_yaml_and_json_of_one_policy_have_one_hash(tmp_path: Path) -> None:
    as_json, as_yaml = tmp_path / "p.json", tmp_path / "p.yml"
    as_json.write_text(
        '{"gates": [{"groups": ["dba"], "id": "dba"}], "freeze":'
        ' [["2026-12-24T00:00:00+00:00", "2026-12-27T00:00:00+00:00"]]}'
    )
    as_yaml.write_text(
        "freeze: [[2026-12-24T00:00:00Z, 2026-12-27T00:00:00Z]]\n"
        "gates: [{id: dba, groups: [dba]}]\n"
    )
    assert policy_hash(load_policy(as_json)) == policy_hash(load_policy(as_yaml))


def test_a_rule_keeps_what_the_policy_says_unless_it_says_it_again() -> None:
    policy = parse_policy(
        {
            "self_approve": False,
            "reason_to_deny": True,
            "expires_after": "4h",
            "rules": [{"gates": [GATE], "expires_after": "1h"}],
        }
    ).values
    [rule] = policy.rules
    assert (rule.self_approve, rule.reason_to_deny) == (False, True)
    assert rule.expires_after == timedelta(hours=1)


@pytest.mark.parametrize(
    ("when", "attributes", "matches"),
    [
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": ["x", "y"]}, {"a": "y"}, True),
        ({"a": "x"}, {}, False),
        ({"a": {"gt": 5}}, {"a": 5}, False),
        ({"a": {"gt": 5}}, {"a": 6}, True),
        ({"a": {"gte": 5, "lt": 7}}, {"a": 5}, True),
        ({"a": {"gte": 5, "lt": 7}}, {"a": 7}, False),
        ({"a": {"lte": 5}}, {"a": "1"}, False),
        ({}, {}, True),
    ],
)
def test_when_a_rule_matches(
    when: dict[str, Any], attributes: dict[str, Any], *, matches: bool
) -> None:
    policy = parse_policy({"rules": [{"when": when, "gates": []}]}).values
    assert (pick(policy, attributes) is not None) is matches


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"rules": []}, "every request is refused"),
        (
            {"rules": [{"gates": [GATE]}, {"when": {"a": 1}, "gates": [GATE]}]},
            "never reached: rules[0]",
        ),
        (
            {
                "rules": [
                    {"when": {"n": {"gt": 5}}, "gates": [GATE]},
                    {"when": {"n": {"gt": 9}, "b": 1}, "gates": [GATE]},
                    {"gates": [GATE]},
                ]
            },
            "never reached: rules[0]",
        ),
        ({"rules": [{"when": {"n": {"gt": 9, "lt": 3}}, "gates": []}]}, "can never match"),
        ({"gates": [{"id": "x", "users": ["a"], "approve": 2}]}, "wants 2 approvals of 1"),
        ({"gates": [{"id": "x"}]}, "met by nobody"),
        ({"gates": [{"id": "x", "groups": ["admins"]}]}, "the group admins"),
        ({"gates": [GATE], "self_approve": True}, "approve their own"),
        ({"gates": [GATE], "expires_after": "1h", "warn_before": "1h"}, "warns before"),
        (
            {"gates": [GATE], "break_glass": {"groups": ["dba"], "reviewers": ["dba"]}},
            "review broken glass",
        ),
        ({"rules": [{"when": {"env": "prod"}, "gates": [GATE]}]}, "match no request whose env"),
    ],
)
def test_what_is_odd_in_a_policy(policy: dict[str, Any], said: str) -> None:
    found = problems(parse_policy(policy).values, {"dba"})
    assert any(said in str(problem) for problem in found), found


def test_the_example_has_no_problems_and_says_who_must_agree() -> None:
    policy = load_policy(EXAMPLE).values
    assert problems(policy) == []
    backup = explain(
        policy,
        {"environment": "production", "operation": "backup", "risk": "none", "tier": "critical"},
    )
    assert backup.rule == "production backups and restore tests"
    assert backup.gates == ("2 of dba",)
    failed = {tried.rule: tried.failed for tried in backup.tried}
    assert failed["production, data can be lost"] == ("risk is none, not destructive",)
    restore = explain(policy, {"environment": "production", "risk": "destructive"})
    assert restore.text.endswith("It needs 2 of dba and 1 of security.")
    staging = explain(policy, {"environment": "staging", "operation": "verify", "risk": "none"})
    assert staging.text.endswith("Nobody needs to agree.")


@pytest.mark.parametrize("scheduled", [{}, {"scheduled": "yes"}])
@pytest.mark.parametrize(
    ("where", "gates"),
    [
        ({"environment": "production", "tier": "critical"},
         ("2 of dba", "1 of security", "1 of owners")),
        ({"environment": "production", "tier": "standard"},
         ("2 of dba", "1 of owners or security")),
        ({"environment": "staging", "tier": "critical"}, ("1 of dba",)),
        ({"environment": "development", "tier": "archive"}, ("1 of dba",)),
    ],
)  # fmt: skip
def test_the_example_lets_no_drill_begin_by_the_clock_alone(
    where: dict[str, str], gates: tuple[str, ...], scheduled: dict[str, str]
) -> None:
    policy = load_policy(EXAMPLE).values
    asked = {"operation": "drill", "kind": "primary-crash", "risk": "destructive"}
    assert explain(policy, {**asked, **where, **scheduled}).gates == gates
    rule = policy.rule_for({**asked, **where, **scheduled})
    assert rule is not None
    # The first of a quarter may be a Friday: whoever asks then still asks on Monday.
    assert rule.expires_after >= timedelta(days=4)
    assert rule.break_glass is None


def test_no_rule_is_explained_as_refused() -> None:
    policy = parse_policy({"rules": [{"when": {"n": {"gt": 9}}, "gates": []}]}).values
    assert explain(policy, {"n": 1}).text == (
        "rules[0]: no, as n is 1, not > 9\nNo rule applies, so it is refused."
    )
