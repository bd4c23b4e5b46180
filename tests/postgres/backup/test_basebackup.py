"""How pg_basebackup is called and what its failures mean: values alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from postgres.backup.basebackup import Copying, Method, failure, method_of, rate_kb
from postgres.backup.dumping import DumpProgress
from postgres.backup.manner import Compression, Manner
from postgres.backup.progress import Progress
from postgres.binaries import Binaries
from postgres.dsn import parse_dsn
from postgres.errors import PostgresError
from postgres.programs import Finished
from tests.postgres.backup.test_incremental import SERVER

NEW = Binaries(folder=Path("/bin"), major=17, version="17.10", zstd=True, extensions=frozenset())
OLD = replace(NEW, major=14, version="14.9")
BARE = replace(NEW, zstd=False)
AGED = replace(SERVER, major=14, zstd=False)
COPYING = Copying(
    binaries=NEW,
    target=parse_dsn("host=db.example port=5432"),
    backup_id="b",
    goal=Path("/nothing/b.partial"),
    method="none",
    manner=Manner(),
)


@pytest.mark.parametrize(
    ("wish", "binaries", "server", "method"),
    [
        ("auto", NEW, SERVER, "server-zstd"),
        ("zstd", NEW, SERVER, "server-zstd"),
        ("auto", NEW, AGED, "client-zstd"),
        ("zstd", NEW, replace(SERVER, zstd=False), "client-zstd"),
        ("auto", OLD, AGED, "gzip"),
        ("auto", BARE, AGED, "gzip"),
        ("gzip", NEW, SERVER, "gzip"),
        ("none", NEW, SERVER, "none"),
    ],
)
def test_compression_is_what_both_sides_can(
    wish: Compression, binaries: Binaries, server: object, method: Method
) -> None:
    assert method_of(wish, binaries, server) == method  # type: ignore[arg-type]


def test_a_compression_that_nobody_can_is_refused() -> None:
    with pytest.raises(PostgresError, match="Neither PostgreSQL") as refusal:
        method_of("zstd", OLD, AGED)
    assert "compression: auto" in refusal.value.next_step


@pytest.mark.parametrize(
    ("wanted", "kilobytes"), [(1, 32), (32 * 1024, 32), (10_000_000, 9765), (1 << 50, 1048576)]
)
def test_a_rate_keeps_within_what_pg_basebackup_takes(wanted: int, kilobytes: int) -> None:
    assert rate_kb(wanted) == kilobytes


@pytest.mark.parametrize(
    ("code", "said", "because"),
    [
        (1, "error: could not write: No space left on device", "could not be written"),
        (1, "error: could not write: Disk quota exceeded", "could not be written"),
        (1, "WARNING:  checksum verification failed in file x\nchecksum error", "damaged pages"),
        (1, "FATAL: number of requested standby connections exceeds max_wal_senders", "no repl"),
        (-9, "", "ended by signal 9"),
        (1, "error: server closed the connection unexpectedly", "broke off the backup"),
        (1, "error: FATAL: the database system is shutting down", "broke off the backup"),
        (1, "error: no pg_hba.conf entry", "pg_basebackup on db.example:5432 failed"),
    ],
)
def test_what_a_failure_means(code: int, said: str, because: str) -> None:
    refused = failure(COPYING, Finished(code=code, stdout="", stderr=said, seconds=1.0))
    assert because in refused.problem
    assert refused.next_step


@pytest.mark.parametrize(
    ("said", "because"),
    [
        ("could not upload manifest: ERROR:  manifest checksum mismatch", "manifest is damaged"),
        ("manifest system identifier is 1, but database system identifier is 2", "of another"),
        ("timeline 3 found in manifest, but not in this server's history", "left that timeline"),
        ("WAL summaries are required on timeline 1", "WAL summaries since then"),
        ("error: no pg_hba.conf entry", "failed"),
    ],
)
def test_why_a_server_refuses_an_incremental(said: str, because: str) -> None:
    copying = replace(COPYING, manifest=Path("/backups/full/backup_manifest"))
    refused = failure(copying, Finished(code=1, stdout="", stderr=said, seconds=1.0))
    assert because in refused.problem
    assert refused.next_step


def test_what_is_left_follows_from_the_pace_so_far() -> None:
    half = Progress(phase="x", done_bytes=50, total_bytes=200)
    assert half.seconds_left(2.0) == pytest.approx(6.0)
    assert replace(half, done_bytes=0).seconds_left(2.0) is None
    assert replace(half, total_bytes=None).seconds_left(2.0) is None
    assert replace(half, done_bytes=300).seconds_left(2.0) == 0


def test_a_dump_is_as_far_as_the_tables_that_are_done() -> None:
    dump = DumpProgress(jobs=2)
    assert (dump.now().fraction, dump.now().phase) == (None, "dumping")
    dump.begin("shop", {"public.a": 60, "public.b": 30, "public.c": 10})
    for table in ("public.a", "public.b", "public.unknown", "public.c"):
        dump.line(f'pg_dump: dumping contents of table "{table}"')
    dump.line("pg_dump: finished item 7 TABLE DATA a")
    assert dump.now() == Progress(phase="dumping shop", done_bytes=90, total_bytes=100)
    dump.end()
    dump.begin("more", {"public.a": 100})
    assert dump.now() == Progress(phase="dumping more", done_bytes=100, total_bytes=200)
