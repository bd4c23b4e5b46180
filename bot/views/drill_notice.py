"""The announcement of a drill: what, when, what people notice, who must agree. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from bot.blocks import (
    MESSAGE_TEXT_CHARS_MAX,
    Message,
    code,
    context,
    escape,
    header,
    moment,
    one_line,
    section,
    shorten,
)
from jobs.drill_notices import NOTICE, DrillNotice
from jobs.drill_ways import WAYS, Hits
from jobs.text import span_text


def drill_notice_message(payload: Mapping[str, Any]) -> Message:
    """An announcement as it was stored, in its reader's own time."""
    told = NOTICE.validate_python(payload)
    head = f"Drill of {told.database} {_in(told.left)}: {told.kind}"
    return Message(
        text=shorten(escape(f"{head}. {_plainly(told)}"), MESSAGE_TEXT_CHARS_MAX),
        blocks=(
            header(head, mark="⏰"),
            section("\n".join(_lines(told))),
            context(_called_off(told)),
        ),
    )


def _lines(told: DrillNotice) -> list[str]:
    way = WAYS[told.kind]
    victim = "the primary" if way.hits is Hits.PRIMARY else "one server"
    what = way.says.format(victim=victim, candidate="a standby")
    return [
        *([f"*It will not take place:* {escape(told.problem)}"] if told.problem else []),
        f"*What:* {escape(what)}.",
        f"*When:* {moment(told.at)}, {_in(told.left)}. {_begins(told)}",
        f"*What people notice:* {escape(way.notices)}",
        *_who(told),
        f"*Passes with:* writes possible again within {span_text(told.rto)}, {_loss(told)}.",
    ]


def _begins(told: DrillNotice) -> str:
    if told.problem or not told.agree:
        return ""
    hours = f", {code(told.hours)}" if told.hours else ""
    return f"It is asked for then, and begins when people have agreed{hours}, not before."


def _who(told: DrillNotice) -> list[str]:
    if told.problem:
        return []
    if not told.agree:
        return [f"*Who must agree:* nobody, by the rule {one_line(told.rule)}: it begins then."]
    by = f"{one_line(told.agree)} (rule {one_line(told.rule)})"
    return [f"*Who must agree:* {by}, within {span_text(told.waits)} of then."]


def _loss(told: DrillNotice) -> str:
    if not told.rpo:
        return "and nothing that was acknowledged lost"
    return f"and at most {span_text(told.rpo)} of writes lost"


def _called_off(told: DrillNotice) -> str:
    """How it does not take place."""
    off = "`schedule: null` under `cluster.drills` of the inventory takes it off the calendar."
    if told.problem or not told.agree:
        return f"To call it off: {off}"
    return (
        f"To call it off: do nothing, and it ends by itself after {span_text(told.waits)}; or deny"
        f" the request that appears here; {off}"
    )


def _plainly(told: DrillNotice) -> str:
    return told.problem or WAYS[told.kind].notices


def _in(left: timedelta) -> str:
    return f"in {span_text(left)}" if left else "now"
