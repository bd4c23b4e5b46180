"""A card to draw, and the stand-in's opinion of what was drawn."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from approvals.words import State, Verdict
from bot.blocks import Message
from bot.buttons import Purpose
from bot.views.card import Card, GateLine, VoteLine
from jobs.operation import Plan
from sandbox.slack.blocks import check_blocks

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOKEN = "sealed.value"


def tokens(purpose: Purpose) -> str:
    """A value for each button."""
    return f"sealed.{purpose}"


PLAN = Plan(
    title="Full backup of orders",
    steps=("Take a base backup", "Check its manifest", "Record it"),
    statements=("CHECKPOINT;",),
    facts=(("Size", "1.2 GB"), ("Free space", "80 GB")),
    warnings=("The last verified backup is 9 days old.",),
    estimate_seconds=180,
    undo="Remove the backup with /db prune orders.",
    pins={"system_identifier": "7312"},
)
DBA = GateLine(id="dba", who="dba", need=2, have=("T0DEMO/U0BEN",), is_open=True, can_deny=True)
SECURITY = GateLine(id="sec", who="security", need=1, have=(), is_open=False, can_deny=True)
PENDING = Card(
    request_id=12,
    state=State.PENDING,
    operation="backup",
    database="orders",
    asked_by="T0DEMO/U0ANA",
    reason="before the release",
    plan=PLAN,
    rule="changes",
    gates=(DBA, SECURITY),
    votes=(VoteLine(who="T0DEMO/U0BEN", verdict=Verdict.APPROVE, reason="", at=NOON),),
    asked_at=NOON,
    expires_at=NOON + timedelta(hours=4),
)

HUGE = "<!channel> ``` \u202e" + "x" * 5000 + "\n*Approved by everybody*\n" * 300
MONSTER = replace(
    PENDING,
    reason=HUGE,
    operation="o" * 200,
    plan=Plan(
        title=HUGE,
        steps=tuple(f"{HUGE[:900]} {number}" for number in range(200)),
        statements=tuple(f"UPDATE t SET x = {number}; -- {HUGE[:400]}" for number in range(400)),
        facts=tuple((f"{HUGE[:300]} {number}", HUGE) for number in range(90)),
        warnings=tuple(HUGE for _ in range(60)),
        estimate_seconds=90_000,
        undo=HUGE,
        pins={f"pin{number}": HUGE for number in range(30)},
    ),
    gates=tuple(replace(DBA, id=f"g{number}", who=HUGE[:200]) for number in range(30)),
    votes=tuple(
        VoteLine(who="T/U0BEN", verdict=Verdict.DENY, reason=HUGE, at=NOON) for _ in range(60)
    ),
    note=HUGE,
    glass=HUGE,
)


def texts(value: Any) -> str:
    """Every text in blocks, joined."""
    match value:
        case dict():
            return "\n".join(
                part if key == "text" and isinstance(part, str) else texts(part)
                for key, part in value.items()
                if isinstance(part, dict | list | tuple) or key == "text"
            )
        case list() | tuple():
            return "\n".join(texts(part) for part in value)
        case _:
            return ""


def action_ids(message: Message) -> list[str]:
    """The buttons of a message, in order."""
    return [
        element["action_id"]
        for block in message.blocks
        if block["type"] == "actions"
        for element in block["elements"]
    ]


def problems(message: Message) -> list[str]:
    """What Slack would say against a message."""
    flaws = check_blocks([dict(block) for block in message.blocks], surface="message")
    if not message.text.strip() or len(message.text) > 4000:
        flaws.append("text")
    return flaws
