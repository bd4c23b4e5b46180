"""Where a node lives: what its machine answers, and what is done there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from postgres.account import identity_of, make_private, server_account
from postgres.cluster.host import Host
from postgres.cluster.host_hand import hand_on
from postgres.cluster.host_words import (
    HELLO,
    HostSeen,
    ServerProcess,
    control_of,
    host_seen,
    lsn_of,
    lsn_text,
    setting_in,
    start_options,
    with_settings,
)
from postgres.cluster.words import HostSettings, NodeSpec
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError

CONTROL = """\
twokey
pg_control version number:            1300
Database system identifier:           7300000000000000001
Database cluster state:               shut down
Latest checkpoint location:           1/3000028
Latest checkpoint's TimeLineID:       4
wal_log_hints setting:                {hints}
Data page checksum version:           {checksums}
"""


def node(data: Path, *, via: tuple[str, ...] = (), start: tuple[str, ...] = ()) -> NodeSpec:
    return NodeSpec(
        name="east",
        target=parse_dsn("postgresql://u@127.0.0.1:1/app"),
        host=HostSettings(via=via, data=data, programs=Path("/nowhere"), start=start),
    )


@pytest.fixture
def folder(home: Path) -> Path:
    """A folder that the server account owns."""
    make_private(home / "data", server_account())
    return home / "data"


def test_an_answer_is_read_line_by_line() -> None:
    answer = (
        "twokey\nhalf\nsees\nlistens no\nexists\nowner\nversion 17\nstandby\n"
        "server 12 S\nserver 13 T\ntool 99\nnote 12 server\n"
    )
    assert host_seen(answer) == HostSeen(
        exists=True,
        is_owner=True,
        sees_processes=True,
        version="17",
        servers=(ServerProcess(pid=12, state="S"), ServerProcess(pid=13, state="T")),
        tools=(99,),
        note_pid=12,
        note_holder="server",
        listens=False,
        has_standby_signal=True,
        is_half=True,
    )
    assert host_seen(answer).is_frozen


def test_what_is_not_said_is_not_taken_for_no() -> None:
    assert host_seen("twokey\n").listens is None


@pytest.mark.parametrize(
    ("hints", "checksums", "able"), [("on", "0", True), ("off", "1", True), ("off", "0", False)]
)
def test_a_folder_can_be_rewound_with_checksums_or_hints(
    hints: str, checksums: str, *, able: bool
) -> None:
    found = control_of(CONTROL.format(hints=hints, checksums=checksums))
    assert found.can_rewind is able
    assert (found.checkpoint, found.timeline) == (0x1_03000028, 4)
    assert found.was_primary


@pytest.mark.parametrize(
    ("state", "primary", "in_order"),
    [
        ("shut down", True, True),
        ("shut down in recovery", False, True),
        ("in production", False, False),
        ("shutting down", False, False),
    ],
)
def test_only_an_end_in_order_counts_as_one(state: str, *, primary: bool, in_order: bool) -> None:
    text = CONTROL.format(hints="on", checksums="1").replace("shut down", state)
    found = control_of(text)
    assert (found.was_primary, found.is_shut_down) == (primary, in_order)


def test_a_broken_answer_of_pg_controldata_is_an_error() -> None:
    with pytest.raises(PostgresError, match="gave no answer"):
        control_of("twokey\nDatabase cluster state: shut down\n")


def test_positions_are_read_and_written_as_postgresql_does() -> None:
    assert lsn_text(lsn_of("1A/2B00FF00")) == "1A/2B00FF00"


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        ("", ()),
        ('/usr/lib/bin/postgres "-D" "/data"\n', ()),
        ('/bin/postgres "-D/data" "-p" "5433"\n', ("-p", "5433")),
        (
            '/bin/postgres "-D" "/data" "-c" "config_file=/etc/a b/x.conf"\n',
            ("-c", "config_file=/etc/a b/x.conf"),
        ),
    ],
)
def test_a_server_is_started_with_what_it_was_started_with(
    opts: str, expected: tuple[str, ...]
) -> None:
    assert start_options(opts) == expected


def test_settings_are_replaced_wherever_they_stand_and_others_stay() -> None:
    before = "# ours\nwork_mem = '4MB'\nPrimary_Conninfo='old'\n primary_conninfo = 'older'\n"
    after = with_settings(before, {"primary_conninfo": "host=x password='it''s'"})
    assert after == ("# ours\nwork_mem = '4MB'\nprimary_conninfo = 'host=x password=''it''''s'''\n")
    assert setting_in(after, "primary_conninfo") == "host=x password='it''s'"


def test_a_setting_that_nobody_made_is_empty() -> None:
    assert not setting_in("work_mem = '4MB'\n", "primary_slot_name")


async def test_a_folder_without_a_server_says_so(folder: Path) -> None:
    seen = await Host(node(folder)).look()
    assert (seen.exists, seen.is_owner, seen.is_alive, seen.listens) == (True, True, False, False)


async def test_a_program_in_the_folder_that_is_no_server_is_not_one(folder: Path) -> None:
    other = _stranger(folder)
    try:
        (folder / "postmaster.pid").write_text(f"{other.pid}\n{folder}\n")
        seen = await Host(node(folder)).look()
    finally:
        other.kill()
        other.wait()
    assert (seen.is_alive, seen.note_holder) == (False, "other")


async def test_a_process_that_was_not_collected_is_a_zombie(folder: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    while "Z" not in Path(f"/proc/{gone.pid}/stat").read_text().rpartition(")")[2][:3]:
        await asyncio.sleep(0.01)
    (folder / "postmaster.pid").write_text(f"{gone.pid}\n{folder}\n")
    seen = await Host(node(folder)).look()
    gone.wait()
    assert (seen.is_alive, seen.note_holder) == (False, "zombie")


async def test_files_are_written_whole_and_by_their_owner(folder: Path) -> None:
    host = Host(node(folder))
    text = "a = 'ü'\n" * 1000
    await host.write("x.conf", text)
    assert await host.read("x.conf") == text
    assert (folder / "x.conf").stat().st_uid == folder.stat().st_uid
    assert [path.name for path in folder.iterdir()] == ["x.conf"]


async def test_a_machine_that_passes_no_input_on_empties_no_file(home: Path, folder: Path) -> None:
    host = Host(node(folder, via=_via(home, 'exec </dev/null\nexec "$@"\n')))
    (folder / "x.conf").write_text("kept")
    with pytest.raises(PostgresError, match="standard input was not passed on"):
        await host.write("x.conf", "new")
    assert (folder / "x.conf").read_text() == "kept"


async def test_a_missing_file_is_empty(folder: Path) -> None:
    assert not await Host(node(folder)).read("nothing.conf")


async def test_a_machine_that_cannot_be_asked_has_said_nothing(folder: Path) -> None:
    with pytest.raises(PostgresError, match="cannot be asked") as error:
        await Host(node(folder, via=("/bin/false",))).look()
    assert "host.via" in error.value.next_step


async def test_words_of_a_broken_way_are_no_answer(home: Path, folder: Path) -> None:
    greeting = _via(home, "echo Welcome to db1\n")
    with pytest.raises(PostgresError, match="cannot be asked"):
        await Host(node(folder, via=greeting)).look()


async def test_ssh_gets_one_text_that_its_shell_takes_apart_again(home: Path) -> None:
    ssh = home / "ssh"
    ssh.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    data = home / "it's $HOME here"
    data.mkdir()
    host = Host(node(data, via=(str(ssh), "db1")))
    await host.write("a.conf", "b = 1\n")
    assert (data / "a.conf").read_text() == "b = 1\n"


async def test_a_node_without_a_host_says_what_is_missing() -> None:
    bare = NodeSpec(name="east", target=parse_dsn("host=x user=y"))
    with pytest.raises(PostgresError, match="where east lives") as error:
        Host(bare)
    assert "host:" in error.value.next_step


@pytest.mark.parametrize(
    ("files", "role", "why"),
    [
        (["standby.signal"], "primary", "it would start as a standby"),
        ([], "standby", "it would start as a primary"),
        (["recovery.signal"], "primary", "it would start as a server to be restored"),
    ],
)
async def test_a_server_starts_as_what_is_meant_or_not_at_all(
    folder: Path, files: list[str], role: str, why: str
) -> None:
    for name in files:
        (folder / name).touch()
    host = Host(node(folder, start=("/bin/touch", str(folder / "started"))))
    with pytest.raises(PostgresError, match=why):
        await host.start(role)  # type: ignore[arg-type]
    assert not (folder / "started").exists()


async def test_what_the_inventory_says_starts_it(folder: Path) -> None:
    host = Host(node(folder, start=("/bin/touch", str(folder / "started"))))
    await host.start("primary")
    assert (folder / "started").exists()


async def test_a_note_whose_number_another_program_has_is_taken_away(folder: Path) -> None:
    other = _stranger(folder.parent)
    try:
        (folder / "postmaster.pid").write_text(f"{other.pid}\n{folder}\n")
        await Host(node(folder, start=("/bin/true",))).start("primary")
    finally:
        other.kill()
        other.wait()
    assert not (folder / "postmaster.pid").exists()


async def test_a_half_rewound_folder_is_never_started(folder: Path) -> None:
    kept = folder.with_name("data.twokey-kept")
    make_private(kept, server_account())
    (kept / "half").touch()
    host = Host(node(folder, start=("/bin/touch", str(folder / "started"))))
    assert (await host.look()).is_half
    with pytest.raises(PostgresError, match="half"):
        await host.start("primary")
    assert not (folder / "started").exists()


def test_an_answer_begins_with_a_word_of_ours() -> None:
    assert HELLO == "twokey"


def _stranger(folder: Path) -> subprocess.Popen[bytes]:
    """A program of the server account that works in the folder and is no server."""
    return subprocess.Popen(["/bin/sleep", "600"], cwd=folder, **identity_of(server_account()))


def _via(home: Path, script: str) -> tuple[str, ...]:
    path = home / "via"
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)
    account = server_account()
    if account is None:
        return (str(path),)
    return (
        "setpriv",
        f"--reuid={account.uid}",
        f"--regid={account.gid}",
        "--clear-groups",
        str(path),
    )


async def test_a_line_that_passes_nothing_on_is_noticed_before_anything_happens(
    home: Path, folder: Path
) -> None:
    host = Host(node(folder, via=_via(home, 'exec </dev/null\nexec "$@"\n')))
    with pytest.raises(PostgresError, match="was cut"):
        async with hand_on(host):
            raise AssertionError("it is not ready")


async def test_a_line_that_is_cut_marks_over_a_new_one(folder: Path) -> None:
    async with hand_on(Host(node(folder))) as hand:
        hand._process.kill()
        await hand._process.wait()
        await hand.mark_standby()
    assert (folder / "standby.signal").exists()


async def test_a_line_ends_with_its_words(folder: Path) -> None:
    async with hand_on(Host(node(folder))) as hand:
        pass
    assert hand._process.returncode == 0
    assert not (folder / "standby.signal").exists()
