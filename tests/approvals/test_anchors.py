"""Anchors: what is kept elsewhere says itself whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from approvals.anchors import Anchors, from_line, make_anchors, read_anchors, root_of, to_line
from approvals.chain import GENESIS, Head
from approvals.plans import canonical, sha256
from approvals.words import BadInputError

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def head(chain: str, seq: int, mark: str = "a") -> Head:
    return Head(chain=chain, seq=seq, hash=mark * 64)


def a_file(days: int = 4) -> list[str]:
    """A file such as a host keeps: an anchor per day."""
    lines: list[str] = []
    prev = GENESIS
    for day in range(1, days + 1):
        heads = [head("", day, "b"), head("orders", 10 * day, f"{day:x}")]
        [anchor] = make_anchors(heads, at=NOON + timedelta(days=day), prev=prev)
        lines.append(to_line(anchor) + "\n")
        prev = anchor.hash
    return lines


def read(lines: list[str]) -> Anchors:
    return read_anchors(lines, name="anchors")


def test_a_whole_file_has_no_problems_and_says_what_it_knows() -> None:
    found = read(a_file())
    assert (found.problems, found.notes, found.count) == ([], [], 4)
    assert found.heads["orders"][40] == "4" * 64
    assert found.newest_at == NOON + timedelta(days=4)


@given(st.integers(0, 3), st.integers(0, 2000), st.sampled_from('0123456789abcdefxyz{}", '))
def test_no_character_of_an_anchor_can_change_unseen(which: int, spot: int, new: str) -> None:
    lines = a_file()
    line = lines[which][:-1]
    spot %= len(line)
    edited = line[:spot] + new + line[spot + 1 :]
    if edited == line or edited.strip() == line:
        return
    found = read([*lines[:which], edited + "\n", *lines[which + 1 :]])
    assert found.problems or found.notes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: lines[1:], "anchors before that of 2026-11-24"),
        (lambda lines: [lines[0], *lines[2:]], "does not follow that of 2026-11-23"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "does not follow"),
        (lambda lines: [*lines, lines[3]], "stands twice"),
        (lambda lines: [*lines, lines[1]], "does not follow"),
        (lambda lines: [*lines[:3], lines[3][:-20]], "looks like an anchor and is none"),
    ],
)
def test_a_file_that_was_cut_reordered_or_repeated_is_a_problem(
    change: Callable[[list[str]], list[str]], says: str
) -> None:
    assert any(says in problem for problem in read(change(a_file())).problems)


def test_in_a_copy_among_other_text_missing_anchors_are_a_note() -> None:
    lines = ["Twokey  01:00\n", "Audit anchor of …\n", a_file()[1], "\n", f"```{a_file()[3]}```\n"]
    found = read(lines)
    assert found.problems == []
    assert found.count == 2
    assert len(found.notes) == 3


def test_a_copy_does_not_hide_an_edited_line() -> None:
    lines = ["copied\n", a_file()[1].replace("aaaa", "aaab").replace('"seq":20', '"seq":21')]
    assert "its hash is not that of its content" in read(lines).problems[0]


def test_an_edited_line_is_never_other_text_wherever_it_was_edited() -> None:
    line = a_file(1)[0].strip()
    for copied in (["copied\n"], []):
        for spot in range(len(line)):
            for new in ("x", ""):
                edited = line[:spot] + new + line[spot + 1 :]
                found = read([*copied, edited + "\n", a_file()[1]])
                assert any("looks like an anchor and is none" in each for each in found.problems), (
                    edited
                )


@pytest.mark.parametrize(
    "spell",
    [
        lambda line: json.dumps(json.loads(line)),
        lambda line: line.replace('"seq":10', '"seq":10.0'),
        lambda line: line.replace('{"at"', '{"at":"2020-01-01T00:00:00.000000Z","at"'),
        lambda line: line.replace('"chain":"orders"', '"chain":"\\u006frders"'),
    ],
)
def test_an_anchor_has_one_spelling(spell: Callable[[str], str]) -> None:
    line = a_file(1)[0].strip()
    assert to_line(from_line(line)) == line
    assert spell(line) != line
    with pytest.raises(ValueError, match=r"edited|a number is none"):
        from_line(spell(line))
    assert "looks like an anchor and is none" in read([spell(line)]).problems[0]


def test_the_combined_hash_of_one_page_is_that_of_its_heads() -> None:
    """Also where whoever changed it has made the line's own hash anew."""
    [honest] = make_anchors([head("orders", 5)], at=NOON, prev=GENESIS)
    [other] = make_anchors([head("orders", 6)], at=NOON, prev=GENESIS)
    fields = json.loads(to_line(replace(honest, root=other.root)))
    del fields["hash"]
    lying = replace(honest, root=other.root, hash=sha256(canonical(fields)))
    with pytest.raises(ValueError, match="combined hash is not that of its heads"):
        from_line(to_line(lying))
    assert from_line(to_line(honest)) == honest


def test_anchors_that_contradict_one_another_are_a_problem() -> None:
    [one] = make_anchors([head("orders", 5, "a")], at=NOON, prev=GENESIS)
    [two] = make_anchors([head("orders", 5, "b")], at=NOON, prev=one.hash)
    [less] = make_anchors([head("orders", 4, "c")], at=NOON + timedelta(1), prev=one.hash)
    assert "disagree" in read([to_line(one), to_line(two)]).problems[0]
    assert "an earlier one at 5" in read([to_line(one), to_line(less)]).problems[0]
    merged = read([to_line(one)])
    [other] = make_anchors([head("orders", 5, "b")], at=NOON, prev=GENESIS)
    merged.merge(read([to_line(other)]))
    assert "Two files of anchors disagree" in merged.problems[0]


def test_many_chains_come_in_pages_under_one_combined_hash() -> None:
    heads = [head(f"db{number}", number + 1) for number in range(25)]
    pages = make_anchors(heads, at=NOON, prev=GENESIS, heads_max=11)
    assert [len(page.heads) for page in pages] == [11, 11, 3]
    assert {page.root for page in pages} == {root_of(heads)}
    assert sorted(h.chain for page in pages for h in page.heads) == sorted(h.chain for h in heads)
    whole = read(["copied\n", *(to_line(page) for page in pages)])
    assert (whole.problems, len(whole.notes)) == ([], 1)
    part = read(["copied\n", to_line(pages[0]), to_line(pages[2])])
    assert any("not all pages" in note for note in part.notes)


def test_the_combined_hash_is_of_all_heads_in_any_order() -> None:
    heads = [head(name, 1) for name in "abcde"]
    assert root_of(heads) == root_of(heads[::-1])
    assert len({root_of(heads[:count]) for count in range(6)}) == 6
    assert root_of([head("a", 1), head("b", 1)]) != root_of([head("a", 1), head("b", 2)])


def test_an_anchor_without_entries_is_one_too() -> None:
    [anchor] = make_anchors([], at=NOON, prev=GENESIS)
    assert from_line(to_line(anchor)) == anchor


@pytest.mark.parametrize("lines", [[], ["hello\n"], ["\n", "Audit anchor\n"]])
def test_a_file_without_anchors_is_bad_input(lines: list[str]) -> None:
    with pytest.raises(BadInputError, match="holds no anchors"):
        read(lines)


def test_bare_heads_of_before_are_taken_with_a_note() -> None:
    found = read(['{"chain":"orders","seq":3,"hash":"' + "a" * 64 + '"}\n'])
    assert found.heads == {"orders": {3: "a" * 64}}
    assert "bare heads" in found.notes[0]


def test_a_bare_head_with_anything_else_in_it_is_none() -> None:
    line = '{"chain":"orders","seq":3,"hash":"' + "a" * 64 + '"}'
    for edited in (line.replace("}", ',"at":"2026-11-22"}'), line.replace("3", "3.0")):
        found = read([a_file()[0], edited])
        assert found.heads["orders"] == {10: "1" * 64}
        assert "looks like an anchor and is none" in found.problems[0]
