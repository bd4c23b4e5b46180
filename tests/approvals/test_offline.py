"""An exported audit is checked alone: no change of it passes, and what cannot be known is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from approvals import anchors
from approvals.anchors import Anchors, make_anchors, read_anchors
from approvals.chain import GENESIS, Entry, Head, entry_hash, to_line
from approvals.exports import Filters, Format, entry_line, first_lines
from approvals.offline import Report, check_export
from approvals.words import BadInputError

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
FORMS: tuple[Format, ...] = ("jsonl", "csv")
ROOT = Path(__file__).parents[2]


def chained(chain: str, length: int, **more: object) -> list[Entry]:
    """A good chain."""
    made: list[Entry] = []
    for seq in range(1, length + 1):
        entry = Entry(
            chain=chain,
            seq=seq,
            at=NOON + timedelta(seconds=seq),
            actor="=cmd|' /C calc'!A0" if seq == 2 else "ana@acme.example",
            action="vote",
            request_id=seq if seq % 2 else None,
            database=chain,
            detail={"reason": 'two\nlines, "quoted"', "ü": [seq, None, True], **more},
            prev_hash=made[-1].hash if made else GENESIS,
            hash="",
        )
        made.append(replace(entry, hash=entry_hash(entry)))
    return made


def remade(entries: Sequence[Entry], **change: object) -> list[Entry]:
    """The chain made anew after its last entry was changed."""
    last = replace(entries[-1], **change)  # type: ignore[arg-type]
    return [*entries[:-1], replace(last, hash=entry_hash(last))]


def heads(entries: Sequence[Entry]) -> list[Head]:
    ends = {entry.chain: entry for entry in entries}
    return [Head(chain=end.chain, seq=end.seq, hash=end.hash) for end in ends.values()]


def anchored(entries: Sequence[Entry]) -> Anchors:
    """Anchors of the chains' ends."""
    [anchor] = make_anchors(heads(entries), at=NOON, prev=GENESIS)
    return read_anchors([anchors.to_line(anchor)], name="anchors")


def exported(
    entries: Sequence[Entry], form: Format = "jsonl", filters: Filters | None = None
) -> list[str]:
    lines = [*first_lines(filters or Filters(), form), *(entry_line(e, form) for e in entries)]
    return [f"{line}\n" for line in lines]


def checked(lines: Sequence[str], known: Anchors | None = None) -> Report:
    # A cell of CSV may hold line breaks: what is read is a file's lines.
    return check_export("".join(lines).splitlines(keepends=True), known, name="export")


TWO = [*chained("", 3), *chained("orders", 5)]


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_export_is_in_order(form: Format) -> None:
    report = checked(exported(TWO, form), anchored(TWO))
    assert (report.ok, report.entries, report.notes, report.unanchored) == (True, 8, (), 0)


@pytest.mark.parametrize("form", FORMS)
def test_without_anchors_it_says_what_could_not_be_checked(form: Format) -> None:
    report = checked(exported(TWO, form))
    assert report.ok
    assert report.unanchored is None
    assert "Without anchors it could not be checked" in report.notes[0]


FIELDS = {
    "chain": "other",
    "seq": 77,
    "at": NOON + timedelta(days=1),
    "actor": "eve@acme.example",
    "action": "deny",
    "request_id": 999,
    "database": "payments",
    "detail": {"reason": "none"},
    "prev_hash": "1" * 64,
    "hash": "2" * 64,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("which", range(8))
def test_an_edit_of_any_field_of_any_entry_is_found(form: Format, name: str, which: int) -> None:
    edited = [*TWO]
    edited[which] = replace(TWO[which], **{name: FIELDS[name]})  # type: ignore[arg-type]
    assert not checked(exported(edited, form)).ok


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: [*e[:4], *e[5:]], "orders, entry 3: entry 2 is missing."),
        (lambda e: [*e[:4], e[5], e[4], *e[6:]], "orders, entry 3: entry 2 is missing."),
        (lambda e: [*e[:5], e[4], *e[5:]], "orders, entry 2: the entry 2 stands twice."),
        (lambda e: [*e, e[3]], "orders, entry 1: the entry 1 stands after the entry 5"),
        (lambda e: [*e[:4], *e[6:]], "orders, entry 4: entries 2 to 3 are missing."),
        (lambda e: e[1:], "(general), entry 2: entry 1 is missing."),
        (
            lambda e: e[:-2],
            "orders, entry 4: the chain was cut: it ends at 3 and should reach 5.",
        ),
        (lambda e: e[:3], "orders, entry 1: the whole chain is missing: it should reach 5."),
        (lambda e: remade(e, actor="eve"), "orders, entry 5: the chain was rewritten"),
        (
            lambda e: [*remade(e[:5], actor="eve"), *e[5:]],
            "orders, entry 3: it does not follow the entry before it: one of them was replaced.",
        ),
        (
            lambda e: [*e[:3], *chained("orders", 5, reason="none")],
            "orders, entry 5: the chain was rewritten",
        ),
    ],
)
def test_what_was_done_is_said_with_the_entry(
    form: Format, change: Callable[[list[Entry]], list[Entry]], says: str
) -> None:
    report = checked(exported(change([*TWO]), form), anchored(TWO))
    assert any(sentence.startswith(says) for sentence in report.sentences())
    assert not report.ok


def test_a_rewrite_before_the_newest_anchor_is_found_by_an_older_one() -> None:
    old, grown = chained("orders", 3), chained("orders", 3)
    grown = [*grown, *chained("orders", 6)[3:]]
    assert grown[:3] == old
    forged = chained("orders", 6, forged=1)
    report = checked(exported(forged), anchored(old))
    assert [f.seq for f in report.findings] == [3]


def test_entries_after_the_newest_anchor_are_said_to_be_uncovered() -> None:
    report = checked(exported(chained("orders", 6)), anchored(chained("orders", 4)))
    assert report.ok
    assert report.unanchored == 2
    assert "2 entries are newer than what the anchors cover" in report.notes[0]


def test_numbers_agree_with_their_nouns() -> None:
    one = checked(exported(chained("orders", 5)), anchored(chained("orders", 4)))
    assert "1 entry is newer than what the anchors cover" in one.notes[0]
    assert list(one.sentences())[-1] == "5 entries: all in order."
    first = replace(chained("orders", 1)[0], actor="eve")
    assert list(checked(exported([first])).sentences())[-1] == "1 entry: 1 finding."
    two = replace(chained("orders", 2)[1], actor="eve")
    assert list(checked(exported([first, two])).sentences())[-1] == "2 entries: 2 findings."


def test_a_line_break_cannot_move_a_field_into_the_next() -> None:
    plain = replace(TWO[0], actor="a\nb", action="c")
    plain = replace(plain, hash=entry_hash(plain))
    moved = replace(plain, actor="a", action="b\nc")
    assert entry_hash(moved) == plain.hash  # which is why it is looked for
    report = checked(exported([moved]))
    assert "its action has a line break" in report.findings[0].problem


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace('"seq":2', '"seq":2.0'),
        lambda line: line.replace('"seq":2', '"seq":"2"'),
        lambda line: line.replace('"seq":2', '"seq": 2'),
        lambda line: line.replace('"action"', '"action":"deny","action"', 1),
        lambda line: line.replace("+00:00", "Z"),
        lambda line: line[:-2] + ',"note":"x"}\n',
        lambda line: line.replace("orders", "\\u006frders", 1),
        lambda line: line[:40] + "\n",
        lambda line: "\n",
        lambda line: "[" * 100_000 + "\n",
    ],
)
def test_a_line_has_one_form_only(change: Callable[[str], str]) -> None:
    lines = exported(TWO)
    assert change(lines[5]) != lines[5]
    report = checked([*lines[:5], change(lines[5]), *lines[6:]])
    assert any("Line 6: " in found.problem for found in report.findings)


def test_a_file_of_anything_else_is_bad_input() -> None:
    with pytest.raises(BadInputError, match="no exported audit"):
        checked(["hello\n", "world\n"])


# What a single change does to a list of lines. Each must give other lines.
@dataclass(frozen=True)
class Change:
    kind: str
    where: int
    what: int

    def __call__(self, lines: list[str]) -> list[str]:
        at = self.where % len(lines)
        other = (at + 1 + self.what % max(len(lines) - 1, 1)) % len(lines)
        match self.kind:
            case "drop":
                return lines[:at] + lines[at + 1 :]
            case "repeat":
                return [*lines[: other + 1], lines[at], *lines[other + 1 :]]
            case "swap":
                made = [*lines]
                made[at], made[other] = made[other], made[at]
                return made
            case "cut":
                return lines[:at]
            case _:
                line = lines[at]
                spot = self.what % len(line)
                new = "x" if line[spot] != "x" else "y"
                return [*lines[:at], line[:spot] + new + line[spot + 1 :], *lines[at + 1 :]]


CHANGES = st.builds(
    Change,
    kind=st.sampled_from(["drop", "repeat", "swap", "cut", "edit"]),
    where=st.integers(0, 10_000),
    what=st.integers(0, 10_000),
)
CHAINS = st.dictionaries(st.sampled_from(["", "a", "orders"]), st.integers(1, 6), min_size=1)


def _found(lines: list[str], known: Anchors | None) -> bool:
    try:
        return not checked(lines, known).ok
    except BadInputError:
        return True


@settings(max_examples=400, deadline=None)
@given(CHAINS, CHANGES, st.sampled_from(FORMS))
def test_with_anchors_no_single_change_passes(
    lengths: dict[str, int], change: Change, form: Format
) -> None:
    entries = [entry for name in sorted(lengths) for entry in chained(name, lengths[name])]
    meta, lines = exported([], form), exported(entries, form)[len(exported([], form)) :]
    changed = change(lines)
    same = sorted(changed) == sorted(lines)
    if changed == lines or (same and _per_chain(changed, lines, form)):
        return  # chains may come in any order: nothing of either was changed
    assert _found(meta + changed, anchored(entries)), change


def _per_chain(one: list[str], other: list[str], form: Format) -> bool:
    """Whether two exports hold the same lines of each chain in the same order."""

    def split(lines: list[str]) -> dict[str, list[str]]:
        chains: dict[str, list[str]] = {}
        for line in lines:
            key = line.split(",")[0] if form == "csv" else json.loads(line)["chain"]
            chains.setdefault(key, []).append(line)
        return chains

    return split(one) == split(other)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 6), CHANGES)
def test_without_anchors_only_a_cut_end_passes_and_that_is_said(
    length: int, change: Change
) -> None:
    lines = exported(chained("orders", length))
    changed = change(lines[1:])
    if changed == lines[1:]:
        return
    is_cut = changed == lines[1 : len(changed) + 1]
    assert _found([lines[0], *changed], None) is not is_cut
    if is_cut:
        assert "could not be checked" in checked([lines[0], *changed]).notes[0]


def test_without_anchors_a_full_rewrite_passes_and_that_is_said() -> None:
    forged = chained("orders", 5, forged=True)
    assert checked(exported(forged)).ok
    assert "made anew" in checked(exported(forged)).notes[0]
    assert not checked(exported(forged), anchored(chained("orders", 5))).ok


def test_a_range_is_checked_from_its_first_entry_on() -> None:
    filters = Filters(since=NOON, until=NOON + timedelta(days=1))
    part = chained("orders", 8)[2:6]
    report = checked(exported(part, filters=filters), anchored(chained("orders", 8)))
    assert report.ok
    assert "a part of each chain" in " ".join(report.notes)
    assert not checked(exported([part[0], *part[2:]], filters=filters)).ok
    assert not checked(exported(remade(part, actor="eve")[-1:], filters=Filters())).ok


def test_in_a_range_an_anchor_within_it_still_finds_a_rewrite() -> None:
    filters = Filters(since=NOON)
    forged = chained("orders", 6, forged=1)[2:]
    assert checked(exported(forged, filters=filters)).ok
    assert not checked(exported(forged, filters=filters), anchored(chained("orders", 4))).ok


def test_chosen_entries_are_checked_each_by_its_own_hash() -> None:
    filters = Filters(actor="ana@acme.example")
    chosen = [entry for entry in TWO if entry.actor == "ana@acme.example"]
    report = checked(exported(chosen, filters=filters), anchored(TWO))
    assert report.ok
    assert "whether one was left out cannot be seen" in report.notes[0]
    edited = [replace(chosen[0], action="deny"), *chosen[1:]]
    assert not checked(exported(edited, filters=filters)).ok


def test_one_chain_of_several_is_whole_by_itself() -> None:
    filters = Filters(chain="orders")
    report = checked(exported(chained("orders", 5), filters=filters), anchored(TWO))
    assert report.ok
    assert not checked(exported(chained("orders", 4), filters=filters), anchored(TWO)).ok
    assert not checked(exported(TWO, filters=filters), anchored(TWO)).ok


def test_an_export_without_its_first_line_is_taken_for_a_whole_one() -> None:
    part = exported(chained("orders", 8)[2:6], filters=Filters(since=NOON))
    assert checked(part).ok
    assert not checked(part[1:]).ok


def test_cells_that_a_spreadsheet_would_run_get_an_apostrophe() -> None:
    [line] = [line for line in exported(TWO, "csv") if "cmd" in line][:1]
    assert ",'=cmd" in line


def test_the_audit_tells_of_anchors_that_were_not_given() -> None:
    entry = replace(TWO[0], action="anchor", detail={"root": "f" * 64, "at": "2026-11-21"})
    entry = replace(entry, hash=entry_hash(entry))
    report = checked(exported([entry]), anchored([entry]))
    assert report.ok
    assert report.notes == ("The audit tells of 1 anchor that was not given, of 2026-11-21.",)


def test_it_works_with_nothing_but_python_and_the_files(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_text("".join(exported(TWO)), encoding="utf-8")
    [anchor] = make_anchors(heads(TWO), at=NOON, prev=GENESIS)
    (tmp_path / "anchors").write_text(anchors.to_line(anchor) + "\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from approvals.offline import main;"
        "code = main(sys.argv[1:]);"
        "foreign = {'sqlalchemy', 'pydantic', 'typer', 'asyncpg', 'socket', 'asyncio'};"
        "assert not foreign & sys.modules.keys(), foreign & sys.modules.keys();"
        "sys.exit(code)"
    )

    def done(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", code, str(ROOT), name, "anchors"],
            cwd=tmp_path, env={}, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip

    assert (done("audit.jsonl").returncode, done("audit.jsonl").stderr) == (0, "")
    assert done("none").returncode == 2
    (tmp_path / "cut.jsonl").write_text("".join(exported(TWO)[:-1]), encoding="utf-8")
    cut = done("cut.jsonl")
    assert cut.returncode == 1
    assert "orders, entry 5: the chain was cut" in cut.stdout
    assert len(list(tmp_path.iterdir())) == 3


def test_the_lines_of_before_are_read_still() -> None:
    lines = [f"{to_line(entry)}\n" for entry in TWO]
    assert checked(lines, anchored(TWO)).ok
