"""The doctor says what runs by the clock alone, what needs people, and what never can."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bot.doctor_schedules import standing_grants
from jobs.backup_settings import TIERS, BackupSettings
from jobs.operation import Database
from jobs.registry import load_operations
from tests.approvals.support import policy_of
from tests.jobs.support import database
from tests.jobs.test_drill_notices import drilled

DBA = {"id": "dba", "groups": ["dba"]}
GRANT = {"name": "the clock", "when": {"scheduled": "yes", "operation": "backup"}, "gates": []}
ASKS = {"name": "the rest", "fallback": True, "gates": [DBA]}


def scheduled() -> Database:
    settings = BackupSettings(tiers=TIERS, verify_cron="0 0 * * 0", prune_cron="0 5 * * *")
    return replace(database("orders", "postgresql://x/orders"), backups=settings)


def examined(*rules: Any, databases: list[Database] | None = None) -> Any:
    policy = policy_of(rules=list(rules)).values
    return standing_grants(databases or [scheduled()], policy, load_operations("commands"))


def test_what_a_rule_without_gates_grants_runs_by_itself() -> None:
    finding = examined({**GRANT, "when": {"scheduled": "yes"}}, ASKS)
    assert finding.ok
    assert finding.says == "5 schedules, 5 by a standing grant"


def test_what_needs_people_each_time_is_named() -> None:
    finding = examined(GRANT, ASKS)
    assert finding.ok
    assert "3 by a standing grant" in finding.says
    assert "agree each time to verify orders, prune orders" in finding.says


def test_what_no_rule_lets_run_is_a_failure() -> None:
    finding = examined(GRANT)
    assert not finding.ok
    assert "verify orders, prune orders" in finding.says
    assert "policy.example.yml" in finding.fix


def test_a_drill_that_only_a_wide_grant_would_let_begin_is_a_failure() -> None:
    wide = {**GRANT, "when": {"scheduled": "yes"}}
    finding = examined(wide, ASKS, databases=[drilled()])
    assert not finding.ok
    assert "never asked for: drill orders" in finding.says
    people = {"name": "drills", "when": {"operation": "drill"}, "gates": [DBA]}
    finding = examined(people, wide, databases=[drilled()])
    assert finding.ok
    assert "agree each time to drill orders" in finding.says


def test_a_drill_that_no_rule_lets_run_is_a_failure() -> None:
    finding = examined(GRANT, databases=[drilled()])
    assert not finding.ok
    assert "never will: drill orders" in finding.says


def test_nothing_scheduled_is_fine() -> None:
    finding = examined(ASKS, databases=[database("orders", "postgresql://x/orders")])
    assert finding.ok
    assert "nothing is scheduled" in finding.says
