"""Could this database be brought back today? What stands behind the first two checks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from approvals.counting import count_text
from jobs.alerts import Alert, age_of, newest_of, restore_estimate
from jobs.backup_settings import ArchiveMethod
from jobs.backup_state import DatabaseState, Line
from jobs.operation import RTO
from jobs.text import span_text
from jobs.timetable import DRILL, timetable
from postgres.sizes import pretty_bytes

# The numbers of the two checks that these lines are about.
BACKED_UP: Final = 1
RESTORED: Final = 2
_PROOFS: Final = frozenset({"BackupUnverified", "VerificationFailed"})
_ARCHIVE: Final = frozenset({"WalArchiveDown", "WalArchiveBehind", "WalArchiveGap", "SlotGrowth"})
_PROOF_MAX: Final = timedelta(days=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line: what, whether it is so, and by what one can tell. `check`: of which of the ten."""

    name: str
    is_met: bool
    evidence: str
    check: int = BACKED_UP


def backup_items(state: DatabaseState, alerts: Sequence[Alert], now: datetime) -> tuple[Item, ...]:
    """How a database stands with its backups. `alerts`: what `jobs.alerts` finds wrong."""
    names = {alert.name for alert in alerts}
    return (
        _scheduled(state),
        *_tiers(state, now),
        _window(state, names, now),
        _proven(state, names, now),
        _restore_time(state),
        _queries(state),
        _retention(state),
        _quiet(alerts),
    )


def _scheduled(state: DatabaseState) -> Item:
    whats = [timed.what for timed in timetable(state.database) if timed.what != DRILL]
    return Item(
        name="By the clock",
        is_met=any(what.startswith("backup") for what in whats),
        evidence=", ".join(whats) or "nothing: backups are taken by hand",
    )


def _tiers(state: DatabaseState, now: datetime) -> Iterator[Item]:
    """The newest backup of each tier that is scheduled; without any, of all."""
    timed = [(each, each.tier) for each in timetable(state.database) if each.tier]
    for each, tier in timed:
        newest = newest_of(state, tier, now)
        age, allowed = age_of(state, each, tier, now)
        is_met = newest is not None and age is not None and age <= allowed
        evidence = f"{_age(newest, now)}, one is due every {span_text(allowed)}"
        yield Item(name=f"Newest {tier} backup", is_met=is_met, evidence=evidence)
    if not timed:
        usable = next((line for line in state.backups if line.is_usable), None)
        yield Item(name="Newest backup", is_met=usable is not None, evidence=_age(usable, now))


def _age(line: Line | None, now: datetime) -> str:
    if line is None:
        return "there is none"
    return f"{line.id}, {span_text(now - line.started_at)} old"


def _window(state: DatabaseState, names: set[str], now: datetime) -> Item:
    """From where on any moment can be recovered, as the archive's keeper has seen it."""
    settings, archive = state.database.backups.archive, state.archive
    if settings.method is ArchiveMethod.NONE:
        evidence = "off: only the ends of backups can be recovered"
    elif archive is None:
        evidence = "nobody has looked after it yet"
    else:
        since = _continuous_since(state, now)
        begin = f"since {since:%Y-%m-%d %H:%M} UTC, " if since else "no backup to begin with, "
        lag = f", {pretty_bytes(archive.lag_bytes)} behind" if archive.lag_bytes else ""
        gaps = f", {count_text(len(archive.gaps), 'gap')}" if archive.gaps else ""
        evidence = f"{begin}{archive.state}{lag}{gaps}, seen {span_text(now - archive.at)} ago"
    is_on = settings.method is not ArchiveMethod.NONE and archive is not None
    is_met = is_on and not names & _ARCHIVE
    return Item(name="Any moment can be recovered", is_met=is_met, evidence=evidence)


def _continuous_since(state: DatabaseState, now: datetime) -> datetime | None:
    """The end of the oldest backup whose WAL is all kept still."""
    begin = now - state.database.backups.archive.keep
    ends = [
        line.ended_at
        for line in state.backups
        if line.is_usable and line.kind != "logical" and line.started_at >= begin
    ]
    return min(ends, default=None)


def _proven(state: DatabaseState, names: set[str], now: datetime) -> Item:
    last = next((line for line in state.verified if line.verified_ok), None)
    if last is None or last.verified_at is None:
        return Item(name="Proven by a restore", is_met=False, evidence="never", check=RESTORED)
    age = now - last.verified_at
    to = f" to {last.target}" if last.target else ""
    return Item(
        name="Proven by a restore",
        is_met=age <= _PROOF_MAX and not names & _PROOFS,
        evidence=f"{last.id}{to}, {span_text(age)} ago"
        f"{'; the last test failed' if 'VerificationFailed' in names else ''}",
        check=RESTORED,
    )


def _restore_time(state: DatabaseState) -> Item:
    rto = RTO[state.database.tier]
    newest = next((line for line in state.backups if line.is_usable), None)
    expected = restore_estimate(state, newest) if newest else None
    allowed = f"allowed {span_text(rto)} (tier {state.database.tier})"
    known = f"expected {span_text(expected)}" if expected else "never timed"
    is_met = expected is not None and expected <= rto
    return Item(
        name="Restored in time", is_met=is_met, evidence=f"{known}, {allowed}", check=RESTORED
    )


def _queries(state: DatabaseState) -> Item:
    count = len(state.database.critical_queries)
    evidence = count_text(count, "critical query", "critical queries") if count else "none defined"
    return Item(
        name="A copy is asked for its use", is_met=count > 0, evidence=evidence, check=RESTORED
    )


def _retention(state: DatabaseState) -> Item:
    prune = next((timed for timed in timetable(state.database) if timed.what == "prune"), None)
    if prune is None:
        return Item(name="Old backups are removed", is_met=False, evidence="by hand only")
    standing = state.schedules[prune.name]
    said = f"request {standing.request_id} {standing.request_state}" if standing.due_at else ""
    is_met = standing.state != "missed" and standing.request_state not in {"failed", "refused"}
    when = f"last due {standing.due_at:%Y-%m-%d %H:%M} UTC" if standing.due_at else "not due yet"
    evidence = ", ".join(filter(None, (when, said if standing.request_id else "")))
    return Item(name="Old backups are removed", is_met=is_met, evidence=evidence)


def _quiet(alerts: Sequence[Alert]) -> Item:
    names = ", ".join(sorted(alert.name for alert in alerts))
    return Item(name="No alert fires", is_met=not alerts, evidence=names or "none")
