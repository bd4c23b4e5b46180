"""The page in a real browser, before the real stand-in, with a real slack-bolt app behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sandbox.slack.server import SlackStandIn, start_slack
from tests.page.browser import Tab
from tests.page.conftest import MANIFEST, Sit
from tests.page.desk import Desk, reason_form

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]

COMPOSER = "#pane .composer textarea"


async def send(tab: Tab, text: str, *, into: str = COMPOSER) -> None:
    await tab.type(text, into=into)
    await tab.press("Enter")


async def test_a_slash_command_posts_a_card_with_its_parts(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA")
    await send(ana, "/db backup orders")
    await ana.shows("Back up orders", within=".b-header")
    await ana.shows("@Ana Arnold", within=".fields")
    await ana.shows("pg_basebackup --format=tar \\\n  --checkpoint=fast", within="pre.code")
    labels = await ana.eval(
        "[...document.querySelectorAll('.b-actions .label')].map(e => e.innerText)"
    )
    assert labels == ["Approve", "Deny", "Break"]
    assert await ana.eval("document.querySelector('.message .badge.app').innerText") == "APP"


async def test_commands_complete_themselves_and_arrow_up_brings_the_last_one_back(
    sit: Sit, app: Desk
) -> None:
    ana = await sit("U0ANA")
    await ana.type("/d", into=COMPOSER)
    await ana.shows("Ask for a database operation", within=".complete")
    await ana.press("Enter")
    assert await ana.eval("document.activeElement.value") == "/db "
    await ana.shows("[backup | verify", within=".usage")
    await ana.shows("requests", within=".complete")
    await ana.type("nonsense")
    await ana.press("Enter")
    await ana.shows("nonsense is not known", within=".message.ephemeral")
    await ana.shows("Only visible to you", within=".message.ephemeral")
    await ana.press("ArrowUp")
    assert await ana.eval("document.activeElement.value") == "/db nonsense"


async def test_an_approval_asks_first_and_the_card_loses_its_buttons_for_everybody(
    sit: Sit, app: Desk
) -> None:
    ana, ben = await sit("U0ANA"), await sit("U0BEN")
    await send(ana, "/db backup orders")
    await ben.click(".btn.primary", text="Approve")
    await ben.shows("It reads orders once.", within="dialog.confirm")
    await ben.press("Escape")
    await ben.until("!document.querySelector('dialog.confirm')")
    assert await ben.eval("document.querySelectorAll('.b-actions').length") == 1
    await ben.click(".btn.primary", text="Approve")
    await ben.click("dialog.confirm .btn.primary", text="Yes, approve")
    for tab in (ana, ben):
        await tab.shows("approved by @Ben Berger", within=".fields")
        await tab.until("!document.querySelector('.b-actions')")
        await tab.shows("(edited)", within=".message")


async def test_a_button_is_busy_until_the_app_answers(sit: Sit, app: Desk) -> None:
    ben = await sit("U0BEN")
    await send(ben, "/db backup orders")
    await ben.click(".btn", text="Break")
    await ben.until("document.querySelector('.btn.is-busy[aria-busy=true]')")
    await ben.until("!document.querySelector('.btn.is-busy')")
    await ben.until("document.querySelector('.trouble .icon')")
    await ben.shows("This app didn't respond. Try again?", within=".click-failed")
    await ben.shows("Back up orders", within=".b-header")


async def test_who_asked_is_refused_where_only_they_see_it(sit: Sit, app: Desk) -> None:
    ana, ben = await sit("U0ANA"), await sit("U0BEN")
    await send(ana, "/db backup orders")
    await ana.click(".btn.primary", text="Approve")
    await ana.click("dialog.confirm .btn.primary")
    await ana.shows("You asked for this yourself.", within=".message.ephemeral")
    assert "yourself" not in await ben.eval("document.querySelector('#pane').innerText")
    await ana.click(".message.ephemeral .link", text="Dismiss")
    await ana.until("!document.querySelector('.message.ephemeral')")


async def test_a_modal_shows_errors_under_their_inputs_and_keeps_what_was_typed(
    sit: Sit, app: Desk
) -> None:
    ben = await sit("U0BEN")
    await send(ben, "/db backup orders")
    await ben.click(".btn.danger", text="Deny")
    await ben.shows("Deny request 7", within="dialog.modal h2")
    await ben.click(".modal .submit")
    await ben.until("document.querySelectorAll('.modal .has-error').length === 2")
    assert app.denied == []
    await ben.type("too short", into=".modal textarea")
    await ben.eval(
        """(() => { const s = document.querySelector('.modal select'); s.value = 'plan';
            s.dispatchEvent(new Event('change', {bubbles: true})); })()"""
    )
    await ben.click(".modal .submit")
    await ben.shows("Say at least ten letters.", within=".modal .has-error .error")
    assert await ben.eval("document.querySelector('.modal textarea').value") == "too short"
    assert await ben.eval("document.querySelector('.modal select').value") == "plan"
    assert await ben.eval("document.activeElement.tagName") == "TEXTAREA"
    await ben.type(", now it is longer")
    await ben.click(".modal .submit")
    await ben.until("!document.querySelector('dialog.modal')")
    assert [values["kind"]["k"]["selected_option"]["value"] for values in app.denied] == ["plan"]
    assert "longer" in app.denied[0]["reason"]["v"]["value"]


async def test_escape_closes_a_modal_and_gives_the_keyboard_back(
    sit: Sit, app: Desk, slack: SlackStandIn
) -> None:
    ben = await sit("U0BEN")
    await send(ben, "/db backup orders")
    await ben.click(".btn.danger", text="Deny")
    await ben.until("document.querySelector('dialog.modal textarea') === document.activeElement")
    for _ in range(8):
        await ben.press("Tab")
        assert await ben.eval(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    await ben.press("Escape")
    await ben.until("!document.querySelector('dialog.modal')")
    assert slack.views("U0BEN") == []
    assert await ben.eval("document.activeElement.innerText") == "Deny"


async def test_a_thread_opens_at_its_count_and_takes_a_reply(sit: Sit, app: Desk) -> None:
    ben = await sit("U0BEN")
    await send(ben, "/db backup orders")
    await ben.click(".btn.primary", text="Approve")
    await ben.click("dialog.confirm .btn.primary")
    await ben.shows("1 reply", within="button.replies")
    assert "40 % copied" not in await ben.eval("document.querySelector('#pane').innerText")
    await ben.click("button.replies")
    await ben.shows("40 % copied", within="#thread")
    await send(ben, "Thanks, *all* of you", into="#thread .composer textarea")
    await ben.shows("2 replies", within="button.replies")
    assert (
        await ben.eval("document.querySelector('#thread .message:last-child strong').innerText")
        == "all"
    )
    await ben.press("Escape")
    await ben.until("document.querySelector('#thread').hidden")


async def test_the_home_tab_is_published_and_its_select_is_heard(sit: Sit, app: Desk) -> None:
    cleo = await sit("U0CLEO", "A0TWOKEY")
    await cleo.shows("Your requests", within=".home")
    await cleo.eval(
        """(() => { const s = document.querySelector('.home select'); s.value = 'billing';
            s.dispatchEvent(new Event('change', {bubbles: true})); })()"""
    )
    await cleo.shows("You chose billing.", within=".home")


async def test_hostile_text_stays_text(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA")
    await send(ana, "/db hostile")
    await ana.shows("<script>window.hacked = 1</script>", within=".message")
    await ana.shows("<img src=x onerror='window.hacked = 2'>", within=".message")
    await send(ana, "<img src=x onerror=window.hacked=4> <b>bold</b> & `<i>code</i>`")
    await ana.shows("<img src=x onerror=window.hacked=4> <b>bold</b> & <i>code</i>", within="#pane")
    assert await ana.eval("window.hacked") is None
    assert (
        await ana.eval(
            "document.querySelectorAll('#pane :is(script, b.bold, .text img, .text i)').length"
        )
        == 0
    )
    links = await ana.eval("[...document.querySelectorAll('#pane a')].map(a => a.protocol)")
    assert "javascript:" not in links


async def test_a_name_that_turns_text_around_turns_only_itself(
    sit: Sit, app: Desk, slack: SlackStandIn
) -> None:
    people = slack.workspace.people
    people["U0OLE"] = replace(people["U0OLE"], real_name="\u202eelO")
    ana = await sit("U0ANA")
    await send(ana, "<@U0OLE> may not")
    edges = """(() => {
        const name = document.querySelector('.message .para .mention');
        const rest = document.createRange();
        rest.selectNodeContents(name.nextSibling);
        return rest.getBoundingClientRect().left - name.getBoundingClientRect().right;
    })()"""
    await ana.until("document.querySelector('.message .para .mention')")
    assert await ana.eval(edges) >= -1


async def test_what_was_typed_outlives_an_update_of_the_view(
    sit: Sit, app: Desk, slack: SlackStandIn
) -> None:
    ben = await sit("U0BEN")
    await send(ben, "/db backup orders")
    await ben.click(".btn.danger", text="Deny")
    await ben.type("The freeze has begun", into=".modal textarea")
    form = reason_form() | {"title": {"type": "plain_text", "text": "Deny, again"}}
    await app.client.views_update(view_id=slack.views("U0BEN")[0]["id"], view=form)
    await ben.shows("Deny, again", within="dialog.modal h2")
    assert await ben.eval("document.querySelector('.modal textarea').value") == (
        "The freeze has begun"
    )
    assert await ben.eval("document.activeElement.tagName") == "TEXTAREA"


async def test_tables_and_charts_are_drawn_with_their_numbers_for_screen_readers(
    sit: Sit, app: Desk
) -> None:
    ana = await sit("U0ANA")
    await send(ana, "/db show")
    await ana.shows("7.1 GB", within=".b-table")
    await ana.until("document.querySelector('.chart svg[role=img] path.line')")
    assert "minutes: 4" in await ana.eval("document.querySelector('.chart table').textContent")


async def test_a_silent_app_is_told_in_red_and_an_unknown_command_too(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA")
    await send(ana, "/db silent")
    await ana.shows('/db failed with the error "operation_timeout"', within=".message.failed")
    await send(ana, "/nothing")
    await ana.shows("/nothing is not a valid command", within=".message.failed:last-child")


async def test_the_wire_log_tells_both_ways_and_opens_a_body(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA")
    await send(ana, "/db backup orders")
    await ana.shows("Back up orders", within="#pane")
    await ana.click("#topbar [data-panel=wire]")
    await ana.shows("slash_commands", within="#panel-wire")
    await ana.shows("chat.postMessage", within="#panel-wire")
    await ana.click("#panel-wire .opener", text="slash_commands")
    await ana.shows('"command": "/db"', within="#panel-wire .detail:not([hidden])")
    await ana.type("chat.", into="#panel-wire input[type=search]")
    await ana.until("[...document.querySelectorAll('.wire-row')].some(r => r.hidden)")


async def test_a_fault_is_injected_counted_and_taken_back(
    sit: Sit, app: Desk, slack: SlackStandIn
) -> None:
    ana = await sit("U0ANA")
    await ana.click("#topbar [data-panel=faults]")
    await ana.click("#panel-faults .btn.primary")
    await ana.shows("Too many requests", within=".waiting")
    await ana.until("document.querySelector('#fault-count').innerText === '1'")
    assert [(f.method, f.kind) for f in slack.faults] == [("chat.postMessage", "429")]
    await ana.click(".waiting .round")
    await ana.shows("No fault waits", within=".waiting")


async def test_an_account_is_changed_while_people_watch(
    sit: Sit, app: Desk, slack: SlackStandIn
) -> None:
    ben = await sit("U0BEN")
    await ben.click("#topbar [data-panel=accounts]")
    await ben.click("#flag-U0BEN-deactivated")
    await ben.shows("This account is deactivated", within=".notice")
    await ben.shows("deactivated", within=".sitter")
    assert slack.workspace.people["U0BEN"].deactivated


async def test_somebody_else_sits_down_and_finds_what_is_new_marked(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA")
    await send(ana, "Good morning, <@U0BEN>")
    await ana.shows("@Ben Berger", within=".message")
    await ana.click(".sitter")
    await ana.shows("external", within=".people-menu")
    await ana.click(".people-menu .entry", text="Ole Olsen")
    await ana.shows("Ole Olsen", within=".sitter")
    assert await ana.eval("location.hash") == "#U0OLE/C0DBOPS"
    await ana.eval("location.hash = '#U0OLE/C0GENERAL'")
    await ana.shows("#general", within="#pane .beginning")


async def test_a_new_message_elsewhere_is_counted_for_whom_it_names(sit: Sit, app: Desk) -> None:
    ben, ana = await sit("U0BEN", "C0GENERAL"), await sit("U0ANA", "C0DBOPS")
    await send(ana, "@ben ")
    await ana.shows("@Ben Berger", within=".message")
    await ben.shows("1", within=".place.unread .count")
    await ben.click(".place.unread")
    await ben.until("!document.querySelector('.place.unread .count')")


async def test_channels_say_what_they_are(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA", "C0OLD")
    await ana.shows("#old is archived", within="#pane .blocked")
    await ana.click(".place", text="partners")
    await ana.shows("shared with another company", within="#pane .head")
    gus = await sit("U0GUS")
    await gus.shows("guest account", within=".notice")
    assert "secret" not in await gus.eval("document.querySelector('#places').innerText")


async def test_the_page_says_when_the_line_is_lost_and_comes_back_by_itself(
    sit: Sit, slack: SlackStandIn
) -> None:
    ana = await sit("U0ANA")
    await send(ana, "before")
    await ana.shows("before", within=".message")
    port = int(slack.url.rpartition(":")[2])
    await slack.close()
    await ana.until("!document.querySelector('#banner').hidden")
    again = await start_slack(manifest=MANIFEST, port=port, seed=slack.workspace)
    try:
        await ana.until("document.querySelector('#banner').hidden", seconds=30)
        ana.errors.clear()  # the browser's own words about the refused connections
        await send(ana, "after")
        await ana.shows("after", within=".message:last-child")
        await ana.close()
    finally:
        await again.close()


async def test_keys_alone_are_enough_to_approve(sit: Sit, app: Desk) -> None:
    ben = await sit("U0BEN")
    await send(ben, "/db backup orders")
    await ben.until("document.querySelector('.messages .btn.primary')")
    await ben.eval("document.querySelector('.messages .btn.primary').focus()")
    await ben.press("Enter")
    await ben.until("document.activeElement.closest('dialog.confirm')")
    await ben.press("Enter")
    await ben.shows("approved by @Ben Berger", within=".fields")
    assert await ben.eval("!!document.activeElement.closest('.message')")


async def test_an_empty_channel_says_how_to_begin(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA")
    await ana.shows("You sit here as Ana Arnold", within=".beginning")
    await ana.click(".beginning .try", text="/db help")
    assert await ana.eval("document.activeElement.value") == "/db help"
    await ana.press("Enter")
    await ana.shows("help is not known", within=".message.ephemeral")
