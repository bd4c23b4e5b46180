"""What waits, runs and was asked for: drawn for a message and for App Home, whatever there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from approvals.words import State
from bot.views.menu import Entry, Menu, menu_elements, menu_notes, undo_window
from bot.views.overview import Overview, Part, RunLine, home_view, overview_message
from sandbox.slack.blocks import check_view
from tests.bot.views.cards import MONSTER, NOON, PENDING, problems, texts

RUN = RunLine(card=replace(PENDING, state=State.EXECUTING), text="Copying", fraction=0.4)
FULL = Overview(
    waiting=Part(cards=(PENDING,) * 20, total=1000, complete=False),
    owed=Part(cards=(replace(PENDING, state=State.NEEDS_REVIEW),) * 20, total=20),
    mine=(PENDING,) * 20,
    running=(RUN,) * 20,
)
WORST = Overview(
    waiting=Part(cards=(MONSTER,) * 20, total=20),
    owed=Part(cards=(replace(MONSTER, state=State.NEEDS_REVIEW),) * 20, total=20),
    mine=(MONSTER,) * 20,
    running=(RunLine(card=MONSTER, text="<!channel> " * 900, fraction=7.0),) * 20,
    of_database="<!here>",
)
FORMS = [(f"operation{number}", "What it does " * 20) for number in range(9)]
DATABASES = [(f"db{number}", "production", "critical") for number in range(60)]
UPCOMING = [(f"backup-daily db{number}", NOON) for number in range(60)]


@pytest.mark.parametrize("seen", [Overview(), FULL, WORST], ids=["nothing", "full", "worst"])
def test_slack_takes_it(seen: Overview) -> None:
    assert problems(overview_message(seen)) == []
    view = home_view(seen, forms=FORMS, databases=DATABASES, upcoming=UPCOMING)
    assert check_view(dict(view), kind="home") == []


def test_what_the_clock_does_next_is_told_in_the_readers_own_time() -> None:
    view = home_view(Overview(), forms=FORMS, databases=[], upcoming=UPCOMING)
    shown = texts(view["blocks"])
    assert f"*backup-daily db0* <!date^{int(NOON.timestamp())}^" in shown
    assert "…and 55 more schedules" in shown
    without = home_view(Overview(), forms=FORMS, databases=[])
    assert "Next by the clock" not in texts(without["blocks"])


def test_nothing_waits_with_a_word_on_what_would() -> None:
    message = overview_message(Overview())
    assert "0 requests wait for you" in message.text
    shown = texts(message.blocks)
    assert "it stands here" in shown
    assert "`/db form`" in shown
    assert "At work now" not in shown


def test_what_waits_comes_first_with_a_button_for_each_and_the_rest_is_counted() -> None:
    message = overview_message(FULL)
    assert "1000 or more requests wait" in message.text
    shown = texts(message.blocks)
    assert shown.index("Waits for you: 1000 or more") < shown.index("At work now")
    buttons = [b["accessory"]["action_id"] for b in message.blocks if "accessory" in b]
    assert buttons == ["show_request"] * 25
    assert "…and 990 more requests" in shown
    assert "40%" in shown


def test_nobody_elses_text_acts_in_a_list() -> None:
    shown = texts(overview_message(WORST).blocks) + texts(
        home_view(WORST, forms=FORMS, databases=DATABASES)["blocks"]
    )
    assert "<!channel>" not in shown
    assert "<!here>" not in shown


def test_the_home_tab_offers_forms() -> None:
    view = home_view(Overview(), forms=FORMS, databases=[])
    ids = [element["action_id"] for element in view["blocks"][0]["elements"]]
    assert ids == ["open_picker", *(f"open_form.operation{number}" for number in range(5))]


def test_a_menu_says_where_a_request_comes_from_and_went_to() -> None:
    menu = Menu(again_of=3, undo_of=4, asked_again_as=14, undone_as=15, undo_until=NOON)
    shown = texts(menu_notes(menu))
    for words in ("repeats request #3", "undoes request #4", "Asked again as #14", "by #15"):
        assert words in shown
    assert menu_notes(Menu()) == menu_notes(None) == []


def test_entries_stand_as_buttons_or_in_the_menu() -> None:
    menu = Menu(
        entries=(
            Entry(action="retry", text="Retry", value="v", asks="Sure & <safe>?"),
            Entry(action="withdraw", text="Withdraw my vote", value="w", in_menu=True),
        )
    )
    button, more = menu_elements(menu, 7)
    assert (button["action_id"], more["type"]) == ("retry", "overflow")
    assert button["confirm"]["text"]["text"] == "Sure &amp; &lt;safe&gt;?"
    assert menu_elements(None, 7) == []


def test_slack_takes_the_window_of_an_undo() -> None:
    view = undo_window(
        7, title="<!here>" * 99, what="/db x", params=(("a", "<b>" * 999),) * 3, token="t"
    )
    assert check_view(dict(view), kind="modal") == []
