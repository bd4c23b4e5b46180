"""The guide's pre-migration checklist as checks with evidence. Pure.

Nine lines, in the guide's order. What is enforced says the policy, which sees whether a line is
not met; what happens in the approval itself (somebody reads the SQL, the channel gets the card)
or after it (the watch) is said as such and cannot be claimed beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from jobs.text import span_text
from postgres.migrate.words import Lock

_DEVELOPMENT: Final = frozenset({"development", "dev", "test", "testing", "qa"})
_STAGING: Final = frozenset({"staging", "stage", "preproduction", "preprod", "uat"})
# A lock that is held so long is noticed; what is shorter is the online way of doing it.
WINDOW_SECONDS: Final = 1.0


class Verdict(StrEnum):
    """How a line of the checklist stands."""

    MET = "ok"
    NOT_MET = "NO"
    NOT_NEEDED = "not needed"
    COMES = "comes"  # the approval or the run brings it


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the checklist. `mend`: what would meet it, or ''."""

    name: str
    verdict: Verdict
    evidence: str
    mend: str = ""

    @property
    def text(self) -> str:
        """For people: the verdict, what shows it, and what to do."""
        mend = f". {self.mend}" if self.mend and self.verdict is Verdict.NOT_MET else ""
        return f"{self.verdict}: {self.evidence}{mend}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What a database of `before` says. `missing`: versions not applied there, or not the same.

    `problem`: why it could not be asked, or ''.
    """

    database: str
    environment: str
    missing: Sequence[str] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsed:
    """The newest rehearsal of just this. `is_fresh`: young enough to go by."""

    ok: bool
    at: datetime
    is_fresh: bool
    seconds: float
    backup_id: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the checklist is judged by. Times aware, in UTC.

    `backup`: id and start of the newest verified backup. `way_back`: how it is taken back, in
    words; '' for no way. `blocking_seconds`: how long the worst lock would be held, None: nobody
    knows. `rehearse`: the command that rehearses it.
    """

    database: str
    environment: str
    backup: tuple[str, datetime] | None
    backup_age: timedelta
    elsewhere: Sequence[Elsewhere]
    rehearsed: Rehearsed | None
    low_seconds: float | None
    high_seconds: float | None
    lock: Lock
    blocking_seconds: float | None
    way_back: str
    channel: str
    watch: timedelta
    is_monitored: bool
    rehearse: str
    now: datetime


def checklist(evidence: Evidence) -> tuple[Line, ...]:
    """Every line, in the guide's order."""
    return (
        _backup(evidence),
        _applied("Tested in development", _DEVELOPMENT, evidence),
        _applied("Tested in staging", _STAGING, evidence),
        Line(
            name="SQL reviewed",
            verdict=Verdict.COMES,
            evidence="approvals count for these very statements and no others",
        ),
        _estimated(evidence),
        _way_back(evidence),
        _window(evidence),
        _told(evidence),
        _watched(evidence),
    )


def unmet(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Those that are not met."""
    return tuple(line for line in lines if line.verdict is Verdict.NOT_MET)


def needs_window(evidence: Evidence) -> bool:
    """Whether others would notice the locks: unknown is yes where writes or more are blocked."""
    if evidence.lock < Lock.SHARE:
        return False
    return evidence.blocking_seconds is None or evidence.blocking_seconds > WINDOW_SECONDS


def attributes(evidence: Evidence, lines: Sequence[Line]) -> Mapping[str, str | int]:
    """What the policy sees of it."""
    rehearsed = evidence.rehearsed
    if rehearsed is None or not rehearsed.is_fresh:
        word = "no"
    else:
        word = "yes" if rehearsed.ok else "failed"
    return {
        "checklist": "incomplete" if unmet(lines) else "complete",
        "unmet": len(unmet(lines)),
        "rehearsed": word,
        "needs_window": "yes" if needs_window(evidence) else "no",
        "way_back": "yes" if evidence.way_back else "no",
    }


def _backup(evidence: Evidence) -> Line:
    name, mend = "Backup verified", f"/db verify {evidence.database}"
    if evidence.backup is None:
        return _not(name, "no backup was ever proven", mend)
    backup_id, at = evidence.backup
    age = evidence.now - at
    said = f"{backup_id}, {span_text(age)} old"
    if age > evidence.backup_age:
        return _not(name, f"{said}, may be {span_text(evidence.backup_age)}", mend)
    return Line(name=name, verdict=Verdict.MET, evidence=said)


def _applied(name: str, environments: frozenset[str], evidence: Evidence) -> Line:
    there = [each for each in evidence.elsewhere if each.environment.lower() in environments]
    if not there and _is_first(environments, evidence):
        said = f"{evidence.database} is {evidence.environment}"
        return Line(name=name, verdict=Verdict.NOT_NEEDED, evidence=said)
    if not there:
        mend = f"Name one in migrations.before of {evidence.database}, and apply it there first"
        return _not(name, "no such database is named", mend)
    problems = list(_problems(there))
    if problems:
        return _not(name, "; ".join(problems), f"/db migrate {there[0].database}")
    names = ", ".join(each.database for each in there)
    return Line(name=name, verdict=Verdict.MET, evidence=f"the same bytes in {names}")


def _is_first(environments: frozenset[str], evidence: Evidence) -> bool:
    """Whether nothing comes before this database. An environment that nobody knows is last."""
    own = evidence.environment.lower()
    if own in _DEVELOPMENT:
        return True
    return own in _STAGING and (environments is _STAGING or not evidence.elsewhere)


def _problems(there: Sequence[Elsewhere]) -> Iterator[str]:
    for each in there:
        if each.problem:
            yield f"{each.database} cannot say: {each.problem}"
        elif each.missing:
            yield f"not, or not the same, in {each.database}: {', '.join(each.missing[:3])}"


def _estimated(evidence: Evidence) -> Line:
    name, rehearsed = "Duration estimated", evidence.rehearsed
    if rehearsed is not None and rehearsed.is_fresh:
        when = f"{span_text(evidence.now - rehearsed.at)} ago on {rehearsed.backup_id}"
        if not rehearsed.ok:
            return _not(name, f"rehearsal failed {when}: {rehearsed.problem}", "Mend the file")
        seconds = span_text(timedelta(seconds=rehearsed.seconds))
        return Line(name=name, verdict=Verdict.MET, evidence=f"rehearsed {when}: {seconds}")
    if evidence.high_seconds is None:
        return _not(name, "only a rehearsal can tell", evidence.rehearse)
    said = span_text(timedelta(seconds=evidence.high_seconds))
    old = ", last rehearsal too old" if rehearsed else ", not rehearsed"
    return _not(name, f"by the tables' sizes up to {said}{old}", evidence.rehearse)


def _way_back(evidence: Evidence) -> Line:
    name = "Rollback planned"
    if evidence.way_back:
        return Line(name=name, verdict=Verdict.MET, evidence=evidence.way_back)
    return _not(name, "there is no way back but the backup", "Write a down migration")


def _window(evidence: Evidence) -> Line:
    name = "Maintenance window"
    if not needs_window(evidence):
        return Line(
            name=name,
            verdict=Verdict.NOT_NEEDED,
            evidence=f"its locks block {evidence.lock.blocks}"
            if evidence.lock < Lock.SHARE
            else "its locks are held for moments",
        )
    held = (
        f"for {span_text(timedelta(seconds=evidence.blocking_seconds))}"
        if evidence.blocking_seconds is not None
        else "for nobody knows how long"
    )
    return Line(
        name=name,
        verdict=Verdict.COMES,
        evidence=f"{evidence.lock.words} blocks {evidence.lock.blocks} {held}: the policy's window",
    )


def _told(evidence: Evidence) -> Line:
    return Line(
        name="Team notified",
        verdict=Verdict.COMES if evidence.channel else Verdict.NOT_MET,
        evidence="this card stands in the database's channel"
        if evidence.channel
        else "the database has no channel",
    )


def _watched(evidence: Evidence) -> Line:
    name = "Metrics watched afterwards"
    if not evidence.is_monitored:
        return _not(name, "monitoring is off", f"Monitor {evidence.database} in the inventory")
    return Line(name=name, verdict=Verdict.COMES, evidence=f"for {span_text(evidence.watch)}")


def _not(name: str, evidence: str, mend: str) -> Line:
    return Line(name=name, verdict=Verdict.NOT_MET, evidence=evidence, mend=mend)
