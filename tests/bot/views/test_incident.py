"""An incident's message: every state in words, somebody else's text as text, few buttons."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.blocks import button
from bot.views.incident import (
    BUTTONS_MAX,
    FIRING_MAX,
    OVER_MAX,
    AlertLine,
    Hush,
    IncidentCard,
    Standing,
    escalation_message,
    incident_message,
    note_message,
    open_incidents_blocks,
)
from tests.bot.views.cards import HUGE, NOON, TOKEN, problems, texts

HOUR = timedelta(hours=1)
LAG = AlertLine(
    name="ReplicationLag",
    severity="critical",
    problem="The standby replica1 is 75 s behind.",
    next_step="Look at its disk and network: /db health orders",
    fired_at=NOON,
    about="replica1",
    value="1 min 15 s",
    runbook="https://wiki.acme.example/lag?db=orders&x=1",
)
POOL = replace(LAG, name="PoolUsage", severity="warning", about="", value="87.5 %", runbook="")
CARD = IncidentCard(
    id=7,
    database="orders",
    severity="critical",
    is_open=True,
    opened_at=NOON,
    channel="C0DBOPS",
    alerts=(POOL, LAG),
    ack=TOKEN,
    suggested=tuple(
        button(text, action_id=f"suggest.{n}", value=TOKEN)
        for n, text in enumerate(("End session 7", "Who blocks whom", "Silence", "Health"))
    ),
)
HUSH = Hush(until=NOON + HOUR, by="ana@acme.example", reason="being rebuilt")
ACKED = {"acked_by": "ben@acme.example", "acked_at": NOON}


def each(card: IncidentCard, **changes: object) -> IncidentCard:
    return replace(card, alerts=tuple(replace(one, **changes) for one in card.alerts))  # type: ignore[arg-type]


OVER = replace(
    each(CARD, resolved_at=NOON + HOUR), is_open=False, closed_at=NOON + HOUR, suggested=()
)
STATES = [
    (CARD, Standing.FIRING, "Critical on orders: 2 alerts"),
    (each(CARD, **ACKED), Standing.ACKNOWLEDGED, "Acknowledged, critical on orders: 2 alerts"),
    (each(CARD, hush=HUSH), Standing.SILENCED, "Silenced, critical on orders: 2 alerts"),
    (each(CARD, muted="ServerDown fires"), Standing.SILENCED, "Silenced, critical on orders"),
    (replace(CARD, alerts=(LAG,)), Standing.FIRING, "Critical on orders: ReplicationLag"),
    (replace(CARD, alerts=(POOL,)), Standing.FIRING, "Warning on orders: PoolUsage"),
    (replace(CARD, alerts=(LAG, LAG)), Standing.FIRING, "orders: ReplicationLag (2)"),
    # One that nobody has seen makes it fire, whatever is with the others.
    (replace(CARD, alerts=(replace(LAG, **ACKED), POOL)), Standing.FIRING, "Critical on orders"),  # type: ignore[arg-type]
    (replace(CARD, alerts=(replace(LAG, hush=HUSH), POOL)), Standing.FIRING, "Critical on"),
    (OVER, Standing.CLOSED, "Over on orders: 2 alerts"),
    (replace(CARD, alerts=()), Standing.FIRING, "Critical on orders: 0 alerts"),
]


@pytest.mark.parametrize(("card", "standing", "head"), STATES)
def test_every_state_is_said_in_words_and_slack_takes_it(
    card: IncidentCard, standing: Standing, head: str
) -> None:
    assert card.standing is standing
    message = incident_message(card)
    assert problems(message) == []
    assert head in message.text
    assert head in texts(message.blocks[:1])


def test_an_alert_says_since_when_how_much_and_what_to_do_the_worst_first() -> None:
    shown = texts(incident_message(CARD).blocks)
    assert shown.index("*ReplicationLag* (replica1)") < shown.index("*PoolUsage*")
    assert "1 min 15 s" in shown
    assert f"since <!date^{int(NOON.timestamp())}" in shown
    assert "*Next:* Look at its disk" in shown
    link = "<https://wiki.acme.example/lag?db=orders&amp;x=1|Runbook (wiki.acme.example)>"
    assert link in shown


def test_the_sentence_for_notifications_has_the_problem_and_the_next_step() -> None:
    text = incident_message(CARD).text
    assert "75 s behind" in text
    assert "Next: Look at its disk" in text


def test_who_is_at_it_and_until_when_it_is_silent_stand_with_each_alert() -> None:
    shown = texts(incident_message(replace(CARD, alerts=(replace(LAG, **ACKED), POOL))).blocks)  # type: ignore[arg-type]
    assert shown.count("Acknowledged by ben@acme.example") == 1
    shown = texts(incident_message(each(CARD, hush=HUSH)).blocks)
    assert "by ana@acme.example: being rebuilt" in shown
    assert "ServerDown fires" in texts(
        incident_message(each(CARD, muted="ServerDown fires")).blocks
    )


def buttons(card: IncidentCard) -> list[str]:
    return [
        element["text"]["text"]
        for block in incident_message(card).blocks
        if block["type"] == "actions"
        for element in block["elements"]
    ]


def test_there_are_five_buttons_at_most_and_none_when_it_is_over() -> None:
    assert buttons(CARD) == ["Acknowledge", "End session 7", "Who blocks whom", "Silence", "Health"]
    assert len(buttons(replace(CARD, suggested=CARD.suggested * 3))) == BUTTONS_MAX
    assert "Acknowledge" not in buttons(each(CARD, **ACKED))
    assert buttons(replace(OVER, suggested=CARD.suggested)) == []


def test_more_than_fits_is_counted() -> None:
    many = replace(CARD, alerts=tuple(replace(LAG, about=f"r{n}") for n in range(40)), left_out=3)
    assert problems(incident_message(many)) == []
    shown = texts(incident_message(many).blocks)
    assert f"…and {40 - FIRING_MAX} more alerts: `/db alerts orders`" in shown
    assert "left out 3 more alerts" in shown
    ended = replace(many, alerts=tuple(replace(LAG, resolved_at=NOON) for _ in range(40)))
    assert f"…and {40 - OVER_MAX} more alerts that ended before" in texts(
        incident_message(ended).blocks
    )


@pytest.mark.parametrize(
    "evil",
    [
        "javascript:alert(1)",
        "https://x|<!channel>",
        "https://x> <!channel>",
        "https://x y",
        "ftp://x",
        "https://" + "x" * 2000,
    ],
)
def test_an_address_that_could_be_more_than_one_is_only_text(evil: str) -> None:
    shown = texts(incident_message(replace(CARD, alerts=(replace(LAG, runbook=evil),))).blocks)
    assert "|Runbook" not in shown
    assert "<!channel>" not in shown


@given(
    text=st.sampled_from([HUGE, "<!channel>", "*Over*", "✅ Over", "\n\n", "`", ":rotating_light:"])
)
def test_what_others_write_acts_nowhere_and_imitates_nothing(text: str) -> None:
    evil = AlertLine(
        name=text, severity="critical", problem=text, next_step=text, fired_at=NOON, about=text,
        value=text, acked_by=text, muted=text, runbook=text,
        hush=Hush(until=NOON, by=text, reason=text),
    )  # fmt: skip
    card = replace(CARD, alerts=(evil, replace(evil, resolved_at=NOON)) * 30, database=text[:60])
    for message in (
        incident_message(card),
        escalation_message(card, text=text, link=text),
        note_message(text, "alarm"),
    ):
        assert problems(message) == []
        styled = [block for block in message.blocks if block["type"] != "header"]
        shown = message.text + texts(styled)
        assert shown.count("<!channel>") == 0
        assert shown.replace("⟨✅⟩", "").count("✅") == 0


def test_an_escalation_leads_to_the_message_or_says_what_to_type() -> None:
    found = escalation_message(
        CARD, text="For 15 min.", link="https://acme.slack.com/archives/C/p1"
    )
    assert problems(found) == []
    assert "Nobody has acknowledged: Critical on orders: 2 alerts" in found.text
    assert "<https://acme.slack.com/archives/C/p1|Open the message" in texts(found.blocks)
    assert "/db ack 7" in texts(escalation_message(CARD, text="", link="").blocks)


def test_the_home_tab_has_a_line_for_each_incident_the_worst_and_unseen_first() -> None:
    seen = each(replace(CARD, id=8, database="alpha"), **ACKED)
    cards = [seen, replace(CARD, id=9, database="beta", alerts=(POOL,)), CARD]
    shown = texts(open_incidents_blocks(cards, most=2))
    assert "Fires now: 3" in shown
    assert shown.index("Critical on orders") < shown.index("Warning on beta")
    assert "…and 1 more incident" in shown
    assert "<#C0DBOPS>" in shown
    assert open_incidents_blocks([], most=2) == []
