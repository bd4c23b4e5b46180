"""`twokey mfa reset`: who has lost theirs gets a new one, is told, and the audit says by whom."""

from __future__ import annotations

import asyncio
import getpass
import json
import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from approvals import audit
from approvals.sealing import SecretBox
from approvals.second_factors import SecondFactors, code_at, counter_at
from approvals.signing import VoteKeys
from approvals.words import BadInputError, Person, PersonId, RefusedError
from bot.cli.main import app
from store.connect import Store

KEY = "k" * 32
BEN = Person(id=PersonId("ben@acme.example"), name="Ben", slack_team="T0DEMO", slack_user="U0BEN")
CLEO = Person(id=PersonId("cleo@acme.example"), name="C", slack_team="T0DEMO", slack_user="U0CLEO")
Twokey = Callable[..., Awaitable[Result]]


@pytest.fixture
def twokey(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Twokey:
    """The command with our store; it runs a loop of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOKEY_STORE", store.dsn.get_secret_value())
    monkeypatch.setenv("TWOKEY_VOTE_KEY", KEY)

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["mfa", *arguments])

    return run


@pytest.fixture
def factors(store: Store) -> SecondFactors:
    box = SecretBox(VoteKeys(current=KEY.encode()))
    return SecondFactors(store=store, box=box, clock=lambda: datetime.now(UTC))


async def enrolled(factors: SecondFactors, person: Person) -> None:
    made = await factors.begin(person)
    await factors.confirm(person, code_at(made.secret, counter_at(datetime.now(UTC))))


async def resets(store: Store) -> list[tuple[str, object]]:
    """Who has reset whose, as the audit tells."""
    async with store.begin() as conn:
        entries = [entry async for entry in audit.read(conn)]
    assert audit.verify(entries, []) == []
    return [(e.actor, e.detail["person"]) for e in entries if e.action == "reset_second_factor"]


async def told(store: Store) -> list[tuple[str, str]]:
    async with store.begin() as conn:
        rows = await conn.execute(
            sa.text("SELECT channel, payload ->> 'text' AS said FROM outbox ORDER BY id")
        )
        return [(row.channel, row.said) for row in rows]


@pytest.mark.parametrize("spelt", ["ben@acme.example", " Ben@ACME.example "])
async def test_a_reset_takes_one_persons_away_and_nobody_elses(
    twokey: Twokey, factors: SecondFactors, store: Store, spelt: str
) -> None:
    for person in (BEN, CLEO):
        await enrolled(factors, person)
    done = await twokey("reset", spelt)
    assert done.exit_code == 0, done.output
    assert "The second factor of ben@acme.example is removed" in done.output
    assert await factors.status(BEN.id) is None
    assert await factors.status(CLEO.id) is not None
    with pytest.raises(RefusedError, match="no second factor"):
        await factors.check(BEN.id, "123456")


async def test_a_reset_is_in_the_audit_by_its_operator_and_its_person_is_told(
    twokey: Twokey, factors: SecondFactors, store: Store
) -> None:
    await enrolled(factors, BEN)
    done = await twokey("reset", BEN.id, "--json")
    assert json.loads(done.output) == {"person": BEN.id, "reset": True}
    operator = f"operator {getpass.getuser()}@{socket.gethostname()}"
    assert await resets(store) == [(operator, BEN.id)]
    [(channel, said)] = await told(store)
    assert channel == "U0BEN"
    assert "An operator has removed your second factor" in said


@pytest.mark.parametrize("person", ["nobody@acme.example", "", "T0DEMO/U0BEN", "ben"])
async def test_a_reset_of_who_has_none_changes_nothing_and_says_so(
    twokey: Twokey, factors: SecondFactors, store: Store, person: str
) -> None:
    await enrolled(factors, BEN)
    done = await twokey("reset", person)
    assert isinstance(done.exception, BadInputError)  # `main` makes a 2 of it
    assert "has no second factor" in done.exception.problem
    assert "is removed" not in done.output
    assert await factors.status(BEN.id) is not None
    assert (await resets(store), await told(store)) == ([], [])


async def test_a_reset_without_the_votes_key_changes_nothing(
    twokey: Twokey, factors: SecondFactors, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enrolled(factors, BEN)
    monkeypatch.delenv("TWOKEY_VOTE_KEY")
    done = await twokey("reset", BEN.id)
    assert isinstance(done.exception, BadInputError)
    assert "TWOKEY_VOTE_KEY is not set" in done.exception.problem
    assert await factors.status(BEN.id) is not None
