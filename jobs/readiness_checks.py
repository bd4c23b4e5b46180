"""The guide's quick-start checklist, check by check: met or not, and by what one can tell. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from jobs.alerts import Alert
from jobs.backup_settings import BackupTier
from jobs.backup_state import DatabaseState
from jobs.drill_verdict import seconds_text
from jobs.forecast import HISTORY_LEAST
from jobs.health_state import HealthState, is_stale
from jobs.metric_text import metric_text, number_text
from jobs.operation import Tier
from jobs.readiness_backups import BACKED_UP, RESTORED, Item
from jobs.readiness_facts import PEAK_OVER, Facts, PassedDrill
from jobs.text import count_text, span_text
from jobs.timetable import timetable

# The guide's thresholds.
POOL_PCT_MAX: Final = 80.0
LAG_MS_MAX: Final = 60_000.0
DRILL_AGE_MAX: Final = timedelta(days=92)
# A way back that nobody has gone for a year is a guess.
RESTORE_AGE_MAX: Final = timedelta(days=366)
SLOW_PER_MINUTE_MAX: Final = 1.0
# A volume that is full sooner needs somebody now.
FULL_DAYS_MIN: Final = 90.0
ANCHOR_AGE_MAX: Final = timedelta(days=2)
_NEEDED: Final = (BackupTier.DAILY, BackupTier.WEEKLY, BackupTier.MONTHLY)
_PROOF_ALERTS: Final = frozenset({"BackupUnverified", "VerificationFailed", "RestoreTooSlow"})
# Back within an hour or less takes a standby: the guide's hot and warm ones.
_NEEDS_STANDBY: Final = frozenset({Tier.CRITICAL, Tier.IMPORTANT})
_NAMED_MAX: Final = 3


class Verdict(StrEnum):
    """Whether a check is met."""

    MET = "ok"
    NOT_MET = "NO"
    UNKNOWN = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One of the ten. `age`: of the evidence, None where it has none; `mend`: what would help."""

    number: int
    name: str
    verdict: Verdict
    evidence: str
    age: timedelta | None = None
    mend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """Everything that the checks look at."""

    state: DatabaseState
    health: HealthState
    facts: Facts
    items: Sequence[Item]
    alerts: Sequence[Alert]
    now: datetime

    @property
    def name(self) -> str:
        return self.state.database.name

    @property
    def seen_age(self) -> timedelta | None:
        seen_at = self.health.seen_at
        return None if seen_at is None else max(self.now - seen_at, timedelta(0))

    def since(self, at: datetime | None) -> timedelta | None:
        return None if at is None else max(self.now - at, timedelta(0))

    def wrong(self, check: int) -> list[Item]:
        return [
            item
            for item in self.items
            if item.check == check and not item.is_met and item.name != "No alert fires"
        ]


def checks(
    state: DatabaseState,
    health: HealthState,
    facts: Facts,
    *,
    items: Sequence[Item],
    alerts: Sequence[Alert],
    now: datetime,
) -> tuple[Check, ...]:
    """All ten, in the guide's order."""
    known = _Known(
        state=state, health=health, facts=facts, items=items, alerts=alerts, now=now
    )  # fmt: skip
    return tuple(each(known) for each in _ALL)


def _backups(known: _Known) -> Check:
    timed = {each.tier for each in timetable(known.state.database)}
    untimed = [str(tier) for tier in _NEEDED if tier not in timed]
    others = [alert.name for alert in known.alerts if alert.name not in _PROOF_ALERTS]
    newest = next((line for line in known.state.backups if line.is_usable), None)
    is_met = not (untimed or others or known.wrong(BACKED_UP)) and newest is not None
    if untimed:
        evidence = f"no schedule for {_names(untimed)}"
        mend = f"Write `backups: {{}}` under {known.name} in the inventory"
    elif newest is None:
        evidence, mend = "there is no usable backup", f"/db backup {known.name}"
    elif not is_met:
        evidence = _names([*(item.name for item in known.wrong(BACKED_UP)), *others])
        mend = f"/db backup {known.name}; what is wrong stands below"
    else:
        evidence, mend = f"daily, weekly and monthly; newest {newest.id}", ""
    return _check(1, "Automated backups", is_met, evidence, mend,
                  known.since(newest.started_at if newest else None))  # fmt: skip


def _restored(known: _Known) -> Check:
    last = next((line for line in known.state.verified if line.verified_ok), None)
    wrong = known.wrong(RESTORED)
    is_met = last is not None and not wrong
    evidence = f"{last.id} restored and checked" if last else "no backup was ever restored"
    if wrong and last:
        evidence = "; ".join(f"{item.name}: {item.evidence}" for item in wrong[:_NAMED_MAX])
    queries = any(item.name == "A copy is asked for its use" for item in wrong)
    mend = "Name `critical_queries` in the inventory" if queries and len(wrong) == 1 else (
        f"/db verify {known.name}"
    )  # fmt: skip
    return _check(2, "Restores tested", is_met, evidence, mend,
                  known.since(last.verified_at if last else None))  # fmt: skip


def _monitored(known: _Known) -> Check:
    settings, number, name = known.state.database.monitoring, 3, "Monitoring and alerts"
    if not settings.is_on:
        mend = f"Take `monitoring: false` out of {known.name} in the inventory"
        return _check(number, name, False, "switched off", mend)
    blind = list(_blind_spots(known))
    nodes = count_text(len(known.health.nodes), "node")
    evidence = (
        "; ".join(blind) or f"{nodes} every {span_text(settings.every)}, alerts go to its channel"
    )
    return _check(number, name, not blind, evidence, f"/db health {known.name}", known.seen_age)


def _blind_spots(known: _Known) -> Iterator[str]:
    """What nobody would notice."""
    health, database = known.health, known.state.database
    seen = {node.node: node for node in health.nodes if node.seen_at is not None}
    expected = [database.name, *(replica.name for replica in database.replicas)]
    if unseen := [name for name in expected if name not in seen]:
        yield f"never seen: {_names(unseen)}"
    late = [
        name for name, node in seen.items() if not node.ok or is_stale(node, database, known.now)
    ]
    if late:
        yield f"not seen lately: {_names(late)}"
    if not seen:
        return
    if health.detail.get("statements_missing"):
        yield "no statistics of statements"
    if health.numbers.get("disk_usage_pct") is None:
        yield "disk use is not known (`volume:` in the inventory)"


def _pooled(known: _Known) -> Check:
    number, name, advice = 4, "Connection pool tuned", f"/db pool {known.name}"
    values = [known.facts.pool_peak, known.health.numbers.get("pool_usage_pct")]
    found = [value for value in values if value is not None]
    if not found:
        return _unknown(number, name, "no samples yet", advice)
    peak, usable = max(found), known.health.numbers.get("connections_usable")
    pools = known.state.database.monitoring.pools
    wanted = sum(pool.instances * pool.size for pool in pools)
    over = f"peak {number_text(peak)} % in {span_text(PEAK_OVER)}"
    if pools and usable is None:
        said = f"{over}, pools of {wanted}, and nobody knows for how many slots"
        return _unknown(number, name, said, advice, known.seen_age)
    declared = (
        f"pools of {wanted} for {number_text(usable)} slots"
        if pools and usable is not None
        else "no pools in the inventory"
    )
    is_met = peak < POOL_PCT_MAX and (usable is None or wanted <= usable)
    return _check(number, name, is_met, f"{over}, {declared}", advice, known.seen_age)


def _indexed(known: _Known) -> Check:
    number, name = 5, "Slow queries indexed"
    advice = f"/db slow {known.name}, then /db indexes {known.name}"
    if known.health.detail.get("statements_missing"):
        return _unknown(number, name, "no statistics of statements", f"/db slow {known.name}")
    slow, facts = known.health.numbers.get("slow_queries"), known.facts
    average = facts.slow_average if facts.slow_average is not None else slow
    if average is None:
        return _unknown(number, name, "no samples yet", advice)
    statements = facts.slow_statements or 0
    is_met = average < SLOW_PER_MINUTE_MAX and not statements
    evidence = (
        f"{number_text(average)} slow a minute,"
        f" {count_text(statements, 'statement')} over 1 s on average"
    )
    return _check(number, name, is_met, evidence, advice, known.seen_age)


def _replicated(known: _Known) -> Check:
    number, name = 6, "Replication for HA"
    database, numbers = known.state.database, known.health.numbers
    configured = database.monitoring.replicas
    expected = len(database.replicas) if configured is None else configured
    advice = f"/db health {known.name}"
    if not expected:
        needs = database.tier in _NEEDS_STANDBY
        why = "needs one" if needs else "comes back from backups"
        mend = "Add a standby, and name it under `replicas:` in the inventory"
        return _check(number, name, not needs, f"no standby; tier {database.tier} {why}", mend)
    streaming = numbers.get("replicas_streaming")
    if streaming is None:
        return _unknown(number, name, f"{expected} expected, none seen yet", advice)
    lag = numbers.get("replication_lag_ms")
    is_met = streaming >= expected and (lag or 0) < LAG_MS_MAX
    behind = f", {metric_text('replication_lag_ms', lag)} behind" if lag is not None else ""
    evidence = f"{number_text(streaming)} of {expected} stream{behind}"
    return _check(number, name, is_met, evidence, advice, known.seen_age)


def _procedures(known: _Known) -> Check:
    """A link to what people do, and that it was done once: a restore that somebody asked for."""
    runbook = known.state.database.monitoring.runbooks
    restored = known.facts.restored_at
    age = known.since(restored)
    is_recent = age is not None and age <= RESTORE_AGE_MAX
    wrong = [
        *([] if runbook else ["no runbook link"]),
        *([] if is_recent else ["nobody has asked for a restore for a year"]),
    ]
    restore = f"/db restore {known.name} --to latest --into scratch"
    mend = restore if not is_recent else "Name `runbooks:` under `monitoring:` in the inventory"
    return _check(7, "Recovery procedures", not wrong,
                  "; ".join(wrong) or "runbook linked, restore done", mend, age)  # fmt: skip


def _drilled(known: _Known) -> Check:
    """One that passed, of any kind that is allowed here; a restore elsewhere always is."""
    cluster, passed = known.state.database.cluster, known.facts.drill
    every = cluster.drills.every if cluster else DRILL_AGE_MAX
    age = known.since(passed.at if passed else None)
    if passed is None:
        evidence = "none has ever passed"
    elif not passed.is_intact:
        evidence = f"the report of request {passed.request_id} is not the one that was stored"
    else:
        evidence = f"{passed.kind} passed, {_cost(passed)}, request {passed.request_id}"
    is_recent = age is not None and age <= every
    is_met = is_recent and passed is not None and passed.is_intact
    if not is_recent:
        evidence += f"; one is due every {span_text(every)}"
    return _check(8, "Quarterly drill", is_met, evidence, _drill_mend(known), age)


def _cost(passed: PassedDrill) -> str:
    known = (("RPO", passed.rpo_seconds), ("RTO", passed.rto_seconds))
    return ", ".join(
        f"{name} {'not known' if seconds is None else seconds_text(seconds)}"
        for name, seconds in known
    )


def _drill_mend(known: _Known) -> str:
    """What to rehearse; without a second server, the loss of all of them."""
    cluster, name = known.state.database.cluster, known.name
    if cluster is not None and cluster.drills.kinds:
        return f"/db drill {name} {cluster.drills.kind}"
    if cluster is not None:
        return (
            f"Name `cluster.drills.kinds` of {name} in the inventory: restore harms nothing, then"
            f" /db drill {name} restore"
        )
    has_backup = any(line.is_usable for line in known.state.backups)
    first = "" if has_backup else f"/db backup {name}, then "
    return f"{first}/db drill {name} restore: that needs no second server"


def _audited(known: _Known) -> Check:
    """Row by row on the sensitive tables, and Twokey's own audit anchored."""
    number, name = 9, "Audit logging"
    wanted = known.state.database.monitoring.sensitive_tables
    anchored = known.since(known.facts.anchored_at)
    own = anchored is not None and anchored <= ANCHOR_AGE_MAX
    if not wanted:
        mend = "Name `sensitive_tables:` under `monitoring:` in the inventory"
        return _check(number, name, False, "no sensitive tables are named", mend, anchored)
    bare = [table for table in wanted if table not in known.facts.audited]
    wrong = [
        *([f"no audit trigger known on {_names(bare)}"] if bare else []),
        *([] if own else ["Twokey's own audit is not anchored"]),
    ]
    fine = f"{count_text(len(wanted), 'table')} audited, Twokey's own audit anchored"
    mend = (
        f"/db audit-trigger {known.name} {bare[0]}" if bare else "Name `anchors:` in the inventory"
    )
    return _check(number, name, not wrong, "; ".join(wrong) or fine, mend, anchored)


def _forecast(known: _Known) -> Check:
    number, name, advice = 10, "Capacity forecast", f"/db forecast {known.name}"
    facts, days = known.facts, known.health.numbers.get("days_until_full")
    age = None
    if facts.sized_on is not None:
        age = known.since(datetime.combine(facts.sized_on, time(), UTC))
    if facts.size_days < HISTORY_LEAST:
        so_far = f"{facts.size_days} of {HISTORY_LEAST} days of sizes so far"
        return _unknown(number, name, so_far, "It comes with time, while monitoring is on", age)
    history = f"{count_text(facts.size_days, 'day')} of history"
    if known.health.numbers.get("disk_usage_pct") is None:
        evidence = f"{history}, but the volume's size is not known"
        return _check(number, name, False, evidence, "`volume:` in the inventory", age)
    if days is None:
        return _check(number, name, True, f"{history}, not full as far as can be foreseen", "", age)
    evidence = f"full in {metric_text('days_until_full', days)} at the earliest; {history}"
    return _check(number, name, days >= FULL_DAYS_MIN, evidence, advice, age)


_ALL: Final[tuple[Callable[[_Known], Check], ...]] = (
    _backups, _restored, _monitored, _pooled, _indexed, _replicated, _procedures, _drilled,
    _audited, _forecast,
)  # fmt: skip


def _check(
    number: int,
    name: str,
    is_met: bool,  # noqa: FBT001 - what a check is about
    evidence: str,
    mend: str,
    age: timedelta | None = None,
) -> Check:
    verdict = Verdict.MET if is_met else Verdict.NOT_MET
    return Check(number=number, name=name, verdict=verdict, evidence=evidence, age=age,
                 mend="" if is_met else mend)  # fmt: skip


def _unknown(
    number: int, name: str, evidence: str, mend: str, age: timedelta | None = None
) -> Check:
    return Check(
        number=number, name=name, verdict=Verdict.UNKNOWN, evidence=evidence, mend=mend, age=age
    )


def _names(names: Iterable[str]) -> str:
    known = list(dict.fromkeys(names))
    more = f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
    return f"{', '.join(known[:_NAMED_MAX])}{more}"
