"""Brings what was decided to Slack: in order, at Slack's pace, once.

A row of the outbox was stored with the decision that it tells of. Slack has no
idempotency key, so each post carries its row's id as metadata, and after an attempt whose
outcome nobody knows the channel is searched for it before anything is posted again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from slack_sdk.web.async_client import AsyncWebClient

from bot import outbox_rows
from bot.blocks import Message
from bot.charts import BAD_BLOCKS, Charts
from bot.outbox_listen import keep_listening
from bot.outbox_rows import UNCLEAR, Place, Row
from bot.slack import (
    SlackAwayError,
    SlackLimitedError,
    SlackRefusedError,
    SlackUnclearError,
    call,
)
from bot.spacing import Spacing
from jobs.away import is_away, pause_seconds
from store.connect import Store

log: Final = logging.getLogger("twokey.outbox")

EVENT_TYPE: Final = "twokey"
_SEARCH_PAGES_MAX: Final = 20
_SEARCH_PAGE_SIZE: Final = 200
_CLOCKS_DIFFER: Final = timedelta(minutes=2)
# Nobody can be told directly any more: to try it again would bring nothing.
_NOBODY_THERE: Final = frozenset(
    {
        "user_disabled",
        "user_not_found",
        "cannot_dm_bot",
        "channel_not_found",
        "messages_tab_disabled",
    }
)
# The message that we want to replace is gone: post a new one.
_GONE: Final = frozenset({"message_not_found", "cant_update_message", "edit_window_closed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast and how patiently. Slack takes about one message per second and channel."""

    between: timedelta = timedelta(seconds=1)
    poll: timedelta = timedelta(seconds=5)
    look_again: timedelta = timedelta(milliseconds=100)
    first_retry: timedelta = timedelta(seconds=2)
    retry_max: timedelta = timedelta(minutes=5)
    lease: timedelta = timedelta(seconds=60)
    delivery_max: timedelta = timedelta(seconds=45)  # shorter than the lease
    give_up: timedelta = timedelta(days=3)
    channels_at_once: int = 8


class Draw(Protocol):
    """Turns a row into what is to be shown, from what is stored now."""

    async def __call__(self, row: Row, payload: Mapping[str, Any]) -> Message | None:
        """The message, or None when there is nothing to show any more."""
        ...


class Meter(Protocol):
    """Where deliveries are counted."""

    def delivered(self, topic: str) -> None:
        """A message arrived."""
        ...

    def failed(self, kind: str) -> None:
        """An attempt did not succeed."""
        ...


class Outbox:
    """The deliverer. Any number of them may run on one store."""

    def __init__(
        self,
        *,
        store: Store,
        client: AsyncWebClient,
        draw: Draw,
        clock: Callable[[], datetime],
        pace: Pace,
        meter: Meter,
        charts: Charts | None = None,
    ) -> None:
        if pace.delivery_max >= pace.lease:
            raise ValueError("a delivery must end before its lease")
        self._store = store
        self._client = client
        self._draw = draw
        self._clock = clock
        self._pace = pace
        self._meter = meter
        self._charts = charts or Charts(client=client, clock=clock)
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._free_hands = pace.channels_at_once
        self._turns = Spacing(pace.between)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until `stop` is set; what is on its way then is finished."""
        self._stopping = stop
        async with asyncio.TaskGroup() as tasks:
            listening = tasks.create_task(keep_listening(self._store, self._wake))
            delivering = tasks.create_task(self._deliver_all(tasks, stop))
            await stop.wait()
            self._wake.set()
            await delivering
            listening.cancel()

    async def _deliver_all(self, tasks: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        failures = 0
        while not stop.is_set():
            self._wake.clear()
            hands = self._free_hands
            try:
                wait = await self._claim_and_start(tasks)
                failures = 0
                if self._free_hands == hands:
                    # Whatever woke us has its channel's turn still to come. Many commands
                    # at once must not make us look as often.
                    await asyncio.sleep(self._pace.look_again.total_seconds())
            except Exception as error:
                if not is_away(error):
                    raise
                failures += 1
                wait = pause_seconds(failures)
                log.warning("The store is away (%s); the outbox waits.", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def _claim_and_start(self, tasks: asyncio.TaskGroup) -> float:
        """Start what is due; the seconds until there may be more to do."""
        poll = self._pace.poll.total_seconds()
        if self._free_hands == 0:
            return poll  # whoever finishes wakes us
        now = self._clock()
        rows = await outbox_rows.claim(
            self._store, now=now, lease_until=now + self._pace.lease, rows_max=self._free_hands
        )
        for row in rows:
            self._free_hands -= 1
            tasks.create_task(self._carry(row))
        due_at = await outbox_rows.next_due_at(self._store)
        if due_at is None or self._free_hands == 0:
            return poll
        return min(max((due_at - self._clock()).total_seconds(), 0.01), poll)

    async def _carry(self, row: Row) -> None:
        """One attempt at one row. Whatever happens, the row is settled or waits again."""
        try:
            async with asyncio.timeout(self._pace.delivery_max.total_seconds()):
                await self._turns.wait(row.channel)
                await self._attempt_patiently(row)
        except Exception as error:
            if not is_away(error):
                # A message that cannot be drawn must not stop the others; it is looked at
                # again, as the mistake may be in what is stored right now.
                log.exception("Row %s of the outbox (%s) could not be handled.", row.id, row.topic)
                with contextlib.suppress(Exception):
                    await self._fail(row, error=f"{UNCLEAR}: {type(error).__name__}")
        finally:
            self._free_hands += 1
            self._wake.set()

    async def _attempt_patiently(self, row: Row) -> None:
        """The row is ours until its lease ends, also when the store goes away meanwhile.

        What may have been posted by then is searched for before anything is posted again.
        """
        failures = 0
        while True:
            try:
                return await self._attempt(row)
            except Exception as error:
                if not is_away(error) or self._stopping.is_set():
                    raise
            failures += 1
            row = replace(row, maybe_posted=True)
            await asyncio.sleep(pause_seconds(failures))

    async def _attempt(self, row: Row) -> None:
        try:
            await self._deliver(row)
        except SlackLimitedError as error:
            self._meter.failed("limited")
            await outbox_rows.postpone(
                self._store,
                row,
                due_at=self._clock() + error.retry_after,
                error=f"{UNCLEAR}: limited" if row.maybe_posted else "limited",
                counts=False,
            )
        except SlackRefusedError as error:
            if row.topic == "direct" and error.error in _NOBODY_THERE:
                self._meter.failed("nobody")
                await outbox_rows.bury(self._store, row, error=f"refused: {error}")
                return
            # Refused while searching for an earlier post: that one stays unclear.
            await self._fail(
                row, error=f"{UNCLEAR}: {error}" if row.maybe_posted else f"refused: {error}"
            )
        except SlackAwayError as error:
            await self._fail(
                row, error=f"{UNCLEAR}: {error}" if row.maybe_posted else f"away: {error}"
            )
        except SlackUnclearError as error:
            await self._fail(row, error=f"{UNCLEAR}: {error}")
        else:
            self._meter.delivered(row.topic)

    async def _fail(self, row: Row, *, error: str) -> None:
        self._meter.failed(error.partition(":")[0])
        now = self._clock()
        if now - row.created_at >= self._pace.give_up:
            log.error(
                "Row %s of the outbox (%s for request %s, channel %s) is put aside after %s: %s",
                row.id, row.topic, row.request_id, row.channel, self._pace.give_up, error,
            )  # fmt: skip
            self._meter.failed("dead")
            await outbox_rows.bury(self._store, row, error=error)
            return
        wait = min(self._pace.first_retry * 2 ** min(row.attempts - 1, 20), self._pace.retry_max)
        log.warning(
            "Row %s of the outbox (%s, channel %s) did not arrive: %s. Next attempt in %s.",
            row.id, row.topic, row.channel, error, wait,
        )  # fmt: skip
        await outbox_rows.postpone(self._store, row, due_at=now + wait, error=error, counts=True)

    async def _deliver(self, row: Row) -> None:
        ids, payload = await self._collapsed(row)
        message = await self._draw(row, payload)
        place = None
        if message is not None:
            place = await self._show(row, message)
        elif row.slot and row.maybe_posted:
            # It is no longer true, and may stand there: whatever redraws it must find it.
            place = await self._search(row, await self._thread(row))
        await outbox_rows.settle(
            self._store, row, ids, payload=payload, place=place, now=self._clock()
        )

    async def _collapsed(self, row: Row) -> tuple[Sequence[int], Mapping[str, Any]]:
        """The rows that this delivery stands for, and the newest of their payloads.

        Read before the state is drawn: a row that comes later gets its own delivery.
        """
        if not row.may_collapse:
            return [row.id], row.payload
        twins = await outbox_rows.twins(self._store, row)
        if not twins:
            return [row.id], row.payload
        return [number for number, _ in twins], twins[-1][1]

    async def _show(self, row: Row, message: Message) -> Place | None:
        """Update the message that stands, or post it. The place, if it is to be remembered."""
        edited = bool(row.slot)
        place = await self._place(row, row.slot) if edited else None
        thread = await self._thread(row)
        if place is None and row.maybe_posted:
            place = await self._search(row, thread)
            if place is not None and not edited:
                return None
        if place is not None and await self._update(place, message):
            return place
        if row.is_redraw:
            return None
        posted = await self._post(row, message, thread)
        return posted if edited else None

    async def _place(self, row: Row, topic: str) -> Place | None:
        if row.incident_id:
            return await outbox_rows.place_of_incident(self._store, row.incident_id)
        if row.request_id is None:
            return None
        return await outbox_rows.find_place(self._store, row.request_id, topic)

    async def _thread(self, row: Row) -> str | None:
        """The card's thread for everything that belongs to it; None outside."""
        if not row.is_in_thread:
            return None
        card = await self._place(row, "card")
        return card.ts if card is not None and card.channel == row.channel else None

    async def _update(self, place: Place, message: Message) -> bool:
        """Replace a message whole; False when it is no longer there."""
        try:
            await self._send(
                lambda content: self._client.chat_update(
                    channel=place.channel, ts=place.ts, **content
                ),
                message,
            )
        except SlackRefusedError as error:
            if error.error in _GONE:
                return False
            raise
        return True

    async def _post(self, row: Row, message: Message, thread: str | None) -> Place:
        data = await self._send(
            lambda content: self._client.chat_postMessage(
                channel=row.channel,
                thread_ts=thread,
                reply_broadcast=True if thread and row.is_loud else None,
                unfurl_links=False,
                unfurl_media=False,
                metadata={"event_type": EVENT_TYPE, "event_payload": {"outbox_id": row.id}},
                **content,
            ),
            message,
        )
        return Place(channel=data["channel"], ts=data["ts"])

    async def _send(self, method: Callable[[Any], Any], message: Message) -> Mapping[str, Any]:
        try:
            return await self._charts.send(message, lambda content: call(method(content)))
        except SlackRefusedError as error:
            # The message is at fault, not the channel: its words alone may still pass.
            if error.error not in BAD_BLOCKS:
                raise
            log.error("Slack refuses the blocks of a message: %s. Sent as text.", error.error)  # noqa: TRY400
            return await call(method({"text": message.text, "blocks": []}))

    async def _search(self, row: Row, thread: str | None) -> Place | None:
        """The message that an earlier attempt posted after all, or None.

        Raises:
            SlackError: the channel cannot be read, so nobody knows. Nothing may be posted.
        """
        channel = await self._readable_channel(row)
        cursor: str | None = None
        oldest = f"{(row.created_at - _CLOCKS_DIFFER).timestamp():.6f}"
        for _ in range(_SEARCH_PAGES_MAX):
            data = await self._page(channel, thread, oldest=oldest, cursor=cursor)
            for message in data.get("messages", ()):
                if _is_ours(message, row.id):
                    return Place(channel=channel, ts=message["ts"])
            cursor = (data.get("response_metadata") or {}).get("next_cursor") or None
            if cursor is None:
                return None
        raise SlackUnclearError(f"too much was said in {channel} since to search all of it")

    async def _page(
        self, channel: str, thread: str | None, *, oldest: str, cursor: str | None
    ) -> Mapping[str, Any]:
        if thread is not None:
            return await call(
                self._client.conversations_replies(
                    channel=channel, ts=thread, oldest=oldest, cursor=cursor,
                    limit=_SEARCH_PAGE_SIZE, include_all_metadata=True,
                )
            )  # fmt: skip
        return await call(
            self._client.conversations_history(
                channel=channel, oldest=oldest, cursor=cursor,
                limit=_SEARCH_PAGE_SIZE, include_all_metadata=True,
            )
        )  # fmt: skip

    async def _readable_channel(self, row: Row) -> str:
        if row.topic != "direct":
            return row.channel
        data = await call(self._client.conversations_open(users=row.channel))
        return str(data["channel"]["id"])


def _is_ours(message: Mapping[str, Any], outbox_id: int) -> bool:
    metadata = message.get("metadata") or {}
    return (
        metadata.get("event_type") == EVENT_TYPE
        and (metadata.get("event_payload") or {}).get("outbox_id") == outbox_id
    )
