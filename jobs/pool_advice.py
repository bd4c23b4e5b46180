"""How large connection pools should be: the guide's formula, and what was measured. Pure.

connections = (cores * 2) + effective spindles is where to start: so many connections work at
once without standing in one another's way. It is a starting value and no law: commits wait for
the disk and like some more, and a transaction that waits for its application counts as well. What
must hold in any case: the sum of all pools fits into the slots that PostgreSQL gives to clients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from jobs.health_settings import AppPool
from jobs.text import count_text, span_text

# Above it the alert begins: pools that are all full at once stay below.
USAGE_MAX: Final = 0.8
# The guide: for serverless start with 10 to 20 per function instance.
SERVERLESS_MIN: Final = 10
SERVERLESS_MAX: Final = 20
# Idle all the time: the pools are larger than the work.
IDLE_SHARE_MAX: Final = 0.7
# A peak keeps some room above it.
PEAK_ROOM: Final = 1.25
_HALVINGS: Final = 30
# Peaks of less than a week miss its busiest day.
MEASURED_MIN: Final = timedelta(days=7)
_GUESSED: Final = "monitoring: {cores: 8} in the inventory (nproc on the server says how many)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of the server. Peaks and means are of `span`; None: not measured.

    `usable`: slots of clients, without those that PostgreSQL reserves.
    """

    usable: int
    max_connections: int
    now: int
    span: timedelta = timedelta(0)
    peak: float | None = None
    peak_active: float | None = None
    peak_waiting: float | None = None
    peak_idle_in_transaction: float | None = None
    idle_share: float | None = None  # on average
    has_pooler: bool = False
    pooler_waiting: int = 0
    pooler_wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAdvice:
    """One application's pool: what it is, and what to start from."""

    pool: AppPool
    size: int
    why: str

    @property
    def before(self) -> int:
        """What all its instances may open now."""
        return self.pool.instances * self.pool.size

    @property
    def after(self) -> int:
        """What they may open with the advice."""
        return self.pool.instances * self.size

    @property
    def text(self) -> str:
        """`web: 4 x 20 = 80 -> 4 x 9 = 36`."""
        now = f"{self.pool.name}: {self.pool.instances} x {self.pool.size} = {self.before:,}"
        if self.size == self.pool.size:
            return f"{now}, stays"
        return f"{now} -> {self.pool.instances} x {self.size} = {self.after:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """`start`: the formula's value, None while the cores are unknown. Lines are sentences."""

    start: int | None
    pools: tuple[PoolAdvice, ...]
    before: int
    after: int
    budget: int
    needs_pooler: bool
    findings: tuple[str, ...]
    unknown: tuple[str, ...]


def formula(cores: int, spindles: int) -> int:
    """The guide's: ((core_count * 2) + effective_spindle_count)."""
    return cores * 2 + spindles


def advise(
    measured: Measured, pools: Sequence[AppPool], *, cores: int | None, spindles: int
) -> Advice:
    """What each pool should start from, what stands out, and what nobody knows."""
    start = formula(cores, spindles) if cores is not None else None
    budget = math.floor(measured.usable * USAGE_MAX)
    before = sum(pool.instances * pool.size for pool in pools)
    told = _through_pooler(pools) if measured.has_pooler else _direct(pools, start, budget)
    told = _not_below_the_peak(told, measured, budget)
    after = sum(each.after for each in told)
    needs_pooler = not measured.has_pooler and after > budget
    return Advice(
        start=start,
        pools=told,
        before=before,
        after=after,
        budget=budget,
        needs_pooler=needs_pooler,
        findings=tuple(_findings(measured, told, before, start, needs_pooler=needs_pooler)),
        unknown=tuple(_unknown(measured, pools, cores)),
    )


def _direct(
    pools: Sequence[AppPool], start: int | None, budget: int
) -> tuple[PoolAdvice, ...]:  # fmt: skip
    """From the formula; and less, where the sum would not fit."""
    first = [_first(pool, start) for pool in pools]
    if sum(each.after for each in first) <= budget:
        return tuple(first)
    lean = [_leaner(each) for each in first]
    low, high = 0.0, 1.0
    if sum(each.after for each in lean) <= budget:
        low = high
    for _ in range(_HALVINGS if low < high else 0):
        middle = (low + high) / 2
        fits = sum(_shrunk(each, middle).after for each in lean) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return tuple(_shrunk(each, low) for each in lean)


def _first(pool: AppPool, start: int | None) -> PoolAdvice:
    if pool.is_serverless:
        size = min(pool.size, SERVERLESS_MAX)
        return PoolAdvice(pool=pool, size=size, why="serverless: 10-20 per function instance")
    if start is None or pool.size <= start:
        why = "the cores are not known" if start is None else "not above the formula"
        return PoolAdvice(pool=pool, size=pool.size, why=why)
    return PoolAdvice(pool=pool, size=start, why="the formula, as a starting value")


def _leaner(each: PoolAdvice) -> PoolAdvice:
    if not each.pool.is_serverless:
        return each
    size = min(each.pool.size, SERVERLESS_MIN)
    return PoolAdvice(pool=each.pool, size=size, why="serverless: the lower end of 10-20")


def _shrunk(each: PoolAdvice, share: float) -> PoolAdvice:
    size = max(1, math.floor(each.size * share))
    if each.pool.is_serverless or size == each.size:
        return each
    return PoolAdvice(pool=each.pool, size=size, why="so that all pools together fit")


def _through_pooler(pools: Sequence[AppPool]) -> tuple[PoolAdvice, ...]:
    return tuple(
        PoolAdvice(pool=pool, size=pool.size, why="takes no slot while it goes through the pooler")
        for pool in pools
    )


def _not_below_the_peak(
    told: Sequence[PoolAdvice], measured: Measured, budget: int
) -> tuple[PoolAdvice, ...]:
    """Where more were at work at once than the advice leaves, pools are not cut below that."""
    after = sum(each.after for each in told)
    before = sum(each.before for each in told)
    needed = math.ceil((measured.peak_active or 0) * PEAK_ROOM)
    if measured.has_pooler or not after or after >= min(needed, before, budget):
        return tuple(told)
    share = min(needed, budget) / after
    return tuple(
        each
        if each.pool.is_serverless or each.size >= each.pool.size
        else PoolAdvice(
            pool=each.pool,
            size=min(math.floor(each.size * share), each.pool.size),
            why="what was at work at once at the peak, and a quarter more",
        )
        for each in told
    )


def _findings(
    measured: Measured,
    told: Sequence[PoolAdvice],
    before: int,
    start: int | None,
    *,
    needs_pooler: bool,
) -> Iterator[str]:
    yield from _sum_against_slots(measured, before)
    if needs_pooler:
        yield from _pooler_needed(measured, told, start)
    if measured.has_pooler:
        yield from _pooler_use(measured, start)
    yield from _use(measured, start)


def _sum_against_slots(measured: Measured, before: int) -> Iterator[str]:
    if not before or measured.has_pooler:
        return
    if before > measured.usable:
        yield (
            f"All pools together may open {before:,} connections, and clients have"
            f" {measured.usable:,} slots: when all are full, PostgreSQL refuses"
            f" {before - measured.usable:,} of them."
        )
    elif before > measured.usable * USAGE_MAX:
        yield (
            f"All pools together may take {before / measured.usable:.0%} of the"
            f" {measured.usable:,} slots: more than the 80 % at which the alert begins."
        )


def _pooler_needed(
    measured: Measured, told: Sequence[PoolAdvice], start: int | None
) -> Iterator[str]:
    serverless = [each for each in told if each.pool.is_serverless]
    opened = f"about {start}" if start is not None else "cores * 2 + spindles"
    if serverless:
        names = ", ".join(each.pool.name for each in serverless)
        total = sum(each.after for each in serverless)
        yield (
            f"Serverless ({names}): each instance has a pool of its own, {total:,} connections with"
            f" {count_text(sum(each.pool.instances for each in serverless), 'instance')}, for"
            f" {measured.usable:,} slots. That needs a pooler between (PgBouncer in transaction"
            f" mode): the functions keep 10-20 each to the pooler, and it opens {opened} to"
            " PostgreSQL."
        )
    else:
        yield (
            "There are more instances than slots for them, whatever the size: put a pooler between"
            f" (PgBouncer in transaction mode) that opens {opened} to PostgreSQL."
        )


def _pooler_use(measured: Measured, start: int | None) -> Iterator[str]:
    if start is not None:
        yield (
            f"Through the pooler the formula is for its own pools: start with {start} connections"
            " to PostgreSQL in all (default_pool_size, for each database and user)."
        )
    if measured.pooler_waiting:
        yield (
            f"{count_text(measured.pooler_waiting, 'client')} now in the pooler's queue, the first"
            f" for {span_text(timedelta(seconds=measured.pooler_wait_s))}: see what takes the time"
            " (/db slow, /db locks) before its pool grows."
        )


def _use(measured: Measured, start: int | None) -> Iterator[str]:
    peak, active = measured.peak, measured.peak_active
    if peak is not None and peak > measured.usable * USAGE_MAX:
        yield f"At the peak {peak / measured.usable:.0%} of the slots were taken."
    if active is not None and start is not None and active > start:
        yield (
            f"Up to {active:.0f} connections were at work at once, where the formula says {start}:"
            " then they wait for one another. Fewer at a time are served faster; /db slow says what"
            " keeps them."
        )
    if (measured.peak_waiting or 0) >= 1:
        yield (
            f"Up to {measured.peak_waiting:.0f} waited at once (for locks, or in the pooler): more"
            " connections do not help against locks; /db locks shows who holds them."
        )
    if measured.idle_share is not None and measured.idle_share > IDLE_SHARE_MAX:
        yield (
            f"{measured.idle_share:.0%} of the connections were idle on average: the pools are"
            " larger than the work."
        )
    if (measured.peak_idle_in_transaction or 0) >= 1:
        yield (
            f"Up to {measured.peak_idle_in_transaction:.0f} were idle in a transaction: they do"
            " nothing, and hold a connection and locks. Shorten these transactions, and set"
            " idle_in_transaction_session_timeout."
        )


def _unknown(measured: Measured, pools: Sequence[AppPool], cores: int | None) -> Iterator[str]:
    if cores is None:
        yield f"How many cores the server has: no SQL tells. Write it down: {_GUESSED}."
    if not pools:
        yield (
            "Which pools the applications have: write them down in the inventory, monitoring:"
            " {pools: [{name: web, instances: 4, size: 20}]}."
        )
    if measured.peak is None:
        yield "How many connections there are at the peak: nothing is measured yet."
    elif measured.span < MEASURED_MIN:
        yield f"A whole week: peaks are of {span_text(measured.span)} so far."
