"""Where a replay may end, and what is said of an end that is none: on values alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from postgres.errors import DamagedError, PostgresError
from postgres.restore.ending import (
    Reached,
    UnreachedError,
    explain,
    fraction,
    judge_end,
    lacks_settings,
)
from postgres.restore.target import parse_target
from postgres.restore.window import Choice
from tests.postgres.restore.test_window import backup

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
WAL = tuple(f"0000000100000000{number:08X}" for number in (5, 6, 7))


def choice(text: str, *, proof: str | None = None, is_open: bool = False) -> Choice:
    return Choice(
        target=parse_target(text, now=NOON),
        backup=backup("b", 5),
        timeline=1,
        wal=WAL,
        proof_lsn=proof,
        is_open=is_open,
    )


def at(lsn: str) -> Reached:
    return Reached(lsn=lsn, commit_at=NOON)


@pytest.mark.parametrize(
    ("wanted", "lsn", "said"),
    [
        (choice("latest"), "0/7000100", "All WAL that is kept was replayed, to LSN 0/7000100"),
        (choice("latest"), "0/8000000", "All WAL"),
        (choice("2026-11-20 11:59 UTC"), "0/7000100", "Nothing was written from LSN 0/7000100"),
        (choice("2026-11-20 11:59 UTC", proof="0/6000100"), "0/6000100", "Nothing was written"),
        (choice("lsn 0/7000100", proof="0/7000100"), "0/7000100", "Nothing was written"),
        # A record that began in the segment before, and of which not all has come.
        (choice("latest", is_open=True), "0/6FFF000", "All WAL"),
    ],
)
def test_an_end_that_is_right(wanted: Choice, lsn: str, said: str) -> None:
    assert said in judge_end(wanted, at(lsn))


@pytest.mark.parametrize(
    ("wanted", "lsn", "named"),
    [
        (choice("latest"), "0/6000100", WAL[1]),
        (choice("latest"), "0/6FFF000", WAL[1]),
        (choice("latest", is_open=True), "0/5FFF000", WAL[0]),
        (choice("2026-11-20 11:59 UTC"), "0/5000200", WAL[0]),
        (choice("2026-11-20 11:59 UTC", proof="0/6000200"), "0/6000100", WAL[1]),
        (choice("point p"), "0/5000200", WAL[0]),
    ],
)
def test_wal_that_was_there_and_was_not_read_is_damage(
    wanted: Choice, lsn: str, named: str
) -> None:
    with pytest.raises(DamagedError, match=f"in the WAL file {named}, although WAL up to {WAL[2]}"):
        judge_end(wanted, at(lsn))


@pytest.mark.parametrize(
    ("wanted", "because"),
    [
        (choice("2026-11-20 11:59 UTC", proof="0/7000200"), "does not reach 2026-11-20 11:59"),
        (choice("lsn 0/7000200", proof="0/7000200"), "does not reach lsn 0/7000200"),
        (choice("xid 900"), "There is no xid 900 in the WAL from b on"),
        (choice("point p"), "There is no point p in the WAL from b on"),
    ],
)
def test_a_target_beyond_the_end_is_said_with_the_last_commit(wanted: Choice, because: str) -> None:
    with pytest.raises(UnreachedError, match=because) as refusal:
        judge_end(wanted, at("0/7000100"))
    assert "LSN 0/7000100, where the last commit is of 2026-11-20 12:00:00.0" in str(refusal.value)
    assert refusal.value.next_step


@pytest.mark.parametrize(
    ("log", "kind", "because"),
    [
        (
            "LOG: x\nFATAL:  requested recovery stop point is before consistent recovery point\n",
            UnreachedError,
            "before the end of the backup b",
        ),
        (
            'FATAL:  WAL was generated with "wal_level=minimal", cannot continue recovering\n',
            UnreachedError,
            "wal_level=minimal",
        ),
        (
            "LOG: a\nPANIC:  WAL contains references to invalid pages\nLOG: b",
            DamagedError,
            "pages$",
        ),
        ("LOG: a\nLOG: killed", DamagedError, "killed$"),
        ("", DamagedError, "it said nothing$"),
    ],
)
def test_what_a_server_said_at_its_end_is_explained(
    log: str, kind: type[Exception], because: str
) -> None:
    with pytest.raises(kind, match=because) as said:
        raise explain(log, choice("latest"))
    assert not isinstance(said.value, PostgresError) or said.value.next_step


def test_a_setting_that_was_raised_is_recognised() -> None:
    assert lacks_settings("FATAL:  recovery aborted because of insufficient parameter settings")
    assert not lacks_settings("FATAL:  could not open file")


def test_progress_goes_from_nothing_to_all_of_the_wal() -> None:
    wanted = choice("latest")
    assert fraction(wanted, at(wanted.backup.start_lsn)) == 0.0
    assert fraction(wanted, at("0/8000000")) == 1.0
    assert fraction(wanted, at("0/9000000")) == 1.0
    assert 0.3 < (fraction(wanted, at("0/6000000")) or 0) < 0.4
