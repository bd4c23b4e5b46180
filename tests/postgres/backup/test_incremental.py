"""What an incremental backup may build on, and how large it becomes: values alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from postgres.backup.facts import BackupFacts, complete
from postgres.backup.incremental import (
    INCREMENTS_MAX,
    builders,
    read_chain,
    refusal,
    restored_bytes,
)
from postgres.backup.source import Source
from postgres.errors import PostgresError

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SERVER = Source(
    major=17,
    version="17.10",
    page_checksums=True,
    segment_bytes=16 * 1024**2,
    system_identifier="7",
    timeline=2,
    standby=False,
    summarizes_wal=True,
    superuser="postgres",
    zstd=True,
    settings={},
)
FULL = BackupFacts(
    id="full",
    began_at=NOON,
    ended_at=NOON,
    seconds=1.0,
    compression="zstd",
    size_bytes=1,
    data_bytes=1,
    major=17,
    server_version="17.10",
    system_identifier="7",
    timeline=2,
    start_lsn="0/2000028",
    end_lsn="0/2000100",
    start_wal="000000020000000000000002",
    end_wal="000000020000000000000002",
    wal_segment_bytes=16 * 1024**2,
    page_checksums=True,
    database="orders",
    superuser="postgres",
    settings={},
    files=(),
    tables=(),
)


def link(number: int) -> BackupFacts:
    base = f"i{number - 1}" if number else "full"
    return FULL.model_copy(update={"id": f"i{number}", "kind": "incremental", "base": base})


CHAIN = (FULL, *(link(number) for number in range(INCREMENTS_MAX)))


@pytest.mark.parametrize("links", [1, 2, INCREMENTS_MAX])
def test_a_whole_chain_of_the_same_cluster_serves(links: int) -> None:
    assert refusal(SERVER, CHAIN[:links]) is None


@pytest.mark.parametrize(
    ("server", "because", "advice"),
    [
        ({"major": 16, "version": "16.4"}, "need PostgreSQL 17; this server runs 16.4", "full"),
        ({"summarizes_wal": False}, "summarize_wal is off", "ALTER SYSTEM SET summarize_wal"),
        ({"system_identifier": "8"}, "another cluster", "full"),
        ({"major": 18}, "of PostgreSQL 17, and the server runs 18", "full"),
        ({"timeline": 1}, "of timeline 2, and the server is on 1", "full"),
    ],
)
def test_why_a_server_makes_none(server: Mapping[str, object], because: str, advice: str) -> None:
    refused = refusal(replace(SERVER, **server), (FULL,))  # type: ignore[arg-type]
    assert refused is not None
    assert because in refused.problem
    assert advice in refused.next_step


@pytest.mark.parametrize(
    ("base", "because"),
    [
        ({"kind": "logical"}, "a logical backup of native"),
        ({"engine": "pgbackrest"}, "a full backup of pgbackrest"),
    ],
)
def test_what_none_can_build_on(base: Mapping[str, object], because: str) -> None:
    refused = refusal(SERVER, (FULL.model_copy(update=base),))
    assert refused is not None
    assert because in refused.problem


def test_a_chain_is_not_made_longer_than_it_may_be() -> None:
    refused = refusal(SERVER, CHAIN)
    assert refused is not None
    assert f"has {INCREMENTS_MAX} incrementals already" in refused.problem


def test_a_chain_is_read_from_its_full_backup_on(tmp_path: Path) -> None:
    for facts in CHAIN[:3]:
        _store(tmp_path, facts)
    assert [facts.id for facts in read_chain(tmp_path, "i1")] == ["full", "i0", "i1"]
    assert [facts.id for facts in read_chain(tmp_path, "full")] == ["full"]


def test_a_chain_that_leads_to_itself_ends(tmp_path: Path) -> None:
    _store(tmp_path, link(1))
    _store(tmp_path, link(0).model_copy(update={"base": "i1"}))
    with pytest.raises(PostgresError, match="or on itself"):
        read_chain(tmp_path, "i1")


def test_who_builds_on_whom() -> None:
    assert builders("full", CHAIN) == ("i0",)
    assert builders(CHAIN[-1].id, CHAIN) == ()


def test_a_file_of_which_only_blocks_were_copied_counts_as_it_was(tmp_path: Path) -> None:
    older = _manifest(tmp_path / "older", {"base/5/1": 8192 * 100, "base/5/2": 8192})
    between = _manifest(tmp_path / "between", {"base/5/INCREMENTAL.1": 40, "base/5/2": 16384})
    newest = _manifest(
        tmp_path / "newest",
        {"base/5/INCREMENTAL.1": 8300, "base/5/INCREMENTAL.2": 12, "PG_VERSION": 3},
    )
    assert restored_bytes([newest, between, older]) == 8192 * 100 + 16384 + 3
    assert restored_bytes([older]) == 8192 * 101


def test_a_manifest_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text('{"Files": [{}]}')
    with pytest.raises(PostgresError, match="cannot be read"):
        restored_bytes([tmp_path / "broken"])


def _store(folder: Path, facts: BackupFacts) -> None:
    (folder / f"{facts.id}.partial").mkdir()
    complete(folder / f"{facts.id}.partial", facts)


def _manifest(path: Path, sizes: Mapping[str, int]) -> Path:
    path.write_text(json.dumps({"Files": [{"Path": k, "Size": v} for k, v in sizes.items()]}))
    return path
