"""How a server was started, its configuration and its door, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from postgres.errors import PostgresError
from postgres.restore.closing import CLOSED, Door, close, door_of, is_backend, reopen
from postgres.restore.configuration import follow, included, take_over
from postgres.restore.control import parse_control, parse_options, read_instance

CONTROL = """\
Database system identifier:           7711075032948359996
Database cluster state:               shut down
Latest checkpoint's REDO WAL file:    000000020000000000000003
Latest checkpoint's TimeLineID:       2
Latest checkpoint's NextXID:          1:740
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
"""


@pytest.mark.parametrize(
    ("text", "program", "arguments"),
    [
        ('/b/postgres "-D" "/d"\n', "/b/postgres", ()),
        (
            '/b/postgres "-D" "/d" "-c" "config_file=/etc/pg/postgresql.conf"\n',
            "/b/postgres",
            ("-c", "config_file=/etc/pg/postgresql.conf"),
        ),
        ('/b/postgres "-D/d" "-p" "5433"\n', "/b/postgres", ("-p", "5433")),
        ("/my b/postgres\n", "/my b/postgres", ()),
    ],
)
def test_what_a_server_was_started_with_is_read_from_its_own_note(
    text: str, program: str, arguments: tuple[str, ...]
) -> None:
    assert parse_options(text) == (Path(program), arguments)


def test_the_control_file_tells_a_clean_stop_and_counts_on_over_wraparounds() -> None:
    facts = parse_control(CONTROL)
    assert facts.is_clean
    assert facts.next_xid == (1 << 32) + 740
    assert facts.minima["max_prepared_transactions"] == "0"
    assert not parse_control(CONTROL.replace("shut down", "in production")).is_clean


def test_a_server_whose_program_is_gone_cannot_be_started_again(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match="cannot be read"):
        read_instance(tmp_path)
    (tmp_path / "postmaster.opts").write_text('/gone/postgres "-D" "/d"\n')
    with pytest.raises(PostgresError, match="which is gone"):
        read_instance(tmp_path)


def test_all_that_a_configuration_includes_is_found_once(tmp_path: Path) -> None:
    more = tmp_path / "conf.d"
    more.mkdir()
    (more / "a.conf").write_text("include '../main.conf'\n")
    (more / "b.txt").write_text("")
    main = tmp_path / "main.conf"
    main.write_text(
        "port = 1\n  include_dir = 'conf.d'\ninclude_if_exists 'gone.conf'\n#include 'x'\n"
    )
    assert list(follow([main])) == [main, more / "a.conf"]
    hba = 'host @names @"more names" all trust # @not\n'
    assert included(tmp_path / "hba", hba) == [tmp_path / "names", tmp_path / "more names"]


def test_the_copy_gets_todays_configuration_and_nothing_of_its_recovery(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, text in ((old, "today"), (new, "then")):
        (folder / "conf.d").mkdir(parents=True)
        (folder / "postgresql.conf").write_text(text)
    (old / "conf.d" / "a.conf").write_text("today")
    (new / "recovery.signal").touch()
    (new / "standby.signal").touch()
    files = [old / "postgresql.conf", old / "conf.d" / "a.conf", old / "gone.conf"]
    take_over(files, source=old, target=new)
    assert (new / "postgresql.conf").read_text() == "today"
    assert (new / "conf.d" / "a.conf").read_text() == "today"
    assert not list(new.glob("*.signal"))


@pytest.fixture
def door(tmp_path: Path) -> Door:
    (tmp_path / "pg_hba.conf").write_text("local all all trust\n")
    (tmp_path / "pg_hba.conf").chmod(0o640)
    return door_of(tmp_path, "pg_hba.conf", "twokey-1")


def test_a_door_is_closed_twice_and_opened_twice_without_losing_what_was_there(door: Door) -> None:
    close(door)
    close(door)
    assert door.hba.read_text() == CLOSED.format(kept="pg_hba.conf.twokey-1")
    assert door.is_closed
    reopen(door)
    reopen(door)
    assert door.hba.read_text() == "local all all trust\n"
    assert door.hba.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in door.data.iterdir()] == ["pg_hba.conf"]


def test_a_file_that_somebody_wrote_while_the_door_was_closed_stays(door: Door) -> None:
    close(door)
    door.hba.write_text("local all ana peer\n")
    reopen(door)
    assert door.hba.read_text() == "local all ana peer\n"
    assert not door.is_closed


def test_a_process_that_is_not_the_servers_is_none_of_its_sessions(tmp_path: Path) -> None:
    assert not is_backend(tmp_path, 1)
