"""`/db requests` and App Home: what concerns somebody now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from approvals.inbox import Listed
from approvals.words import BadInputError, ExplainedError, Person
from bot.blocks import Block, Message
from bot.cards import card_of
from bot.desk import Desk, Typed
from bot.views.overview import (
    Overview,
    Part,
    RunLine,
    home_view,
    overview_message,
    waiting_message,
)
from bot.views.requests import refused_home, requests_message
from jobs.operation import Kind
from jobs.timetable import timetables, upcoming

_LISTED_MAX: Final = 20
_FILTERS: Final = ("mine", "waiting", "open")


async def requests_word(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """`/db requests [database] [mine|waiting|open]`.

    Raises:
        ExplainedError: there is no such database, or nobody can be identified.
    """
    filters = [word.lower() for word in rest if word.lower() in _FILTERS]
    names = [word for word in rest if word.lower() not in _FILTERS]
    if len(filters) > 1 or len(names) > 1:
        raise BadInputError(
            f"/db requests does not understand {' '.join(rest)!r}.",
            next_step="Write it like this: /db requests orders waiting",
        )
    database = desk.inventory.database(names[0]).name if names else None
    person = await desk.person(typed.team, typed.user)
    of = f" of {database}" if database else ""
    match next(iter(filters), ""):
        case "waiting":
            return waiting_message(_part(await desk.inbox.waiting_for(person, database=database)))
        case "mine":
            mine = await desk.inbox.asked_by(person, database=database)
            return requests_message([card_of(each) for each in mine], about=f"Your requests{of}")
        case "open":
            return await _recent(desk, database, about=f"Open requests{of}", open_only=True)
        case _ if database is not None:
            return await _recent(desk, database, about=f"Requests{of}", open_only=False)
        case _:
            return overview_message(await _seen(desk, person))


async def overview(desk: Desk, *, team: str, user: str) -> Message:
    """What concerns somebody now.

    Raises:
        ExplainedError: nobody can be identified.
    """
    return overview_message(await _seen(desk, await desk.person(team, user)))


async def home(desk: Desk, team: str, user: str) -> Block:
    """The home tab of somebody; what they may not see is not in it."""
    try:
        person = await desk.person(team, user)
        seen = replace(await _seen(desk, person), incidents=await desk.incidents.open_now())
    except ExplainedError as error:
        return refused_home(error.problem, error.next_step)
    changes = [
        (name, operation.summary)
        for name, operation in sorted(desk.operations.items())
        if operation.kind is Kind.CHANGE
    ]
    databases = [
        (database.name, database.environment, str(database.tier))
        for _, database in sorted(desk.inventory.databases.items())
    ]
    timed = timetables(desk.inventory.databases.values()).values()
    soon = upcoming(timed, desk.clock())
    return home_view(seen, forms=changes, databases=databases, upcoming=soon)


async def _seen(desk: Desk, person: Person) -> Overview:
    running = await desk.inbox.running()
    return Overview(
        waiting=_part(await desk.inbox.waiting_for(person)),
        owed=_part(await desk.inbox.owed_by(person)),
        mine=tuple(card_of(each) for each in await desk.inbox.asked_by(person)),
        running=tuple(
            RunLine(card=card_of(run.record), text=run.text, fraction=run.fraction)
            for run in running
        ),
    )


async def _recent(desk: Desk, database: str | None, *, about: str, open_only: bool) -> Message:
    records = await desk.approvals.recent(database=database, open_only=open_only, limit=_LISTED_MAX)
    return requests_message([card_of(each) for each in records], about=about)


def _part(listed: Listed) -> Part:
    return Part(
        cards=tuple(card_of(each) for each in listed.records),
        total=listed.total,
        complete=listed.complete,
    )
