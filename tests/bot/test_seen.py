"""A click counts only for what its card showed: each part changed between drawing and clicking."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from approvals.plans import plan_of
from approvals.policy_file import parse_policy
from approvals.words import PersonId, PlanHash, PolicyHash, RequestId
from bot.buttons import Purpose, Seal
from sandbox.slack.server import SlackStandIn
from store.connect import Store
from tests.bot.care_world import CHANNEL, CareWorld, care_world
from tests.bot.views.cards import texts
from tests.conftest import Target

ONE = RequestId(1)
Change = Callable[[CareWorld], Awaitable[None]]


@pytest.fixture
async def world(
    slack: SlackStandIn, store: Store, target: Target, tmp_path: Path
) -> AsyncIterator[CareWorld]:
    async with care_world(slack, store, tmp_path, target.dsn) as made:
        yield made


async def asked(world: CareWorld, says: str = "Waiting", colour: str = "red") -> dict[str, Any]:
    await world.slack.command("U0ANA", CHANNEL, f"/db paint orders {colour}")
    card = await world.card(says)
    async with asyncio.timeout(30):  # where it stands is stored just after it was posted
        while not await world.rows(f"SELECT 1 FROM posts WHERE ts = '{card['ts']}'"):
            await asyncio.sleep(0.02)
    return card


def value_of(card: dict[str, Any], action: str) -> str:
    [value] = [
        element["value"]
        for block in card["blocks"]
        if block["type"] == "actions"
        for element in block["elements"]
        if element["action_id"] == action
    ]
    return str(value)


def with_value(card: dict[str, Any], action: str, value: str) -> dict[str, Any]:
    """The card as somebody sees it whose button carries another value."""
    shown: dict[str, Any] = json.loads(json.dumps(card))
    for block in shown["blocks"]:
        for element in block.get("elements", []):
            if element.get("action_id") == action:
                element["value"] = value
    return shown


async def plan_changed(world: CareWorld) -> None:
    desk = world.twokey.desk
    ole = await desk.people.by_slack("T0DEMO", "U0OLE")
    plan = {**plan_of((await desk.cards.record(ONE)).plan), "title": "Paint it all"}
    await desk.approvals.change_plan(ONE, by=ole, plan=plan, delivery="x")


async def policy_changed(world: CareWorld) -> None:
    approvals = world.twokey.approvals
    gates = [{"id": "dba", "groups": ["dba"], "approve": 3}]
    approvals._shelf.use(new := parse_policy({"gates": gates}, epoch=datetime.now(UTC)))
    approvals._book = replace(approvals._book, policy=new)
    await approvals._new.keep_policy(new, datetime.now(UTC))


async def step_moved(world: CareWorld) -> None:
    card = await world.card("dba")
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", "is stored")


async def gates_changed(world: CareWorld) -> None:
    """Something else was derived, so that another rule of the same policy applies."""
    record = await world.twokey.desk.cards.record(ONE)
    changed = {**record.attributes, "operation": "erase"}
    await world.twokey.approvals.change_attributes(ONE, changed)


async def is_expired(world: CareWorld) -> None:
    late = datetime.now(UTC) + timedelta(days=30)
    for place in (world.twokey.desk, world.twokey.approvals._book):
        object.__setattr__(place, "clock", lambda: late)


CHANGES: list[tuple[Change, str]] = [
    (plan_changed, "plan of request 1 has changed"),
    (policy_changed, "rules for request 1 have changed"),
    (step_moved, "moved on to another step"),
    (gates_changed, "card of request 1 has changed"),
    (is_expired, "expired"),
]


async def cards_waiting(world: CareWorld) -> int:
    async with world.store.begin() as conn:
        import sqlalchemy as sa

        found = await conn.execute(sa.text("SELECT count(*) FROM outbox WHERE topic = 'card'"))
        return int(found.scalar_one())


@pytest.mark.parametrize(("change", "says"), CHANGES, ids=[c.__name__ for c, _ in CHANGES])
async def test_what_changed_between_drawing_and_approving_is_said(
    world: CareWorld, change: Change, says: str
) -> None:
    card = await asked(world)
    await change(world)
    before, votes = await cards_waiting(world), await world.rows("SELECT 1 FROM votes")
    await world.slack.click("U0CLEO", CHANNEL, card["ts"], "approve", shown=card)
    await world.told("U0CLEO", says)
    assert await cards_waiting(world) > before  # drawn anew
    assert await world.rows("SELECT 1 FROM votes") == votes


@pytest.mark.parametrize(("change", "says"), CHANGES, ids=[c.__name__ for c, _ in CHANGES])
async def test_what_changed_between_pressing_deny_and_its_reason_is_said(
    world: CareWorld, change: Change, says: str
) -> None:
    card = await asked(world)
    await world.slack.click("U0CLEO", CHANNEL, card["ts"], "deny")
    [view] = world.slack.views("U0CLEO")
    await change(world)
    before, votes = await cards_waiting(world), await world.rows("SELECT 1 FROM votes")
    sent = await world.slack.submit("U0CLEO", view["id"], {"reason": {"text": "No."}})
    assert says in sent.errors["reason"]
    assert await cards_waiting(world) > before
    assert await world.rows("SELECT 1 FROM votes") == votes


RACES = [
    (plan_changed, "not what it was when you looked"),
    (policy_changed, "rules for request 1 have changed"),
    (step_moved, "moved on to another step"),
    (gates_changed, "card of request 1 has changed"),
    (is_expired, "expired"),
]


@pytest.mark.parametrize(("change", "says"), RACES, ids=[c.__name__ for c, _ in RACES])
async def test_what_changes_between_the_look_and_the_lock_is_said(
    world: CareWorld, change: Change, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = await asked(world)
    approvals = world.twokey.approvals
    vote, changing = approvals.vote, asyncio.Lock()

    async def slowly(ballot: Any, **more: Any) -> Any:
        if ballot.by.id == PersonId("cleo@acme.example"):
            async with changing:
                await change(world)
        return await vote(ballot, **more)

    monkeypatch.setattr(approvals, "vote", slowly)
    await world.slack.click("U0CLEO", CHANNEL, card["ts"], "approve", shown=card)
    await world.told("U0CLEO", says)
    voters = await world.rows("SELECT person FROM votes WHERE person LIKE 'cleo%'")
    assert voters == []


FIELDS: list[dict[str, Any]] = [
    {"request_id": RequestId(2)},
    {"plan_hash": PlanHash("0" * 64)},
    {"policy_hash": PolicyHash("0" * 64)},
    {"card_hash": "0" * 16},
    {"step": 7},
    {"expires_at": datetime(2040, 1, 1, tzinfo=UTC)},
    {"purpose": Purpose.DENY},
    {"person": "cleo@acme.example"},
]


@pytest.mark.parametrize("field", FIELDS, ids=[next(iter(field)) for field in FIELDS])
async def test_no_field_of_a_value_can_be_changed(world: CareWorld, field: dict[str, Any]) -> None:
    card = await asked(world)
    seal, value = world.twokey.desk.seal, value_of(card, "approve")
    changed = seal.close(replace(seal.open(value, now=None), **field)).partition(".")[0]
    forged = f"{changed}.{value.partition('.')[2]}"
    before = await cards_waiting(world)
    shown = with_value(card, "approve", forged)
    await world.slack.click("U0CLEO", CHANNEL, card["ts"], "approve", shown=shown)
    await world.told("U0CLEO", "not made by Twokey")
    assert await cards_waiting(world) > before
    assert await world.rows("SELECT 1 FROM votes") == []


async def test_a_value_of_another_request_does_nothing_on_this_card(world: CareWorld) -> None:
    first = await asked(world)
    second = await asked(world, "Request 2", "blue")
    shown = with_value(second, "approve", value_of(first, "approve"))
    before = await cards_waiting(world)
    await world.slack.click("U0BEN", CHANNEL, second["ts"], "approve", shown=shown)
    await world.told("U0BEN", "belongs to request 1, and was pressed on the card of request 2")
    assert await cards_waiting(world) > before
    assert await world.rows("SELECT 1 FROM votes") == []


async def test_a_value_under_a_retired_key_does_nothing(world: CareWorld) -> None:
    card = await asked(world)
    desk = world.twokey.desk
    retired = Seal([b"r" * 32])
    old = retired.close(desk.seal.open(value_of(card, "approve"), now=None))
    before = await cards_waiting(world)
    shown = with_value(card, "approve", old)
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "approve", shown=shown)
    await world.told("U0BEN", "key has been retired")
    assert await cards_waiting(world) > before
    assert await world.rows("SELECT 1 FROM votes") == []


ACTIONS = ["approve", "deny", "details", "cancel"]


@pytest.mark.parametrize(
    ("made_for", "pressed"),
    [(made_for, pressed) for made_for in ACTIONS for pressed in ACTIONS if made_for != pressed],
)
async def test_a_value_does_nothing_under_another_button(
    world: CareWorld, made_for: str, pressed: str
) -> None:
    card = await asked(world)
    shown = with_value(card, pressed, value_of(card, made_for))
    await world.slack.click("U0ANA", CHANNEL, card["ts"], pressed, shown=shown)
    await world.told("U0ANA", "belongs to another button of request 1")
    assert world.slack.views("U0ANA") == []
    assert await world.rows("SELECT 1 FROM requests WHERE state <> 'pending'") == []


@pytest.mark.parametrize("modal", ["details", "deny"])
async def test_a_modal_is_its_persons_alone(world: CareWorld, modal: str) -> None:
    card = await asked(world)
    await world.slack.click("U0BEN", CHANNEL, card["ts"], modal)
    [view] = world.slack.views("U0BEN")
    desk = world.twokey.desk
    purpose = Purpose.PAGES if modal == "details" else Purpose.REASON
    for person, fits in (("ben@acme.example", True), ("cleo@acme.example", False)):
        opening = desk.opening.of_any_age(
            view["private_metadata"], purpose, person=PersonId(person)
        )
        if fits:
            await opening
            continue
        with pytest.raises(Exception, match="opened for somebody else"):
            await opening


async def test_a_card_from_before_an_upgrade_says_so(world: CareWorld) -> None:
    """A value of the form before this one is not ours any more, and its card is drawn anew."""
    card = await asked(world)
    fields = [1, "a" * 64, "b" * 64, "c" * 16, 0, 2_000_000_000]
    body = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    before = await cards_waiting(world)
    shown = with_value(card, "approve", f"{body}.{'A' * 43}")
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "approve", shown=shown)
    await world.told("U0BEN", "not made by Twokey")
    assert await cards_waiting(world) > before


async def test_a_click_that_slack_delivers_twice_is_one_vote(world: CareWorld) -> None:
    card = await asked(world)
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "approve")
    await world.told("U0BEN", "is stored")
    assert (await world.again()).status == 200
    assert len(await world.rows("SELECT 1 FROM votes")) == 1
    assert len(await world.rows("SELECT 1 FROM audit_log WHERE action = 'vote'")) == 1


async def test_a_reason_that_was_refused_can_be_mended_in_the_same_modal(world: CareWorld) -> None:
    card = await asked(world)
    await world.slack.click("U0OLE", CHANNEL, card["ts"], "deny")
    [view] = world.slack.views("U0OLE")
    sent = await world.slack.submit("U0OLE", view["id"], {"reason": {"text": "first"}})
    assert "not yours to decide" in sent.errors["reason"]
    sent = await world.slack.submit("U0OLE", view["id"], {"reason": {"text": "second"}})
    assert "not yours to decide" in sent.errors["reason"]
    assert len(await world.rows("SELECT 1 FROM audit_log WHERE action = 'vote'")) == 2


async def test_an_old_card_still_shows_its_details(world: CareWorld) -> None:
    card = await asked(world)
    await plan_changed(world)
    await world.slack.click("U0BEN", CHANNEL, card["ts"], "details", shown=card)
    [view] = world.slack.views("U0BEN")
    assert "Paint it all" in texts(view["blocks"])
