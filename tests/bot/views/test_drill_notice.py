"""The announcement of a drill: what people read, in their own time, and no marks of others."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.views.drill_notice import drill_notice_message
from jobs.cluster_settings import DrillKind
from jobs.drill_notices import NOTICE, DrillNotice
from tests.bot.views.cards import texts

NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)
TOLD = DrillNotice(
    database="orders",
    kind=DrillKind.PRIMARY_CRASH,
    at=NEW_YEAR,
    left=timedelta(days=7),
    agree="2 of dba and 1 of owners or security",
    rule="production, a drill",
    hours="Mon-Thu 08:00-15:00 UTC",
    waits=timedelta(days=4),
    rto=timedelta(minutes=15),
    rpo=timedelta(seconds=60),
)


def shown(told: DrillNotice) -> str:
    message = drill_notice_message(NOTICE.dump_python(told, mode="json"))
    return texts(message.blocks)


def test_it_says_what_when_what_is_noticed_who_agrees_and_how_to_call_it_off() -> None:
    said = shown(TOLD)
    assert "⏰ Drill of orders in 7 d: primary-crash" in said
    assert "*What:* Kill the server of the primary (kill -9)" in said
    assert f"*When:* <!date^{int(NEW_YEAR.timestamp())}^" in said
    assert "in 7 d. It is asked for then, and begins when people have agreed" in said
    assert "agreed, `Mon-Thu 08:00-15:00 UTC`, not before." in said
    assert "*What people notice:* Every connection breaks" in said
    assert "*Who must agree:* 2 of dba and 1 of owners or security (rule production" in said
    assert "within 4 d of then" in said
    assert "writes possible again within 15 min, and at most 1 min of writes lost" in said
    assert "To call it off: do nothing, and it ends by itself after 4 d; or deny" in said
    assert "`schedule: null`" in said


@pytest.mark.parametrize("kind", list(DrillKind))
def test_every_kind_is_told_without_a_gap(kind: DrillKind) -> None:
    said = shown(replace(TOLD, kind=kind))
    assert not {"{victim}", "{candidate}"} & set(said.split())
    assert "*What:* " in said
    assert str(kind) in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"left": timedelta(minutes=42)}, "Drill of orders in 42 min"),
        ({"left": timedelta(0)}, "Drill of orders now"),
        ({"hours": ""}, "begins when people have agreed, not before."),
        ({"agree": ""}, "*Who must agree:* nobody, by the rule production, a drill: it begins"),
        ({"rpo": timedelta(0)}, "and nothing that was acknowledged lost"),
        ({"problem": "No rule lets it."}, "*It will not take place:* No rule lets it."),
        ({"rule": "<!channel>"}, "(rule &lt;!channel&gt;)"),
    ],
)
def test_what_differs_is_said(change: dict[str, object], words: str) -> None:
    assert words in shown(replace(TOLD, **change))  # type: ignore[arg-type]


def test_what_will_not_take_place_asks_nobody_to_agree() -> None:
    said = shown(replace(TOLD, problem="No rule of the policy lets it run."))
    assert "agree" not in said
    assert "To call it off: `schedule: null`" in said
