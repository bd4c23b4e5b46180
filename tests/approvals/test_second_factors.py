"""Codes after RFC 6238, and what is kept of them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from approvals.sealing import SealedError, SecretBox
from approvals.second_factors import (
    LOCKED_FOR,
    STEP_SECONDS,
    Enrolment,
    SecondFactors,
    code_at,
    counter_at,
    matching_counter,
)
from approvals.signing import VoteKeys
from approvals.words import Person, PersonId, RefusedError, Why
from store.connect import Store

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
BEN = Person(id=PersonId("ben@acme.example"), name="Ben", slack_team="T0DEMO", slack_user="U0BEN")
CLEO = Person(id=PersonId("cleo@acme.example"), name="C", slack_team="T0DEMO", slack_user="U0CLEO")
KEYS = VoteKeys(current=b"k" * 32)
STEP = timedelta(seconds=STEP_SECONDS)
# Appendix B of RFC 6238, SHA-1: the secret is 12345678901234567890.
RFC_SECRET = SecretStr(base64.b32encode(b"12345678901234567890").decode())


@dataclass
class Clock:
    """A clock that stands still."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, time: timedelta) -> None:
        self.now += time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def factors(store: Store, clock: Clock) -> SecondFactors:
    return SecondFactors(store=store, box=SecretBox(KEYS), clock=clock)


def code_of(made: Enrolment, clock: Callable[[], datetime], *, steps: int = 0) -> str:
    return code_at(made.secret, counter_at(clock()) + steps)


async def enrolled(factors: SecondFactors, clock: Clock, person: Person = BEN) -> Enrolment:
    """Somebody whose factor counts, at a moment when none of its codes was taken."""
    made = await factors.begin(person)
    await factors.confirm(person, code_of(made, clock))
    clock.pass_(3 * STEP)
    return made


async def row_of(store: Store, person: Person = BEN) -> dict[str, object] | None:
    async with store.begin() as conn:
        found = await conn.execute(
            sa.text("SELECT * FROM second_factors WHERE person = :p"), {"p": person.id}
        )
        row = found.mappings().one_or_none()
        return dict(row) if row else None


async def actions(store: Store) -> list[tuple[str, str]]:
    async with store.begin() as conn:
        rows = await conn.execute(sa.text("SELECT actor, action FROM audit_log ORDER BY seq"))
        return [(row.actor, row.action) for row in rows]


async def posted(store: Store) -> list[tuple[str, str]]:
    async with store.begin() as conn:
        rows = await conn.execute(
            sa.text("SELECT channel, payload ->> 'text' AS said FROM outbox ORDER BY id")
        )
        return [(row.channel, row.said) for row in rows]


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_codes_are_those_of_the_rfc(seconds: int, code: str) -> None:
    at = datetime.fromtimestamp(seconds, UTC)
    assert code_at(RFC_SECRET, counter_at(at), digits=8) == code
    assert matching_counter(RFC_SECRET, code[2:], at=at) == seconds // 30


def test_one_step_before_and_one_after_are_taken() -> None:
    now = counter_at(NOON)
    codes = [code_at(RFC_SECRET, now + steps) for steps in range(-3, 4)]
    found = [matching_counter(RFC_SECRET, code, at=NOON) for code in codes]
    assert found == [None, None, now - 1, now, now + 1, None, None]


async def test_a_factor_counts_once_it_was_confirmed(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await factors.begin(BEN)
    with pytest.raises(RefusedError, match="no second factor") as refusal:
        await factors.check(BEN.id, code_of(made, clock))
    assert refusal.value.why is Why.STEP_UP
    assert "/db mfa enroll" in refusal.value.next_step
    await factors.confirm(BEN, code_of(made, clock))
    clock.pass_(STEP)
    await factors.check(BEN.id, code_of(made, clock))
    status = await factors.status(BEN.id)
    assert status is not None
    assert status.confirmed_at == NOON
    assert await actions(store) == [
        (BEN.id, "enroll_second_factor"),
        (BEN.id, "confirm_second_factor"),
    ]


async def test_a_code_counts_once(factors: SecondFactors, clock: Clock) -> None:
    made = await enrolled(factors, clock)
    code = code_of(made, clock)
    await factors.check(BEN.id, code)
    with pytest.raises(RefusedError, match="used already"):
        await factors.check(BEN.id, code)
    with pytest.raises(RefusedError, match="used already"):
        await factors.check(BEN.id, code_of(made, clock, steps=-1))


async def test_the_code_that_confirmed_it_counts_for_nothing_else(
    factors: SecondFactors, clock: Clock
) -> None:
    made = await factors.begin(BEN)
    code = code_of(made, clock)
    await factors.confirm(BEN, code)
    with pytest.raises(RefusedError, match="used already"):
        await factors.check(BEN.id, code)


async def test_several_at_once_take_one_code_once(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await enrolled(factors, clock)
    code = code_of(made, clock)
    async with asyncio.timeout(30), store.begin() as conn:
        # Held until all of them wait, so that they go on at the same moment.
        await conn.execute(sa.text("SELECT 1 FROM second_factors FOR UPDATE"))
        checks = [asyncio.create_task(factors.check(BEN.id, code)) for _ in range(6)]
        waiting = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        while (await conn.execute(waiting)).scalar_one() < len(checks):
            await asyncio.sleep(0.02)
    answers = await asyncio.gather(*checks, return_exceptions=True)
    assert answers.count(None) == 1


async def test_five_wrong_codes_lock_it_for_a_quarter_of_an_hour(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await enrolled(factors, clock)
    wrong = code_of(made, clock, steps=500)
    for left in (4, 3, 2, 1):
        with pytest.raises(RefusedError, match="not the code") as refusal:
            await factors.check(BEN.id, wrong)
        assert f"Tries left: {left}" in refusal.value.next_step
    with pytest.raises(RefusedError, match="Too many"):
        await factors.check(BEN.id, wrong)
    with pytest.raises(RefusedError, match="Too many"):
        await factors.check(BEN.id, code_of(made, clock))  # not even the right one
    assert (BEN.id, "lock_second_factor") in await actions(store)
    assert [channel for channel, said in await posted(store) if "wrong codes" in said] == ["U0BEN"]
    clock.pass_(LOCKED_FOR - timedelta(seconds=1))
    with pytest.raises(RefusedError, match="Too many"):
        await factors.check(BEN.id, code_of(made, clock))
    clock.pass_(timedelta(seconds=1))
    await factors.check(BEN.id, code_of(made, clock))
    status = await factors.status(BEN.id)
    assert status is not None
    assert status.locked_until is None


async def test_a_right_code_forgives_the_wrong_ones(factors: SecondFactors, clock: Clock) -> None:
    made = await enrolled(factors, clock)
    for _ in range(4):
        with pytest.raises(RefusedError, match="not the code"):
            await factors.check(BEN.id, code_of(made, clock, steps=500))
    await factors.check(BEN.id, code_of(made, clock))
    clock.pass_(3 * STEP)
    with pytest.raises(RefusedError, match="not the code"):
        await factors.check(BEN.id, code_of(made, clock, steps=500))


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "12 34 5"])
async def test_what_is_no_code_is_no_try(factors: SecondFactors, clock: Clock, code: str) -> None:
    await enrolled(factors, clock)
    for _ in range(6):
        with pytest.raises(RefusedError, match="6 digits"):
            await factors.check(BEN.id, code)


async def test_a_code_may_be_typed_in_two_halves(factors: SecondFactors, clock: Clock) -> None:
    made = await enrolled(factors, clock)
    code = code_of(made, clock)
    await factors.check(BEN.id, f" {code[:3]} {code[3:]} ")


async def test_one_persons_secret_opens_in_nobody_elses_row(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await enrolled(factors, clock)
    await enrolled(factors, clock, CLEO)
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                "UPDATE second_factors SET secret = (SELECT secret FROM second_factors"
                " WHERE person = :ben) WHERE person = :cleo"
            ),
            {"ben": BEN.id, "cleo": CLEO.id},
        )
    with pytest.raises(SealedError):
        await factors.check(CLEO.id, code_of(made, clock))


async def test_nothing_readable_is_stored(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await enrolled(factors, clock)
    again = await factors.begin(BEN, code=code_of(made, clock))
    clear = [each.secret.get_secret_value() for each in (made, again)]
    async with store.begin() as conn:
        tables = (
            await conn.execute(
                sa.text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            )
        ).scalars()
        for table in list(tables):
            rows = (await conn.execute(sa.text(f'SELECT t::text FROM "{table}" t'))).scalars()
            assert not any(secret in row for row in rows for secret in clear), table
    assert not any(secret in repr(made) + repr(again) for secret in clear)


async def test_a_new_secret_needs_the_old_one_and_replaces_it_when_confirmed(
    factors: SecondFactors, clock: Clock
) -> None:
    made = await enrolled(factors, clock)
    for code in ("", code_of(made, clock, steps=500)):
        with pytest.raises(RefusedError, match="already"):
            await factors.begin(BEN, code=code)
    new = await factors.begin(BEN, code=code_of(made, clock))
    clock.pass_(2 * STEP)
    await factors.check(BEN.id, code_of(made, clock))  # the old one counts still
    await factors.confirm(BEN, code_of(new, clock))
    clock.pass_(2 * STEP)
    with pytest.raises(RefusedError, match="not the code"):
        await factors.check(BEN.id, code_of(made, clock))
    await factors.check(BEN.id, code_of(new, clock))


async def test_a_secret_that_nobody_confirms_lapses(factors: SecondFactors, clock: Clock) -> None:
    made = await factors.begin(BEN)
    clock.pass_(timedelta(minutes=15))
    with pytest.raises(RefusedError, match="waits to be confirmed"):
        await factors.confirm(BEN, code_of(made, clock))


async def test_a_secret_that_could_not_be_sent_is_none(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await factors.begin(BEN)
    await factors.give_up(BEN.id, made)
    assert await row_of(store) is None
    kept = await enrolled(factors, clock)
    lost = await factors.begin(BEN, code=code_of(kept, clock))
    await factors.give_up(BEN.id, lost)
    clock.pass_(2 * STEP)
    await factors.check(BEN.id, code_of(kept, clock))


async def test_the_message_that_told_it_is_known_until_it_is_confirmed(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await factors.begin(BEN)
    await factors.told(BEN.id, made, "D1/1.2")
    assert await factors.confirm(BEN, code_of(made, clock)) == "D1/1.2"
    row = await row_of(store)
    assert row is not None
    assert row["told"] == ""


async def test_removing_takes_a_code_or_an_operator(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await enrolled(factors, clock)
    with pytest.raises(RefusedError, match="not the code"):
        await factors.remove(BEN, code_of(made, clock, steps=500))
    await factors.remove(BEN, code_of(made, clock))
    assert await factors.status(BEN.id) is None
    await enrolled(factors, clock)
    assert await factors.reset(BEN.id, by="operator")
    assert not await factors.reset(BEN.id, by="operator")
    assert ("operator", "reset_second_factor") in await actions(store)
    assert any("operator has removed" in said for _, said in await posted(store))


async def test_a_key_that_is_being_retired_still_opens_and_the_new_one_seals(
    factors: SecondFactors, clock: Clock, store: Store
) -> None:
    made = await enrolled(factors, clock)
    both = VoteKeys(current=b"n" * 32, previous=KEYS.current)
    rotated = replace(factors, box=SecretBox(both))
    await rotated.check(BEN.id, code_of(made, clock))
    clock.pass_(2 * STEP)
    after = replace(factors, box=SecretBox(VoteKeys(current=both.current)))
    await after.check(BEN.id, code_of(made, clock))
