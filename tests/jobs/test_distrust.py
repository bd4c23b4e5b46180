"""The worker believes no row: whoever can write to every table, and has no key, starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import asyncpg
import pytest
import sqlalchemy as sa

from approvals.calls import Decision
from approvals.records import vote_fields
from approvals.service import Approvals
from approvals.signing import VoteKeys, key_id
from approvals.words import Door, Person, PersonId, RequestId, RunId, Verdict, Why
from jobs.engine import PgQueue
from tests.approvals.support import ANA, BEN, CLEO, KEYS, a_ballot, an_ask, dba, policy_of
from tests.jobs.support import Bench, Step, Work, clock, working
from tests.jobs.test_with_approvals import Office, Town

DI, ELI = dba("di"), dba("eli")
OLE = Person(
    id=PersonId("ole@acme.example"), name="Ole", slack_team="T0DEMO", slack_user="U0OLE",
    groups=frozenset({"oncall"}),
)  # fmt: skip
ATTACKER = VoteKeys(current=b"a key that somebody made up: 32b")
RULES: Final[dict[str, Any]] = {
    "rules": [
        {"when": {"environment": "lab"}, "gates": []},
        {"gates": [{"id": "dba", "groups": ["dba"], "approve": 2, "deny": 2}]},
    ],
    "break_glass": {"groups": ["oncall"], "reviewers": ["dba"]},
}
ENDED: Final = frozenset({"refused", "pending", "done", "denied", "cancelled", "expired"})


@pytest.fixture
def office(bench: Bench) -> Office:
    people = (ANA, BEN, CLEO, DI, ELI, OLE)
    return Office(
        bench, Town({person.id: person for person in people}), service(bench, policy_of(**RULES))
    )


def service(bench: Bench, policy: Any, keys: VoteKeys = KEYS) -> Approvals:
    return Approvals(
        store=bench.store, keys=keys, queue=PgQueue(bench.store), clock=clock, policy=policy
    )


async def asked_for(office: Office, database: str = "orders", *, gate: str = "") -> Decision:
    params = Work(steps=[Step(name="one", gate=gate)]).model_dump(mode="json")
    plan = {"title": "Work", "steps": ["one"]}
    ask = an_ask(operation="work", params=params, plan=plan, database=database)
    return await office.approvals.ask(ask)


async def approved(office: Office, database: str = "orders", *, gate: str = "") -> Decision:
    asked = await asked_for(office, database, gate=gate)
    await office.approvals.vote(a_ballot(asked, BEN))
    decided = await office.approvals.vote(a_ballot(asked, CLEO))
    assert decided.request
    assert decided.request.state == "approved"
    return decided


async def half(office: Office) -> Decision:
    """One of two has agreed, and one of two is against."""
    asked = await asked_for(office)
    await office.approvals.vote(a_ballot(asked, BEN))
    return await office.approvals.vote(a_ballot(asked, DI, Verdict.DENY))


async def write(bench: Bench, *statements: str, as_app: bool = False) -> None:
    """What somebody does with every table: as their owner without triggers, or as we do."""
    conn = await asyncpg.connect(bench.store.dsn.get_secret_value())
    try:
        if as_app:
            await conn.execute("SET ROLE twokey_app")
        else:
            await conn.execute("SET session_replication_role = replica")
        for statement in statements:
            await conn.execute(statement)
    finally:
        await conn.close()


QUEUE = sa.text("""
    INSERT INTO runs (request_id, database, operation, state, epoch, worker, queued_at, progress,
                      outcome)
    SELECT id, database, operation, 'queued', 0, '', now(), '{}', '{}'
      FROM requests
     WHERE id = :id
        ON CONFLICT (request_id) DO UPDATE SET state = 'queued', ended_at = NULL
    RETURNING id
""")


async def queued(bench: Bench, request_id: RequestId) -> RunId:
    """A run of this request and its delivery, granted or not."""
    async with bench.store.begin() as conn:
        run_id = RunId((await conn.execute(QUEUE, {"id": request_id})).scalar_one())
        await bench.queue.redeliver(conn, [run_id])
    return run_id


async def nothing_runs(office: Office, request_id: RequestId, *, noted: Sequence[str] = ()) -> None:
    """A worker that is told to run it refuses, and says so in the card and in the audit."""
    bench = office.bench
    told = await bench.one("SELECT coalesce(max(id), 0) FROM outbox")
    entries = await bench.one("SELECT count(*) FROM audit_log")
    run_id = await queued(bench, request_id)
    async with working(office.worker()):
        await bench.until(run_id, "refused", "needs_attention", "done", "failed")
    assert await bench.noted() == list(noted)
    state = await bench.one("SELECT state FROM requests WHERE id = $1", request_id)
    assert state in ENDED
    assert await bench.one("SELECT count(*) FROM audit_log") > entries
    said = "SELECT count(*) FROM outbox WHERE id > $1 AND request_id = $2"
    if state in ("refused", "pending"):
        assert await bench.one(said, told, request_id) >= 1


COPY = """
    INSERT INTO votes (request_id, plan_hash, policy_hash, step, person, slack, groups, verdict,
                       reason, door, at, key_id, signature)
    SELECT {request}, {plan}, policy_hash, step, {person}, slack, {groups}, {verdict}, reason,
           door, {at}, key_id, {signature}
      FROM votes
     WHERE request_id = {source} AND person = '{voter}'
"""
APPROVED = "UPDATE requests SET state = 'approved', approved_at = now()"


def copied(**change: str) -> str:
    """Ben's vote once more, with something else in it."""
    same = {
        "request": "request_id", "plan": "plan_hash", "person": "'eli@acme.example'",
        "groups": "array_replace(groups, '=ben@acme.example', '=eli@acme.example')",
        "verdict": "verdict", "at": "at", "signature": "signature", "source": "1",
        "voter": "ben@acme.example",
    }  # fmt: skip
    return COPY.format(**{**same, **change})


HALF: Final = {
    "a state": [],
    "an unsigned vote": [
        "ALTER TABLE votes DROP CONSTRAINT votes_signed", copied(signature="''")
    ],
    "a copied vote with another person": [copied()],
    "the very same vote twice": [copied(person="person", groups="groups")],
    "another vote's moment": [copied(at="at + interval '1 second'")],
    "a deny turned": ["UPDATE votes SET verdict = 'approve'"],
    "a deny taken out": ["DELETE FROM votes WHERE verdict = 'deny'", copied()],
    "a vote in another group": ["UPDATE votes SET groups = array_append(groups, 'security')"],
    "a vote of somebody else": [
        ("UPDATE votes SET person = 'cleo@acme.example',"
        " groups = array_replace(groups, '=di@acme.example', '=cleo@acme.example'),"
        " verdict = 'approve' WHERE verdict = 'deny'")
    ],
    "attributes of an open rule": [
        """UPDATE requests SET attributes = attributes || '{"environment": "lab"}'"""
    ],
    "a weaker policy that was in force": [
        "INSERT INTO policies (hash, body, at) VALUES ('weak', '{\"gates\": []}', now())",
        "UPDATE requests SET policy_hash = 'weak'",
    ],
    "a policy's body": [
        ("UPDATE policies SET body ="
        " replace(body, '\"approve\":2', '\"approve\":1')")
    ],
    "no authors": ["UPDATE requests SET authors = '{x@acme.example}', asked_by = 'x@acme.example'"],
    "another database": ["UPDATE requests SET database = 'users'"],
    "a longer life": ["UPDATE requests SET expires_at = now() + interval '9 years'"],
    "votes from before": [
        "UPDATE requests SET detail = jsonb_set(detail, '{void_before}', '-1')", copied()
    ],
    "a broken glass": [
        ("UPDATE requests SET detail = jsonb_set(detail, '{glass}', '{\"by\": \"ole@acme.example\","
        " \"at\": \"2026-11-22T12:00:00Z\", \"reason\": \"x\", \"review_within_seconds\": 60}')"),
        "UPDATE requests SET state = 'executing'",
    ],
    "a request at work": [
        "UPDATE requests SET state = 'executing', detail = jsonb_set(detail, '{begun}', 'true')"
    ],
    "an answer to an empty delivery": [
        ("INSERT INTO deliveries (id, at, request_id, answer) VALUES ('', now(), 1,"
        " '{\"ok\": true, \"noop\": false, \"why\": null, \"problem\": \"\","
         " \"next_step\": \"\"}')")
    ],
}  # fmt: skip


@pytest.mark.parametrize("role", ["owner", "app"])
@pytest.mark.parametrize("forgery", HALF, ids=str)
async def test_what_half_of_them_agreed_to_does_not_run(
    office: Office, forgery: str, role: str
) -> None:
    asked = await half(office)
    assert asked.request
    approve = [] if "executing" in " ".join(HALF[forgery]) else [APPROVED]
    try:
        await write(office.bench, *HALF[forgery], *approve, as_app=role == "app")
    except asyncpg.PostgresError:
        assert role == "app"  # the table itself refused
    await nothing_runs(office, asked.request.id)


GRANTED: Final = {
    "a vote taken out": ["DELETE FROM votes WHERE request_id = 1 AND person = 'cleo@acme.example'"],
    "plan bytes": ["UPDATE requests SET plan = replace(plan, '\"one\"', '\"two\"') WHERE id = 1"],
    "plan bytes and their hash": [
        "UPDATE requests SET plan = replace(plan, '\"one\"', '\"two\"') WHERE id = 1",
        ("UPDATE requests SET plan_hash = encode(sha256(convert_to(plan, 'UTF8')), 'hex')"
        " WHERE id = 1"),
        ("UPDATE votes SET plan_hash = (SELECT plan_hash FROM requests WHERE id = 1)"
        " WHERE request_id = 1"),
    ],
    "an approval that lasts": [
        "UPDATE requests SET approval_expires_at = now() + interval '1 year' WHERE id = 1"
    ],
    "who asked, by another account": [
        "UPDATE requests SET asked_by_slack = '' WHERE id = 1"
    ],
    "why it was asked": ["UPDATE requests SET reason = 'harmless' WHERE id = 1"],
    "the run's database": ["UPDATE runs SET database = 'users' WHERE request_id = 1"],
    "the run's operation": ["UPDATE runs SET operation = 'backup' WHERE request_id = 1"],
    "the run of another request": [
        "UPDATE runs SET request_id = 3 WHERE request_id = 1",
    ],
    "another plan's votes": [
        ("UPDATE requests SET plan = (SELECT plan FROM requests WHERE id = 2),"
        " plan_hash = (SELECT plan_hash FROM requests WHERE id = 2) WHERE id = 1")
    ],
}  # fmt: skip


@pytest.mark.parametrize("forgery", GRANTED, ids=str)
async def test_a_grant_that_was_touched_does_not_run(office: Office, forgery: str) -> None:
    asked = await approved(office)
    await approved(office, "users")
    third = await asked_for(office)
    assert asked.request
    assert third.request
    await write(office.bench, *GRANTED[forgery])
    victim = third.request.id if forgery == "the run of another request" else asked.request.id
    if forgery.startswith("the run's"):
        run_id = await office.bench.one("SELECT id FROM runs WHERE request_id = 1")
        async with working(office.worker()):
            await office.bench.until(run_id, "refused", "done")
        assert await office.bench.noted() == []
        return
    await nothing_runs(office, victim)


async def test_a_deny_that_was_taken_out_is_missed_by_the_next_vote(office: Office) -> None:
    asked = await half(office)
    assert asked.request
    await write(office.bench, "DELETE FROM votes WHERE verdict = 'deny'")
    decided = await office.approvals.vote(a_ballot(asked, CLEO))
    assert (decided.ok, decided.why) == (False, Why.SIGNATURE)
    assert decided.request
    assert decided.request.state == "refused"


async def test_votes_of_another_request_grant_nothing(office: Office) -> None:
    other = await approved(office, "users")
    asked = await half(office)
    assert asked.request
    assert other.request
    change = {
        "request": str(asked.request.id), "source": str(other.request.id),
        "voter": "cleo@acme.example", "person": "person", "groups": "groups",
        "plan": f"'{asked.request.plan_hash}'",
    }  # fmt: skip
    await write(office.bench, copied(**change), APPROVED)
    await nothing_runs(office, asked.request.id)


async def test_votes_on_an_older_plan_grant_nothing(office: Office) -> None:
    asked = await approved(office)
    assert asked.request
    changed = await office.approvals.change_plan(
        asked.request.id, by=ANA, plan={"title": "Work", "steps": ["two"]}, delivery=""
    )
    assert changed.request
    await write(
        office.bench, f"UPDATE votes SET plan_hash = '{changed.request.plan_hash}'", APPROVED
    )
    await nothing_runs(office, asked.request.id)


async def test_votes_under_a_key_that_somebody_made_up_grant_nothing(office: Office) -> None:
    asked = await half(office)
    assert asked.request
    (row,) = await office.bench.fetch("SELECT * FROM votes WHERE person = 'ben@acme.example'")
    forged = {**dict(row), "person": "eli@acme.example", "groups": ["dba", "=eli@acme.example"]}
    made = ATTACKER.sign(vote_fields(forged))
    for name in (made.key_id, key_id(KEYS.current)):
        await write(
            office.bench,
            "INSERT INTO votes (request_id, plan_hash, policy_hash, step, person, slack, groups,"
            " verdict, reason, door, at, key_id, signature) SELECT request_id, plan_hash,"
            " policy_hash, step, 'eli@acme.example', slack, ARRAY['dba', '=eli@acme.example'],"
            f" 'approve', reason, door, at, '{name}', '{made.value}' FROM votes"
            " WHERE person = 'ben@acme.example'",
        )
    await write(office.bench, APPROVED)
    await nothing_runs(office, asked.request.id)


async def test_a_run_that_says_it_was_begun_does_not_go_on_without_its_request(
    office: Office,
) -> None:
    asked = await half(office)
    assert asked.request
    await queued(office.bench, asked.request.id)
    await write(office.bench, "UPDATE runs SET started_at = now(), epoch = 2")
    await nothing_runs(office, asked.request.id)
    assert await office.bench.one("SELECT started_at FROM runs") is None


async def test_what_is_done_is_not_done_again(office: Office) -> None:
    asked = await approved(office)
    assert asked.request
    saved = "CREATE TABLE saved AS SELECT * FROM requests"
    await write(office.bench, saved)
    run_id = asked.request.run_id
    assert run_id
    async with working(office.worker()):
        assert await office.bench.until(run_id, "done", "refused") == "done"
    once = ["one begin 0", "one end"]

    # Its run is queued once more; begun, or as if it had not been.
    await nothing_runs(office, asked.request.id, noted=once)
    await write(office.bench, "DELETE FROM run_steps", "UPDATE runs SET started_at = NULL")
    await nothing_runs(office, asked.request.id, noted=once)

    # And its own row is put back as it was when it was approved, seal and all.
    back = (
        "UPDATE requests r SET state = s.state, detail = s.detail, approved_at = s.approved_at,"
        " ended_at = NULL FROM saved s WHERE s.id = r.id"
    )
    await write(office.bench, back, "UPDATE runs SET started_at = NULL")
    await nothing_runs(office, asked.request.id, noted=once)
    problem = await office.bench.one("SELECT detail -> 'ending' ->> 'text' FROM requests")
    assert "has run before" in problem


async def test_what_was_at_work_is_not_put_back_to_it_after_its_end(office: Office) -> None:
    asked = await approved(office, gate="go")
    assert asked.request
    assert asked.request.run_id
    async with working(office.worker()):
        await office.bench.until_noted("one begin 0")
        await write(office.bench, "CREATE TABLE saved AS SELECT * FROM requests")
        await office.bench.open("go")
        await office.bench.until(asked.request.run_id, "done")
    await write(
        office.bench,
        "UPDATE requests r SET state = s.state, detail = s.detail, ended_at = NULL"
        " FROM saved s WHERE s.id = r.id",
        "DELETE FROM run_steps",
    )
    assert (await office.approvals.load(asked.request.id)).state == "executing"  # type: ignore[union-attr]
    await queued(office.bench, asked.request.id)
    async with working(office.worker()):
        await office.bench.until(asked.request.run_id, "refused", "done")
    assert await office.bench.noted() == ["one begin 0", "one end"]


async def test_a_grant_without_votes_cannot_be_copied_to_another_number(office: Office) -> None:
    params = Work(steps=[Step(name="one")]).model_dump(mode="json")
    plan = {"title": "Work", "steps": ["one"]}
    lab = an_ask(operation="work", params=params, plan=plan, attributes={"environment": "lab"})
    first = await office.approvals.ask(lab)
    assert first.request
    assert first.request.run_id
    columns = (
        "version, operation, database, asked_by, asked_by_slack, authors, door, reason, params,"
        " plan, plan_hash, policy_hash, attributes, rule, step, asked_at, expires_at,"
        " approved_at, approval_expires_at, not_before, ended_at, detail, channel, state"
    )
    await write(office.bench, f"INSERT INTO requests ({columns}) SELECT {columns} FROM requests")
    async with working(office.worker()):
        assert await office.bench.until(first.request.run_id, "done", "refused") == "done"
    copy = RequestId(await office.bench.one("SELECT max(id) FROM requests"))
    assert copy != first.request.id
    await nothing_runs(office, copy, noted=["one begin 0", "one end"])


async def test_denied_and_cancelled_requests_stay_so(office: Office) -> None:
    asked = await half(office)
    assert asked.request
    await office.approvals.vote(a_ballot(asked, CLEO, Verdict.DENY))
    await write(office.bench, "DELETE FROM votes WHERE verdict = 'deny'", APPROVED)
    await nothing_runs(office, asked.request.id)
    again = await approved(office)
    assert again.request
    await office.approvals.cancel(again.request.id, by=ANA, door=Door.CLI, delivery="")
    await write(office.bench, APPROVED + f" WHERE id = {again.request.id}")
    await nothing_runs(office, again.request.id)


async def test_a_grant_that_nobody_touched_runs(office: Office) -> None:
    asked = await approved(office)
    assert asked.request
    assert asked.request.run_id
    async with working(office.worker()):
        assert await office.bench.until(asked.request.run_id, "done", "refused") == "done"
    assert await office.bench.noted() == ["one begin 0", "one end"]


NEW: Final = b"the key of next year, 32 bytes!!"


async def test_during_a_rotation_votes_under_both_keys_count(office: Office) -> None:
    asked = await asked_for(office)
    await office.approvals.vote(a_ballot(asked, BEN))
    rotating = VoteKeys(current=NEW, previous=KEYS.current)
    office.approvals = service(office.bench, policy_of(**RULES), rotating)
    decided = await office.approvals.vote(a_ballot(asked, CLEO))
    assert decided.request
    assert decided.request.run_id
    async with working(office.worker()):
        assert await office.bench.until(decided.request.run_id, "done", "refused") == "done"


async def test_after_a_rotation_votes_under_the_old_key_are_asked_for_again(
    office: Office,
) -> None:
    asked = await approved(office)
    assert asked.request
    rotating = VoteKeys(current=NEW, previous=KEYS.current)
    await service(office.bench, policy_of(**RULES), rotating).sweep()
    office.approvals = service(office.bench, policy_of(**RULES), VoteKeys(current=NEW))
    await nothing_runs(office, asked.request.id)
    record = await office.approvals.load(asked.request.id)
    assert record
    assert (record.state, record.votes) == ("pending", ())
    assert record.detail.ending
    assert "no longer in use" in record.detail.ending.text
    for voter in (BEN, CLEO):
        again = replace(asked, request=record)
        decided = await office.approvals.vote(a_ballot(again, voter))
        assert decided.ok, decided.problem
    assert decided.request
    assert decided.request.run_id
    async with working(office.worker()):
        assert await office.bench.until(decided.request.run_id, "done", "refused") == "done"


async def test_what_nobody_sealed_anew_before_the_old_key_went_is_refused_and_says_why(
    office: Office,
) -> None:
    asked = await approved(office)
    assert asked.request
    office.approvals = service(office.bench, policy_of(**RULES), VoteKeys(current=NEW))
    await nothing_runs(office, asked.request.id)
    record = await office.approvals.load(asked.request.id)
    assert record
    assert record.state == "refused"
    assert record.detail.ending
    assert "vote key that is not in use" in record.detail.ending.text


async def test_a_seal_is_not_renewed_for_what_somebody_else_wrote(office: Office) -> None:
    asked = await approved(office)
    assert asked.request
    await write(office.bench, "UPDATE requests SET authors = '{x@acme.example}'")
    rotating = VoteKeys(current=NEW, previous=KEYS.current)
    office.approvals = service(office.bench, policy_of(**RULES), rotating)
    await office.approvals.sweep()
    assert await office.bench.one("SELECT state FROM requests") == "refused"
