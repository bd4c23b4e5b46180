"""What is wrong with a database's backups right now. Pure.

Every alert has a name that other systems know it by, what is wrong in a sentence, and what to
do about it. `jobs.alert_backups` makes signals of them, for the same machine as all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from approvals.counting import count_text
from jobs.alert_machine import Severity
from jobs.backup_settings import ArchiveMethod, BackupTier
from jobs.backup_state import ArchiveLine, DatabaseState, Line
from jobs.firings import Asking, Standing
from jobs.operation import RTO, Database
from jobs.restore_times import Sample, estimate
from jobs.text import span_text
from jobs.timetable import DRILL, Timed, timetable
from postgres.sizes import pretty_bytes

# All that `findings` can name: what is not found of these is well.
NAMES: Final = (
    "BackupMissing", "BackupUnverified", "VerificationFailed", "BackupDamaged", "RestoreTooSlow",
    "ScheduledRequestFailed", "WalArchiveDown", "WalArchiveBehind", "WalArchiveGap", "SlotGrowth",
)  # fmt: skip
# A keeper writes every half minute; a worker that starts needs a while.
KEEPER_SILENT: Final = timedelta(minutes=10)
# A day beyond the interval: a verification waits for its turn, and takes its time.
VERIFY_LATE: Final = timedelta(days=1)
_SLOT_WARNING: Final = 0.5
_SLOT_CRITICAL: Final = 0.9
_SAMPLES: Final = 20
_SHOWN: Final = 3
# Not for a drill: somebody should be there when it begins.
_GRANT: Final = (
    ' A standing grant in the policy (scheduled: "yes") lets it run without being asked.'
)
# What a request can end as without having been agreed to.
_NOT_AGREED: Final = frozenset({"denied", "expired", "cancelled", "refused"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something that is wrong now. One of a name fires per database."""

    database: str
    name: str
    severity: Severity
    problem: str
    next_step: str


def findings(state: DatabaseState, now: datetime) -> tuple[Alert, ...]:
    """Everything that is wrong with one database's backups at `now`."""
    found = (
        _missing(state, now),
        _unverified(state, now),
        _failed_verification(state),
        _gone(state),
        _too_slow(state),
        _schedules(state, now),
        *_archive(state, now),
    )
    return tuple(alert for alert in found if alert is not None)


def _missing(state: DatabaseState, now: datetime) -> Alert | None:
    """Backups that should be there by now, by tier."""
    late = [
        (timed, age, allowed)
        for timed in timetable(state.database)
        if timed.tier is not None
        for age, allowed in [age_of(state, timed, timed.tier, now)]
        if age is not None and age > allowed
    ]
    if not late:
        return None
    name = state.database.name
    has_none = not any(line.is_usable for line in state.backups)
    very_late = any(age > 2 * allowed for _, age, allowed in late)
    return Alert(
        database=name,
        name="BackupMissing",
        severity=Severity.CRITICAL if has_none or very_late else Severity.WARNING,
        problem=" ".join(_too_old(state, timed, age, allowed) for timed, age, allowed in late),
        next_step=f"Take one: /db backup {name} tier={late[0][0].tier}; then see why the schedule"
        f" took none: /db requests {name}",
    )


def age_of(
    state: DatabaseState, timed: Timed, tier: BackupTier, now: datetime
) -> tuple[timedelta | None, timedelta]:
    """How old the newest usable backup of a tier is, and how old it may be.

    Where there is none, its schedule's own age counts. What is dated in the future was taken
    under a clock that was ahead: how old it is nobody knows.
    """
    newest = newest_of(state, tier, now)
    since = newest.started_at if newest else state.schedules[timed.name].begun_at
    return (now - since if since else None), timed.interval(now - timedelta(days=31)) + timed.grace


def newest_of(state: DatabaseState, tier: BackupTier, now: datetime) -> Line | None:
    """The newest usable backup of a tier; none of a time that is still to come."""
    return next(
        (
            line
            for line in state.backups
            if line.is_usable and line.serves(tier) and line.started_at <= now
        ),
        None,
    )


def _too_old(state: DatabaseState, timed: Timed, age: timedelta, allowed: timedelta) -> str:
    what = f"The newest {timed.tier} backup is {span_text(age)} old"
    if not any(line.is_usable and timed.tier and line.serves(timed.tier) for line in state.backups):
        what = f"There is no {timed.tier} backup since {span_text(age)}"
    return f"{what}; one is due at least every {span_text(allowed)}."


def _unverified(state: DatabaseState, now: datetime) -> Alert | None:
    timed = next((each for each in timetable(state.database) if each.what == "verify"), None)
    if timed is None:
        return None
    good = [line.verified_at for line in state.verified if line.verified_ok and line.verified_at]
    since = max((at for at in good if at <= now), default=state.schedules[timed.name].begun_at)
    allowed = timed.interval(now) + VERIFY_LATE
    if since is None or now - since <= allowed:
        return None
    name, span = state.database.name, span_text(now - since)
    said = f"The last good restore test was {span} ago" if good else f"There was none for {span}"
    return Alert(
        database=name,
        name="BackupUnverified",
        severity=Severity.WARNING,
        problem=f"No backup was proven lately by a restore. {said};"
        f" one is due at least every {span_text(allowed)}.",
        next_step=f"Prove one now: /db verify {name}",
    )


def _failed_verification(state: DatabaseState) -> Alert | None:
    """The last restore test of all found something, whichever backup it was of."""
    last = next(iter(state.verified), None)
    if last is None or last.verified_ok:
        return None
    name = state.database.name
    return Alert(
        database=name,
        name="VerificationFailed",
        severity=Severity.CRITICAL,
        problem=f"Backup {last.id} did not pass its restore test"
        f"{f' to {last.target}' if last.target else ''}: it is marked as damaged.",
        next_step=f"Take a new backup at once (/db backup {name}), verify it (/db verify {name}),"
        " and find out what damaged this one.",
    )


def _gone(state: DatabaseState) -> Alert | None:
    """Backups that are counted on and are not to be had."""
    name = state.database.name
    lost = [line.id for line in state.backups if line.state == "lost"]
    damaged = [line.id for line in state.backups if line.state == "damaged"]
    if not lost and not damaged:
        return None
    said = []
    if lost:
        said.append(f"{_names(lost)} {'is' if len(lost) == 1 else 'are'} not where the catalogue"
                    " says.")  # fmt: skip
    if damaged:
        said.append(f"{_names(damaged)} {'is' if len(damaged) == 1 else 'are'} damaged.")
    none_left = not any(line.is_usable for line in state.backups)
    return Alert(
        database=name,
        name="BackupDamaged",
        severity=Severity.CRITICAL if none_left else Severity.WARNING,
        problem=" ".join(said),
        next_step=f"Bring back what is lost, or take a new backup and remove the rest:"
        f" /db backup {name}, then /db prune {name}",
    )


def _too_slow(state: DatabaseState) -> Alert | None:
    """By the restores that were made, the newest backup would take longer than its tier allows."""
    newest = next((line for line in state.backups if line.is_usable), None)
    expected = restore_estimate(state, newest) if newest else None
    rto = RTO[state.database.tier]
    if expected is None or expected <= rto:
        return None
    return Alert(
        database=state.database.name,
        name="RestoreTooSlow",
        severity=Severity.WARNING,
        problem=f"A restore would take {span_text(expected)} by the last restore tests; the tier"
        f" {state.database.tier} allows {span_text(rto)}.",
        next_step="Restore onto faster disks, take backups with more workers, or agree on another"
        " tier.",
    )


def restore_estimate(state: DatabaseState, newest: Line) -> timedelta | None:
    """How long a restore of this backup should take; None: there is nothing to go by."""
    samples = [
        Sample(seconds=line.restore_seconds, data_bytes=line.data_bytes, wal_bytes=0)
        for line in state.verified
        if line.verified_ok and line.restore_seconds > 0
    ]
    found = estimate(samples[:_SAMPLES], data_bytes=newest.data_bytes)
    return timedelta(seconds=found.seconds) if found else None


def _schedules(state: DatabaseState, now: datetime) -> Alert | None:
    """What the clock wanted and did not get, the last time it was due."""
    graces = {timed.name: timed.grace for timed in timetable(state.database)}
    unmet = {
        name: text
        for name, each in state.schedules.items()
        if (text := _unmet(each, late=_is_late(each, graces[name], now)))
    }
    if not unmet:
        return None
    said = list(unmet.values())
    more = f" And {count_text(len(said) - _SHOWN, 'more schedule')}." if len(said) > _SHOWN else ""
    name = state.database.name
    return Alert(
        database=name,
        name="ScheduledRequestFailed",
        severity=Severity.WARNING,
        problem=" ".join(said[:_SHOWN]) + more,
        next_step=f"See what became of it: /db requests {name}."
        + ("" if all(map(_is_drill, (state.schedules[each] for each in unmet))) else _GRANT),
    )


def _is_late(each: Standing, grace: timedelta, now: datetime) -> bool:
    return each.due_at is not None and now - each.due_at > grace


def _unmet(each: Standing, *, late: bool) -> str:
    """What did not happen, as a sentence; '' when all is well, or may still be."""
    if each.due_at is None:
        return ""
    said = "was missed: no bot was there in time." if each.state == "missed" else ""
    match each.asking:
        case Asking.FAILED:
            said = f"could not be asked for: {each.problem}"
        case Asking.WAITING if late:
            said = f"was not asked for in time: {each.problem or 'nobody came to it.'}"
        case Asking.ASKED if each.request_state in _NOT_AGREED:
            said = f"was not agreed to: request {each.request_id} is {each.request_state}."
        case Asking.ASKED if each.request_state == "failed":
            said = f"failed as request {each.request_id}: {each.said}"
        case Asking.ASKED if each.request_state == "pending" and late and not _is_drill(each):
            said = f"still waits for approval as request {each.request_id}."
        case _:
            pass
    return f"{each.schedule}, due {each.due_at:%Y-%m-%d %H:%M} UTC, {said}" if said else ""


def _is_drill(each: Standing) -> bool:
    """Whether it is meant to wait for people, for as long as its rule says."""
    return each.schedule.startswith(f"{DRILL} ")


def _archive(state: DatabaseState, now: datetime) -> Iterator[Alert]:
    """What is wrong with continuous archiving."""
    settings = state.database.backups.archive
    if settings.method is ArchiveMethod.NONE:
        return
    archive, name = state.archive, state.database.name
    seen = archive.at if archive else state.known_since
    if seen is not None and now - seen > KEEPER_SILENT:
        yield Alert(
            database=name,
            name="WalArchiveDown",
            severity=Severity.CRITICAL,
            problem=f"Nobody has looked after the WAL archive of {name} for"
            f" {span_text(now - seen)}.",
            next_step="See whether a worker runs that has this database in its inventory.",
        )
    elif archive is not None and archive.state == "broken":
        yield _of_archive(name, "WalArchiveDown", Severity.CRITICAL, archive)
    elif archive is not None and archive.state == "behind":
        yield _of_archive(name, "WalArchiveBehind", Severity.WARNING, archive)
    if archive is not None:
        yield from _kept_wal(state.database, archive)


def _kept_wal(database: Database, archive: ArchiveLine) -> Iterator[Alert]:
    if archive.gaps:
        # One behind the newest backup breaks the archive; older ones go with their WAL.
        is_cut = archive.state == "broken"
        yield Alert(
            database=database.name,
            name="WalArchiveGap",
            severity=Severity.CRITICAL if is_cut else Severity.WARNING,
            problem=f"The WAL archive has {count_text(len(archive.gaps), 'gap')}: what lies behind"
            " one cannot be reached from a backup before it.",
            next_step=f"Take a full backup now, so that recovery is continuous from here on: /db"
            f" backup {database.name}"
            if is_cut
            else "Nothing can bring those moments back; it is over when prune removes that WAL.",
        )
    limit = database.backups.archive.slot_bytes_max
    share = (archive.slot_bytes or 0) / limit
    if share >= _SLOT_WARNING:
        yield Alert(
            database=database.name,
            name="SlotGrowth",
            severity=Severity.CRITICAL if share >= _SLOT_CRITICAL else Severity.WARNING,
            problem=f"The server keeps {pretty_bytes(archive.slot_bytes or 0)} of WAL for our slot;"
            f" at {pretty_bytes(limit)} the slot is given up.",
            next_step="See why WAL is not received: the network, the disk of the backups, or the"
            " worker's load.",
        )


def _of_archive(name: str, alert: str, severity: Severity, archive: ArchiveLine) -> Alert:
    lag = f" ({pretty_bytes(archive.lag_bytes)} behind)" if archive.lag_bytes else ""
    return Alert(
        database=name,
        name=alert,
        severity=severity,
        problem=archive.problem or f"The WAL archive is {archive.state}{lag}.",
        next_step=archive.next_step or f"See /db readiness {name}, and the worker's log.",
    )


def _names(ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:_SHOWN])
    more = len(ids) - _SHOWN
    which = "Backup" if len(ids) == 1 else "Backups"
    return f"{which} {shown}{f' and {more} more' if more > 0 else ''}"
