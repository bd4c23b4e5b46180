"""Which policy is in force: who may put it there, what is not believed, who follows when."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from approvals import audit
from approvals.compiling import PolicyError
from approvals.in_force import DistrustedPolicyError, Policies
from approvals.service import Approvals
from approvals.signing import VoteKeys
from approvals.words import Care, RefusedError, RequestId, State, Why
from store.connect import Store
from tests.approvals.support import (
    ANA,
    BEN,
    CLEO,
    KEYS,
    Clock,
    Queue,
    a_ballot,
    an_ask,
    dba,
    policy_of,
)

OTHER_KEYS = VoteKeys(current=b"a key that somebody else has, 32")
ONE = {"gates": [{"id": "dba", "groups": ["dba"]}], "policy_four_eyes": True}
TWO = {"gates": [{"id": "dba", "groups": ["dba"], "approve": 2}], "policy_four_eyes": True}


def policies_on(
    store: Store, folder: Path, says: dict[str, Any] | None = None, *, keys: VoteKeys = KEYS
) -> Policies:
    """What a process has of it; `says` is written into the file first."""
    file = folder / "policy.yml"
    if says is not None:
        file.write_text(json.dumps(says))
    return Policies(store=store, keys=keys, clock=Clock(), file=file)


async def service(store: Store, policies: Policies) -> Approvals:
    policy = (await policies.start()).policy
    return Approvals(
        store=store, keys=KEYS, queue=Queue(), clock=Clock(), policy=policy, policies=policies
    )


async def count(store: Store) -> int:
    async with store.begin() as conn:
        found: int = await conn.scalar(sa.text("SELECT count(*) FROM policies_in_force"))
        return found


async def running_change(store: Store, approvals: Approvals) -> RequestId:
    """A change of the policy that was granted and has begun."""
    ask = an_ask(operation="policy-change", database="", attributes={"risk": "disruptive"})
    asked = await approvals.ask(ask)
    for voter in (BEN, CLEO):
        asked = await approvals.vote(a_ballot(asked, voter))
    assert asked.request is not None
    async with store.begin() as conn:
        begun = await approvals.begin(
            conn, asked.request.id, people={p.id: p for p in (ANA, BEN, CLEO)}
        )
    assert begun.ok, begun
    return asked.request.id


async def test_the_first_start_puts_the_file_in_force_and_says_so_in_the_audit(
    store: Store, tmp_path: Path
) -> None:
    started = await policies_on(store, tmp_path, ONE).start()
    assert (started.by, started.request_id) == ("operator", None)
    async with store.begin() as conn:
        [entry] = [each async for each in audit.read(conn)]
    assert (entry.actor, entry.action) == ("operator", "policy_in_force")
    assert entry.detail == {"before": "", "policy": started.policy.hash}


async def test_a_start_with_the_same_file_changes_nothing(store: Store, tmp_path: Path) -> None:
    first = await policies_on(store, tmp_path, ONE).start()
    assert (await policies_on(store, tmp_path).start()).id == first.id
    assert await count(store) == 1


async def test_many_processes_that_start_at_once_put_one_policy_in_force(
    store: Store, tmp_path: Path
) -> None:
    found = await asyncio.gather(*(policies_on(store, tmp_path, ONE).start() for _ in range(8)))
    assert len({each.id for each in found}) == 1
    assert await count(store) == 1


async def test_under_four_eyes_another_file_waits_for_its_request(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await policies_on(store, tmp_path, ONE).start()
    again = await policies_on(store, tmp_path, TWO).start()
    assert again.policy.hash == first.policy.hash
    assert "propose the file with /db policy-change" in caplog.text


async def test_a_policy_cannot_take_its_four_eyes_away_by_its_own_file(
    store: Store, tmp_path: Path
) -> None:
    first = await policies_on(store, tmp_path, ONE).start()
    weaker = {**TWO, "policy_four_eyes": False}
    assert (await policies_on(store, tmp_path, weaker).start()).policy.hash == first.policy.hash


async def test_without_four_eyes_another_file_is_in_force_at_once(
    store: Store, tmp_path: Path
) -> None:
    first = await policies_on(store, tmp_path, {**ONE, "policy_four_eyes": False}).start()
    second = await policies_on(store, tmp_path, TWO).start()
    assert second.policy.hash != first.policy.hash
    async with store.begin() as conn:
        entries = [each async for each in audit.read(conn)]
    assert entries[-1].detail == {"before": first.policy.hash, "policy": second.policy.hash}


async def test_a_file_that_is_no_policy_stops_the_start(store: Store, tmp_path: Path) -> None:
    with pytest.raises(PolicyError):
        await policies_on(store, tmp_path, {"gates": [{"id": "x", "approve": 0}]}).start()


async def insert(store: Store, **row: Any) -> None:
    """What somebody can write who has the store and no key."""
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                "INSERT INTO policies_in_force"
                " (policy_hash, at, by, request_id, key_id, signature)"
                " VALUES (:policy_hash, now(), 'operator', NULL, :key_id, :signature)"
            ),
            row,
        )


async def test_a_row_without_our_signature_is_not_believed(store: Store, tmp_path: Path) -> None:
    policies = policies_on(store, tmp_path, ONE)
    first = await policies.start()
    await insert(store, policy_hash=first.policy.hash, key_id=first.key_id, signature="0" * 64)
    with pytest.raises(DistrustedPolicyError, match="not signed by us"):
        await policies.in_force()
    with pytest.raises(DistrustedPolicyError, match="not signed by us"):
        await policies_on(store, tmp_path).start()


async def test_a_row_of_somebody_elses_key_is_not_believed(store: Store, tmp_path: Path) -> None:
    await policies_on(store, tmp_path, ONE, keys=OTHER_KEYS).start()
    with pytest.raises(DistrustedPolicyError, match="not signed by us"):
        await policies_on(store, tmp_path).start()


async def test_an_old_row_cannot_be_put_on_top_again(store: Store, tmp_path: Path) -> None:
    policies = policies_on(store, tmp_path, {**ONE, "policy_four_eyes": False})
    await policies.start()
    await policies_on(store, tmp_path, TWO).start()
    async with store.begin() as conn:
        await conn.execute(
            sa.text(
                "INSERT INTO policies_in_force"
                " (policy_hash, at, by, request_id, key_id, signature)"
                " SELECT policy_hash, at, by, request_id, key_id, signature"
                "   FROM policies_in_force ORDER BY id LIMIT 1"
            )
        )
    with pytest.raises(DistrustedPolicyError, match="not signed by us"):
        await policies.in_force()


async def test_a_policy_whose_stored_text_was_swapped_is_not_believed(
    store: Store, tmp_path: Path
) -> None:
    await policies_on(store, tmp_path, ONE).start()
    async with store.begin() as conn:
        await conn.execute(sa.text("SET LOCAL ROLE NONE"))
        await conn.execute(sa.text("ALTER TABLE policies DISABLE TRIGGER USER"))
        await conn.execute(sa.text("UPDATE policies SET body = :body"), {"body": "{}"})
    with pytest.raises(DistrustedPolicyError, match="is another one"):
        await policies_on(store, tmp_path).start()


async def test_a_row_that_was_seen_and_is_gone_is_noticed(store: Store, tmp_path: Path) -> None:
    policies = policies_on(store, tmp_path, {**ONE, "policy_four_eyes": False})
    await policies.start()
    await policies_on(store, tmp_path, TWO).start()
    await policies.in_force()
    async with store.begin() as conn:
        await conn.execute(sa.text("SET LOCAL ROLE NONE"))
        await conn.execute(sa.text("ALTER TABLE policies_in_force DISABLE TRIGGER USER"))
        await conn.execute(sa.text("DELETE FROM policies_in_force WHERE id > 1"))
    with pytest.raises(DistrustedPolicyError, match="is gone"):
        await policies.in_force()


async def test_the_application_cannot_change_what_was_in_force(
    store: Store, tmp_path: Path
) -> None:
    await policies_on(store, tmp_path, ONE).start()
    for statement in ("UPDATE policies_in_force SET by = 'x'", "DELETE FROM policies_in_force"):
        with pytest.raises(sa.exc.DBAPIError):
            async with store.begin() as conn:
                await conn.execute(sa.text(statement))


async def test_after_a_rotation_the_policy_is_signed_with_the_new_key(
    store: Store, tmp_path: Path
) -> None:
    first = await policies_on(store, tmp_path, ONE).start()
    rotated = VoteKeys(current=OTHER_KEYS.current, previous=KEYS.current)
    again = await policies_on(store, tmp_path, keys=rotated).start()
    assert (again.policy.hash, again.id) == (first.policy.hash, first.id + 1)
    without = VoteKeys(current=OTHER_KEYS.current)
    assert (await policies_on(store, tmp_path, keys=without).start()).id == again.id


async def test_a_granted_change_is_in_force_once_and_by_who_asked(
    store: Store, tmp_path: Path
) -> None:
    policies = policies_on(store, tmp_path, ONE)
    approvals = await service(store, policies)
    number = await running_change(store, approvals)
    old = approvals.policy.hash
    new = policies_on(store, tmp_path, TWO).proposed()
    first = await policies.put(new, instead_of=old, request_id=number)
    again = await policies.put(new, instead_of=old, request_id=number)
    assert (first.id, first.by, first.request_id) == (again.id, ANA.id, number)
    assert await count(store) == 2


async def test_who_proposes_a_policy_never_agrees_to_it_and_two_others_must(
    store: Store, tmp_path: Path
) -> None:
    rule = {"when": {"operation": "backup"}, "gates": ONE["gates"]}  # nothing about policies
    silent = {"rules": [rule], "policy_four_eyes": True}
    approvals = await service(store, policies_on(store, tmp_path, silent))
    ask = an_ask(BEN, operation="policy-change", database="", attributes={"risk": "disruptive"})
    asked = await approvals.ask(ask)
    assert asked.request is not None
    read = frozenset({Care.READ})
    for own in (BEN, replace(BEN, slack_user="U0BEN2")):
        assert (await approvals.vote(a_ballot(asked, own, care=read))).why is Why.SELF
    one = await approvals.vote(a_ballot(asked, CLEO, care=read))
    assert one.request is not None
    assert one.request.state is State.PENDING
    two = await approvals.vote(a_ballot(asked, dba("di"), care=read))
    assert two.request is not None
    assert two.request.state is State.APPROVED


async def test_nothing_is_put_in_force_instead_of_a_policy_that_is_not(
    store: Store, tmp_path: Path
) -> None:
    policies = policies_on(store, tmp_path, ONE)
    approvals = await service(store, policies)
    number = await running_change(store, approvals)
    with pytest.raises(RefusedError, match="has come into force since"):
        await policies.put(policy_of(2), instead_of=policy_of(3).hash, request_id=number)


async def test_nothing_is_put_in_force_for_a_request_that_does_not_run(
    store: Store, tmp_path: Path
) -> None:
    policies = policies_on(store, tmp_path, ONE)
    approvals = await service(store, policies)
    ask = an_ask(operation="policy-change", database="", attributes={"risk": "disruptive"})
    asked = await approvals.ask(ask)
    assert asked.request is not None
    backup = await approvals.ask(an_ask())
    assert backup.request is not None
    for number in (asked.request.id, backup.request.id, RequestId(99)):
        with pytest.raises(RefusedError, match="is no change of the policy that runs"):
            await policies.put(policy_of(2), instead_of=approvals.policy.hash, request_id=number)


async def test_a_sweep_follows_and_looks_at_what_is_open(store: Store, tmp_path: Path) -> None:
    policies = policies_on(store, tmp_path, {**TWO, "policy_four_eyes": False})
    approvals = await service(store, policies)
    asked = await approvals.ask(an_ask())
    await approvals.vote(a_ballot(asked, BEN))
    assert asked.request is not None
    await policies_on(store, tmp_path, ONE).start()
    await approvals.sweep()
    record = await approvals.load(asked.request.id)
    assert record is not None
    assert (record.state, record.policy_hash) == (State.APPROVED, approvals.policy.hash)


async def test_a_worker_never_begins_under_a_policy_that_is_not_in_force(
    store: Store, tmp_path: Path
) -> None:
    policies = policies_on(store, tmp_path, {**ONE, "policy_four_eyes": False})
    approvals = await service(store, policies)
    asked = await approvals.vote(a_ballot(await approvals.ask(an_ask()), BEN))
    assert asked.request is not None
    assert asked.request.state is State.APPROVED
    await policies_on(store, tmp_path, TWO).start()
    async with store.begin() as conn:
        begun = await approvals.begin(conn, asked.request.id, people={p.id: p for p in (ANA, BEN)})
    assert (begun.ok, begun.why) == (False, Why.NOT_APPROVED)
    record = await approvals.load(asked.request.id)
    assert record is not None
    assert record.state is State.PENDING


async def test_a_policy_comes_into_force_only_after_who_is_about_to_begin(
    store: Store, tmp_path: Path
) -> None:
    policies = policies_on(store, tmp_path, {**ONE, "policy_four_eyes": False})
    await policies.start()
    async with store.begin() as conn:
        held = await policies.held(conn)
        coming = asyncio.create_task(policies_on(store, tmp_path, TWO).start())
        done, _ = await asyncio.wait({coming}, timeout=0.3)
        assert not done
        assert held is not None
    assert (await coming).policy.hash != held.policy.hash


async def test_while_the_policy_is_not_ours_nothing_is_decided_and_nothing_is_lost(
    store: Store, tmp_path: Path
) -> None:
    policies = policies_on(store, tmp_path, ONE)
    approvals = await service(store, policies)
    asked = await approvals.vote(a_ballot(await approvals.ask(an_ask()), BEN))
    assert asked.request is not None
    await insert(store, policy_hash=approvals.policy.hash, key_id="x", signature="y")
    async with store.begin() as conn:
        begun = await approvals.begin(conn, asked.request.id, people={p.id: p for p in (ANA, BEN)})
    assert (begun.ok, begun.why) == (False, Why.NOT_YET)
    assert "cannot be trusted" in begun.problem
    assert await approvals.sweep() == 0
    with pytest.raises(DistrustedPolicyError):
        await approvals.ask(an_ask())
    with pytest.raises(DistrustedPolicyError):
        await approvals.vote(a_ballot(asked, CLEO))
    record = await approvals.load(asked.request.id)
    assert record is not None
    assert record.state is State.APPROVED
