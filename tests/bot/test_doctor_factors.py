"""The doctor says whether the codes that rules demand can be given, and looks at any store."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import SecretStr

from approvals.in_force import Policies
from approvals.sealing import SecretBox
from approvals.signing import VoteKeys
from bot.doctor_factors import second_factors
from bot.embedded import embedded_store, running_dsn
from store.connect import Store
from tests.approvals.support import KEYS, Clock

RULE: dict[str, Any] = {"name": "all", "when": {}, "gates": [{"id": "dba", "groups": ["dba"]}]}
SECRET = SecretStr("A" * 32)


def policies(store: Store, folder: Path, *, step_up: bool) -> Policies:
    file = folder / "policy.yml"
    file.write_text(json.dumps({"rules": [{**RULE, "step_up": step_up}]}))
    return Policies(store=store, keys=KEYS, clock=Clock(), file=file)


async def set_up(store: Store, person: str, keys: VoteKeys) -> None:
    sealed = SecretBox(keys).seal(SECRET, purpose=f"second factor/{person}")
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                "INSERT INTO second_factors (person, slack, secret, pending, told, created_at,"
                " confirmed_at, last_counter, failures)"
                " VALUES (:person, 'T/U', :secret, '', '', now(), now(), 0, 0)"
            ),
            {"person": person, "secret": sealed},
        )


async def test_a_code_that_nobody_can_give_is_found(store: Store, tmp_path: Path) -> None:
    box = SecretBox(KEYS)
    relaxed = await second_factors(policies(store, tmp_path, step_up=False), box, store)
    assert (relaxed.ok, relaxed.says) == (True, "0 set up; 0 rules demand a code")
    strict = policies(store, tmp_path, step_up=True)
    finding = await second_factors(strict, box, store)
    assert not finding.ok
    assert finding.says == "1 rule demands a code, and nobody has set up a second factor."
    assert "/db mfa enroll" in finding.fix
    await set_up(store, "ben@acme.example", KEYS)
    finding = await second_factors(strict, box, store)
    assert (finding.ok, finding.says) == (True, "1 set up; 1 rule demands a code")


async def test_it_is_the_policy_in_force_that_demands(store: Store, tmp_path: Path) -> None:
    await policies(store, tmp_path, step_up=True).start()
    proposed = policies(store, tmp_path, step_up=False)
    assert not (await second_factors(proposed, SecretBox(KEYS), store)).ok


async def test_what_another_key_has_encrypted_is_found(store: Store, tmp_path: Path) -> None:
    old = VoteKeys(current=b"the key before, of 32 bytes, too!")
    await set_up(store, "ben@acme.example", old)
    await set_up(store, "cleo@acme.example", KEYS)
    asked = policies(store, tmp_path, step_up=True)
    finding = await second_factors(asked, SecretBox(KEYS), store)
    assert not finding.ok
    assert finding.says.startswith("1 of 2 encrypted with a vote key that is not set")
    both = replace(KEYS, previous=old.current)
    assert (await second_factors(asked, SecretBox(both), store)).ok


async def test_an_embedded_store_is_looked_at_while_it_runs_and_never_started(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    assert await running_dsn(home, os.environ) is None
    assert not home.exists()
    async with embedded_store(home, os.environ) as dsn:
        found = await running_dsn(home, os.environ)
        assert found is not None
        assert found.get_secret_value() == dsn.get_secret_value()
    assert await running_dsn(home, os.environ) is None
