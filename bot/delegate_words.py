"""`/db delegate`: who votes in one's place, for how long, and how that ends."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from approvals.dates import EXAMPLES, span
from approvals.words import BadInputError
from bot.blocks import Message
from bot.desk import Desk, Typed
from bot.views.delegations import given_message, list_message, revoked_message

# Slack writes a person that was picked from its list like this, whatever their name is.
_MENTION: Final = re.compile(r"<@(?P<user>[UW][A-Z0-9]{1,20})(\|[^<>]*)?>(?P<rest>.*)", re.DOTALL)
_NUMBER: Final = re.compile(r"#?([0-9]{1,18})")
_HOW: Final = "Write /db delegate @colleague until Friday, picking the colleague from Slack's list."


async def delegate_word(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    """List, give or revoke. Only one's own seat can be given.

    Raises:
        ExplainedError: it was not understood, or one of the two may not act here.
    """
    if not rest:
        me = await desk.person(typed.team, typed.user)
        found = await desk.approvals.delegations.of(me.id)
        return list_message(found, me=me.id, at=desk.clock())
    if rest[0].casefold() == "revoke":
        return await _revoke(desk, typed, rest[1:])
    return await _give(desk, typed, " ".join(rest))


async def _give(desk: Desk, typed: Typed, text: str) -> Message:
    found = _MENTION.fullmatch(text.strip())
    if found is None:
        raise BadInputError(f"{text[:100]!r} does not begin with a person.", next_step=_HOW)
    when = found["rest"].split()
    if when and not when[0].casefold().startswith(("from", "until", "till", "to", "for")):
        raise BadInputError(
            "Only your own seat can be given, to one person.", next_step=f"Write {EXAMPLES}."
        )
    me = await desk.person(typed.team, typed.user)
    zone = await desk.people.zone(typed.user)
    wanted = span(when, now=desk.clock(), zone=zone)
    stand_in = await desk.people.by_slack(typed.team, found["user"])
    made = await desk.approvals.delegations.give(
        by=me, stand_in=stand_in, span=wanted, delivery=typed.delivery
    )
    theirs = await desk.people.zone(found["user"])
    return given_message(made, zone=zone, stand_in_zone=theirs)


async def _revoke(desk: Desk, typed: Typed, rest: Sequence[str]) -> Message:
    number = _NUMBER.fullmatch(rest[0]) if len(rest) == 1 else None
    if number is None:
        raise BadInputError(
            "/db delegate revoke needs the number of a delegation.",
            next_step="/db delegate lists them. Write it like this: /db delegate revoke 3",
        )
    me = await desk.person(typed.team, typed.user)
    ended = await desk.approvals.delegations.revoke(int(number[1]), by=me, delivery=typed.delivery)
    return revoked_message(ended)
