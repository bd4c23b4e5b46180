"""What a failover cost: of the rows that were acknowledged, those that the new primary lacks.

Pure, over what a ledger wrote down and what the new primary holds. Times are seconds since 1970
by the clock of the one who wrote (the bot), never a server's.

A row is acknowledged when a server said that it committed, whatever happened next. That includes
a row whose wait for a synchronous standby was cancelled: the server says "committed locally" in
a warning beside its success, and an application that heeds no warnings goes on. So such a row is
`local`, is acknowledged like any other, and is lost when the new primary does not have it: the
one way to lose rows under synchronous replication, which is why they are counted apart.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

GAP_SECONDS: Final = 0.15  # no pause of a writer that has a row each 10 ms on a machine at rest
GAPS_MAX: Final = 20
_NOTHING: Final[Mapping[str, float]] = MappingProxyType({})
_NO_NAMES: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows `first` to `last`, every one acknowledged by the same server: one, or a few folded.

    `sent`: when the first one was. Between the first and the last acknowledgement the others are
    taken to be evenly spread. `server`: when its postmaster began, which no two servers share.
    """

    first: int
    last: int
    sent: float
    acked_first: float
    acked_last: float
    server: str
    is_local: bool = False

    def rows(self) -> Iterator[tuple[int, float]]:
        """Each row's number and when it was acknowledged."""
        if self.first == self.last:
            yield self.first, self.acked_last
            return
        step = (self.acked_last - self.acked_first) / (self.last - self.first)
        for index, seq in enumerate(range(self.first, self.last)):
            yield seq, self.acked_first + index * step
        yield self.last, self.acked_last


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """When a process wrote: between two lives nobody did, and what happened then is unknown."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a ledger has written down. `spans`: in any order, and a row may be there twice.

    `last`: the newest row whose end is known. `failed`: rows that nobody acknowledged. `names`:
    the nodes behind `Span.server`, where they were found out.
    """

    spans: tuple[Span, ...] = ()
    last: int = 0
    failed: int = 0
    lives: tuple[Life, ...] = ()
    names: Mapping[str, str] = field(default_factory=lambda: _NO_NAMES)


@dataclass(frozen=True, slots=True)
class Present:
    """Numbers of rows that a server holds, as ranges: ascending, apart, both ends included."""

    ranges: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Present:
        """These numbers, in whatever order."""
        found: list[tuple[int, int]] = []
        for number in sorted(set(numbers)):
            if found and found[-1][1] == number - 1:
                found[-1] = (found[-1][0], number)
            else:
                found.append((number, number))
        return cls(tuple(found))

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self.ranges, number, key=lambda each: each[0])
        return index > 0 and number <= self.ranges[index - 1][1]

    def count(self, up_to: int | None) -> int:
        """How many there are, those above `up_to` left out; None: all."""
        top = math.inf if up_to is None else up_to
        return sum(int(min(end, top)) - start + 1 for start, end in self.ranges if start <= top)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A time without an acknowledgement. `server`: who ended it, '' for nobody.

    `blind_seconds`: for how much of it no ledger was writing, as its process had been killed.
    """

    began_at: datetime
    seconds: float
    server: str = ""
    blind_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What it cost. Rows are those of the ledger alone: each stands for what others wrote then.

    `lost`: acknowledged, and not on the new primary. `ambiguous`: there, and never acknowledged:
    who wrote it had to try again, so only what is idempotent is right. `local`, `lost_local`:
    acknowledged by a server that said that no standby had confirmed it (see the module), of all
    and of the lost. `failed`: sent, and never acknowledged, there or not.

    `rpo_seconds`: from the last acknowledged row before the first lost one that survived to the
    last lost one; from when the first lost one was sent where none survived, which is then the
    least that it can be. `heartbeat_seconds`: the same by the old primary's heartbeat, up to one
    beat more; None where it has none.

    `write_gap_seconds`: the longest time between two acknowledgements of which the later one, or
    the end of the ledger, came after the injection. `blind_seconds`: see `Gap`, of that one: it
    is then an upper bound, and so is `rto_seconds`.

    `first_ack_at`, `server`: the first acknowledgement after the injection that another server
    gave than the last one before it, and that survived; a server that was started again is
    another. `rto_seconds`: from the injection to there. None: there was none.

    `gaps`: the longest `GAPS_MAX` above `GAP_SECONDS`, in order.
    """

    acknowledged: int
    lost: int
    ambiguous: int
    failed: int
    local: int
    lost_local: int
    rpo_seconds: float
    heartbeat_seconds: float | None
    write_gap_seconds: float
    blind_seconds: float
    rto_seconds: float | None
    first_ack_at: datetime | None
    server: str
    gaps: tuple[Gap, ...]


def weigh(
    kept: Kept,
    present: Present,
    *,
    injected_at: datetime,
    until: datetime,
    beats: Mapping[str, float] = _NOTHING,
    settled: int | None = None,
) -> Loss:
    """What a ledger and the new primary's rows say together.

    `until`: when the ledger ended, or now. `beats`: the newest heartbeat of each server that the
    new primary has. `settled`: rows above it may still be on their way; None: it has ended.
    """
    began = injected_at.timestamp()
    tally = _tally(kept, present)
    end = until.timestamp()
    pauses = _pauses(kept, end)
    lives = (*kept.lives, *(() if settled is not None else (Life(began=end, ended=end),)))
    longest = _longest([each for each in pauses if each.end > began], kept, lives)
    before = _server_before(kept, began)
    first, server = _first_ack(kept, present, before, began)
    return Loss(
        acknowledged=tally.acknowledged,
        lost=tally.lost,
        ambiguous=present.count(settled) - (tally.acknowledged - tally.lost),
        failed=kept.failed,
        local=tally.local,
        lost_local=tally.lost_local,
        rpo_seconds=_rpo(kept, present, tally),
        heartbeat_seconds=_heartbeat(kept, before, beats),
        write_gap_seconds=longest.seconds if longest else 0.0,
        blind_seconds=longest.blind_seconds if longest else 0.0,
        rto_seconds=None if first is None else first - began,
        first_ack_at=None if first is None else datetime.fromtimestamp(first, tz=UTC),
        server=kept.names.get(server, ""),
        gaps=_worst(pauses, kept, lives),
    )


@dataclass(slots=True)
class _Tally:
    acknowledged: int = 0
    lost: int = 0
    local: int = 0
    lost_local: int = 0
    first_lost: float = math.inf
    first_lost_sent: float = math.inf
    last_lost: float = -math.inf


def _once(spans: Iterable[Span]) -> Iterator[tuple[int, float, Span]]:
    """Each row once, by its number: what was written down twice counts as it was first."""
    top = -1
    for span in sorted(spans, key=lambda each: (each.first, each.acked_first)):
        if span.last <= top:
            continue
        for seq, acked in span.rows():
            if seq > top:
                top = seq
                yield seq, acked, span


def _tally(kept: Kept, present: Present) -> _Tally:
    tally = _Tally()
    for seq, acked, span in _once(kept.spans):
        tally.acknowledged += 1
        tally.local += span.is_local
        if seq in present:
            continue
        tally.lost += 1
        tally.lost_local += span.is_local
        tally.last_lost = max(tally.last_lost, acked)
        if acked < tally.first_lost:
            # In a folded span only the first row's is known; this one's was later.
            tally.first_lost_sent = span.sent if seq == span.first else acked
            tally.first_lost = acked
    return tally


def _rpo(kept: Kept, present: Present, tally: _Tally) -> float:
    if not tally.lost:
        return 0.0
    survived = (
        acked for seq, acked, _ in _once(kept.spans) if acked <= tally.first_lost and seq in present
    )
    since = max(survived, default=min(tally.first_lost_sent, tally.first_lost))
    return tally.last_lost - since


def _server_before(kept: Kept, began: float) -> str:
    """Who gave the last acknowledgement before the injection; '' for nobody."""
    before = [span for span in kept.spans if span.acked_first <= began]
    return max(before, key=lambda span: span.acked_first).server if before else ""


def _first_ack(kept: Kept, present: Present, before: str, began: float) -> tuple[float | None, str]:
    # What a restarted old primary took and then lost is no return to work.
    others = [span for span in kept.spans if span.server != before and span.acked_last > began]
    found = (
        (acked, span.server)
        for span in others
        for seq, acked in span.rows()
        if acked > began and seq in present
    )
    return min(found, default=(None, ""))


def _heartbeat(kept: Kept, before: str, beats: Mapping[str, float]) -> float | None:
    last = max((span.acked_last for span in kept.spans if span.server == before), default=None)
    if last is None or before not in beats:
        return None
    return max(last - beats[before], 0.0)


@dataclass(frozen=True, slots=True)
class _Pause:
    start: float
    end: float
    server: str

    @property
    def seconds(self) -> float:
        return self.end - self.start


def _pauses(kept: Kept, until: float) -> list[_Pause]:
    """Between every two acknowledgements, in order; the last one up to the ledger's end."""
    spans = sorted(kept.spans, key=lambda span: span.acked_first)
    if not spans:
        return []
    pauses: list[_Pause] = []
    latest = spans[0].acked_last
    for span in spans[1:]:
        if span.acked_first > latest:
            pauses.append(_Pause(latest, span.acked_first, span.server))
        latest = max(latest, span.acked_last)
    if until > latest:
        pauses.append(_Pause(latest, until, ""))
    return pauses


def _longest(pauses: Iterable[_Pause], kept: Kept, lives: Iterable[Life]) -> Gap | None:
    found = max(pauses, key=lambda each: each.seconds, default=None)
    return None if found is None else _gap(found, kept, lives)


def _worst(pauses: Iterable[_Pause], kept: Kept, lives: Iterable[Life]) -> tuple[Gap, ...]:
    long = [each for each in pauses if each.seconds >= GAP_SECONDS]
    kept_ones = sorted(long, key=lambda each: -each.seconds)[:GAPS_MAX]
    return tuple(_gap(each, kept, lives) for each in sorted(kept_ones, key=lambda each: each.start))


def _gap(pause: _Pause, kept: Kept, lives: Iterable[Life]) -> Gap:
    return Gap(
        began_at=datetime.fromtimestamp(pause.start, tz=UTC),
        seconds=pause.seconds,
        server=kept.names.get(pause.server, ""),
        blind_seconds=_blind(pause, lives),
    )


def _blind(pause: _Pause, lives: Iterable[Life]) -> float:
    """For how much of it nobody wrote: between the end of all lives before and the next one."""
    blind, ended = 0.0, math.inf
    for life in sorted(lives, key=lambda each: each.began):
        blind += max(min(pause.end, life.began) - max(pause.start, ended), 0.0)
        ended = life.ended if math.isinf(ended) else max(ended, life.ended)
    return blind
