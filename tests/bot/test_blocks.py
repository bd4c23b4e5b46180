"""Somebody else's text, made safe without losing any of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import blocks


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@U1&gt;"),
        ("safe\u202egnp.exe", "safe⟨U+202E⟩gnp.exe"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("soft\u00adhyphen", "soft⟨U+00AD⟩hyphen"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("bell\x07", "bell⟨U+0007⟩"),
        ("line\u2028separator", "line⟨U+2028⟩separator"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("a\rb", "a⟨U+000D⟩b"),
        ("Grüße, 日本, 🎉", "Grüße, 日本, 🎉"),
    ],
)
def test_what_a_text_shows_as(text: str, shown: str) -> None:
    assert blocks.escape(text) == shown


def test_nobody_can_fake_a_line_of_ours() -> None:
    assert "\n" not in blocks.one_line("x\n*Approved by* <@U0BEN>")
    assert blocks.quote("a\n*Approved*") == "> a\n> ∗Approved∗"  # noqa: RUF001


def test_three_backticks_cannot_end_a_code_block() -> None:
    [block] = blocks.code_blocks("SELECT 1; ``` <!here>")
    assert block["text"]["text"].count("```") == 2


@given(st.text(max_size=500), st.integers(10, 60))
def test_pages_lose_nothing_and_keep_to_their_size(text: str, chars_max: int) -> None:
    safe = blocks.escape(text)
    parts = blocks.pages(safe, chars_max)
    assert all(len(part) <= chars_max for part in parts)
    assert "".join(parts).replace("\n", "") == safe.replace("\n", "")
    assert not any(part.endswith("&am") for part in parts)


@given(st.text(alphabet="a&<", max_size=50), st.integers(8, 30))
def test_shortening_tears_no_entity(text: str, chars_max: int) -> None:
    short = blocks.shorten(blocks.escape(text), chars_max)
    assert len(short) <= chars_max
    rest = short.replace("&amp;", "").replace("&lt;", "")
    assert "&" not in rest


def test_a_table_is_aligned() -> None:
    assert blocks.table(("Name", "Age"), (("orders-1", "2 h"), ("x", "10 min"))) == (
        "Name      Age\n────────  ──────\norders-1  2 h\nx         10 min"
    )


@pytest.mark.parametrize(
    ("slack", "shown"),
    [
        ("T0DEMO/U0ANA", "<@U0ANA>"),
        ("U0BEN", "<@U0BEN>"),
        ("ana@acme.example", "ana@acme.example"),
        ("T/<!here>", "T/&lt;!here&gt;"),
    ],
)
def test_only_an_account_becomes_a_mention(slack: str, shown: str) -> None:
    assert blocks.mention(slack) == shown
