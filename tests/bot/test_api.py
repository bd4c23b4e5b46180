"""The HTTP API over real HTTP: who may call, what is taken, what is answered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp.client_exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from approvals import audit
from approvals.scenario_file import EPOCH, Scenario, read_scenarios
from approvals.words import Flag, Why
from bot.api_answers import STATUS
from bot.api_guard import FAILURES_MAX, Failures, LimitedError, network
from jobs.operation import Answer, Context, Kind, Operation, Risk, Table
from store.connect import Store
from tests.approvals.doors.api import ApiWorld
from tests.approvals.doors.base import PlayParams, ground_on

PEOPLE: Mapping[str, Any] = {
    "ana": {},
    "bo": {"groups": ["dba"]},
    "cy": {"groups": ["dba"]},
    "gus": {"groups": ["dba"], "flags": ["guest"]},
}
POLICY: Mapping[str, Any] = {
    "people": PEOPLE,
    "gates": [{"id": "dba", "groups": ["dba"], "approve": 2}],
    "break_glass": {"groups": ["dba"], "reviewers": ["dba"], "review_within": 3600},
}


async def colours(context: Context, params: PlayParams) -> Answer:
    return Answer(
        title=f"Colours of {params.database}",
        lines=("two",),
        table=Table(columns=("Colour", "Number"), rows=(("red", "1"), ("blue", "22"))),
    )


COLOURS = Operation(
    name="colours", summary="Which colours", kind=Kind.QUERY, risk=Risk.NONE, params=PlayParams,
    example="/db colours orders", answer=colours, pinned=frozenset(),
)  # fmt: skip


def scenario(tmp_path: Path) -> Scenario:
    path = tmp_path / "world.json"
    path.write_text(json.dumps([{"id": "api", "policy": POLICY, "events": []}]))
    [found] = read_scenarios(path)
    assert isinstance(found, Scenario)
    return found


class Caller:
    """Somebody with a token."""

    def __init__(self, world: ApiWorld, name: str) -> None:
        self.world = world
        self.name = name

    async def __call__(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        token = await self.world.token(self.name)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await send(
            self.world, method, path, body, {"Authorization": f"Bearer {token}", **named}
        )

    async def ask(self) -> dict[str, Any]:
        status, said = await self("POST", "/api/requests", {"command": "backup w1_db1"})
        assert status == 201, said
        return dict(said["request"])

    async def decide(
        self, request: Mapping[str, Any], action: str = "approve", **more: Any
    ) -> tuple[int, dict[str, Any]]:
        return await self("POST", f"/api/requests/{request['id']}/{action}", seen(request, **more))


def seen(request: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {name: request[name] for name in ("plan_hash", "policy_hash", "step")} | more


async def send(
    world: ApiWorld, method: str, path: str, body: object, headers: Mapping[str, str]
) -> tuple[int, dict[str, Any]]:
    raw = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    kind = {} if raw is None else {"Content-Type": "application/json"}
    async with world.ground.session.request(
        method, f"{world.url}{path}", data=raw, headers={**kind, **headers}
    ) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, {} if method == "HEAD" else await answer.json()


@pytest.fixture
async def world(store: Store, tmp_path: Path) -> AsyncIterator[ApiWorld]:
    async with ground_on(store, tmp_path) as ground:
        made = await ApiWorld.through(ground, scenario(tmp_path), 1)
        assert isinstance(made, ApiWorld)
        made.clock.now = EPOCH
        assert made.desk
        made.desk = replace(made.desk, operations={**made.desk.operations, "colours": COLOURS})
        await made.open()
        yield made
        await made.close()


@pytest.fixture
def ana(world: ApiWorld) -> Caller:
    return Caller(world, "ana")


@pytest.fixture
def bo(world: ApiWorld) -> Caller:
    return Caller(world, "bo")


@pytest.fixture
def cy(world: ApiWorld) -> Caller:
    return Caller(world, "cy")


async def counts(store: Store) -> list[int]:
    """How much the store holds of everything that a half-done call would leave."""
    tables = ("requests", "votes", "outbox", "runs", "audit_log", "gates")
    async with store.begin() as conn:
        return [await conn.scalar(sa.text(f"SELECT count(*) FROM {name}")) for name in tables]


async def test_two_others_agree_and_the_run_is_queued(ana: Caller, bo: Caller, cy: Caller) -> None:
    request = await ana.ask()
    assert (request["state"], request["missing"]) == ("pending", "2 more of dba")
    assert (await bo.decide(request))[1]["request"]["missing"] == "1 more of dba"
    status, said = await cy.decide(request)
    assert (status, said["request"]["state"]) == (200, "approved")


async def test_what_is_shown_is_the_very_text_that_is_agreed_to(ana: Caller, bo: Caller) -> None:
    request = await ana.ask()
    status, shown = await bo("GET", f"/api/requests/{request['id']}")
    assert status == 200
    assert hashlib.sha256(shown["plan_text"].encode()).hexdigest() == shown["plan_hash"]
    assert shown["plan"]["title"] == "h1"
    assert json.loads(shown["plan_text"])["call"]["database"] == "w1_db1"
    assert shown["gates"][0]["need"] == 2


@pytest.mark.parametrize("name", ["plan_hash", "policy_hash", "step"])
async def test_a_vote_says_what_was_seen_and_counts_only_if_it_stands(
    ana: Caller, bo: Caller, name: str
) -> None:
    request = await ana.ask()
    body = seen(request)
    other = 1 if name == "step" else "0" * 64
    status, said = await bo.decide({**request, name: other})
    assert (status, said["ok"]) == (409, False)
    assert said["why"] == ("stale_step" if name == "step" else "stale_plan")
    del body[name]
    status, said = await bo("POST", f"/api/requests/{request['id']}/approve", body)
    assert (status, said["why"]) == (400, "input")
    assert (await bo.decide(request))[0] == 200


async def test_break_glass_is_compared_with_what_was_seen_too(ana: Caller, bo: Caller) -> None:
    request = await ana.ask()
    old = {**request, "plan_hash": "0" * 64}
    status, said = await bo.decide(old, "break-glass", reason="the site is down")
    assert (status, said["why"]) == (409, "stale_plan")
    status, said = await bo.decide(request, "break-glass", reason="the site is down")
    assert (status, said["request"]["state"]) == (200, "executing")


async def test_a_vote_is_withdrawn_and_a_request_cancelled(ana: Caller, bo: Caller) -> None:
    request = await ana.ask()
    await bo.decide(request)
    path = f"/api/requests/{request['id']}"
    status, said = await bo("POST", f"{path}/withdraw", {})
    assert (status, said["request"]["missing"]) == (200, "2 more of dba")
    assert (await bo("POST", f"{path}/cancel", {}))[1]["why"] == "not_requester"
    status, said = await ana("POST", f"{path}/cancel", {})
    assert (status, said["request"]["state"]) == (200, "cancelled")


async def test_a_run_that_works_in_parts_waits_and_goes_on(
    world: ApiWorld, ana: Caller, bo: Caller, store: Store
) -> None:
    request = await ana.ask()
    path = f"/api/requests/{request['id']}"
    assert (await ana("POST", f"{path}/pause", {}))[1]["why"] == "closed"
    await bo.decide(request, "break-glass", reason="the site is down")
    assert (await ana("POST", f"{path}/pause", {}))[1]["why"] == "closed"  # it works in one part
    assert world.desk
    operations = dict(world.desk.operations)
    operations["backup"] = replace(operations["backup"], is_pausable=True)
    world.desk = replace(world.desk, operations=operations)
    await world.open()
    status, said = await ana("POST", f"{path}/pause", {})
    assert (status, said["noop"]) == (200, True)  # no worker has begun it
    async with store.begin() as conn:
        await conn.execute(sa.text("UPDATE runs SET state = 'running', started_at = now()"))
    status, said = await bo("POST", f"{path}/pause", {})
    assert (status, said["noop"]) == (200, False)
    status, said = await bo("GET", path)
    assert said["paused_by"] == "bo"
    assert (await ana("POST", f"{path}/resume", {}))[1]["noop"] is False
    assert (await ana("GET", path))[1]["paused_by"] is None


async def test_a_run_that_ends_in_order_is_aborted(
    world: ApiWorld, ana: Caller, bo: Caller, store: Store
) -> None:
    request = await ana.ask()
    path = f"/api/requests/{request['id']}"
    await bo.decide(request, "break-glass", reason="the site is down")
    assert world.desk
    operations = dict(world.desk.operations)
    operations["backup"] = replace(operations["backup"], ends_in_order=True)
    world.desk = replace(world.desk, operations=operations)
    await world.open()
    async with store.begin() as conn:
        await conn.execute(sa.text("UPDATE runs SET state = 'running', started_at = now()"))
    assert (await ana("GET", path))[1]["stopped_by"] is None
    status, said = await bo("POST", f"{path}/cancel", {})
    assert (status, said["noop"]) == (200, False)
    assert said["next_step"] == "It brings what it has begun to a safe end by itself."
    assert (await ana("GET", path))[1]["stopped_by"] == "bo"
    assert (await ana("POST", f"{path}/cancel", {}))[1]["noop"] is True


async def test_lists_say_what_waits_for_whom(ana: Caller, bo: Caller, cy: Caller) -> None:
    first, second = await ana.ask(), await bo.ask()
    await cy.decide(second)

    async def listed(caller: Caller, query: str) -> list[int]:
        status, said = await caller("GET", f"/api/requests?{query}")
        assert status == 200, said
        return [each["id"] for each in said["requests"]]

    assert await listed(bo, "waiting=me") == [first["id"]]
    assert await listed(cy, "waiting=me") == [first["id"]]
    assert await listed(ana, "waiting=me") == []
    assert await listed(ana, "waiting=mine") == [first["id"]]
    assert await listed(ana, "waiting=open") == [second["id"], first["id"]]
    assert await listed(ana, "limit=1&database=w1_db1") == [second["id"]]
    for wrong, status in (
        ("waiting=you", 400),
        ("limit=0", 400),
        ("who=me", 400),
        ("database=x", 422),
    ):
        assert (await ana("GET", f"/api/requests?{wrong}"))[0] == status


async def test_a_query_is_answered_as_data_and_text(ana: Caller) -> None:
    status, said = await ana("POST", "/api/queries", {"command": "colours w1_db1"})
    assert (status, said["answer"]["table"]["rows"]) == (200, [["red", "1"], ["blue", "22"]])
    assert said["text"].splitlines()[-1] == "blue    22"
    assert (await ana("POST", "/api/queries", {"command": "backup w1_db1"}))[0] == 422
    assert (await ana("POST", "/api/requests", {"command": "colours w1_db1"}))[0] == 422


ASKED: list[tuple[object, int]] = [
    ({"operation": "backup", "params": {"database": "w1_db1"}, "reason": "a < b & c"}, 201),
    ({"command": '/db backup w1_db1 reason="a < b & c"'}, 201),
    ({"command": "backup w1_db1", "reason": "a < b & c"}, 201),
    ({"command": "backup w1_db1", "as_user": "ANA", "reason": "a < b & c"}, 201),
    ({"command": "backup w1_db1", "as_user": "bo"}, 403),
    ({"command": "backup w1_db1", "set_policy": {"gates": []}}, 403),
    ({"command": "backup w1_db1", "user": "bo"}, 400),
    ({"command": "backup w1_db1", "by": "bo"}, 400),
    ({"command": "backup w1_db1", "door": "slack"}, 400),
    ({"command": "backup w1_db1 reason=x", "reason": "y"}, 422),
    ({"command": "backup w1_db1", "params": {}}, 422),
    ({"command": "backup w1_db1", "operation": "backup"}, 422),
    ({}, 422),
    ({"command": ""}, 422),
    ({"command": "backup"}, 422),
    ({"command": "backup nowhere"}, 422),
    ({"command": "bakcup w1_db1"}, 422),
    ({"operation": "backup", "params": {"database": "w1_db1", "environment": "test"}}, 422),
    ({"operation": "backup", "params": {"database": 7}}, 422),
    ({"command": 7}, 400),
    ({"command": "x" * 9000}, 400),
    ({"command": "backup w1_db1", "reason": "a\x00b"}, 400),
    ({"command": "backup w1_db1", "reason": "\ud800"}, 400),
    ([], 400),
    ("backup w1_db1", 400),
    (b'{"command": "backup w1_db1", "command": "backup w1_db2"}', 400),
    (b'{"command": NaN}', 400),
    (b"\xff", 400),
    (b"[" * 30_000, 400),
    (b"", 400),
]


async def test_what_can_be_asked_for(world: ApiWorld, ana: Caller, store: Store) -> None:
    for body, status in ASKED:
        await world.open()  # a new guard, which has no failures to count
        before = await counts(store)
        answered, said = await ana("POST", "/api/requests", body)
        assert answered == status, (body, said)
        if status == 201:
            assert said["request"]["asked_by"] == "ana"
            assert said["request"]["reason"] == "a < b & c"
        else:
            assert said["problem"]
            assert said["next_step"]
            assert await counts(store) == before, body


async def test_only_a_post_decides(ana: Caller, bo: Caller, store: Store) -> None:
    request = await ana.ask()
    await bo("GET", "/api/requests")
    before = await counts(store)
    for action in (
        *("approve", "deny", "cancel", "pause", "resume", "withdraw", "break-glass", "review"),
        "nod",
    ):
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            status, _ = await bo(method, f"/api/requests/{request['id']}/{action}")
            assert status == 405, (method, action)
    assert await counts(store) == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/", 404),
        ("/api/requests/", 404),
        ("/api/requests/x", 404),
        ("/api/requests/99", 404),
        ("/api/requests/0x1", 404),
        ("/api/requests/99999999999999999999", 404),
        ("/api/requests/%31", 404),
        ("/api/requests/../healthz", 404),
    ],
)
async def test_paths_that_are_none(ana: Caller, path: str, status: int) -> None:
    assert (await ana("GET", path))[0] == status


async def test_the_body_is_json_and_not_too_long(ana: Caller) -> None:
    status, said = await ana("POST", "/api/requests", b"{}", Content_Type="text/plain")
    assert (status, said["why"]) == (415, "content_type")
    status, said = await ana("POST", "/api/requests", {"command": "x" * 70_000})
    assert (status, said["why"]) == (413, "too_large")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {}x", "Bearer twk_1_2"]
)
async def test_without_a_good_token_nobody_is_anybody(world: ApiWorld, header: str) -> None:
    token = await world.token("bo")
    status, said = await send(
        world, "GET", "/api/requests", None, {"Authorization": header.replace("{}", token)}
    )
    assert (status, said["why"]) == (401, "signature")


async def test_a_token_dies_with_its_account_and_comes_back_with_it(
    world: ApiWorld, ana: Caller, bo: Caller
) -> None:
    request = await ana.ask()
    people = world.town.people
    good = people["bo"]
    for flag in Flag:
        people["bo"] = replace(good, flags=frozenset({flag}))
        status, said = await bo.decide(request)
        assert (status, said["why"]) == (403, "identity")
        assert (await bo("GET", "/api/requests"))[0] == 403
    del people["bo"]
    assert (await bo.decide(request))[1]["why"] == "identity"
    people["bo"] = good
    assert (await bo.decide(request))[0] == 200


async def test_an_account_that_is_somebody_elses_now_opens_nothing(
    world: ApiWorld, ana: Caller, bo: Caller
) -> None:
    request = await ana.ask()
    await bo("GET", "/api/requests")
    world.town.people["bo"] = replace(world.town.people["cy"])
    status, said = await bo.decide(request)
    assert (status, said["why"]) == (403, "identity")


async def test_nobody_is_anybody_while_the_directory_is_down(
    world: ApiWorld, ana: Caller, bo: Caller
) -> None:
    request = await ana.ask()
    await bo("GET", "/api/requests")
    world.town.up = False
    status, said = await bo.decide(request)
    assert (status, said["why"]) == (503, "directory")


async def test_a_membership_is_read_fresh_and_so_is_that_of_earlier_voters(
    world: ApiWorld, ana: Caller, bo: Caller, cy: Caller
) -> None:
    request = await ana.ask()
    await bo.decide(request)
    people = world.town.people
    people["bo"] = replace(people["bo"], groups=frozenset())
    assert (await cy.decide(request))[1]["request"]["state"] == "pending"
    people["cy"] = replace(people["cy"], groups=frozenset())
    assert (await cy.decide(request, "deny", reason="no"))[1]["why"] == "not_eligible"


async def test_the_same_key_is_one_call(ana: Caller, bo: Caller, store: Store) -> None:
    first = await ana("POST", "/api/requests", {"command": "backup w1_db1"}, Idempotency_Key="k1")
    again = await ana("POST", "/api/requests", {"command": "backup w1_db1"}, Idempotency_Key="k1")
    assert (first[0], again[0]) == (201, 200)
    assert again[1]["noop"]
    assert again[1]["request"]["id"] == first[1]["request"]["id"]
    other = await ana("POST", "/api/requests", {"command": "backup w1_db2"}, Idempotency_Key="k1")
    assert (other[0], other[1]["why"]) == (422, "idempotency")
    theirs = await bo("POST", "/api/requests", {"command": "backup w1_db2"}, Idempotency_Key="k1")
    assert theirs[0] == 201


async def test_a_key_of_an_approval_does_not_deny(ana: Caller, bo: Caller) -> None:
    request = await ana.ask()
    path = f"/api/requests/{request['id']}"
    assert (await bo("POST", f"{path}/approve", seen(request), Idempotency_Key="k"))[0] == 200
    status, said = await bo("POST", f"{path}/deny", seen(request), Idempotency_Key="k")
    assert (status, said["why"]) == (422, "idempotency")


async def test_a_key_at_once_is_one_call_as_well(ana: Caller, store: Store) -> None:
    body = {"command": "backup w1_db1"}
    await ana("GET", "/api/requests")
    answers = await asyncio.gather(
        *(ana("POST", "/api/requests", body, Idempotency_Key="k") for _ in range(8))
    )
    assert {said["request"]["id"] for _, said in answers} == {answers[0][1]["request"]["id"]}
    assert sorted(status for status, _ in answers) == [200] * 7 + [201]
    assert (await counts(store))[0] == 1


@pytest.mark.parametrize("key", ["", " ", "x" * 201, "a b", "é"])
async def test_what_cannot_be_a_key(ana: Caller, key: str) -> None:
    try:
        status, _ = await ana(
            "POST", "/api/requests", {"command": "backup w1_db1"}, Idempotency_Key=key
        )
    except (ClientError, ValueError):
        return
    assert status == 400


async def test_whoever_guesses_waits_and_who_works_does_not(world: ApiWorld, bo: Caller) -> None:
    await bo("GET", "/api/requests")
    bad = {"Authorization": f"Bearer twk_{'0' * 12}_{'0' * 64}"}
    statuses = [
        (await send(world, "GET", "/api/requests", None, bad))[0] for _ in range(FAILURES_MAX + 3)
    ]
    assert statuses[:FAILURES_MAX] == [401] * FAILURES_MAX
    assert statuses[-1] == 429
    assert (await bo("GET", "/api/requests"))[0] == 200
    fresh = {"Authorization": f"Bearer {await world.token('cy')}"}
    assert (await send(world, "GET", "/api/requests", None, fresh))[0] == 429


async def test_a_token_that_only_errs_waits_too(bo: Caller, cy: Caller) -> None:
    statuses = [(await bo("POST", "/api/requests", {}))[0] for _ in range(FAILURES_MAX + 2)]
    assert statuses[-1] == 429
    assert (await cy("GET", "/api/requests"))[0] == 200


def test_failures_are_forgiven_with_time_and_never_fill_the_memory() -> None:
    now = 0.0
    failures = Failures(clock=lambda: now, failures_max=2, forgiven_per_second=1.0)
    for _ in range(50):
        failures.add("a")
    with pytest.raises(LimitedError) as refusal:
        failures.check("a")
    now += refusal.value.seconds
    failures.check("a")
    for number in range(20_000):
        failures.add(str(number))
    assert len(failures._counts) == 10_000


def test_an_address_of_six_counts_as_its_network() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff") != network("2001:db8:1::1")
    assert network("::ffff:192.0.2.1") == network("192.0.2.1")
    assert network(None) == network("nonsense")


def test_every_reason_has_a_status() -> None:
    assert set(STATUS) == set(Why)
    assert all(400 < status < 504 and status != 500 for status in STATUS.values())


async def test_no_token_reaches_a_log_or_the_store(
    world: ApiWorld, ana: Caller, bo: Caller, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    request = await ana.ask()
    await bo.decide(request)
    secret = (await world.token("bo")).rpartition("_")[2]
    await send(
        world, "POST", f"/api/requests/{secret}", {"a": 1}, {"Authorization": f"Bearer x{secret}"}
    )
    async with store.begin() as conn:
        lines = [line async for line in audit.export(conn)]
        tables = await conn.execute(
            sa.text("SELECT t::text FROM tokens t UNION ALL SELECT d::text FROM deliveries d")
        )
        lines += list(tables.scalars())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("twokey")]
    assert lines
    assert not [line for line in (*lines, *ours) if secret in line]


async def test_decisions_are_counted_by_door(world: ApiWorld, ana: Caller, bo: Caller) -> None:
    request = await ana.ask()
    await bo("POST", f"/api/requests/{request['id']}/approve", seen(request), Twokey_Door="cli")
    await bo("POST", f"/api/requests/{request['id']}/nod", {})
    assert world.desk
    text = world.desk.metrics.text().decode()
    assert 'twokey_decisions_total{action="ask",door="api",result="ok"} 1.0' in text
    assert 'twokey_decisions_total{action="approve",door="cli",result="ok"} 1.0' in text
    assert 'twokey_refusals_total{door="api",why="verdict"} 1.0' in text


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
NAMES = (
    "command", "operation", "params", "reason", "plan_hash", "policy_hash", "step", "code",
    "typed", "as_user", "set_policy",
)  # fmt: skip
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), JSONS, max_size=5).map(json.dumps).map(str.encode),
    JSONS.map(json.dumps).map(str.encode),
    st.binary(max_size=60),
)
PATHS = st.sampled_from(
    ["/api/requests", "/api/queries", "/api/requests/1", "/api/requests/1/approve",
     "/api/requests/1/deny", "/api/requests/1/break-glass", "/api/requests/1/cancel",
     "/api/requests/1/withdraw", "/api/requests/1/review", "/api/requests/2/approve"]
)  # fmt: skip
HEADERS = st.dictionaries(
    st.sampled_from(["Idempotency-Key", "Twokey-Door", "Content-Type", "Authorization", "Accept"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
    max_size=3,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    method=st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "HEAD"]),
    path=PATHS, body=BODIES, headers=HEADERS,
)  # fmt: skip
async def test_no_garbage_breaks_anything_or_does_a_part(
    world: ApiWorld, ana: Caller, store: Store, method: str, path: str, body: bytes,
    headers: Mapping[str, str],
) -> None:  # fmt: skip
    assert world.desk
    if (await counts(store))[0] == 0:
        await ana.ask()
    await world.open()  # a new guard, which has no failures to count
    token = await world.token("gus2")
    before = await counts(store)
    world.town.people["gus2"] = replace(world.town.people["ana"], id="gus2", name="gus2")  # type: ignore[arg-type]
    said = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", **headers}
    async with world.ground.session.request(
        method, f"{world.url}{path}", data=body, headers=said
    ) as answer:
        assert answer.status < 500, await answer.text()
        if method != "HEAD":
            await answer.json()
    if answer.status >= 400 and path in ("/api/requests", "/api/queries"):
        assert await counts(store) == before
    assert (await counts(store))[1] == 0  # nobody who may not vote has voted
