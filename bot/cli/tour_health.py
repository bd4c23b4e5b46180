"""The tour's fourth act: something blocks, is told, helped and over; and a DBA's advice."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from bot.cli.demo_inventory import CHANNEL
from bot.cli.tour_play import (
    ANA,
    BEN,
    CLEO,
    DESK,
    DORA,
    RUN_SECONDS_MAX,
    SECONDS_MAX,
    Json,
    Tour,
    TourError,
    expect,
    number_in,
    quoted,
    text_of,
)

_SQL_SECONDS_MAX: Final = 60
_ALERT_SECONDS_MAX: Final = 60.0
_LINES_MAX: Final = 9
_FORGOTTEN: Final = "forgotten"


async def _health(tour: Tour) -> list[str]:
    told = expect(await tour.ask(ANA, "/db health orders"), "Health of orders: ")
    return quoted("Ana is told", told)[:_LINES_MAX]


async def _blocked(tour: Tour) -> list[str]:
    blocking = contextlib.AsyncExitStack()
    tour.notes["blocking"] = blocking
    await blocking.enter_async_context(_lock_and_wait(tour))
    message = await _incident(tour, "LockWait")
    tour.notes["incident"] = message["ts"]
    lines = [line for line in text_of(message).splitlines() if line.strip()]
    return [f"#orders: {line}" for line in lines[:_LINES_MAX]]


async def _acknowledged(tour: Tour) -> list[str]:
    slack = tour.world.slack
    pressed = await slack.click(BEN, CHANNEL, tour.notes["incident"], "incident_ack")
    if pressed.error:
        raise TourError(f"Slack showed Ben: {pressed.error}")
    message = await _incident(tour, "Acknowledged by")
    if message["ts"] != tour.notes["incident"]:
        raise TourError("The incident was told twice.")
    return [line for line in text_of(message).splitlines() if "Acknowledged" in line][:2]


async def _helped(tour: Tour) -> list[str]:
    told = expect(await tour.ask(ANA, "/db locks orders"), _FORGOTTEN)
    slack = tour.world.slack
    answer = slack.ephemerals(ANA)[-1]
    action = _button(answer, "End")
    await slack.click(ANA, DESK, answer["ts"], action)
    view = await slack.wait_for(
        lambda: next((v for v in slack.views(ANA) if "terminate" in text_of(v)
                      or "terminate" in str(v.get("title"))), None), SECONDS_MAX,
    )  # fmt: skip
    sent = await slack.submit(ANA, view["id"], {})
    if not sent.ok:
        raise TourError(f"The form was not taken: {sent.error or sent.errors}")
    stored = await slack.wait_for(lambda: _request_in(slack.views(ANA)), SECONDS_MAX)
    await tour.card(stored, says="Waiting")
    agreed = await tour.press(CLEO, stored, "approve")
    said = await tour.thread(stored, "is ended", seconds=SECONDS_MAX)
    over = await _note(tour, "Over: LockWait")
    await tour.notes["blocking"].aclose()
    return [
        *quoted("Ana is told", told)[:_LINES_MAX],
        *quoted("Cleo is told", agreed),
        *quoted("the thread says", said)[:_LINES_MAX],
        *quoted("the incident's thread says", over),
    ]


async def _index(tour: Tour) -> list[str]:
    advice = expect(await tour.late("/db indexes orders", "Indexes of orders"), "placed_at")
    number = number_in(await tour.ask(ANA, "/db create-index orders public.orders placed_at"))
    await tour.card(number, says="Waiting")
    await tour.press(BEN, number, "approve")
    said = await tour.thread(number, "is built and valid")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    after = await tour.late("/db indexes orders", "Indexes of orders")
    if "(placed_at)" in after and "may be missing" in after:
        raise TourError(f"The index is there, and was advised again: {after}")
    return [
        *quoted("Ana is told", advice)[:_LINES_MAX],
        *quoted("the thread says", said)[:_LINES_MAX],
        "asked again, it is not missing any more: what was remembered has ended with the run",
    ]


async def _audited(tour: Tour) -> list[str]:
    number = number_in(await tour.ask(ANA, "/db audit-trigger orders public.customers"))
    await tour.card(number, says="Waiting")
    await tour.press(BEN, number, "approve")
    await tour.press(DORA, number, "approve")
    await tour.card(number, says="Done", seconds=RUN_SECONDS_MAX)
    await tour.value("UPDATE customers SET since = since + 1 WHERE id = 7")
    row = await tour.value(
        "SELECT operation || ' of ' || table_name || ' by ' || changed_by"
        " FROM twokey_audit.row_changes",
    )
    told = expect(await tour.ask(ANA, "/db audit-triggers orders"), "in force")
    return [f"recorded: {row}", *quoted("Ana is told", told)[:3]]


async def _outlook(tour: Tour) -> list[str]:
    forecast = expect(await tour.late("/db forecast orders", "Forecast of orders"), "In 365 days")
    digest = expect(await tour.late("/db digest orders", "digest"), "Availability")
    return [
        *quoted("Ana is told", forecast)[:_LINES_MAX],
        *quoted("managers read", digest)[:_LINES_MAX],
    ]


HEALTH: Final[Sequence[tuple[str, Callable[[Tour], Awaitable[Sequence[str]]]]]] = (
    ("How is orders? On one screen, with what to do next.", _health),
    ("Somebody forgets to commit; others wait, and the channel is told.", _blocked),
    ("Ben takes it: the same message says so.", _acknowledged),
    ("Who holds it? One button asks to end that session, Cleo agrees, and it is over.", _helped),
    ("An index is missing: it is built while everybody goes on.", _index),
    ("Who changes a customer is written down from now on.", _audited),
    ("When is the disk full, and what do managers read?", _outlook),
)


@contextlib.asynccontextmanager
async def _lock_and_wait(tour: Tour) -> AsyncIterator[None]:
    """One session that holds a row and does nothing, and two that wait for it."""
    holder = await tour.connected(_FORGOTTEN)
    waiters = [await tour.connected("cashier") for _ in range(2)]
    update = (
        "UPDATE payments SET cents = cents WHERE order_id = (SELECT min(order_id) FROM payments)"
    )
    await holder.execute(f"BEGIN; {update}")
    waiting = [asyncio.create_task(each.execute(update)) for each in waiters]
    try:
        yield
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for each in (holder, *waiters):
            each.terminate()


async def _incident(tour: Tour, says: str) -> Json:
    """The newest incident's message in the channel, once it says this."""

    def found() -> Json | None:
        for message in reversed(tour.world.slack.messages(CHANNEL)):
            is_reply = message.get("thread_ts", message["ts"]) != message["ts"]
            text = text_of(message)
            if not is_reply and "Incident" in text and says in text:
                return message
        return None

    return await tour.world.slack.wait_for(found, _ALERT_SECONDS_MAX)


async def _note(tour: Tour, says: str) -> str:
    """What is said in the incident's thread."""

    def found() -> str | None:
        for message in tour.world.slack.messages(CHANNEL):
            is_reply = message.get("thread_ts") == tour.notes["incident"] != message["ts"]
            if is_reply and says in text_of(message):
                return text_of(message)
        return None

    return await tour.world.slack.wait_for(found, _ALERT_SECONDS_MAX)


def _request_in(views: Sequence[Json]) -> int | None:
    """The request that the front window tells of."""
    found = re.search(r"Request (\d+)", str(views[-1]["title"]["text"])) if views else None
    return int(found[1]) if found else None


def _button(message: Json, text: str) -> str:
    """The action id of the first button whose text begins so."""
    for block in message["blocks"]:
        for element in block.get("elements", []):
            shown = element.get("text")
            if isinstance(shown, dict) and str(shown.get("text", "")).startswith(text):
                return str(element["action_id"])
    raise TourError(f"There is no button {text!r} on: {text_of(message)}")
