"""`/db ack 7`: somebody looks after an incident, typed instead of pressed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from approvals.words import BadInputError
from bot.blocks import Message
from bot.desk import Desk, Typed

_NUMBER: Final = re.compile(r"#?([0-9]{1,18})")


async def ack_word(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """`/db ack <incident>`.

    Raises:
        ExplainedError: it is no incident's number, it is over or acknowledged already, or
            nobody can be identified.
    """
    found = _NUMBER.fullmatch(rest[0]) if len(rest) == 1 else None
    if found is None:
        raise BadInputError(
            "/db ack needs the number of an incident"
            + (f", and {' '.join(rest)!r} is none." if rest else "."),
            next_step="It stands below the incident's message: /db ack 7",
        )
    person = await desk.person(typed.team, typed.user)
    return await desk.incidents.acknowledge(person, int(found[1]))
