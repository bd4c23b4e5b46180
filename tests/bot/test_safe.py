"""Nothing that somebody wrote acts in Slack, imitates us, or is lost."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from approvals.words import Care, State, Verdict
from bot import blocks, safe
from bot.views.approve import approve_modal, glass_modal
from bot.views.card import Card, VoteLine
from bot.views.deny import deny_modal
from bot.views.details import details_modal, plan_pages
from bot.views.request import request_message
from jobs.operation import Plan
from sandbox.slack.blocks import check_blocks, check_view, too_large
from tests.bot.mrkdwn_reader import acts, blocks_act, hidden, plain_acts, texts_of
from tests.bot.views.cards import DBA, NOON, PENDING, TOKEN, problems, tokens

PIECES = [
    "<!channel>", "<!here|here>", "<@U0BEN>", "<#C0DBOPS>", "<!subteam^S0DBA>",
    "<!date^1^{date}|now>", "<https://evil.example|Approve>", "<mailto:a@b.c|x>",
    "*", "**", "_", "__", "~", "`", "```", "````", ">", ">>>", "&gt;", "&lt;", "&amp;", "&",
    "\n", "\n\n", "\r", "\r\n", "\t", " ", "  ", ":white_check_mark:", ":key:", ":", "::",
    "12:30:45", "✅", "☑", "✔️", "🔑", "⏎", "⟨U+202E⟩", "⟨", "⟩", "…", "→ ", "• ",
    "Approved by @ben", "*Who must agree*", "@here", "#general", "https://a.example/x_y_z",
    "ana@acme.example", "a", "b_c", "1", ".", "(", ")", "-", "é", "日本", "שלום", "مرحبا",
    "\u202e", "\u2066", "\u200b", "\u200d", "\ufeff", "\u00ad", "\u2028", "\x00", "\x1b", "\x7f",
    "\u0301", "\u0301\u0302\u0303\u0304\u0305\u0306", "\ufe0f", "\u3164", "\u2800", "\U000e0041",
    "x" * 90, "_" * 40, "😀",
]  # fmt: skip
evil = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
worse = st.one_of(evil, st.text(max_size=200))


@given(worse)
@settings(max_examples=400)
def test_nothing_in_a_text_acts(text: str) -> None:
    assert acts(safe.escape(text)) == []
    assert acts(f"Label: {safe.one_line(text)} and ours") == []
    assert plain_acts(safe.plain(text)) == []
    for shown in (safe.escape(text), safe.one_line(text), safe.plain(text), safe.verbatim(text)):
        assert hidden(shown.replace("\t", "")) == []


@given(worse)
@settings(max_examples=300)
def test_every_line_of_a_quotation_is_one(text: str) -> None:
    shown = safe.quote(text)
    assert all(line.startswith("> ") for line in shown.split("\n"))
    assert set(acts(shown)) == {("quote", "")}
    assert set(acts(safe.quoted(text))) <= {("quote", "")}


@given(worse)
@settings(max_examples=300)
def test_a_code_block_holds_whatever_it_is_given(text: str) -> None:
    for block in blocks.code_blocks(text):
        assert acts(block["text"]["text"]) == [("pre", "")]
    assert acts(blocks.code(text)) == [("code", "")]


@given(worse, st.sampled_from([200, 400, 1000]))
@example(text="::12:30:45́̂̃̄̅̆<!here|here><!here|here><mailto:a@b.c|x>", chars_max=200)
@settings(max_examples=300)
def test_nothing_acts_where_a_text_is_cut(text: str, chars_max: int) -> None:
    for markup in (safe.escape(text * 3), safe.quote(text * 3), safe.one_line(text * 3)):
        parts = safe.pages(markup, chars_max, is_markup=True)
        assert all(len(part) <= chars_max for part in parts)
        assert all({kind for kind, _ in acts(part)} <= {"quote"} for part in parts)
        short = safe.shorten(markup, chars_max, rest="press Details")
        assert len(short) <= chars_max
        assert {kind for kind, _ in acts(short)} <= {"quote"}
    lines = [line for part in safe.pages(safe.quote(text * 3), chars_max, is_markup=True)
             for line in part.split("\n")]  # fmt: skip
    assert all(line.startswith("> ") for line in lines)


OURS = "✅☑✔✓✗❌⛔🔑🔓⏳⌛🔔🚨⚠⏎"


@given(worse)
@settings(max_examples=300)
def test_our_marks_are_ours_alone(text: str) -> None:
    for shown in (safe.escape(text), safe.plain(text)):
        for at, char in enumerate(shown):
            assert char not in OURS or shown[at - 1] == "⟨", shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("✅ Approved by @ben", "⟨✅⟩ Approved by @ben"),
        (":white_check_mark: done", "\ua789white_check_mark: done"),
        ("at 12:30:45 sharp", "at 12:30:45 sharp"),
        ("a fact :key", "a fact \ua789key"),
        ("*bold* and a_snake_case", "∗bold∗ and a_snake_case"),  # noqa: RUF001
        ("> quoted", "⟨&gt;⟩ quoted"),
        ("→ Wait.", "⟨→⟩ Wait."),
        ("⟨U+202E⟩", "⟨U+27E8⟩U+202E⟩"),
        ("e\u0301\u0301\u0301\u0301", "e\u0301\u0301\u0301⟨U+0301⟩"),
        ("count(*)", "count(∗)"),  # noqa: RUF001
        ("שלום", "\u2068שלום\u2069"),  # noqa: RUF001
        ("blank\u3164\u2800", "blank⟨U+3164⟩⟨U+2800⟩"),
    ],
)
def test_how_it_is_shown(text: str, shown: str) -> None:
    assert safe.escape(text) == shown


@given(evil, st.integers(100, 400))
def test_what_is_cut_says_how_much(text: str, chars_max: int) -> None:
    markup = safe.one_line(text * 9)
    short = safe.shorten(markup, chars_max, rest="press Details")
    if short == markup:
        return
    found = re.search(r"… \(([\d,]+) more characters?: press Details\)$", short)
    assert found, short
    head = short[: found.start()]
    assert markup.startswith(head)
    left_out = len(safe.unescape(markup)) - len(safe.unescape(head))
    assert int(found[1].replace(",", "")) == left_out


def card_with(text: str, *, harmless: bool = False) -> Card:
    """A card all of whose texts somebody else wrote."""
    said = "x" if harmless else text
    return replace(
        PENDING,
        reason=said,
        plan=Plan(
            title=f"t{said}",
            steps=(f"s{said}", said),
            statements=(f"q{said}",),
            facts=((f"n{said}", f"v{said}"),),
            warnings=(said,),
            estimate_seconds=5,
            undo=said,
            pins={f"p{said}": said},
        ),
        gates=(replace(DBA, who=f"g{said}", have=(said,)),),
        votes=(VoteLine(who=said, verdict=Verdict.DENY, reason=said, at=NOON),),
        note=said,
        glass=said,
        params=((said, said),),
        care=frozenset(Care),
        expires_at=NOON + timedelta(hours=1),
    )


def drawn(card: Card) -> list[tuple[str, Any]]:
    """Everything that is drawn of a card."""
    views = [
        ("modal", details_modal(card, token=TOKEN)),
        ("modal", deny_modal(card, token=TOKEN)),
        ("modal", approve_modal(card, token=TOKEN)),
        ("modal", glass_modal(card, token=TOKEN, reason="ours")),
    ]
    cards = [
        ("message", request_message(replace(card, state=state), tokens=tokens)) for state in State
    ]
    return [*views, *cards]


@given(evil)
@settings(max_examples=60, deadline=None)
def test_nothing_in_a_card_acts_that_we_did_not_put_there(text: str) -> None:
    for (kind, shown), (_, plain) in zip(
        drawn(card_with(text)), drawn(card_with("", harmless=True)), strict=True
    ):
        found = blocks_act(shown["blocks"] if kind == "modal" else shown.blocks)
        ours = blocks_act(plain["blocks"] if kind == "modal" else plain.blocks)
        extra = {act for act in found if act not in ours and act != ("quote", "")}
        assert extra <= {("pre", "")}, (kind, extra)
        if kind == "modal":
            assert check_view(dict(shown), kind="modal") == []
        else:
            assert problems(shown) == []
            assert set(acts(shown.text)) <= set(acts(plain.text))


def letters(text: str) -> str:
    """What is left of a text when nothing but its letters and signs count."""
    return re.sub(r"[\s>…]", "", text)


@given(
    st.lists(evil, min_size=1, max_size=6),
    st.integers(1, 40),
)
@example(texts=["\r", ""], times=1)
@settings(max_examples=40, deadline=None)
def test_every_character_of_a_plan_stands_in_its_pages_in_order(
    texts: list[str], times: int
) -> None:
    plan = Plan(
        title="Title",
        steps=tuple(text * times for text in texts),
        statements=tuple(text * times for text in texts),
        facts=tuple(("fact", text * times) for text in texts),
        warnings=tuple(text * times for text in texts),
        undo=texts[0] * times,
        pins={"pin": texts[-1] * times},
    )
    card = replace(PENDING, plan=plan, reason=texts[0])
    shown = letters(safe.unescape("".join(all_text(card))))
    at = 0
    for text in (
        card.reason,
        *(value for _, value in plan.facts),
        *plan.steps,
        # They stand on lines of their own, and a carriage return before a line's end is its end.
        *(f"{statement}\n" for statement in plan.statements),
        *plan.warnings,
        *plan.pins.values(),
        plan.undo or "",
    ):
        wanted = same(letters(safe.neutralise(text)))
        found = same(shown).find(wanted, at)
        assert found >= 0, (text[:80], wanted[:80])
        at = found + len(wanted)


def same(text: str) -> str:
    """Brackets around our marks, signs that look alike and isolates taken for what they show."""
    for shown, sign in zip("∗ˍ∼ˋ꞉", "*_~`:", strict=True):  # noqa: RUF001
        text = text.replace(shown, sign)
    return re.sub("[\u2068\u2069⟨⟩⏎]|```", "", text).replace("`", "")


def all_text(card: Card) -> list[str]:
    return [text for page in plan_pages(card) for _, text in texts_of(page)]


@pytest.mark.parametrize(
    "text", ["x", "\u202e", "日本", "a\n", "😀", "<&>", "*_~`", "\x00", "e\u0301\u0301\u0301\u0301"]
)
def test_a_plan_of_a_megabyte_is_paged_and_slack_takes_every_page(text: str) -> None:
    count = 1_000_000 // len(text.encode())
    card = replace(PENDING, plan=replace(PENDING.plan, statements=(text * count,)))
    pages = plan_pages(card)
    for number in (0, len(pages) // 2, len(pages) - 1, len(pages)):
        view = details_modal(card, token=TOKEN, page=number)
        assert check_view(dict(view), kind="modal") == []
        assert not too_large(dict(view))
        assert len(json.dumps(view)) < 250_000
    shown = safe.unescape("".join(all_text(card)))
    visible = safe.neutralise(text).replace("`", "\N{MODIFIER LETTER GRAVE ACCENT}")
    assert shown.count(visible[0]) >= count * visible.count(visible[0])


def test_the_pages_of_a_plan_do_not_change_when_people_vote() -> None:
    many = tuple(
        VoteLine(who=f"T/U{n}", verdict=Verdict.DENY, reason="r" * 900, at=NOON) for n in range(300)
    )
    before, after = PENDING, replace(PENDING, votes=many)
    assert plan_pages(before) == plan_pages(after)
    view = details_modal(after, token=TOKEN, page=1)
    assert "Votes, page 1" in json.dumps(view)
    assert check_blocks(list(view["blocks"]), surface="modal") == []
