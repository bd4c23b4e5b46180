"""Scenario files: what is read, what is refused, and what is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from approvals.scenarios import exit_status, run_files

GOOD: dict[str, Any] = {
    "id": "S1",
    "policy": {
        "people": {"ana": {}, "bo": {"groups": ["dba"]}},
        "gates": [{"id": "g", "groups": ["dba"]}],
    },
    "events": [{"t": 0, "do": "request", "by": "ana"}, {"t": 1, "do": "approve", "by": "bo"}],
    "expected": {"state": "approved"},
}


def written(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "scenarios.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_result_has_the_fields_that_people_script_against(tmp_path: Path) -> None:
    [result] = run_files([written(tmp_path, [GOOD])])
    assert result.as_json() == {
        "id": "S1",
        "ok": True,
        "state": "approved",
        "results": ["ok", "ok"],
        "executions_count": 0,
        "voters": [["bo", "approve"]],
        "notes": [],
        "mismatches": [],
    }
    assert exit_status([result]) == 0


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"state": "denied"}, "r1 is approved, expected denied"),
        ({"state": {"r2": "pending"}}, "r2 is not there, expected pending"),
        ({"state_in": ["denied", "done"]}, "r1 is approved, expected denied or done"),
        ({"results": ["ok", "noop"]}, "event 1 gave ok, expected noop"),
        ({"results": ["ok"]}, "2 events had a result, expected 1"),
        ({"executions_count": 1}, "executed 0 times, expected 1"),
        ({"voters": []}, "the voters are [('bo', 'approve')], expected []"),
        ({"notes": ["warn"]}, "no note 'warn' was sent, only []"),
    ],
)
def test_a_scenario_that_ends_otherwise_says_how(
    tmp_path: Path, expected: dict[str, Any], said: str
) -> None:
    [result] = run_files([written(tmp_path, [{**GOOD, "expected": expected}])])
    assert result.mismatches == (said,)
    assert exit_status([result]) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"surprise": 1},
        {"policy": {"gatse": []}},
        {"policy": {"people": []}},
        {"policy": {"people": {"ana": {"flags": ["odd"]}}, "gates": []}},
        {"events": [{"t": 0, "do": "dance"}]},
        {"events": [{"do": "tick"}]},
        {"events": [{"t": 5, "do": "tick"}, {"t": 4, "do": "tick"}]},
        {"events": [{"t": 0, "do": "approve"}]},
        {"events": [{"t": 0, "do": "tick", "seen_stpe": 1}]},
        {"events": [{"t": 0, "do": "together"}]},
        {"events": [{"t": -1, "do": "tick"}]},
        {"events": [{"t": 0, "do": "policy_change", "by": "bo", "set": {"gatse": []}}]},
        {"expected": {"state": "happy"}},
    ],
)
def test_what_is_no_scenario_is_said_and_the_others_are_played(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    wrong, right = run_files([written(tmp_path, [{**GOOD, **change}, {**GOOD, "id": "S2"}])])
    assert wrong.invalid
    assert wrong.mismatches
    assert right.ok
    assert exit_status([wrong, right]) == 2


@pytest.mark.parametrize("text", ["", "{}", "nonsense", "[1]", "[", "null"])
def test_what_is_no_list_of_scenarios(tmp_path: Path, text: str) -> None:
    results = run_files([written(tmp_path, text)])
    assert exit_status(results) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    [result] = run_files([tmp_path / "none.json"])
    assert "cannot be read" in result.mismatches[0]


def test_an_id_stands_once(tmp_path: Path) -> None:
    _, second = run_files([written(tmp_path, [GOOD, GOOD])])
    assert "twice" in second.mismatches[0]


def test_together_means_in_every_order(tmp_path: Path) -> None:
    both = [{"do": "approve", "by": "bo"}, {"do": "cancel", "by": "ana"}]
    events = [GOOD["events"][0], {"t": 1, "do": "together", "events": both}]
    scenario = {**GOOD, "events": events, "expected": {"results": ["ok", ["ok", "ok"]]}}
    [result] = run_files([written(tmp_path, [scenario])])
    assert result.mismatches == ("event 1 gave ['ok', 'no:closed'], expected ('ok', 'ok')",)


def test_too_many_orders_are_refused_and_not_played(tmp_path: Path) -> None:
    many = [{"do": "approve", "by": "bo"}] * 9
    events = [GOOD["events"][0], {"t": 1, "do": "together", "events": many}]
    [result] = run_files([written(tmp_path, [{**GOOD, "events": events}])])
    assert result.invalid
