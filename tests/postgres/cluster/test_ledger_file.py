"""What a ledger keeps on the disk, and where its rows go: without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from postgres.cluster import ledger_file
from postgres.cluster.ledger_door import Session, choose, doors
from postgres.cluster.ledger_file import LedgerFile, fold, read
from postgres.dsn import Target, parse_dsn
from postgres.errors import PostgresError


def written(folder: Path, number: int) -> LedgerFile:
    file = LedgerFile.open(folder)
    for index in range(number):
        at = 1000.0 + index / 100
        page = file.row(file.first + index, at, at + 0.001, "7", is_local=False)
        if page:
            fold(page)
    return file


def test_old_pages_are_folded_and_every_row_is_still_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_file, "PAGE_LINES", 100)
    file = written(tmp_path, 2000)
    file.row(file.first + 2000, 1030.0, None, "7", is_local=False)
    file.close()
    kept = read(tmp_path)
    numbers = [seq for span in kept.spans for seq, _ in span.rows()]
    assert numbers == list(range(file.first, file.first + 2000))
    assert (kept.failed, kept.last) == (1, file.first + 2000)
    lines = sum(len(path.read_text().splitlines()) for path in tmp_path.iterdir())
    assert lines < 700  # of 2001; those of the newest pages are whole
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_folding_again_loses_nothing_that_is_no_row(tmp_path: Path) -> None:
    file = written(tmp_path, 10)
    file.row(file.first + 10, 1000.5, None, "7", is_local=False)
    file.row(file.first + 11, 1000.6, 1000.7, "7", is_local=True)
    file.name("7", "pg1")
    file.alive(1009.0)
    file.close()
    before = read(tmp_path)
    (page,) = tmp_path.iterdir()
    fold(page)
    fold(page)
    after = read(tmp_path)
    assert (after.failed, after.last, after.lives) == (before.failed, before.last, before.lives)
    assert after.names == {"7": "pg1"}
    assert [span.is_local for span in after.spans] == [False, True]


def test_a_line_that_was_cut_short_is_no_line_and_a_damaged_one_is_said(tmp_path: Path) -> None:
    written(tmp_path, 3).close()
    (page,) = tmp_path.iterdir()
    with page.open("a") as out:
        out.write("[1000000004,1000.")
    assert len(read(tmp_path).spans) == 3
    with page.open("a") as out:
        out.write("\n" + json.dumps({"alive": 1.0}) + "\n")
    with pytest.raises(PostgresError, match=r"Line 4 of .* is damaged"):
        read(tmp_path)


def test_each_life_has_numbers_of_its_own(tmp_path: Path) -> None:
    lives = [written(tmp_path, 1) for _ in range(3)]
    for file in lives:
        file.close()
    assert [file.life for file in lives] == [1, 2, 3]
    assert len({span.first for span in read(tmp_path).spans}) == 3


def session(timeline: int) -> Session:
    return Session(conn=None, server=timeline, timeline=timeline, key="'r'")


@pytest.mark.parametrize(
    ("timelines", "silent", "waited", "newest", "expected"),
    [
        ((), 2, 9.0, None, None),
        ((1,), 1, 0.1, None, None),  # never the first that answers
        ((1,), 1, 1.0, None, 1),
        ((1, 2), 0, 0.1, None, 2),
        ((2,), 1, 0.1, 1, 2),  # promoted since
        ((1,), 1, 0.1, 1, None),
        ((1,), 0, 0.1, 1, 1),  # started again
        ((1,), 0, 9.0, 2, None),  # left behind
        ((1, 3), 0, 0.0, 2, 3),
    ],
)
def test_rows_go_to_the_newest_timeline_once_it_is_known(
    timelines: tuple[int, ...],
    silent: int,
    waited: float,
    newest: int | None,
    expected: int | None,
) -> None:
    found = [session(timeline) for timeline in timelines]
    chosen = choose(found, silent=silent, waited=waited, newest=newest)
    assert (chosen.timeline if chosen else None) == expected


def test_an_endpoint_of_several_hosts_is_several_doors() -> None:
    several = parse_dsn("postgresql://app@a:5432,b:5433/shop?target_session_attrs=primary")
    found = doors(several, ())
    assert [each.target.place for each in found] == ["a:5432", "b:5433"]
    assert all(each.is_node and "target_session_attrs" not in each.target.words for each in found)
    one_port = doors(Target(words={"host": "a,b", "port": "6432"}), ())
    assert [each.target.place for each in one_port] == ["a:6432", "b:6432"]
    assert [each.is_node for each in doors(parse_dsn("postgresql://app@a/shop"), ())] == [False]
