"""Who votes in whose place: the echo of a command, the list, and what both are told. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from approvals.dates import in_words
from approvals.delegations import Absence
from approvals.times import Span
from approvals.words import PersonId
from bot.blocks import Message, context, mention, moment, one_line, section


def given_message(made: Absence, *, zone: ZoneInfo, stand_in_zone: ZoneInfo) -> Message:
    """What was understood, in both people's zones."""
    span = Span(start=made.start, end=made.end)
    lines = [
        f"✅ {_who(made.stand_in_slack, made.stand_in)} may vote in your place:",
        f"• {one_line(in_words(span, zone))}",
    ]
    if stand_in_zone.key != zone.key:
        lines.append(f"• for them that is {one_line(in_words(span, stand_in_zone))}")
    return Message(
        text="\n".join(lines),
        blocks=(
            section("\n".join(lines)),
            context(
                "You share one seat: the first of you who votes has taken it. Neither of you can"
                " vote on what either of you asked for.",
                f"Take it back: `/db delegate revoke {made.id}`",
            ),
        ),
    )


def revoked_message(ended: Absence) -> Message:
    """What was taken back."""
    text = (
        f"✅ {_who(ended.stand_in_slack, ended.stand_in)} no longer votes in the place of"
        f" {_who(ended.absent_slack, ended.absent)}. Votes that were cast before still count."
    )
    return Message(text=text, blocks=(section(text),))


def list_message(found: Sequence[Absence], *, me: PersonId, at: datetime) -> Message:
    """What somebody has given and got."""
    mine = [_line(each, at) for each in found if each.absent == me]
    to_me = [_line(each, at) for each in found if each.stand_in == me]
    parts = [
        "*You are represented by*\n" + ("\n".join(mine) or "Nobody."),
        "*You may vote in the place of*\n" + ("\n".join(to_me) or "Nobody."),
    ]
    how = "`/db delegate @colleague until Friday` · `/db delegate revoke 3`"
    return Message(text="\n".join(parts), blocks=(*(section(part) for part in parts), context(how)))


def direct_message(payload: Mapping[str, Any]) -> Message:
    """What both are told when somebody has given a seat, or taken it back."""
    absent, stand_in = mention(str(payload["absent"])), mention(str(payload["stand_in"]))
    start, end = (datetime.fromisoformat(str(payload[name])) for name in ("from", "to"))
    number = int(payload["delegation"])
    if payload.get("revoked"):
        text = f"🔁 {stand_in} no longer votes in the place of {absent} (delegation {number})."
        return Message(text=text, blocks=(section(text),))
    text = (
        f"🔁 {stand_in} may vote in the place of {absent} from {moment(start)} to {moment(end)}"
        f" (delegation {number})."
    )
    how = f"Either of you can end it: `/db delegate revoke {number}`"
    return Message(text=text, blocks=(section(text), context(how)))


def _line(each: Absence, at: datetime) -> str:
    people = (
        f"{_who(each.stand_in_slack, each.stand_in)} for {_who(each.absent_slack, each.absent)}"
    )
    when = "now" if each.holds(at) else f"from {moment(each.start)}"
    return f"`{each.id}` {people}, {when} until {moment(each.end)}"


def _who(slack: str, person: PersonId) -> str:
    return mention(slack or person)
