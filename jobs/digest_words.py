"""A digest in words: its sentence, its numbers, and what needs a decision. Pure.

What `bot.views.digest` posts by the clock and what `/db digest` answers is the same text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final

from jobs.digest import DatabaseDigest, Digest
from jobs.health_status import Status
from jobs.metric_text import bytes_text, metric_text, number_text
from jobs.operation import Answer, Table
from jobs.text import count_text, span_text

DECISIONS_MAX: Final = 5
ROWS_MAX: Final = 30
# A volume that lasts shorter than this is a decision: disks take weeks to come.
FULL_SOON_DAYS: Final = 90.0
_SEEN_MIN: Final = 0.9
_NAMED_MAX: Final = 3
_CHANGE_MIN: Final = 0.1
_WHOLE: Final = 100.0


def sentence(digest: Digest) -> str:
    """The whole of it in one breath."""
    total = len(digest.databases)
    ill = [each for each in worst_first(digest) if each.status is not Status.HEALTHY]
    if not ill:
        only = digest.databases[0].name
        return f"{only} is healthy." if total == 1 else f"All {total} databases are healthy."
    worst = f"{ill[0].name} is {ill[0].status}: {ill[0].problem}"
    if total == 1:
        return worst
    others = named((f"{each.name} ({each.status})" for each in ill[1:]), " Not healthy either: ")
    return f"{total - len(ill)} of {total} databases are healthy. {worst}{others}"


def decisions(digest: Digest) -> tuple[str, ...]:
    """What needs somebody to decide, each with the command; the most urgent first."""
    found = list(_decisions(digest))
    if len(found) <= DECISIONS_MAX:
        return tuple(found)
    rest = len(found) - DECISIONS_MAX + 1
    return (*found[: DECISIONS_MAX - 1], f"And {rest} more: /db readiness")


def tiles(digest: Digest) -> tuple[tuple[str, str], ...]:
    """The numbers, each with its name and what it was before."""
    found: tuple[tuple[str, str | None], ...] = (
        ("Ready for the worst", _ready(digest)),
        ("Availability seen", _availability(digest)),
        ("Backups", _backups(digest)),
        ("Alerts", _alerts(digest)),
        ("Approvals", _approvals(digest)),
        ("Storage", _storage(digest)),
        ("Load", _load(digest)),
    )
    return tuple((name, value) for name, value in found if value is not None)


def rows(digest: Digest) -> Table | None:
    """A line for each of several databases, the worst first."""
    if len(digest.databases) == 1:
        return None
    shown = worst_first(digest)[:ROWS_MAX]
    return Table(
        columns=("Database", "Status", "Ready", "Up", "Backups", "Alerts", "Size", "Full in"),
        rows=tuple(_row(each) for each in shown),
    )


def worst_first(digest: Digest) -> Sequence[DatabaseDigest]:
    """Those that need somebody, before those that do not."""
    return sorted(digest.databases, key=lambda each: each.order)


def as_answer(digest: Digest) -> Answer:
    """The digest as the answer to a command."""
    needs = decisions(digest)
    return Answer(
        title=digest.title,
        lines=(
            sentence(digest),
            *(("What needs a decision:",) if needs else ("Nothing needs a decision.",)),
            *(f"{number}. {text}" for number, text in enumerate(needs, start=1)),
            f"{digest.span}, compared with {digest.period.before}.",
        ),
        facts=tiles(digest),
        charts=digest.charts,
        table=rows(digest),
    )


def named(names: Iterable[str], head: str = "") -> str:
    """The first few, after `head`; '' for none."""
    known = list(names)
    if not known:
        return ""
    more = f" and {len(known) - _NAMED_MAX} more" if len(known) > _NAMED_MAX else ""
    return f"{head}{', '.join(known[:_NAMED_MAX])}{more}{'.' if head else ''}"


def _decisions(digest: Digest) -> Iterator[str]:
    if unacked := digest.waiting.unacked:
        yield f"Nobody has taken {named(unacked)}: /db alerts"
    for each in worst_first(digest):
        if not each.has_backup:
            yield f"{each.name} has no usable backup: /db backup {each.name}"
    yield from _full_soon(digest)
    if count := digest.waiting.requests:
        longest = span_text(timedelta(seconds=digest.waiting.longest_seconds))
        waits = "request waits" if count == 1 else "requests wait"
        yield f"{count} {waits} for approval, the longest for {longest}: /db requests open"
    if overdue := digest.approvals.overdue:
        what = count_text(overdue, "review")
        yield f"{what} of broken glass {'is' if overdue == 1 else 'are'} overdue: /db requests"
    unproven = [each.name for each in digest.databases if each.has_backup and not each.is_proven]
    if unproven:
        first = f"/db verify {unproven[0]}"
        yield f"No restore was tested lately of {named(unproven)}: {first}"
    unseen = [each.name for each in digest.databases if each.seen < _SEEN_MIN]
    if unseen:
        yield f"Monitoring saw too little of {named(unseen)}: /db health {unseen[0]}"


def _full_soon(digest: Digest) -> Iterator[str]:
    soon = [
        (each.days_until_full, each.name)
        for each in digest.databases
        if each.days_until_full is not None and each.days_until_full < FULL_SOON_DAYS
    ]
    for days, name in sorted(soon):
        when = metric_text("days_until_full", days)
        yield f"{name} may be full in {when}, more disk or less data: /db forecast {name}"


def _ready(digest: Digest) -> str:
    least = min(digest.databases, key=lambda each: (each.ready, each.name))
    score = f"{least.ready} of {least.ready_of}"
    if len(digest.databases) == 1:
        return f"{score} checks met"
    total = sum(each.ready for each in digest.databases) / len(digest.databases)
    return f"{number_text(total)} of {least.ready_of} checks on average; {least.name} {score}"


def _availability(digest: Digest) -> str:
    known = [(each.up_pct, each.name) for each in digest.databases if each.up_pct is not None]
    if not known:
        return "nobody looked"
    least, name = min(known)
    before = [each.up_pct_before for each in digest.databases if each.up_pct_before is not None]
    was = (
        f" (before {up_text(min(before))})"
        if before and up_text(min(before)) != up_text(least)
        else ""
    )
    which = f" on {name}, the lowest" if len(digest.databases) > 1 and least < _WHOLE else ""
    return f"{up_text(least)}{which}{was}"


def up_text(percent: float) -> str:
    """A share of time: 99.98 %; only what was whole is 100 %."""
    return "100 %" if percent >= _WHOLE else f"{min(percent, 99.99):.2f} %"


def _backups(digest: Digest) -> str:
    taken = sum(each.backups for each in digest.databases)
    verified = sum(each.verified for each in digest.databases)
    failed = sum(each.failed_proofs for each in digest.databases)
    wrong = f", {failed} FAILED their restore test" if failed else ""
    return f"{taken} taken, {verified} proven by a restore{wrong}"


def _alerts(digest: Digest) -> str:
    now, before = digest.alerts, digest.alerts_before
    was = f" (before {before.fired})" if before.fired != now.fired else ""
    if not now.fired:
        return f"none{was}"
    taken = f", {now.acked} acknowledged"
    over = ""
    if now.resolve_seconds is not None:
        over = f", half over within {span_text(timedelta(seconds=now.resolve_seconds))}"
    loud = ""
    if digest.noisiest and digest.noisiest[0][1] > 1:
        loud = f"; most often {digest.noisiest[0][0]} ({digest.noisiest[0][1]})"
    return f"{now.fired} began{was}{taken}{over}{loud}"


def _approvals(digest: Digest) -> str:
    now, before = digest.approvals, digest.approvals_before
    if not now.asked:
        return "nothing was asked for"
    said = f"{now.asked} asked"
    if now.lead_seconds is not None:
        said += f", half decided within {span_text(timedelta(seconds=now.lead_seconds))}"
        if before.lead_seconds is not None:
            said += f" (before {span_text(timedelta(seconds=before.lead_seconds))})"
    ends = ((now.denied, "denied"), (now.lapsed, "lapsed"))
    return said + "".join(f", {count} {what}" for count, what in ends if count)


def _storage(digest: Digest) -> str | None:
    sizes = [each.bytes for each in digest.databases if each.bytes is not None]
    if not sizes:
        return None
    growth = [each.growth for each in digest.databases if each.growth is not None]
    grows = f", {bytes_text(sum(growth), signed=True)} a day" if growth else ""
    full = [
        (each.days_until_full, each.name)
        for each in digest.databases
        if each.days_until_full is not None
    ]
    first = ""
    if full:
        days, name = min(full)
        which = f"{name} " if len(digest.databases) > 1 else ""
        first = f"; {which}full in {metric_text('days_until_full', days)} at the earliest"
    return f"{bytes_text(sum(sizes))}{grows}{first}"


def _load(digest: Digest) -> str | None:
    """Of one database its own; of several what all did, and the slowest."""
    load = _summed(digest, lambda each: (each.qps, each.qps_before))
    if load is None:
        return None
    now, before = load
    said = f"{number_text(now)} queries/s{_was(now, before, number_text)}"
    slow = [
        (each.p95_ms, each.p95_ms_before, each.name)
        for each in digest.databases
        if each.p95_ms is not None
    ]
    if slow:
        p95, was, name = max(slow, key=lambda each: each[0])
        which = f" on {name}" if len(digest.databases) > 1 else ""
        text = metric_text("query_ms_p95", p95)
        changed = _was(p95, was, lambda value: metric_text("query_ms_p95", value))
        said += f", 95 of 100 within {text}{which}{changed}"
    return said


def _summed(
    digest: Digest, pair: Callable[[DatabaseDigest], tuple[float | None, float | None]]
) -> tuple[float, float | None] | None:
    """Sums of now and before; before only where every one of now has it."""
    found = [pair(each) for each in digest.databases if pair(each)[0] is not None]
    if not found:
        return None
    before = [was for _, was in found if was is not None]
    now = sum(value for value, _ in found if value is not None)
    return now, sum(before) if len(before) == len(found) else None


def _was(now: float, before: float | None, text: Callable[[float], str]) -> str:
    """What it was, where that is another number."""
    if before is None or abs(now - before) <= _CHANGE_MIN * abs(before):
        return ""
    return f" (before {text(before)})"


def _row(each: DatabaseDigest) -> tuple[str, ...]:
    return (
        each.name,
        str(each.status),
        f"{each.ready} of {each.ready_of}",
        "-" if each.up_pct is None else up_text(each.up_pct),
        f"{each.backups}, {each.verified} proven",
        str(each.alerts),
        "-" if each.bytes is None else bytes_text(each.bytes),
        "-"
        if each.days_until_full is None
        else metric_text("days_until_full", each.days_until_full),
    )
