"""Finding PostgreSQL's programs, and the account that runs them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from postgres import binaries as module
from postgres.account import Account, closed_parent, reachable, server_account
from postgres.binaries import Binaries, find_binaries
from postgres.errors import PostgresError
from postgres.ports import free_port, is_free
from postgres.sizes import pretty_bytes


def test_what_was_found_can_do_what_the_demo_needs(binaries: Binaries) -> None:
    assert binaries.major >= 15
    assert binaries.version.startswith(str(binaries.major))
    assert {"amcheck", "pg_stat_statements", "plpgsql"} <= binaries.extensions
    assert binaries.program("pg_verifybackup").exists()


def test_a_missing_program_is_said(binaries: Binaries) -> None:
    with pytest.raises(PostgresError, match="comes without pg_teleport") as refusal:
        binaries.program("pg_teleport")
    assert "TWOKEY_PG_BIN" in refusal.value.next_step


def test_the_named_folder_comes_first(binaries: Binaries) -> None:
    try:
        old = find_binaries({}, major=15)
    except PostgresError:
        pytest.skip("PostgreSQL 15 is not installed")
    assert find_binaries({"TWOKEY_PG_BIN": str(old.folder)}).major == 15
    # A restore needs one major version, whatever is named.
    named = {"TWOKEY_PG_BIN": str(old.folder)}
    assert find_binaries(named, major=binaries.major).major == binaries.major


def test_a_named_folder_without_programs_is_said(tmp_path: Path) -> None:
    with pytest.raises(PostgresError, match="TWOKEY_PG_BIN names"):
        find_binaries({"TWOKEY_PG_BIN": str(tmp_path)})


def test_a_version_that_is_not_here_is_said_with_what_is() -> None:
    with pytest.raises(PostgresError, match=r"PostgreSQL 9 is not installed.* Found: ") as refusal:
        find_binaries(os.environ, major=9)
    assert "postgresql-9" in refusal.value.next_step


@pytest.mark.skipif(os.geteuid() != 0, reason="our own programs are never closed to ourselves")
def test_programs_that_the_server_account_cannot_run_are_copied_once(
    binaries: Binaries, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CACHE", home / "cache")
    closed = home / "closed"
    shutil.copytree(binaries.folder.parent, closed / "pg", symlinks=True)
    closed.chmod(0o700)
    found = find_binaries({"TWOKEY_PG_BIN": str(closed / "pg" / "bin")})
    assert found.folder.is_relative_to(home / "cache")
    assert found.extensions == binaries.extensions
    stamp = found.folder.stat().st_ctime_ns
    again = find_binaries({"TWOKEY_PG_BIN": str(closed / "pg" / "bin")})
    assert (again, again.folder.stat().st_ctime_ns) == (found, stamp)
    assert [path.name for path in (home / "cache").iterdir() if "partial" in path.name] == []


def test_a_folder_behind_a_closed_one_is_replaced_by_always_the_same(home: Path) -> None:
    account = Account(name="somebody", uid=54321, gid=54321)
    home.chmod(0o700)
    assert closed_parent(home / "a" / "data", account) == home
    place = reachable(home / "a" / "data", account)
    assert place == reachable(home / "a" / "data", account)
    assert place != reachable(home / "b" / "data", account)
    assert place.is_relative_to("/var/lib/twokey")
    assert reachable(home / "a" / "data", None) == home.resolve() / "a" / "data"


def test_servers_run_as_somebody_else_only_under_root() -> None:
    account = server_account()
    assert (account is None) == (os.geteuid() != 0)
    assert account is None or account.uid != 0


def test_free_ports_are_free_and_low() -> None:
    port = free_port()
    assert 20000 <= port < 32768
    assert is_free(port)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (1000, "1000 B"), (1536, "1.5 kB"), (1 << 30, "1 GB"), (1048500, "1024 kB")],
)
def test_sizes_are_shown_in_powers_of_1024(size_bytes: int, text: str) -> None:
    assert pretty_bytes(size_bytes) == text
