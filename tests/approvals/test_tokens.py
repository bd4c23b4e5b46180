"""Personal tokens: what one opens, what it does not, and what is kept of it."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from approvals import audit
from approvals.signing import VoteKeys
from approvals.tokens import LIFETIME, LIVE_MAX, Issued, Tokens, parts_of
from approvals.words import BadInputError, Flag, Person, RefusedError, Why
from store.connect import Store
from tests.approvals.support import ANA, BEN, KEYS, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(store: Store, clock: Clock) -> Tokens:
    return Tokens(store=store, keys=KEYS, clock=clock)


async def issued(
    tokens: Tokens, person: Person = ANA, delivery: str = "", **more: object
) -> Issued:
    values: dict[str, object] = {"lifetime": None, "name": "laptop", **more}
    return await tokens.issue(person, delivery=delivery, **values)  # type: ignore[arg-type]


def text_of(made: Issued) -> str:
    assert made.secret is not None
    return made.secret.get_secret_value()


async def everything(store: Store) -> str:
    """All that the store holds of tokens, and the audit, as text."""
    async with store.begin() as conn:
        rows = (await conn.execute(sa.text("SELECT * FROM tokens"))).mappings().all()
        entries = [audit.to_line(entry) async for entry in audit.read(conn)]
    return json.dumps([dict(row) for row in rows], default=str) + "\n".join(entries)


async def test_a_token_opens_for_the_person_it_was_made_for(tokens: Tokens) -> None:
    made = await issued(tokens)
    owner = await tokens.owner(text_of(made))
    assert owner is not None
    assert (owner.person, owner.slack, owner.name) == (ANA.id, "T0DEMO/U0ANA", "laptop")
    assert owner.expires_at - owner.created_at == LIFETIME


async def test_the_secret_is_kept_nowhere(tokens: Tokens, store: Store) -> None:
    made = await issued(tokens)
    secret = text_of(made).rpartition("_")[2]
    kept = await everything(store)
    assert made.token.id in kept
    assert secret not in kept
    assert secret not in repr(made)


async def test_issue_and_revocation_stand_in_the_audit(tokens: Tokens, store: Store) -> None:
    made = await issued(tokens)
    await tokens.revoke(ANA, made.token.id)
    async with store.begin() as conn:
        entries = [entry async for entry in audit.read(conn, chain="")]
    assert [(e.actor, e.action, e.detail["token"]) for e in entries] == [
        (ANA.id, "issue_token", made.token.id),
        (ANA.id, "revoke_token", made.token.id),
    ]
    assert audit.verify(entries, []) == []


async def test_a_token_runs_out_to_the_second(tokens: Tokens, clock: Clock) -> None:
    made = await issued(tokens, lifetime=timedelta(hours=2))
    clock.forward(hours=1, minutes=59, seconds=59)
    assert await tokens.owner(text_of(made))
    clock.forward(seconds=1)
    assert await tokens.owner(text_of(made)) is None


async def test_a_revoked_token_opens_nothing(tokens: Tokens) -> None:
    made, other = await issued(tokens), await issued(tokens)
    assert await tokens.revoke(ANA, made.token.id)
    assert await tokens.owner(text_of(made)) is None
    assert await tokens.owner(text_of(other))
    assert not await tokens.revoke(ANA, made.token.id)


async def test_nobody_revokes_or_sees_somebody_elses(tokens: Tokens) -> None:
    made = await issued(tokens)
    assert not await tokens.revoke(BEN, made.token.id)
    assert await tokens.of(BEN) == []
    assert [token.id for token in await tokens.of(ANA)] == [made.token.id]
    assert await tokens.owner(text_of(made))


async def test_half_of_one_and_half_of_another_open_nothing(tokens: Tokens) -> None:
    first, second = text_of(await issued(tokens)), text_of(await issued(tokens, BEN))
    head, tail = first.rpartition("_")[0], second.rpartition("_")[2]
    assert await tokens.owner(f"{head}_{tail}") is None


@pytest.mark.parametrize(
    "change",
    ["", "twk_", " {}", "{} ", "{}\n", "{}0", "{}\0", "{}é", "twk_{}", "Bearer {}"],
)
async def test_what_is_not_the_whole_token_opens_nothing(tokens: Tokens, change: str) -> None:
    made = text_of(await issued(tokens))
    for text in (change.replace("{}", made), made[:-1], made[1:], made.upper(), made[:40]):
        assert await tokens.owner(text) is None
    assert await tokens.owner(made)


@pytest.mark.parametrize("place", range(17, 81, 7))
async def test_each_character_of_the_secret_counts(tokens: Tokens, place: int) -> None:
    made = text_of(await issued(tokens))
    other = "0" if made[place] != "0" else "1"
    assert await tokens.owner(made[:place] + other + made[place + 1 :]) is None


@given(text=st.one_of(st.text(), st.from_regex(r"twk_[0-9a-fA-F]{10,13}_[0-9a-f]{60,66}")))
def test_a_token_has_one_spelling(text: str) -> None:
    parts = parts_of(text)
    assert parts is None or f"twk_{parts[0]}_{parts[1]}" == text


@pytest.mark.parametrize(
    "edit",
    [
        "person = 'ben@acme.example'",
        "slack = 'T0DEMO/U0BEN'",
        "expires_at = expires_at + interval '1 day'",
        "hash = 'x' || hash",
        "hash = ''",
        "id = '0123456789ab'",
    ],
)
async def test_a_row_that_somebody_edits_opens_nothing(
    tokens: Tokens, store: Store, edit: str
) -> None:
    made = await issued(tokens)
    async with store.begin() as conn:
        await conn.execute(sa.text(f"UPDATE tokens SET {edit}"))
    assert await tokens.owner(text_of(made)) is None
    assert await tokens.owner(text_of(made).replace(made.token.id, "0123456789ab")) is None


async def test_a_row_of_another_key_opens_nothing(store: Store, clock: Clock) -> None:
    theirs = Tokens(store=store, keys=VoteKeys(current=b"x" * 32), clock=clock)
    ours = Tokens(store=store, keys=KEYS, clock=clock)
    assert await ours.owner(text_of(await issued(theirs))) is None


async def test_a_token_lives_through_the_rotation_of_the_key(
    tokens: Tokens, store: Store, clock: Clock
) -> None:
    made = await issued(tokens)
    after = VoteKeys(current=b"the next key of the tests, 32 b!", previous=KEYS.current)
    assert await Tokens(store=store, keys=after, clock=clock).owner(text_of(made))
    later = VoteKeys(current=after.current)
    assert await Tokens(store=store, keys=later, clock=clock).owner(text_of(made)) is None


@pytest.mark.parametrize("flag", list(Flag))
async def test_whoever_may_not_act_gets_none(tokens: Tokens, flag: Flag) -> None:
    with pytest.raises(RefusedError) as refusal:
        await issued(tokens, replace(ANA, flags=frozenset({flag})))
    assert refusal.value.why is Why.IDENTITY


async def test_a_token_is_of_an_account(tokens: Tokens) -> None:
    with pytest.raises(RefusedError):
        await issued(tokens, replace(ANA, slack_user=""))


async def test_one_has_so_many_and_no_more(tokens: Tokens, clock: Clock) -> None:
    made = [await issued(tokens) for _ in range(LIVE_MAX)]
    with pytest.raises(RefusedError, match="as many as one may have"):
        await issued(tokens)
    await issued(tokens, BEN)
    await tokens.revoke(ANA, made[0].token.id)
    await issued(tokens)
    clock.forward(hours=9)
    assert (await issued(tokens)).secret


async def test_also_those_who_ask_at_once_get_no_more(tokens: Tokens) -> None:
    answers = await asyncio.gather(
        *(issued(tokens) for _ in range(3 * LIVE_MAX)), return_exceptions=True
    )
    assert sum(isinstance(answer, Issued) for answer in answers) == LIVE_MAX
    assert len(await tokens.of(ANA)) == LIVE_MAX


async def test_two_accounts_of_one_person_share_their_number(tokens: Tokens) -> None:
    for number in range(LIVE_MAX):
        await issued(tokens, replace(ANA, slack_user=f"U0ANA{number}"))
    with pytest.raises(RefusedError):
        await issued(tokens, replace(ANA, slack_user="U0OTHER"))


async def test_the_same_delivery_shows_a_token_once(tokens: Tokens) -> None:
    first = await issued(tokens, delivery="slack:1")
    again = await issued(tokens, delivery="slack:1")
    assert again.secret is None
    assert again.token == first.token
    assert (await issued(tokens, BEN, delivery="slack:1")).secret
    assert await tokens.owner(text_of(first))


@pytest.mark.parametrize(
    ("lifetime", "name"),
    [
        (timedelta(seconds=59), ""),
        (timedelta(days=7, seconds=1), ""),
        (timedelta(seconds=-1), ""),
        (None, "x" * 41),
        (None, "a\nb"),
        (None, "<!channel>"),
        (None, "\N{RIGHT-TO-LEFT OVERRIDE}"),
    ],
)
async def test_what_cannot_be_a_token(
    tokens: Tokens, lifetime: timedelta | None, name: str
) -> None:
    with pytest.raises(BadInputError):
        await issued(tokens, lifetime=lifetime, name=name)


async def test_the_last_use_is_kept_and_not_written_each_time(
    tokens: Tokens, store: Store, clock: Clock
) -> None:
    made = await issued(tokens)
    assert [token.used_at for token in await tokens.of(ANA)] == [None]
    first = clock.now
    await tokens.owner(text_of(made))
    clock.forward(seconds=59)
    await tokens.owner(text_of(made))
    assert [token.used_at for token in await tokens.of(ANA)] == [first]
    clock.forward(seconds=1)
    await tokens.owner(text_of(made))
    assert [token.used_at for token in await tokens.of(ANA)] == [clock.now]


async def test_what_ran_out_is_forgotten_a_day_later_some_at_a_time(
    tokens: Tokens, clock: Clock
) -> None:
    for _ in range(3):
        await issued(tokens)
    clock.forward(hours=20)
    await issued(tokens)
    clock.forward(hours=13)
    assert await tokens.forget(rows_max=2) == 2
    assert await tokens.forget(rows_max=2) == 1
    assert await tokens.forget(rows_max=2) == 0


async def test_the_time_does_not_tell_a_known_id_from_an_unknown_one(tokens: Tokens) -> None:
    made = text_of(await issued(tokens))
    known = made[:-1] + ("0" if made[-1] != "0" else "1")
    unknown = f"twk_{'0' * 12}_{made[17:]}"
    seconds: dict[str, list[float]] = {known: [], unknown: []}
    for _ in range(60):
        for text, taken in seconds.items():
            start = time.perf_counter()
            assert await tokens.owner(text) is None
            taken.append(time.perf_counter() - start)
    medians = [statistics.median(taken) for taken in seconds.values()]
    # Both ask the store once and compute the same; a shortcut would halve one of them.
    assert max(medians) < 3 * min(medians)
