"""Rows that somebody writes who has our tables, as their owner or as we do, and has no key."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from approvals.delegations import signed_fields
from approvals.in_force import DistrustedPolicyError, Policies
from approvals.policy_file import parse_policy
from approvals.sealing import SecretBox
from approvals.second_factors import SecondFactors, code_at, counter_at
from approvals.service import Approvals
from approvals.signing import VoteKeys, key_id
from approvals.tokens import Tokens
from approvals.words import ExplainedError, State, Why
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    KEYS,
    NOON,
    Clock,
    Queue,
    a_ballot,
    an_ask,
)
from tests.approvals.test_delegations import DORA, OLE, Office

THEIRS = VoteKeys(current=b"a key that somebody made up: 32b")
OURS = key_id(KEYS.current)
Row = dict[str, Any]
Insert = Callable[[Store, str, Row], Awaitable[None]]


async def _inserted(store: Store, table: str, row: Row, become: str) -> None:
    conn = await asyncpg.connect(store.dsn.get_secret_value())
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    try:
        await conn.execute(become)
        await conn.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({values})", *row.values()
        )
    finally:
        await conn.close()


async def as_owner(store: Store, table: str, row: Row) -> None:
    """Without triggers, foreign keys and whatever else the tables have against it."""
    await _inserted(store, table, row, "SET session_replication_role = replica")


async def as_application(store: Store, table: str, row: Row) -> None:
    await _inserted(store, table, row, "SET ROLE twokey_app")


by_either = pytest.mark.parametrize("insert", [as_owner, as_application])


async def the_row(store: Store, query: str) -> Row:
    """What we stored ourselves, for whoever copies from it."""
    conn = await asyncpg.connect(store.dsn.get_secret_value())
    try:
        return dict(await conn.fetchrow(query))
    finally:
        await conn.close()


Fields = Mapping[str, Any]
SIGNED: Mapping[str, Callable[[Fields, Fields], Row]] = {
    "with nothing": lambda fields, ours: {"key_id": "", "signature": ""},
    "with our key's name alone": lambda fields, ours: {"key_id": OURS, "signature": "0" * 64},
    "with another key": lambda fields, ours: {
        "key_id": THEIRS.current_id,
        "signature": THEIRS.sign(fields).value,
    },
    "with another key under our key's name": lambda fields, ours: {
        "key_id": OURS,
        "signature": THEIRS.sign(fields).value,
    },
    "with what we signed": lambda fields, ours: {
        "key_id": ours["key_id"],
        "signature": ours["signature"],
    },
}
signed_somehow = pytest.mark.parametrize("signed", SIGNED)


def a_delegation(**change: Any) -> Row:
    """Ole in Ben's seat."""
    return {
        "id": 100,
        "absent": BEN.id,
        "absent_slack": BEN.slack,
        "stand_in": OLE.id,
        "stand_in_slack": OLE.slack,
        "starts_at": NOON - timedelta(days=1),
        "ends_at": NOON + timedelta(days=1),
        "at": NOON - timedelta(days=1),
        "revokes": None,
        **change,
    }


@by_either
@signed_somehow
async def test_a_delegation_gives_nobody_a_seat(store: Store, insert: Insert, signed: str) -> None:
    office = Office(store)
    await office.give(by=BEN, to=DORA)
    ours = await the_row(store, "SELECT * FROM delegations")
    forged = a_delegation()
    await insert(store, "delegations", forged | SIGNED[signed](signed_fields(forged), ours))

    assert (await office.vote(OLE)).why is Why.NOT_ELIGIBLE
    assert [each.stand_in for each in await office.delegations.open()] == [DORA.id]
    assert await office.delegations.of(OLE.id) == []
    assert (await office.vote(DORA)).ok  # what is ours counts as before


@by_either
@signed_somehow
async def test_a_revocation_ends_no_delegation_of_ours(
    store: Store, insert: Insert, signed: str
) -> None:
    office = Office(store)
    made = await office.give(by=BEN, to=OLE)
    ours = await the_row(store, "SELECT * FROM delegations")
    forged = a_delegation(starts_at=made.start, ends_at=made.end, at=NOON, revokes=made.id)
    await insert(store, "delegations", forged | SIGNED[signed](signed_fields(forged), ours))

    assert [each.revoked_at for each in await office.delegations.open()] == [None]
    assert (await office.vote(OLE)).ok


@by_either
async def test_the_signature_of_a_vote_is_none_of_a_delegation(
    store: Store, insert: Insert
) -> None:
    office = Office(store)
    assert (await office.vote(BEN)).ok
    ours = await the_row(store, "SELECT key_id, signature FROM votes")
    await insert(store, "delegations", a_delegation(**ours))
    assert (await office.vote(OLE)).why is Why.NOT_ELIGIBLE


SECRET = "5e" * 32
TOKEN = f"twk_{'ab' * 6}_{SECRET}"


def _mac(key: bytes, row: Row) -> str:
    """As we make it, which is no secret, under a key that is none of ours."""
    derived = hmac.new(key, b"twokey token v1", hashlib.sha256).digest()
    at = row["expires_at"].replace(tzinfo=None).isoformat(timespec="microseconds")
    text = "\n".join((row["id"], row["person"], row["slack"], f"{at}Z", SECRET))
    return hmac.new(derived, text.encode(), hashlib.sha256).hexdigest()


HASHED: Mapping[str, Callable[[Row, str], str]] = {
    "with nothing": lambda row, ours: "",
    "with the secret": lambda row, ours: SECRET,
    "with a hash of the secret": lambda row, ours: (
        f"{OURS}.{hashlib.sha256(SECRET.encode()).hexdigest()}"
    ),
    "with another key": lambda row, ours: f"{THEIRS.current_id}.{_mac(THEIRS.current, row)}",
    "with another key under our key's name": lambda row, ours: (
        f"{OURS}.{_mac(THEIRS.current, row)}"
    ),
    "with what we made": lambda row, ours: ours,
}


def a_token(**change: Any) -> Row:
    """Ben's, whose secret somebody else knows."""
    return {
        "id": "ab" * 6,
        "person": BEN.id,
        "slack": BEN.slack,
        "name": "laptop",
        "created_at": NOON,
        "expires_at": NOON + timedelta(hours=8),
        **change,
    }


@by_either
@pytest.mark.parametrize("hashed", HASHED)
async def test_a_token_opens_nothing(store: Store, insert: Insert, hashed: str) -> None:
    tokens = Tokens(store=store, keys=KEYS, clock=Clock())
    made = await tokens.issue(ANA, lifetime=None, name="", delivery="")
    ours = (await the_row(store, "SELECT hash FROM tokens"))["hash"]
    row = a_token()
    await insert(store, "tokens", row | {"hash": HASHED[hashed](row, ours)})

    assert await tokens.owner(TOKEN) is None
    assert made.secret is not None
    own = made.secret.get_secret_value()
    assert await tokens.owner(own)
    # Nor does a secret of one's own open the row that somebody put into another's name.
    assert await tokens.owner(f"twk_{row['id']}_{own.rpartition('_')[2]}") is None


async def test_such_a_token_would_open_with_our_key(store: Store) -> None:
    """That the forgeries above fail for want of the key alone."""
    tokens = Tokens(store=store, keys=KEYS, clock=Clock())
    row = a_token()
    await as_application(store, "tokens", row | {"hash": f"{OURS}.{_mac(KEYS.current, row)}"})
    owner = await tokens.owner(TOKEN)
    assert owner is not None
    assert owner.person == BEN.id


KNOWN = SecretStr("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")  # to whoever forges
BENS = f"second factor/{BEN.id}"


def _renamed(text: str) -> str:
    return text.replace(THEIRS.current_id, OURS)


SEALED: Mapping[str, Callable[[str], str]] = {
    "as it is": lambda ours: KNOWN.get_secret_value(),
    "under another key": lambda ours: SecretBox(THEIRS).seal(KNOWN, purpose=BENS),
    "under another key with our key's name": lambda ours: _renamed(
        SecretBox(THEIRS).seal(KNOWN, purpose=BENS)
    ),
    "as we sealed one's own": lambda ours: ours,
}


def a_factor(*, secret: str = "", pending: str = "") -> Row:
    """Ben's, of which somebody else can make codes."""
    return {
        "person": BEN.id,
        "slack": BEN.slack,
        "secret": secret,
        "pending": pending,
        "pending_at": NOON if pending else None,
        "told": "",
        "created_at": NOON,
        "confirmed_at": NOON if secret else None,
        "last_counter": 0,
        "failures": 0,
        "failed_at": None,
    }


async def cleos_own(factors: SecondFactors, store: Store) -> tuple[SecretStr, str]:
    """The secret that Cleo may know, and how it is stored."""
    made = await factors.begin(CLEO)
    await factors.confirm(CLEO, code_at(made.secret, counter_at(NOON)))
    row = await the_row(store, "SELECT secret FROM second_factors")
    return made.secret, row["secret"]


@by_either
@pytest.mark.parametrize("sealed", SEALED)
@pytest.mark.parametrize("where", ["secret", "pending"])
async def test_a_second_factor_takes_no_code(
    store: Store, insert: Insert, sealed: str, where: str
) -> None:
    factors = SecondFactors(store=store, box=SecretBox(KEYS), clock=Clock())
    cleos, stored = await cleos_own(factors, store)
    row = a_factor(**{where: SEALED[sealed](stored)})
    await insert(store, "second_factors", row)

    for known in (KNOWN, cleos):
        code = code_at(known, counter_at(NOON))
        with pytest.raises(ExplainedError):
            await factors.check(BEN.id, code)
        with pytest.raises(ExplainedError):
            await factors.confirm(BEN, code)
        with pytest.raises(ExplainedError):
            await factors.remove(BEN, code)
        if where == "secret":
            with pytest.raises(ExplainedError):
                await factors.begin(BEN, code=code)
    kept = await the_row(store, f"SELECT * FROM second_factors WHERE person = '{BEN.id}'")
    assert (kept["secret"], kept["pending"]) == (row["secret"], row["pending"])
    assert kept["last_counter"] == 0


STRICT = {"gates": [{"id": "dba", "groups": ["dba"], "approve": 2}], "policy_four_eyes": True}
OPEN = parse_policy({"rules": [{"name": "open", "gates": []}]}, epoch=NOON)


def a_policy_in_force(number: int, at: datetime = NOON) -> Row:
    """One that demands nothing."""
    return {"id": number, "policy_hash": OPEN.hash, "at": at, "by": ANA.id, "request_id": None}


def _signed_policy(row: Row) -> Fields:
    at = f"{row['at'].replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return {"kind": "policy in force", **row, "at": at}


@by_either
@signed_somehow
async def test_a_policy_in_force_decides_about_nothing(
    store: Store, tmp_path: Path, insert: Insert, signed: str
) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(json.dumps(STRICT))
    policies = Policies(store=store, keys=KEYS, clock=Clock(), file=file)
    approvals = Approvals(
        store=store, keys=KEYS, queue=Queue(), clock=Clock(),
        policy=(await policies.start()).policy, policies=policies,
    )  # fmt: skip
    asked = await approvals.vote(a_ballot(await approvals.ask(an_ask()), BEN))
    assert asked.request
    ours = await the_row(store, "SELECT * FROM policies_in_force")
    row = a_policy_in_force(ours["id"] + 1)
    await insert(store, "policies", {"hash": OPEN.hash, "body": OPEN.body, "at": NOON})
    forged = row | SIGNED[signed](_signed_policy(row), ours)
    await insert(store, "policies_in_force", forged)

    with pytest.raises(DistrustedPolicyError, match="not signed by us"):
        await policies.in_force()
    with pytest.raises(DistrustedPolicyError, match="not signed by us"):
        await Policies(store=store, keys=KEYS, clock=Clock(), file=file).start()
    assert await approvals.sweep() == 0  # under no policy at all
    with pytest.raises(DistrustedPolicyError):
        await approvals.ask(an_ask())
    with pytest.raises(DistrustedPolicyError):
        await approvals.vote(a_ballot(asked, CLEO))
    async with store.begin() as conn:
        begun = await approvals.begin(
            conn, asked.request.id, people={person.id: person for person in (ANA, BEN)}
        )
    assert (begun.ok, begun.why) == (False, Why.NOT_YET)
    record = await approvals.load(asked.request.id)
    assert record
    assert (record.state, record.policy_hash) == (State.PENDING, asked.request.policy_hash)
